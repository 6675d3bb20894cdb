"""Arguments that are wrong whatever the data are."""

from __future__ import annotations

from typing import Any, get_args


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Refuse a value that is none of the choices, a `Literal` type or a tuple.

    Raises
    ------
    ValueError
        It is not.
    """
    allowed = choices if isinstance(choices, tuple) else get_args(choices)
    if value not in allowed:
        msg = f"`{name}` must be one of {allowed}, found {value!r}."
        raise ValueError(msg)


def check_share(name: str, value: Any, *, below: float = 1.0) -> None:
    """Refuse a number that does not lie between 0 and `below`, both excluded.

    Raises
    ------
    ValueError
        It does not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < below:
        msg = f"`{name}` must lie between 0 and {below:g}, found {value!r}."
        raise ValueError(msg)
