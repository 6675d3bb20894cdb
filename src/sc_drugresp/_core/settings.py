"""Facts about the machine (never about the science), validated when they are set."""

from __future__ import annotations

import operator
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .log import set_verbosity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_MOST = 2**31
"""Above it, a batch or block would not fit into any memory."""


def _whole(value: Any) -> int:
    """A whole number; text comes from the environment. Truth values and fractions are none."""
    if isinstance(value, bool):
        raise TypeError
    return int(value) if isinstance(value, str) else operator.index(value)


def _positive(value: Any) -> int:
    number = _whole(value)
    if not 1 <= number < _MOST:
        raise ValueError
    return number


def _flag(value: Any) -> bool:
    text = str(value).strip().lower()
    if text in {"1", "true", "yes", "on"}:
        return True
    if text in {"0", "false", "no", "off", ""}:
        return False
    raise ValueError


def _directory(value: Any) -> Path | None:
    if value is None or (isinstance(value, str) and not value):
        return None
    if b"\0" in os.fsencode(value):
        raise ValueError
    return Path(value).expanduser()


def _device(value: Any) -> str:
    if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", str(value)):
        raise ValueError
    return str(value)


def _level(value: Any) -> int:
    if _whole(value) not in range(4):
        raise ValueError
    return _whole(value)


def _cache(value: Any) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _directory(value) or Path(base).expanduser() / "sc_drugresp"


SPEEDUPS = ("onednn", "attention", "first_position", "shared_tokens")
"""Ways to compute the same numbers faster, each of which can be switched off."""


def _speedups(value: Any) -> tuple[str, ...]:
    """Names of speed-ups, in one order."""
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else list(value)
    if names in (["all"], ["none"]):
        return SPEEDUPS if names == ["all"] else ()
    if not all(name in SPEEDUPS for name in names):
        raise ValueError
    return tuple(name for name in SPEEDUPS if name in names)


_EXPECTED: dict[Callable[[Any], Any], str] = {
    _positive: "a positive integer",
    _flag: "true or false",
    _directory: "a directory",
    _cache: "a directory",
    _device: "'auto', 'cpu', 'cuda', 'cuda:<n>', 'mps' or 'xpu'",
    _speedups: f"'all', 'none' or some of {', '.join(map(repr, SPEEDUPS))}",
    _level: "0 (errors), 1 (warnings), 2 (info) or 3 (debug)",
}
# name: (default, parser, description)
_FIELDS: dict[str, tuple[Any, Callable[[Any], Any], str]] = {
    "device": ("auto", _device, "Where networks run: `'auto'`, `'cpu'`, `'cuda'`, `'cuda:1'`, `'mps'`."),
    "cache_dir": (None, _cache, "Downloaded weights, gene tables and data sets."),
    "data_dir": (None, _directory, "A directory searched for data sets before the cache (`SC_DRUGRESP_DATA`)."),
    "offline": (False, _flag, "Never use the network."),
    "batch_tokens": (16_384, _positive, "Most padded tokens in a batch to start with; halved where memory runs out."),
    "block_cells": (2_048, _positive, "Cells read at once; memory grows with it, results do not change."),
    "speedups": ("all", _speedups, "Exact speed-ups of networks on a CPU; leave one out to see whether it matters."),
    "progress": (True, _flag, "Show progress bars where a terminal or notebook reads them."),
    "verbosity": (1, _level, "0 errors, 1 warnings, 2 info (names the keys that were written), 3 debug."),
}
_ENVIRONMENT = {"cache_dir": "SC_DRUGRESP_CACHE", "data_dir": "SC_DRUGRESP_DATA"}


class Settings:
    """Machine settings of the package, also read from `SC_DRUGRESP_*` environment variables.

    Every assignment is validated. Use :meth:`override` for a change that ends with a `with` block.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> with sdr.settings.override(block_cells=512):
    ...     sdr.settings.block_cells
    512
    """

    device: str
    cache_dir: Path
    data_dir: Path | None
    offline: bool
    batch_tokens: int
    block_cells: int
    speedups: tuple[str, ...]
    progress: bool
    verbosity: int

    def __init__(self) -> None:
        self.reset()

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _FIELDS:
            msg = f"Unknown setting {name!r}. Available settings: {sorted(_FIELDS)}."
            raise AttributeError(msg)
        parse = _FIELDS[name][1]
        try:
            parsed = parse(value)
        except (TypeError, ValueError, RuntimeError) as error:  # the last: `~somebody` who has no home
            msg = f"settings.{name} must be {_EXPECTED[parse]}, found {value!r:.80}."
            raise ValueError(msg) from error
        if name == "verbosity":
            set_verbosity(parsed)
        object.__setattr__(self, name, parsed)

    def reset(self) -> None:
        """Go back to the defaults and the environment variables."""
        for name, (default, _, _) in _FIELDS.items():
            variable = _ENVIRONMENT.get(name, f"SC_DRUGRESP_{name.upper()}")
            try:
                setattr(self, name, os.environ.get(variable, default))
            except ValueError as error:
                msg = f"The environment variable {variable} is wrong: {error} Correct or unset it."
                raise ValueError(msg) from error

    @contextmanager
    def override(self, **changes: Any) -> Iterator[Settings]:
        """Change settings inside a `with` block.

        Parameters
        ----------
        changes
            Settings by name.
        """
        before = {name: getattr(self, name) for name in _FIELDS}
        try:
            for name, value in changes.items():
                setattr(self, name, value)
            yield self
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    def __repr__(self) -> str:
        lines = (f"{name} = {getattr(self, name)!r}  # {text}" for name, (_, _, text) in _FIELDS.items())
        return "\n".join(lines)


settings = Settings()
"""The settings of this process."""


def current() -> dict[str, Any]:
    """All settings by name, as :meth:`Settings.override` takes them, to be used in another process."""
    return {name: getattr(settings, name) for name in _FIELDS}
