"""Checks of arguments that do not depend on the data."""

from __future__ import annotations

from typing import Any, get_args


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Refuse a value that is not among `choices`, a `Literal` type or a tuple.

    Raises
    ------
    ValueError
        `value` is not one of the choices.
    """
    allowed = choices if isinstance(choices, tuple) else get_args(choices)
    if value not in allowed:
        msg = f"`{name}` must be one of {allowed}, found {value!r}."
        raise ValueError(msg)
