"""Rows of `screens.toml`: the files of each screen, their addresses and their terms."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from .._core.expected import Expected

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Terms:
    """Terms of a publisher: a few words, a page, and what is shown before they are accepted."""

    name: str
    licence: str
    page: str
    text: str


@dataclass(frozen=True)
class ScreenFile:
    """A published file and the folder of the cache that holds it; screens share files."""

    name: str
    folder: str
    urls: tuple[str, ...]
    page: str
    terms: str
    about_bytes: int
    confirmed: bool = True
    sha256: str | None = None
    md5: str | None = None

    @property
    def expected(self) -> Expected:
        """What is known about the file before it is here."""
        return Expected(sha256=self.sha256, md5=self.md5)


@dataclass(frozen=True)
class ScreenRow:
    """A screen. `expression` lists the files of each kind of expression; the first kind is the default."""

    name: str
    dataset: str
    release: str
    citation: str
    response: tuple[str, ...]
    expression: Mapping[str, tuple[str, ...]]

    @property
    def default_expression(self) -> str:
        """The kind of expression that the screen is usually combined with."""
        return next(iter(self.expression))


@dataclass(frozen=True)
class ScreenRegistry:
    """Everything in `screens.toml`."""

    screens: Mapping[str, ScreenRow]
    files: Mapping[str, ScreenFile]
    terms: Mapping[str, Terms]

    def files_of(self, row: ScreenRow, kind: str) -> list[ScreenFile]:
        """Files for a kind of expression."""
        return [self.files[name] for name in dict.fromkeys((*row.response, *row.expression[kind]))]

    def licence_of(self, row: ScreenRow, kind: str) -> str:
        """Terms of the response and of a kind of expression, in a few words."""
        used = [self.files[(*row.response, *row.expression.get(kind, ()))[place]] for place in (0, -1)]
        return " + ".join(dict.fromkeys(self.terms[file.terms].licence for file in used))

    def terms_of(self, wanted: list[ScreenFile]) -> list[Terms]:
        """Terms of these files, each once."""
        return [self.terms[name] for name in dict.fromkeys(file.terms for file in wanted)]


@cache
def screen_registry() -> ScreenRegistry:
    """All screens."""
    rows: dict[str, Any] = tomllib.loads((files(__package__) / "screens.toml").read_text(encoding="utf-8"))
    return ScreenRegistry(
        screens={
            name: ScreenRow(
                **{
                    **row,
                    "name": name,
                    "response": tuple(row["response"]),
                    "expression": {kind: tuple(listed) for kind, listed in row["expression"].items()},
                }
            )
            for name, row in rows["screens"].items()
        },
        files={name: ScreenFile(**{**row, "urls": tuple(row["urls"])}) for name, row in rows["files"].items()},
        terms={name: Terms(name=name, **{**row, "text": row["text"].strip()}) for name, row in rows["terms"].items()},
    )
