"""The tables of a screen, or a user's own, in one form: lines by key, genes by symbol, repeated pairs averaged."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from ..names import drug_key, line_key, lineage_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from ..datasets._screen import Screen

MIN_DRUG_LINES = 100
"""Measured lines below which a drug is left out, and lines below which nothing is fitted."""


@dataclass(frozen=True, eq=False)
class ScreenTables:
    """What a reference is fitted to; rows of all tables are the same lines."""

    expression: pd.DataFrame
    response: pd.DataFrame
    """Lines x drugs, NaN where nothing was measured."""
    tissue: np.ndarray
    """Lineage of each line, `''` where unknown."""
    relatives: list[str]
    """Patient or family of each line, `''` where unknown."""

    @property
    def lines(self) -> list[str]:
        """Keys of the lines."""
        return [str(line) for line in self.expression.index]

    def without(self, lines: set[str]) -> ScreenTables:
        """The same tables without some lines."""
        kept = np.array([line not in lines for line in self.lines])
        relatives = [family for family, there in zip(self.relatives, kept) if there]
        return ScreenTables(self.expression[kept], self.response[kept], self.tissue[kept], relatives)

    def measured(self) -> ScreenTables:
        """The same tables without the drugs that were measured in few lines.

        Raises
        ------
        ValueError
            No drug is left.
        """
        kept = self.response.loc[:, self.response.notna().sum() >= MIN_DRUG_LINES]
        if not kept.shape[1]:
            msg = f"No drug of `response` was measured in {MIN_DRUG_LINES} lines with expression."
            raise ValueError(msg)
        return ScreenTables(self.expression, kept, self.tissue, self.relatives)

    def sha256(self) -> str:
        """Hash of the values and names."""
        digest = hashlib.sha256()
        for frame in (self.expression, self.response):
            digest.update(np.ascontiguousarray(frame.to_numpy(dtype=np.float32)).tobytes())
            digest.update("\n".join([*map(str, frame.index), *map(str, frame.columns)]).encode())
        return digest.hexdigest()


def screen_tables(
    expression: pd.DataFrame,
    response: pd.DataFrame,
    tissue: Mapping[str, str] | None,
    relatives: Mapping[str, str] | None,
) -> ScreenTables:
    """Bring tables into one form and keep the lines that both have.

    Raises
    ------
    ValueError
        They are laid out otherwise or share too few lines.
    """
    values, table = tidy_expression(expression), response_table(response)
    lines = [line for line in values.index if line in table.index]
    if len(lines) < MIN_DRUG_LINES:
        msg = (
            f"`expression` and `response` share {len(lines)} lines; at least {MIN_DRUG_LINES} are needed. Lines are "
            f"compared by name without punctuation: {', '.join(values.index[:3])} against {', '.join(table.index[:3])}."
        )
        raise ValueError(msg)
    lineage = np.array([lineage_of(value) or "" for value in _by_line(tissue, lines)], dtype=object)
    return ScreenTables(values.loc[lines], table.loc[lines], lineage, _by_line(relatives, lines))


def published(name: str, *, accept_terms: bool = False) -> Screen:
    """A screen by name.

    Raises
    ------
    ValueError
        No such screen.
    """
    from ..datasets._screens import ScreenName, screen

    for known in get_args(ScreenName):
        if known == name:
            return screen(known, accept_terms=accept_terms)
    msg = f"{name!r} is not a screen ({', '.join(get_args(ScreenName))}). Pass both `expression` and `response` for your own."
    raise ValueError(msg)


def tidy_expression(frame: pd.DataFrame) -> pd.DataFrame:
    """Lines by key, genes by symbol; repeated lines are averaged, of a repeated gene the first column is kept.

    Raises
    ------
    ValueError
        The table holds something else than numbers.
    """
    if not all(np.issubdtype(kind, np.number) for kind in frame.dtypes):
        msg = "`expression` must be a table of numbers, lines x genes, with the names of lines as its index."
        raise ValueError(msg)
    frame = frame.loc[:, ~frame.columns.duplicated()]
    keys = [line_key(line) for line in frame.index]
    return frame.groupby(np.array(keys, dtype=object)).mean() if len(set(keys)) < len(keys) else frame.set_axis(keys)


def response_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Lines x drugs from columns `line`, `drug` and `value`; repeated pairs are averaged.

    Raises
    ------
    ValueError
        A column is missing.
    """
    missing = [column for column in ("line", "drug", "value") if column not in frame]
    if missing:
        msg = f"`response` needs the columns 'line', 'drug' and 'value'; {missing} are missing from {list(frame.columns)}."
        raise ValueError(msg)
    spelled = {line: line_key(line) for line in frame["line"].unique()}
    keys = frame["line"].map(spelled).astype(object)
    value = frame["value"].astype(np.float64).where(lambda column: np.isfinite(column))
    return value.groupby([keys, frame["drug"].astype(str)]).mean().unstack()


def agreement(table: pd.DataFrame, other: pd.DataFrame | None) -> np.ndarray:
    """Spearman correlation with another screen per drug, NaN with fewer than 20 shared lines; shape `(n_drugs,)`."""
    out: np.ndarray = np.full(table.shape[1], np.nan)
    if other is None:
        return out
    second = response_table(other)
    second.columns = [drug_key(str(name)) for name in second.columns]
    second = second.loc[:, ~second.columns.duplicated()].reindex(table.index)
    for j, (drug, column) in enumerate(table.items()):
        if (key := drug_key(str(drug))) in second:
            pair: Any = second[key]
            if (pair.notna() & column.notna()).sum() >= 20:
                out[j] = column.corr(pair, method="spearman")
    return out


def _by_line(known: Mapping[str, str] | None, lines: list[str]) -> list[str]:
    """The value of each line, `''` where it has none."""
    spelled = {line_key(line): value for line, value in (known or {}).items() if isinstance(value, str)}
    return [spelled.get(line, "") for line in lines]
