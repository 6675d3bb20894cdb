"""Every argument of every public function, given values that are wrong for it; nobody writes a line for a new function."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import HOSTILE, NEVER, World, arguments, attacks, make_world, outcome, problem, public

from sc_drugresp._core.settings import Settings


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("attacks"))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def attack(world: World, name: str, *, thorough: bool) -> None:
    tried = list(attacks(world, name, thorough=thorough))
    failed = [f"{what} {problem}" for what, problem in tried if problem]
    assert not failed, "\n".join([f"{len(failed)} of {len(tried)} calls:", *failed])
    assert len(tried) >= 10 * len(arguments(world.callable(name)))


@pytest.mark.parametrize("name", public())
def test_wrong_arguments_are_refused_by_name(world, name):
    attack(world, name, thorough=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", public())
def test_wrong_arguments_that_are_not_noticed_before_work(world, name):
    attack(world, name, thorough=True)


@pytest.mark.parametrize("name", Settings.__annotations__)
def test_wrong_settings_are_refused_by_name(name):
    settings = Settings()
    for label, value in HOSTILE.items():
        before = getattr(settings, name)
        error = outcome(lambda: setattr(settings, name, value))  # noqa: B023
        if error is not None:
            assert problem(error, f"settings.{name}", value) == "", label
            assert getattr(settings, name) is before, label
        else:
            assert label not in NEVER, (name, label)


TEXTS = [value for value in HOSTILE.values() if isinstance(value, str) and "\0" not in value]


@pytest.mark.parametrize("text", [*TEXTS, "-1", "1e400", "nan", "~nobody/at/all", "  ", "cuda:-1"])
@pytest.mark.parametrize("name", Settings.__annotations__)
def test_wrong_environment_variables_are_refused_by_name(name, text, monkeypatch):
    variable = {"cache_dir": "SC_DRUGRESP_CACHE", "data_dir": "SC_DRUGRESP_DATA"}.get(
        name, f"SC_DRUGRESP_{name.upper()}"
    )
    monkeypatch.setenv(variable, text)
    error = outcome(Settings)
    assert error is None or problem(error, variable, text) == ""
    assert error is not None or isinstance(getattr(Settings(), name), str | Path | bool | int | tuple | None)


def test_the_attack_bites(world, monkeypatch):
    """A function without checks is found out."""

    def careless(data, n: int = 3, *, name: str = "x", ax=None) -> float:
        data.uns[f"half {len(data.uns)}"] = True
        return [0.0] * n + name

    found = dict(public()) | {"tl.careless": careless}
    monkeypatch.setattr("hostile.public", lambda: found)
    problems = [problem for _, problem in attacks(world, "tl.careless", thorough=True) if problem]
    assert any("changed the object" in problem for problem in problems)
    assert len(problems) > len(HOSTILE)
