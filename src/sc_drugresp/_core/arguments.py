"""Arguments of public functions, compared with the annotations before any work starts."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .annotations import kind_of
from .kinds import ANYTHING, told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .kinds import Kind

SECRETS = frozenset({"api_key"})
"""Arguments whose values are not told."""
P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Refuse arguments that are not what the annotations of the function say.

    Annotations are read at the first call. Values are neither converted nor copied, and a default is not looked at. Scalars
    of numpy pass for numbers, any collection for a sequence; see :mod:`.kinds`.

    Examples
    --------
    >>> @checked
    ... def half(number: int) -> float:
    ...     return number / 2
    >>> half("ten")
    Traceback (most recent call last):
        ...
    TypeError: `number` must be a whole number, found 'ten' (str).
    """
    kinds: dict[str, Kind] | None = None
    names: tuple[str, ...] = ()

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal kinds, names
        if kinds is None:
            names = _positional(function)
            kinds = kinds_of(function)
        for name, value in zip(names, args):
            if name in kinds:
                check(name, value, kinds[name], function)
        for name, value in kwargs.items():
            if name in kinds:
                check(name, value, kinds[name], function)
        return function(*args, **kwargs)

    return call


def check_fields(thing: Any) -> None:
    """Refuse values in the fields of a dataclass that are not what its annotations say; for `__post_init__`.

    Raises
    ------
    TypeError
        A value has another type.
    ValueError
        A value is out of range or not among the choices.
    """
    cls: Any = type(thing)
    for name, kind in kinds_of(cls).items():
        check(name, getattr(thing, name), kind, cls)


def check_named(thing: Any, values: Mapping[str, Any]) -> None:
    """Refuse values for arguments of a function, or for fields of a dataclass, that are not what its annotations say.

    Raises
    ------
    TypeError
        A value has another type.
    ValueError
        A value is out of range or not among the choices.
    """
    kinds = kinds_of(thing)
    for name, value in values.items():
        if name in kinds:
            check(name, value, kinds[name], thing)


@functools.cache
def kinds_of(thing: Any) -> dict[str, Kind]:
    """What each argument of a function, or each field of a class, must be; without those that may be anything."""
    ours = __package__.partition(".")[0]
    parts = reversed(thing.__mro__) if inspect.isclass(thing) else [inspect.unwrap(thing)]
    found = {
        name: kind_of(annotation, part.__module__)
        for part in parts
        if part.__module__.partition(".")[0] == ours
        for name, annotation in vars(part).get("__annotations__", part.__annotations__).items()
    }
    return {name: kind for name, kind in found.items() if name != "return" and kind is not ANYTHING}


def check(name: str, value: Any, kind: Kind, function: Any) -> None:
    """Refuse a value of an argument of a function that is not of a kind.

    Raises
    ------
    TypeError
        It has another type.
    ValueError
        It is out of range or not among the choices.
    """
    if kind.fits(value):
        return
    found = f"a value of type {type(value).__name__}" if name in SECRETS else told(value)
    msg = f"`{name}` must be {kind.expected}, found {found}.{_hint(name, value, function)}"
    raise (ValueError if kind.near(value) else TypeError)(msg)


def _hint(name: str, value: Any, function: Any) -> str:
    """What to do."""
    if name == "data" and hasattr(value, "iloc"):
        return " Put it into one: anndata.AnnData(frame)."
    parameter = inspect.signature(function).parameters.get(name)
    default = None if parameter is None else parameter.default
    if value is None and isinstance(default, str | int | float):
        return f" Leave it out for the default, {default!r}."
    return ""


def _positional(function: Any) -> tuple[str, ...]:
    """Names of the arguments that need not be named."""
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(name for name, item in inspect.signature(function).parameters.items() if item.kind in by_place)
