"""Put a screen together from the tables that were found: response, expression, lines and drugs with one set of keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..names import drug_key
from ._screen import DRUG_COLUMNS, Screen, average_pairs
from ._screen_ctrp import ctrp_response
from ._screen_depmap import depmap_expression, depmap_lines, prism_response
from ._screen_files import hashes
from ._screen_gdsc import gdsc_arrays, gdsc_response, sanger_lines
from ._screen_lines import LineBook
from ._screen_parts import drug_table
from ._screen_plain import plain_expression, plain_lines, plain_response
from ._screen_registry import screen_registry

if TYPE_CHECKING:
    import pandas as pd

    from ._screen_files import Tables
    from ._screen_parts import Expression, Response
    from ._screen_registry import ScreenRow


def build_screen(row: ScreenRow, tables: Tables, response_kind: str, expression_kind: str | None) -> Screen:
    """Read response, expression and lines, and reconcile their identifiers.

    Parameters
    ----------
    row
        What the screen is.
    tables
        What there is.
    response_kind
        `'auc'` or `'ln_ic50'`.
    expression_kind
        `'rma'`, `'log2tpm'`, or `None` for the usual one if it is there, the other one if not.

    Raises
    ------
    FileNotFoundError
        A table is missing.
    ValueError
        No line has both, or a table is ambiguous.
    """
    response = _response(row, tables, response_kind)
    expression = _expression(row, tables, expression_kind)
    book = LineBook()
    numbers = np.array(book.add(response.ids))
    listed = [*depmap_lines(tables), *sanger_lines(tables)] or plain_lines(tables)
    for ids, _ in listed:
        book.add(ids)
    rows = np.array(book.add(expression.ids))
    lines = book.table()
    keys = lines.index.to_numpy()
    pairs = response.pairs[response.pairs["line"].notna()]
    pairs = average_pairs(pairs.assign(line=keys[numbers[pairs["line"].astype(int)]]))
    values = _unique(expression.values, keys[rows])
    if not values.index.isin(pairs["line"]).any():
        msg = (
            f"No line of {response.tables[0].name} has expression in {expression.tables[0].name}: "
            f"{list(pairs['line'].unique()[:3])} against {list(values.index[:3])}."
        )
        raise ValueError(msg)
    used = [*response.tables, *expression.tables, *(table for _, table in listed)]
    return Screen(
        name=row.name,
        release=_release(row, response),
        licence=screen_registry().licence_of(row, expression.kind.removesuffix("_z")),
        citation=row.citation,
        expression=values,
        expression_kind=expression.kind,
        response=pairs,
        response_kind=response.kind,
        drugs=_drugs(response.drugs, pairs["drug"].unique()),
        lines=lines[lines.index.isin(pairs["line"]) | lines.index.isin(values.index)],
        sources=hashes(used),
    )


def _release(row: ScreenRow, response: Response) -> str:
    """The release whose file this is; tables of other names may come from anywhere."""
    registry, name = screen_registry(), response.tables[0].path.name
    return row.release if name in {registry.files[file].name for file in row.response} else f"{row.dataset} of {name}"


def _response(row: ScreenRow, tables: Tables, kind: str) -> Response:
    published = {
        "GDSC1": lambda: gdsc_response(tables, "GDSC1", kind),
        "GDSC2": lambda: gdsc_response(tables, "GDSC2", kind),
        "CTRPv2": lambda: ctrp_response(tables),
        "PRISM": lambda: prism_response(tables, kind),
    }
    found = published[row.dataset]() or plain_response(tables, row.dataset, kind)
    if found is None:
        raise FileNotFoundError(_missing(tables, f"response of {row.dataset}", row.response[:1]))
    return found


def _expression(row: ScreenRow, tables: Tables, kind: str | None) -> Expression:
    published = {"rma": gdsc_arrays, "log2tpm": depmap_expression}
    kinds = sorted(published, key=lambda name: name != row.default_expression) if kind is None else [kind]
    for wanted in kinds:
        found = published[wanted](tables) or plain_expression(tables, wanted)
        if found is not None:
            return found
    files = [name for wanted in kinds for name in row.expression.get(wanted, ("depmap_expression",))[-1:]]
    raise FileNotFoundError(_missing(tables, f"expression ({' or '.join(kinds)})", files))


def _missing(tables: Tables, what: str, files: list[str] | tuple[str, ...]) -> str:
    known = [screen_registry().files[name] for name in files]
    wanted = ", or ".join(f"{file.name} from {file.page}" for file in known)
    seen = ", ".join(sorted({table.name for table in tables.found})[:10]) or "none"
    unread = "".join(
        f"\nNot looked into: {name}: {reason} A sheet can also be saved as CSV."
        for name, reason in tables.unread.items()
    )
    return f"No table in `folder` holds the {what}. It is in {wanted}. Tables found: {seen}.{unread}"


def _unique(values: pd.DataFrame, keys: np.ndarray) -> pd.DataFrame:
    """Lines and genes once each: repeated ones averaged, genes without a name or with missing values left out."""
    genes = values.columns.astype(str).str.strip()
    named = ~genes.isin(["", "nan"])
    values = values.loc[:, named].set_axis(genes[named], axis=1).set_axis(keys, axis=0)
    if not values.index.is_unique:
        values = values.groupby(level=0, sort=False).mean()
    if not values.columns.is_unique:
        values = values.T.groupby(level=0, sort=False).mean().T
    values = values.loc[values.notna().any(axis=1)].dropna(axis=1).astype("float32")
    return values.rename_axis(index="line", columns=None)


def _drugs(known: pd.DataFrame, measured: np.ndarray) -> pd.DataFrame:
    """What is known about the measured drugs, under the spelling of the response."""
    import pandas as pd

    spelling = {drug_key(drug): drug for drug in measured}
    rows = known.loc[np.array([drug_key(drug) in spelling for drug in known.index], dtype=bool)]
    names = pd.Series([spelling[drug_key(drug)] for drug in rows.index], dtype=str)
    table = drug_table(names, **{column: rows[column].to_numpy() for column in DRUG_COLUMNS})
    return table.reindex(sorted(measured)).fillna("").rename_axis("drug")
