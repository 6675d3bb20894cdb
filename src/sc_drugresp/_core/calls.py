"""Calls as text: what was asked for, so that a record can be run again."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def call_text(
    name: str, arguments: Mapping[str, Any], defaults: Mapping[str, Any], *, first: tuple[str, ...] = ()
) -> str:
    """A call as Python source, without the arguments that are at their default."""
    given = [
        f"{key}={_source(value)}" for key, value in arguments.items() if not _same(value, defaults.get(key, MISSING))
    ]
    return f"{name}({', '.join([*first, *given])})"


def dataclass_text(name: str, thing: Any, *, first: tuple[str, ...] = ()) -> str:
    """The call whose arguments are the fields of a dataclass, such as the one that makes it again."""
    defaults = {f.name: f.default_factory() if f.default_factory is not MISSING else f.default for f in fields(thing)}
    return call_text(name, {f.name: getattr(thing, f.name) for f in fields(thing)}, defaults, first=first)


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and value == default


def _source(value: Any) -> str:
    if hasattr(value, "__fspath__"):
        return repr(str(value))
    if isinstance(value, list | tuple) and value and hasattr(value[0], "__dataclass_fields__"):
        return f"[{', '.join(map(repr, value))}]"
    return repr(value)
