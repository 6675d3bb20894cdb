"""Every argument of every public function, given values that are wrong for it; nobody writes a line for a new function."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import HOSTILE, World, arguments, attacks, make_world, public


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
