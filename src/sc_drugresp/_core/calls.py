"""Calls as text: what was asked for, so that a record can be run again."""

from __future__ import annotations

from dataclasses import MISSING, fields
from os import PathLike
from typing import Any


def dataclass_text(name: str, thing: Any, *, first: tuple[str, ...] = ()) -> str:
    """The call whose arguments are the fields of a dataclass, without those that are at their default."""
    given = []
    for field in fields(thing):
        value = getattr(thing, field.name)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if type(value) is not type(default) or value != default:
            given.append(f"{field.name}={(str(value) if isinstance(value, PathLike) else value)!r}")
    return f"{name}({', '.join([*first, *given])})"
