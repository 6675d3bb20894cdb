"""Sizes and options of models: frozen dataclasses whose values are checked in one place. No torch."""

from __future__ import annotations

import dataclasses
import math
import operator
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Self, get_args, get_origin, get_type_hints

from .._core.arguments import check_named
from ._weights import read_sizes

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST = 10_000_000
"""No size of a published network comes near; a damaged file may ask for any memory."""
_PLAIN = {float: "a finite number", int: "a whole number", str: "text"}


def size(
    default: int | None,
    published: str = "",
    *,
    required: bool = True,
    least: int = 1,
    divides: str = "",
    hint: str = "",
) -> Any:
    """Declare a whole number of at least `least`.

    Parameters
    ----------
    default
        Default of the field; `None` stands for no limit and is not checked.
    published, required
        Its name in the published configuration, and whether it must be there, see :meth:`Config.read_published`.
    least
        Smallest value.
    divides
        Another field that must be a multiple of this one, as the width is of the heads.
    hint
        What to do if it is not.
    """
    checks = {"least": least, "divides": divides, "hint": hint}
    return dataclasses.field(default=default, metadata={"published": published, "required": required, **checks})


def setting(default: Any, published: str) -> Any:
    """Declare a value that the published configuration may state under the name `published`."""
    return dataclasses.field(default=default, metadata={"published": published, "required": False})


@dataclasses.dataclass(frozen=True)
class Config:
    """Base class for the sizes and options of a model; subclasses are frozen dataclasses, too.

    Fields typed as `Literal` must hold one of their choices, and fields declared with :func:`size` a valid size.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if problem := self._problem(field):
                msg = f"{self._title()}: {problem}"
                raise ValueError(msg)

    @classmethod
    def read_published(cls, table: Mapping[str, Any], *, source: object) -> dict[str, Any]:
        """Values of the fields that a published configuration states.

        Raises
        ------
        ValueError
            A required size is missing or is not a number.
        """
        named = {field.name: field.metadata for field in dataclasses.fields(cls) if field.metadata.get("published")}
        required = {name: about["published"] for name, about in named.items() if about["required"]}
        optional = {name: about["published"] for name, about in named.items() if not about["required"]}
        return read_sizes(table, required, optional, source=source)

    @classmethod
    def stated(cls, source: object, /, **sizes: Any) -> Self:
        """Settings that a file states.

        Raises
        ------
        ValueError
            A value is not allowed; the message names the file.
        """
        try:
            return cls(**sizes)
        except ValueError as error:
            msg = f"{source} is damaged or of another model: {error}"
            raise ValueError(msg) from error

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Refuse options that no sizes would make right, before any file is opened.

        Raises
        ------
        TypeError
            A value has another type.
        ValueError
            A value is not among the choices, or out of range.
        """
        check_named(cls, options)
        for field in dataclasses.fields(cls):
            value, least = options.get(field.name), field.metadata.get("least")
            if value is not None and least is not None and not least <= value <= _MOST:
                raise ValueError(_beyond(field.name, value, least))

    def replace(self, **options: Any) -> Self:
        """Return the same settings with some of them changed.

        Raises
        ------
        TypeError
            There is no such option.
        ValueError
            A value is not allowed.
        """
        known = {field.name for field in dataclasses.fields(self)}
        unknown = sorted(options.keys() - known)
        if unknown:
            msg = f"{self._title()} has no option {unknown[0]!r}. Available options: {sorted(known)}."
            raise TypeError(msg)
        return dataclasses.replace(self, **options)

    def _problem(self, field: dataclasses.Field[Any]) -> str:
        value, choices = getattr(self, field.name), self._choices().get(field.name)
        if choices is not None and (isinstance(value, list | dict) or value not in choices):
            return f"`{field.name}` must be one of {choices}, found {value!r}."
        least, other = field.metadata.get("least"), field.metadata.get("divides")
        if field.metadata and value is not None:
            kind = int if least is not None else type(field.default)
            if not _is(value, kind):
                return f"`{field.name}` must be {_PLAIN[kind]}, found {value!r:.80}."
        if least is not None and value is not None and not least <= value <= _MOST:
            return _beyond(field.name, value, least)
        if other and getattr(self, other) % value:
            return f"`{other}` ({getattr(self, other)}) is not a multiple of `{field.name}` ({value}). {field.metadata['hint']}"
        return ""

    @classmethod
    def _title(cls) -> str:
        return cls.__name__.removesuffix("Config")

    @classmethod
    @cache
    def _choices(cls) -> dict[str, tuple[Any, ...]]:
        hints = get_type_hints(cls)
        return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


def _beyond(name: str, value: int, least: int) -> str:
    """What is wrong with a size that is too small or too large."""
    limit = f"at least {least}" if value < least else f"at most {_MOST:,}"
    return f"`{name}` must be {limit}, found {value}."


def _is(value: Any, kind: type) -> bool:
    """Whether a value, perhaps a numpy scalar, is text or a number of this kind; truth values are no numbers."""
    if kind not in _PLAIN:
        return True
    if isinstance(value, bool) or kind is str or isinstance(value, str):
        return kind is str and isinstance(value, str)
    try:
        return math.isfinite(operator.index(value) if kind is int else float(value))
    except (TypeError, ValueError, OverflowError):
        return False
