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


def check_share(name: str, value: Any, *, below: float = 1.0) -> None:
    """Refuse anything but a number between 0 and `below`, both excluded.

    Raises
    ------
    ValueError
        `value` is not such a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < below:
        msg = f"`{name}` must lie between 0 and {below:g}, found {value!r}."
        raise ValueError(msg)
