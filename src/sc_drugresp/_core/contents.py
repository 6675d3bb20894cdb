"""What nested values should hold, and the first thing in them that is something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np

PLAIN = "a text, a number, true or false, or a list of them"
TEXT, TEXTS, NUMBER, NUMBERS, FLAG = "a text", "a list of texts", "a number", "an array of numbers", "true or false"
"""Kinds of single values, in words."""
_LONGEST = 60


@dataclass(frozen=True)
class Table:
    """A data frame with columns of these names, separated by spaces; others may stand beside them.

    Parameters
    ----------
    text, numbers, any
        Columns by what they hold.
    values
        The only values that a column may hold.
    key
        Columns that together tell one row from another.
    filled
        Whether there must be a row.
    """

    text: str = ""
    numbers: str = ""
    any: str = ""
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    key: str = ""
    filled: bool = False


Expected = str | Table | Mapping[str, Any]
"""A kind of value, a table, or a dictionary of them; keys that may be absent end in `?`, and `*` stands for all others."""


def mismatch(value: Any, expected: Expected, name: str) -> str | None:
    """The first part of a value that is not as expected, in words; `None` if all of it is.

    Parameters
    ----------
    value
        What was found under `name`.
    expected
        What it should hold.
    name
        How the value is called in the message; parts are named by appending their keys.
    """
    if isinstance(expected, Table):
        return _table_mismatch(value, expected, name)
    if isinstance(expected, str):
        return None if _IS[expected](value) else f"`{name}` should be {expected}, found {shown(value)}"
    if not isinstance(value, Mapping):
        return f"`{name}` should be a dictionary, found {shown(value)}"
    listed = {key.removesuffix("?") for key in expected}
    for key, part in expected.items():
        plain = key.removesuffix("?")
        if key == "*":
            parts: Any = ((other, value[other]) for other in value if other not in listed)
        elif plain in value:
            parts = [(plain, value[plain])]
        elif key == plain:
            return f"`{name}` lacks {plain!r}"
        else:
            parts = ()
        for own, item in parts:
            if found := mismatch(item, part, f"{name}[{own!r}]"):
                return found
    return None


def shown(value: Any) -> str:
    """A value for a message."""
    if value is None:
        return "None"
    text = f"{type(value).__name__} {value!r}" if np.ndim(value) == 0 else type(value).__name__
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."


def _table_mismatch(value: Any, expected: Table, name: str) -> str | None:
    import pandas as pd

    if not isinstance(value, pd.DataFrame):
        return f"`{name}` should be a data frame, found {shown(value)}"
    text = f"{expected.text} {' '.join(expected.values)}"
    for kind, words in (("text", text), ("numbers", expected.numbers), ("any", expected.any)):
        for column in words.split():
            if column not in value:
                return f"`{name}` lacks the column {column!r}"
            if isinstance(value[column], pd.DataFrame):
                return f"`{name}` has several columns {column!r}"
            if len(value) and not _COLUMN[kind](value[column]):
                return f"the column {column!r} of `{name}` should hold {kind}, found {value[column].dtype}"
    if expected.filled and not len(value):
        return f"`{name}` has no rows"
    for column, allowed in expected.values.items():
        if other := set(value[column].dropna().astype(str)) - set(allowed):
            return f"the column {column!r} of `{name}` should hold one of {allowed}, found {sorted(other)[0]!r}"
    if expected.key and value.duplicated(expected.key.split()).any():
        return f"`{name}` has several rows of the same {' and '.join(expected.key.split())}"
    return None


def _is_text(column: Any) -> bool:
    values = column.cat.categories if hasattr(column, "cat") else column[column.notna()].to_numpy()
    return all(isinstance(value, str) for value in values)


def _is_numeric(column: Any) -> bool:
    import pandas as pd

    return bool(pd.api.types.is_numeric_dtype(column.dtype))


_COLUMN: dict[str, Any] = {"text": _is_text, "numbers": _is_numeric, "any": lambda _: True}
_IS: dict[str, Any] = {
    TEXT: lambda value: isinstance(value, str),
    TEXTS: lambda value: (
        isinstance(value, list | tuple | np.ndarray)
        and np.ndim(value) == 1
        and all(isinstance(item, str) for item in np.asarray(value, dtype=object))
    ),
    NUMBER: lambda value: isinstance(value, Real | np.number) and not isinstance(value, bool | np.bool_),
    NUMBERS: lambda value: (
        isinstance(value, np.ndarray | list) and np.ndim(value) > 0 and np.asarray(value).dtype.kind in "iuf"
    ),
    PLAIN: lambda value: (
        isinstance(value, str | bool | int | float | np.generic)
        or (isinstance(value, list | tuple | np.ndarray) and np.ndim(value) <= 1)
    ),
    FLAG: lambda value: isinstance(value, bool | np.bool_),
}
