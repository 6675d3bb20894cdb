"""What the readers of a screen's files return, before lines get their keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._screen import DRUG_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import pandas as pd

    from ._screen_files import Table


@dataclass(frozen=True)
class Response:
    """Measured pairs.

    Parameters
    ----------
    ids
        One row per line, as `LineBook.add` takes them.
    pairs
        Columns `line` (position in `ids`), `drug` and `value`.
    kind
        `'auc'` or `'ln_ic50'`.
    drugs
        As in `Screen.drugs`, perhaps with drugs that were not measured.
    tables
        What was read.
    """

    ids: pd.DataFrame
    pairs: pd.DataFrame
    kind: str
    drugs: pd.DataFrame
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Expression:
    """A matrix.

    Parameters
    ----------
    ids
        One row per row of `values`.
    values
        Lines x genes; columns hold symbols, which may repeat or be empty.
    kind
        As in `Screen.expression_kind`.
    tables
        What was read.
    """

    ids: pd.DataFrame
    values: pd.DataFrame
    kind: str
    tables: tuple[Table, ...]


def only(tables: list[Table], what: str) -> Table | None:
    """The table that holds something, or `None`; the same table as text and as a workbook counts once.

    Raises
    ------
    ValueError
        Several tables hold it.
    """
    by_stem = {table.stem: table for table in sorted(tables, key=lambda table: -table.speed)}
    if len(by_stem) > 1:
        msg = f"Several files hold {what}: {sorted(table.name for table in by_stem.values())}. Leave one of them there."
        raise ValueError(msg)
    return next(iter(by_stem.values()), None)


def coded(frame: pd.DataFrame, by: list[str]) -> tuple[np.ndarray, pd.DataFrame]:
    """Number the distinct combinations of some columns: codes of the rows, and one row per combination."""
    plain = frame.loc[:, by].astype(object)
    codes = plain.groupby(by, sort=False, dropna=False).ngroup().to_numpy()
    return codes, plain.drop_duplicates().reset_index(drop=True)


def drug_table(names: pd.Series, **columns: Iterable[object]) -> pd.DataFrame:
    """A table as in `Screen.drugs`; what several rows say about one drug is joined."""
    import pandas as pd

    rows = pd.DataFrame({"drug": names.astype(str).str.strip().to_numpy(), **columns})
    rows = rows.reindex(columns=["drug", *DRUG_COLUMNS]).fillna("").astype(str)
    texts = rows.set_index("drug").groupby(level="drug")
    marks = zip(DRUG_COLUMNS, (", ", ", ", "|"), strict=True)
    joined = {column: texts[column].apply(_join, mark) for column, mark in marks}
    return pd.DataFrame(joined, columns=list(DRUG_COLUMNS), dtype=object).rename_axis("drug")


def _join(cells: pd.Series, mark: str) -> str:
    return mark.join(dict.fromkeys(filter(None, cells)))


def line_ids(frame: pd.DataFrame, texts: list[str], **columns: str) -> pd.DataFrame:
    """Rows as `LineBook.add` takes them.

    Parameters
    ----------
    frame
        One row per line.
    texts
        Columns that tell the tissue, the most telling first.
    columns
        Name in the result to column of `frame`.
    """
    import pandas as pd

    ids = pd.DataFrame({new: frame[old] for new, old in columns.items()}, dtype=object)
    ids["tissue_texts"] = frame[texts].to_numpy(dtype=object).tolist()
    return ids
