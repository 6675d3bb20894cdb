"""`datasets.screen`: a drug screen from the user's folder or from its publisher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from .._core.arguments import checked
from ._screen_build import build_screen
from ._screen_fetch import places_of, present
from ._screen_files import tables_in
from ._screen_registry import screen_registry
from ._terms import require_terms

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .._core.kinds import Filled
    from ._screen import Screen

ScreenName = Literal["gdsc1", "gdsc2", "ctrp2", "prism"]
ResponseKind = Literal["auc", "ln_ic50"]
ExpressionKind = Literal["rma", "log2tpm"]


@checked
def screen(
    name: ScreenName,
    *,
    accept_terms: bool = False,
    folder: Path | str | Annotated[Sequence[Path | str], Filled()] | None = None,
    response: ResponseKind = "auc",
    expression: ExpressionKind | None = None,
) -> Screen:
    """Load a drug screen of cell lines: response, expression, drugs and lines, with identifiers reconciled.

    The files come from `folder`, or from `settings.data_dir`, the cache or their publishers, in this order. Nothing is
    downloaded before the terms of the publishers have been accepted; they are shown until they are, and the acceptance is
    recorded in the cache. Files without a published checksum are recorded at the first download, and later downloads must
    agree.

    Parameters
    ----------
    name
        `'gdsc1'`, `'gdsc2'` (Iorio et al. 2016), `'ctrp2'` (Seashore-Ludlow et al. 2015) or `'prism'` (the secondary screen
        of Corsello et al. 2020).
    accept_terms
        Accept the terms of the publishers, once. Not needed with `folder`, whose files you have obtained yourself.
    folder
        Folder with the published files, or several. Tables are recognized by their columns: the names of files do not
        matter, archives and subfolders are searched, CSV and TSV need no other package, Excel and parquet need
        `pip install 'sc-drugresp[screens]'`. Tables with the columns `line`, `drug` and `auc` or `ln_ic50`, and matrices
        with a column `line` and one per gene, are read as well.
    response
        `'auc'` (area under the curve) or `'ln_ic50'` (GDSC and PRISM). Both are higher in resistant lines.
    expression
        `'rma'` (microarrays of GDSC) or `'log2tpm'` (RNA-seq of CCLE). `None` takes what the screen is usually combined
        with: microarrays for GDSC, RNA-seq for the others; with `folder`, the kind that is there.

    Returns
    -------
    The screen.

    Raises
    ------
    PermissionError
        The terms have not been accepted; the message shows them and says how to.
    ConnectionError
        A file has to be downloaded and cannot be; the message gives the manual step.
    FileNotFoundError
        `folder` lacks a table that is needed, or the reader of its format is not installed; the message says which.
    ValueError
        There is no such screen, or a file is not what it should be.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> prism = sdr.datasets.screen("prism", accept_terms=True)  # doctest: +SKIP
    >>> prism.response.head()  # doctest: +SKIP
    """
    registry = screen_registry()
    row = registry.screens[name]
    if name == "ctrp2" and response != "auc":
        msg = "CTRPv2 publishes areas under the curve; `response` must be 'auc', found 'ln_ic50'."
        raise ValueError(msg)
    if folder is not None:
        return build_screen(row, tables_in(places_of(folder)), response, expression)
    kind = expression or row.default_expression
    if kind not in row.expression:
        msg = f"There is no {kind!r} expression to fetch for {name!r}; available: {list(row.expression)}."
        raise ValueError(msg)
    files = registry.files_of(row, kind)
    call = f"sc_drugresp.datasets.screen({name!r}, accept_terms=True)"
    require_terms(registry.terms_of(files), accept=accept_terms, call=call)
    others = [other for other in row.expression if other != kind]
    hint = f" `expression={others[0]!r}` needs other files." if others else ""
    return build_screen(row, tables_in([present(file, hint) for file in files]), response, kind)
