"""Kinds of values: what an annotation promises, as a test of a value and as words for a message."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from numbers import Integral, Real
from os import PathLike, fsencode
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np

from .keys import is_slot_name

_BEYOND = 2**63
"""What no whole number of numpy reaches."""
_LONGEST_NAME = 255
"""Bytes in the name of a file or folder, on the file systems in use."""


@dataclass(frozen=True)
class Range:
    """Limits of a number, for `Annotated`; `above` and `below` exclude their value."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: Any) -> bool:
        """Whether a number lies within."""
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        words = {"of at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{word} {limit:,}" for word, limit in words.items() if limit is not None)


@dataclass(frozen=True)
class Slot:
    """A name for what is written into an object, for `Annotated`."""


@dataclass(frozen=True)
class Filled:
    """A list of at least one item, for `Annotated`."""


PositiveInt: TypeAlias = Annotated[int, Range(least=1)]
BatchTokens: TypeAlias = PositiveInt | Literal["auto"]
"""Most padded tokens computed at once."""
Engine: TypeAlias = Literal["torch", "openvino"]
"""What computes a network."""
Precision: TypeAlias = Literal["float32", "bfloat16"]
"""Of the products in a network."""
AtLeastTwo: TypeAlias = Annotated[int, Range(least=2)]
FitCells: TypeAlias = Annotated[int, Range(least=3)]
"""As many as a baseline needs to learn from."""
NonNegativeInt: TypeAlias = Annotated[int, Range(least=0)]
PositiveFloat: TypeAlias = Annotated[float, Range(above=0)]
NonNegativeFloat: TypeAlias = Annotated[float, Range(least=0)]
Share: TypeAlias = Annotated[float, Range(above=0, below=1)]
"""Between 0 and 1, both excluded."""
ShareOrNone: TypeAlias = Annotated[float, Range(least=0, below=1)]
"""As `Share`, or 0 for nothing."""
ErrorLevel: TypeAlias = Annotated[float, Range(above=0, below=0.5)]
Bins: TypeAlias = Annotated[int, Range(least=1, most=10_000)]
Draws: TypeAlias = Annotated[int, Range(least=0, most=1_000_000)]
"""Numbers of draws, permutations or refits: time and memory grow with them."""
Seed: TypeAlias = Annotated[int, Range(least=0)]
SlotName: TypeAlias = Annotated[str, Slot()]


@dataclass(frozen=True)
class Kind:
    """What a value must be.

    Parameters
    ----------
    expected
        In words, to follow "must be".
    fits
        Whether a value is accepted.
    near
        Whether a value has the right type at least, so that the error is a `ValueError` and no `TypeError`.
    """

    expected: str
    fits: Callable[[Any], bool]
    near: Callable[[Any], bool]


def of_type(expected: str, fits: Callable[[Any], bool]) -> Kind:
    """A kind for which only the type counts."""
    return Kind(expected, fits, fits)


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    try:
        return _is_number(value) and math.isfinite(value)
    except OverflowError:
        return False


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_encodable(value: Any) -> bool:
    """Text without halves of characters, which no file can hold."""
    try:
        return isinstance(value, str) and (value.isascii() or bool(value.encode()))
    except UnicodeEncodeError:
        return False


def _is_path(value: Any) -> bool:
    try:
        path = fsencode(value)
    except (TypeError, ValueError):
        return False
    return path != b"" and b"\0" not in path and max(map(len, path.split(b"/"))) <= _LONGEST_NAME


def _is_text_or_path(value: Any) -> bool:
    return isinstance(value, str | PathLike)


ANYTHING = of_type("anything", lambda _: True)
NONE = of_type("None", lambda value: value is None)
PLAIN = {
    "int": Kind("a whole number", lambda value: _is_integer(value) and -_BEYOND <= value < _BEYOND, _is_integer),
    "float": Kind("a finite number", _is_finite, _is_number),
    "bool": of_type("True or False", lambda value: isinstance(value, bool | np.bool_)),
    "str": Kind("text", _is_encodable, _is_text),
    "Any": ANYTHING,
    "object": ANYTHING,
    "None": NONE,
    "Callable": of_type("a function", callable),
}
ARRAY = of_type(
    "an array",
    lambda value: hasattr(type(value), "__array__") and hasattr(value, "ndim") and not isinstance(value, np.generic),
)
"""An array of numpy, or what numpy takes for one: a frame, a tensor."""
PATH = Kind("a path", lambda value: _is_text_or_path(value) and _is_path(value), _is_text_or_path)


def choice_of(choices: tuple[Any, ...]) -> Kind:
    """One of the values of a `Literal`."""

    def fits(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, str | Integral):
            return any(value is choice for choice in choices)
        return any(not isinstance(choice, bool) and value == choice for choice in choices)

    words = repr(choices[0]) if len(choices) == 1 else f"one of {choices}"
    return Kind(words, fits, lambda _: True)


def within(kind: Kind, limits: Range | Slot | Filled) -> Kind:
    """A kind with limits."""
    if isinstance(limits, Slot):
        return Kind("a name without '/' that files can hold", is_slot_name, kind.fits)
    if isinstance(limits, Filled):
        filled = kind.expected.replace("a list", "a list of at least one item", 1)
        return Kind(filled, lambda value: kind.fits(value) and len(value) > 0, kind.near)
    words = "a number" if kind is PLAIN["float"] else kind.expected
    return Kind(f"{words} {limits}", lambda value: kind.fits(value) and limits.holds(value), kind.near)


def either(kinds: list[Kind]) -> Kind:
    """One of several kinds."""
    if ANYTHING in kinds:
        return ANYTHING
    if PATH in kinds:  # text beside a path is one
        kinds = [kind for kind in kinds if kind is not PLAIN["str"]]
    expected = " or ".join(dict.fromkeys(kind.expected for kind in kinds))
    return Kind(
        expected,
        lambda value: any(kind.fits(value) for kind in kinds),
        lambda value: any(kind.near(value) for kind in kinds),
    )


def many(item: Kind) -> Kind:
    """A list of items of one kind, in whatever container: tuple, array, index; text and dictionaries are no lists."""

    def is_list(value: Any) -> bool:
        if isinstance(value, str | bytes | Mapping) or getattr(value, "ndim", 1) != 1:
            return False
        return isinstance(value, Collection)

    if item is ANYTHING:
        return of_type("a list", is_list)
    return Kind(
        f"a list (each item {item.expected})",
        lambda value: is_list(value) and all(map(item.fits, value)),
        lambda value: is_list(value) and all(map(item.near, value)),
    )


def mapping(key: Kind, item: Kind) -> Kind:
    """A dictionary."""
    if key is ANYTHING and item is ANYTHING:
        return of_type("a dictionary", lambda value: isinstance(value, Mapping))
    return of_type(
        f"a dictionary from {key.expected} to {item.expected}",
        lambda value: isinstance(value, Mapping) and all(map(key.fits, value)) and all(map(item.fits, value.values())),
    )


def instance(name: str, module: str) -> Kind:
    """An object of a class, known by name and package, so that its module need not be loaded."""
    if (name, module) == ("ndarray", "numpy"):
        return ARRAY
    package = module.partition(".")[0]
    shown = name if package == __package__.partition(".")[0] else f"{module}.{name}"

    def fits(value: Any) -> bool:
        return any(cls.__name__ == name and cls.__module__.partition(".")[0] == package for cls in type(value).__mro__)

    return of_type(f"{'an' if shown[0] in 'aeioAEIO' else 'a'} {shown}", fits)


def told(value: Any) -> str:
    """A value for a message: short, and without asking an object that is not a plain one."""
    name = type(value).__name__
    if value is None or isinstance(value, bool | np.bool_):
        return str(value)
    if _is_integer(value) and not -_BEYOND <= value < _BEYOND:
        return "a number of more than 64 bits"
    if isinstance(value, str | bytes | int | float | np.number):
        text = repr(value[:60] if isinstance(value, str | bytes) else value)
        return f"{text[:80]} ({name})"
    if isinstance(value, list | tuple | set | frozenset | dict):
        if not value:
            return f"an empty {name}"
        first = ", ".join(dict.fromkeys(type(item).__name__ for item in islice(value, 3)))
        return f"a {name} of {first}"
    return f"an object of type {name}"
