"""`tl.embed`: one door to every embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import EmbeddingKeys
from .._core.log import logger
from .._core.rng import Rng, seed_of
from .._data.modalities import Target
from .._data.obs import set_codes
from .._embed.coverage import check_values
from .._embed.job import Job
from .._embed.slots import last_sequence
from .._response.recipe import Recipe
from ..models._registry import find

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import PositiveInt, SlotName


@doc_params()
@checked
def embed(
    data: AnnData | MuData | str | PathLike[str],
    model: str,
    *,
    checkpoint: str | PathLike[str] | None = None,
    layer: str | None = None,
    genes: Literal["auto", "exact"] = "auto",
    group_key: str | None = None,
    batch_tokens: PositiveInt | None = None,
    key_added: SlotName | None = None,
    modality: str = "rna",
    rng: Rng = 0,
    copy: bool = False,
    **options: Any,
) -> AnnData | MuData | None:
    """Embed cells with a foundation model or a baseline.

    A cell's embedding depends on its counts, the checkpoint and `rng`; not on its neighbors, their order or
    `batch_tokens`. Models that look at many cells at once are marked `set_based` in
    :func:`~sc_drugresp.models.table`, and baselines (`pca`, `hvg`, `scvi`) are fitted to the cells that they embed.

    Parameters
    ----------
    {cells}
    model
        `'model'` or `'model.checkpoint'`, see :func:`~sc_drugresp.models.table`; or `'llm:<folder or repository>'` for a
        language model, which reads cells as sentences, see :doc:`/explanation/cells_as_sentences`.
    checkpoint
        Folder with the published files, or the weights file in it. `None` uses the cache and downloads what is missing.
    {layer}
    genes
        `'auto'` matches genes by symbol, Ensembl id, previous and alias symbols and adds the counts of duplicates;
        `'exact'` does what the original software does.
    group_key
        Column of `.obs` that names the set of each cell, for set-based models; use the sample.
    batch_tokens
        Most padded tokens in a batch. Lower it when memory runs out; the result stays the same.
    {key_added}
    {modality}
    {rng}
    {copy}
    options
        Options of the model (pooling, length limit, number of components ...), see its page; `verify=False` takes
        files of a checkpoint that are not the published ones, see :func:`~sc_drugresp.models.load`.

    Returns
    -------
    `None`, the changed copy if `copy=True`, or the opened object if `data` is a path. Sets the following fields:

    `.obsm['X_<model>' | key_added]` : :class:`numpy.ndarray` (shape `(n_obs, dim)`, dtype `float32`)
        One row per cell; NaN rows for cells without any known gene where the model cannot embed them.
    `.uns['<model>' | key_added]` : :class:`dict`
        `params`, `checkpoint` (name, file, hash and source), `genes` (matched, duplicates, share of counts covered) and `cells`
        (how many could not be embedded); of language models also `sentences` (genes expressed and written, cells that were cut).

    Raises
    ------
    ValueError
        Unknown model, no raw counts where the model needs them, or less than 1 % of the counts in genes that it knows.
    TypeError
        The model has no such option.
    FileNotFoundError
        There is no such file, or files of the checkpoint are missing and cannot be downloaded.
    KeyError
        `layer`, `group_key` or `modality` does not exist.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=4, cells_per_sample=20)
    >>> sdr.tl.embed(adata, "pca", n_comps=10)
    >>> adata.obsm["X_sdr_pca"].shape
    (80, 10)
    """
    recipe = Recipe(model, checkpoint=checkpoint, options=options)
    model = recipe.model  # as the table spells it
    spec, row = find(model)
    seed, target = seed_of(rng), Target(data, modality, copy, key_added)
    adata, groups = target.adata, set_codes(target.obs, group_key)
    job = Job.of(adata, model, spec, recipe.load, layer=layer, genes=genes, seed=seed, groups=groups, options=options)
    values = job.run(batch_tokens)
    empty = int(np.isnan(values).any(axis=1).sum())
    check_values(values, empty, model)

    keys = EmbeddingKeys.of(model if row is not None else spec.slot, key_added)
    note = job.note(group_key=group_key, not_embedded=empty)
    note |= {"obsm": keys.obsm, "sequence": 1 + last_sequence(adata)}
    out = target.write(obsm={keys.obsm: values}, uns={keys.uns: note})
    told = "added\n    %r, the %s embedding (adata.obsm)\n    %r, its parameters (adata.uns)"
    logger.info(told, keys.obsm, spec.title, keys.uns)
    return out
