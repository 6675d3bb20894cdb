"""Whether a model knows the genes of a data set, judged before the expensive part, and what came out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.log import warn
from .._data.content import probe_rows
from .._stats.distances import mean_cosine

if TYPE_CHECKING:
    from .._data.counts import CountSource
    from .._data.vocab import GeneMode

LOW_COVERAGE = 0.5
NO_COVERAGE = 0.01
COLLAPSED_COSINE = 0.98
_FEWEST_CELLS = 10


def check_coverage(source: CountSource, embedder: Any, genes: GeneMode = "auto") -> None:
    """Refuse data whose counts lie almost wholly in genes that the model does not know; warn below one half.

    Judged from runs of cells spread over the data. Some models leave out whole classes of genes on purpose (mitochondrial,
    ribosomal), so that low coverage is no error; without any, all cells look alike to the model.

    Raises
    ------
    ValueError
        Less than 1 % of the counts lie in genes of the model.
    """
    aligned = source.align(embedder.vocab, genes)
    for _ in aligned.blocks(rows=probe_rows(aligned.n_obs)):
        pass
    usual = getattr(embedder, "usual_coverage", 1.0)  # a student reads some genes on purpose
    if aligned.coverage >= LOW_COVERAGE * usual:
        return
    matched = int(aligned.alignment.matched.sum())
    told = (
        f"Only {aligned.coverage:.1%} of the counts lie in genes that {embedder.name!r} knows ({matched} of {source.n_vars} "
        f"genes). It expects {embedder.vocab.kind} names such as {embedder.vocab.names[0]!r}, found "
        f"{', '.join(map(repr, source.names[:3].tolist()))}. Check species and gene names with "
        "sc_drugresp.pp.harmonize_genes(adata)."
    )
    if aligned.coverage < NO_COVERAGE * usual and aligned.counts_seen:
        raise ValueError(told)
    warn(told)


def check_values(values: np.ndarray, empty: int, n_cells: int, model: str) -> None:
    """Tell about cells without an embedding, and about embeddings that are all alike.

    Parameters
    ----------
    values
        Embeddings of all cells, or of some of them, shape `(n, dim)`.
    empty, n_cells
        Cells without an embedding, of how many.
    model
        Name for the messages.

    Raises
    ------
    ValueError
        No cell has an embedding.
    """
    if empty == n_cells:
        msg = f"{model!r} could embed none of the {n_cells} cells: no known gene is expressed."
        raise ValueError(msg)
    if empty:
        warn(f"{empty} of {n_cells} cells have no gene that {model!r} can embed; their rows are NaN.")
    usable = values[~np.isnan(values).any(axis=1)]
    if len(usable) >= _FEWEST_CELLS:
        cosine = mean_cosine(usable[np.linspace(0, len(usable) - 1, min(len(usable), 500)).astype(int)])
        if cosine > COLLAPSED_COSINE:
            warn(f"Embeddings of {model!r} are nearly parallel (mean cosine {cosine:.3f}); check species and counts.")
