"""Settings are validated when they are set, and come from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from sc_drugresp._core.settings import Settings


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("block_cells", 0, "a positive integer"),
        ("block_cells", "many", "a positive integer"),
        ("batch_tokens", None, "a positive integer"),
        ("offline", "perhaps", "true or false"),
        ("verbosity", 4, "0 .errors."),
        ("cache_dir", 3, "a directory"),
        ("speedups", "fast", "'all', 'none' or some of"),
        ("speedups", 3, "'all', 'none' or some of"),
    ],
)
def test_errors_name_setting_value_and_choices(name, value, expected):
    settings = Settings()
    before = getattr(settings, name)
    with pytest.raises(ValueError, match=rf"settings\.{name} must be {expected}.*, found {value!r}"):
        setattr(settings, name, value)
    assert getattr(settings, name) == before


def test_unknown_settings_are_refused():
    with pytest.raises(AttributeError, match="Available settings"):
        Settings().cells = 3  # type: ignore[attr-defined]


def test_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SC_DRUGRESP_CACHE", str(tmp_path))
    monkeypatch.setenv("SC_DRUGRESP_OFFLINE", "yes")
    settings = Settings()
    assert settings.cache_dir == tmp_path
    assert settings.offline is True


def test_speedups_by_name(monkeypatch):
    settings = Settings()
    settings.speedups = ["attention", "onednn"]
    assert settings.speedups == ("onednn", "attention")
    with settings.override(speedups="none"):
        assert settings.speedups == ()
    monkeypatch.setenv("SC_DRUGRESP_SPEEDUPS", "onednn, first_position")
    assert Settings().speedups == ("onednn", "first_position")
    monkeypatch.delenv("SC_DRUGRESP_SPEEDUPS")
    assert set(Settings().speedups) > {"onednn", "attention"}


def test_an_empty_variable_means_the_default_cache(monkeypatch):
    monkeypatch.setenv("SC_DRUGRESP_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert Settings().cache_dir == Path("/somewhere/sc_drugresp")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert Settings().cache_dir == Path.home() / ".cache" / "sc_drugresp"
