"""Tables that others made of the screens: one row per line and drug, one row per line and a column per gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..genes import gene_table
from ._screen_parts import Expression, Response, coded, drug_table, line_ids, only

if TYPE_CHECKING:
    import pandas as pd

    from ._screen_files import Table, Tables

_NAMES = ("line", "cell_line")
_TISSUES = ("tissue", "cancer_type", "tcga_type", "tcga_code", "site", "histology", "lineage")
_FEWEST_GENES = 20


def _name_column(table: Table) -> str | None:
    """Column with the name of a line as published, or its key."""
    return next((name for name in reversed(_NAMES) if table.has(name)), None)


def plain_response(tables: Tables, screen: str, kind: str) -> Response | None:
    """A table with the columns `line` or `cell_line`, `drug`, and `auc` or `ln_ic50`.

    Which screen it is, a column `screen` or the name of the file must say (`ctrpv2_auc.parquet`).

    Parameters
    ----------
    tables
        Where to look.
    screen
        `'GDSC1'`, `'GDSC2'`, `'CTRPv2'` or `'PRISM'`.
    kind
        `'auc'` or `'ln_ic50'`.
    """
    found = tables.like(lambda t: _name_column(t) is not None and t.has("drug", kind))
    named = [table for table in found if screen.lower() in table.name.lower()]
    table = only(named or [table for table in found if table.has("screen")], f"the response of {screen}")
    if table is None:
        return None
    name = str(_name_column(table))
    columns = [name, "depmap_id", *_TISSUES]
    frame = table.read(["screen", "drug", kind, *columns])
    frame = frame[frame["screen"].astype(str).str.lower() == screen.lower()] if "screen" in frame else frame
    if frame.empty:
        return None
    frame = frame.reindex(columns=["drug", kind, *columns]).astype({"drug": str})
    codes, lines = coded(frame, columns)
    # In such tables identifiers were often joined by name: one that stands for two names (TT and T-T) is none.
    names = lines.groupby("depmap_id")[name].nunique()
    lines["depmap_id"] = lines["depmap_id"].where(lines["depmap_id"].map(names) == 1)
    drugs, more = _plain_drugs(tables, screen)
    return Response(
        ids=line_ids(lines, list(_TISSUES), name=name, depmap_id="depmap_id"),
        pairs=frame.assign(line=codes, drug=frame["drug"].str.strip(), value=frame[kind]),
        kind=kind,
        drugs=drugs,
        tables=(table, *more),
    )


def _plain_drugs(tables: Tables, screen: str) -> tuple[pd.DataFrame, tuple[Table, ...]]:
    import pandas as pd

    found = tables.like(lambda table: table.has("drug", "target") and screen.lower() in table.name.lower())
    table = only(found, f"the drugs of {screen}")
    if table is None:
        return drug_table(pd.Series(dtype=str)), ()
    frame = table.read(["drug", "target", "pathway"]).reindex(columns=["drug", "target", "pathway"])
    return drug_table(frame["drug"], targets=frame["target"].to_numpy(), pathway=frame["pathway"].to_numpy()), (table,)


def is_plain_matrix(table: Table) -> bool:
    """Whether most columns are human genes, beside one that names the line."""
    if table.has("drug") or not (table.has("depmap_id") or _name_column(table)):
        return False
    symbols = gene_table("human").row_of_symbol
    return sum(column in symbols for column in table.columns) > max(_FEWEST_GENES, len(table.columns) // 2)


def _matrix_kind(table: Table) -> str:
    lower = table.name.lower()
    return "rma_z" if "rowz" in lower else "log2tpm" if "log2tpm" in lower or "ccle" in lower else "rma"


def plain_expression(tables: Tables, kind: str) -> Expression | None:
    """A matrix of lines x genes with a column `line` or `depmap_id`.

    The name of the file tells what it holds: `log2tpm` or `ccle` for RNA-seq, arrays otherwise; `rowz` for values that are
    standardized within each line; `x100` for integers that are to be divided by 100.

    Parameters
    ----------
    tables
        Where to look.
    kind
        `'rma'` (standardized or not) or `'log2tpm'`.
    """
    found = tables.like(lambda t: is_plain_matrix(t) and _matrix_kind(t).removesuffix("_z") == kind)
    table = only(found, f"{kind} expression")
    if table is None:
        return None
    frame, name = table.read(), _name_column(table)
    ids = frame[[column for column in frame.columns if column.lower() in {"depmap_id", name}]]
    ids = ids.rename(columns=str.lower).rename(columns={str(name): "name"}).reset_index(drop=True)
    values = frame[[column for column in frame.columns if column.lower() not in {"depmap_id", *_NAMES}]]
    values = values.select_dtypes(np.number).astype("float32")
    if "x100" in table.name.lower():
        values = values / 100
    return Expression(ids=ids, values=values, kind=_matrix_kind(table), tables=(table,))


def plain_lines(tables: Tables) -> list[tuple[pd.DataFrame, Table]]:
    """Cell lines with the columns `depmap_id` and `name`, one row each."""
    found = tables.like(lambda t: t.has("depmap_id", "name") and not t.has("drug") and not t.has("auc"))
    table = only(found, "the cell lines")
    if table is None:
        return []
    columns = ["name", "depmap_id", "ccle_id", *_TISSUES]
    frame = table.read(columns).reindex(columns=columns)
    frame["name"] = frame["name"].where(frame["name"].notna(), frame["ccle_id"])
    return [(line_ids(frame, list(_TISSUES), name="name", depmap_id="depmap_id"), table)]
