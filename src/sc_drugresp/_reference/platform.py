"""`models.platform_shift`: how a platform differs from the lines of a reference, from cells of known lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.log import logger
from .._data.counts import read_counts
from .._data.modalities import observations
from .._data.obs import read_column
from ..names import line_key as key_of
from .align import shift_and_rest, within_sample
from .expression import within
from .pseudobulk import pseudobulk
from .reference import Reference
from .relatives import with_relatives
from .shift import PlatformShift
from .storage import DEFAULT
from .tables import published, tidy_expression

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

MIN_LINES, MIN_CELLS = 3, 10
"""Lines of known identity, and cells of each, below which no shift is estimated."""


@doc_params()
@checked
def platform_shift(
    data: AnnData | MuData,
    line_key: str,
    *,
    chemistry: str,
    expression: pd.DataFrame | None = None,
    reference: Reference | None = None,
    exclude_lines: Collection[str] = (),
    layer: str | None = None,
    modality: str = "rna",
) -> PlatformShift:
    """Measure how a platform differs, gene by gene, from the lines of a reference.

    Cells of lines of known identity are added up per line and compared with the bulk profiles of the same lines, both
    standardized within the profile. The mean difference over lines is the shift; what it leaves in a line that it was not
    taken from widens intervals and probabilities. Only the identity of the lines is used, not their response.

    Parameters
    ----------
    {data}
    line_key
        Column of `.obs` with the name of the cell line of each cell.
    chemistry
        Name to give to the platform, such as `'10x3v3'`.
    expression
        Bulk profiles, lines x genes, of the kind that the reference was fitted to. `None` takes those of the screen that
        the reference is named after, for the one of the package those of `'ctrp2'` (:func:`~sc_drugresp.datasets.screen`).
    reference
        The reference that the shift is for; `None` for the one that comes with the package.
    exclude_lines
        Lines to leave out, with their relatives.
    {layer}
    {modality}

    Returns
    -------
    The shift; :meth:`Reference.with_shift` adds it to the reference.

    Raises
    ------
    KeyError
        `line_key` is not a column of `.obs`.
    ValueError
        Fewer than three lines with ten cells are among the bulk profiles, or the matrix cannot be added up.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> reference = sdr.models.Reference.load("gdsc2")  # doctest: +SKIP
    >>> shift = sdr.models.platform_shift(lines, "cell_line", chemistry="10x3v3", reference=reference)  # doctest: +SKIP
    >>> reference = reference.with_shift(shift)  # doctest: +SKIP
    >>> sdr.tl.rank_drugs(tumor, reference=reference, chemistry="10x3v3")  # doctest: +SKIP
    """
    reference = Reference.load() if reference is None else reference
    if expression is None:
        expression = published("ctrp2" if reference.name == DEFAULT else reference.name).expression
    bulk = tidy_expression(expression)
    absent = [gene for gene in reference.genes if gene not in bulk.columns]
    if absent:
        msg = f"`expression` lacks {len(absent)} of the {len(reference.genes)} genes of the reference: {absent[:3]} ..."
        raise ValueError(msg)
    column = read_column(observations(data, modality=modality), line_key, "line_key").astype(str)
    keys = column.map({value: key_of(value) for value in column.unique()}).to_numpy()
    names, counts = np.unique(keys, return_counts=True)
    left_out = with_relatives(exclude_lines, names.tolist()) if len(exclude_lines) else set()
    kept = [
        str(name) for name, n in zip(names, counts) if n >= MIN_CELLS and name in bulk.index and name not in left_out
    ]
    if len(kept) < MIN_LINES:
        msg = (
            f"Column {line_key!r} names {len(kept)} lines with at least {MIN_CELLS} cells that are among the bulk profiles"
            f"{f' ({kept})' if kept else ''}; at least {MIN_LINES} are needed. It holds {names[:5].tolist()} ..."
        )
        raise ValueError(msg)
    place = {name: i for i, name in enumerate(kept)}
    groups = np.array([place.get(key, -1) for key in keys])
    source = read_counts(data, layer=layer, expect="any", modality=modality)
    found = pseudobulk(source, reference.genes, groups, len(kept))
    values = within_sample(found.values, found.seen, reference.scale)
    profiles = within(bulk.loc[kept, reference.genes].to_numpy(dtype=np.float64))
    shift, rest = shift_and_rest(values, profiles)
    logger.info("shift of %s over %d lines and %d genes", chemistry, len(kept), int(found.seen.sum()))
    told = f"{len(kept)} lines of {line_key!r}, {int((groups >= 0).sum())} cells"
    return PlatformShift(chemistry, shift.astype(np.float32), tuple(kept), told, rest.astype(np.float32))
