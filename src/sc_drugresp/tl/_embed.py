"""`tl.embed`: one door to every embedding."""

from __future__ import annotations

from pathlib import Path
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
from .._embed.estimate import estimate, told
from .._embed.job import Job
from .._embed.lazily import lazy_embedding
from .._embed.run import Into
from .._embed.slots import last_sequence, slot_base
from .._embed.values import some_values, values_of
from .._response.recipe import Recipe
from ..models._hub import to_fetch
from ..models._registry import find

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import BatchTokens, Engine, NonNegativeInt, Precision, SlotName
    from .._embed.estimate import Estimate
    from .._embed.progress import EmbeddingRun


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
    batch_tokens: BatchTokens = "auto",
    key_added: SlotName | None = None,
    modality: str = "rna",
    rng: Rng = 0,
    engine: Engine = "torch",
    precision: Precision = "float32",
    lazy: bool = False,
    copy: bool = False,
    out: str | PathLike[str] | None = None,
    shard: Sequence[NonNegativeInt] | None = None,
    check_blocks: Literal["sample", "all"] = "sample",
    allow_partial: bool = False,
    dry_run: bool = False,
    **options: Any,
) -> AnnData | MuData | EmbeddingRun | Estimate | None:
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
        Of a `'student'`, the folder in which it was saved.
    {layer}
    genes
        `'auto'` matches genes by symbol, Ensembl id, previous and alias symbols and adds the counts of duplicates;
        `'exact'` does what the original software does.
    group_key
        Column of `.obs` that names the set of each cell, for set-based models; use the sample.
    batch_tokens
        Most padded tokens in a batch. `'auto'` starts with `settings.batch_tokens`, on a CPU with what its caches hold.
        Where memory runs out, the batch is halved, and those after it stay as small; the result stays the same.
    {key_added}
    {modality}
    {rng}
    engine
        `'openvino'` (`pip install 'sc-drugresp[fast]'`) computes the same numbers (to 1e-5) faster on a CPU. CellPLM, scBERT and
        CellLM cannot be converted.
    precision
        `'bfloat16'` rounds the factors of products to 8 bits: faster, with an error that :doc:`/explanation/speed` states.
    lazy
        Compute nothing now: with a matrix that is a dask array, the embedding becomes one too, to be computed by the scheduler
        that you choose, such as the workers of your `dask.distributed.Client`, see :doc:`/how_to/cluster`. Workers get a
        description of the model and load its files themselves. Not for models that look at sets or are fitted.
    {copy}
    out
        Name of a zarr store to write the embedding to, block by block, for more cells than fit into memory and runs that
        may be killed: the same call again goes on where the last one stopped, and ends with the same bits. Blocks have
        `settings.block_cells` cells. Not for set-based models.
    shard
        `(i, n)`, `i` counted from 0: compute the i-th of `n` parts of the blocks alone. Processes on several machines that
        share a disk can so fill one store.
    check_blocks
        Finished blocks in `out` that are read again and compared with their recorded SHA-256: the last one of each process
        and one in a hundred of the others, or all. Damaged ones are computed again.
    allow_partial
        Compute nothing; take what is finished in `out`. Rows of other cells are NaN, and a warning counts them.
    dry_run
        Compute and write nothing, but return and print an :class:`~sc_drugresp.tl.Estimate`: tokens, time (from a probe of
        two seconds on this device with cells of these lengths), memory, disk and download. Nothing is downloaded; without
        the files of the model, a network of its size with random weights is timed.
    options
        Options of the model (pooling, length limit, number of components ...), see its page; `verify=False` takes
        files of a checkpoint that are not the published ones, see :func:`~sc_drugresp.models.load`.

    Returns
    -------
    `None`, the changed copy if `copy=True`, or the opened object if `data` is a path; the estimate of `dry_run=True`. With
    `shard`, an :class:`~sc_drugresp.tl.EmbeddingRun`, which says what is finished, and nothing is set; once all shards are, the
    call without `shard` sets the fields. Sets the following fields:

    `.obsm['X_<model>' | key_added]` : :class:`numpy.ndarray` (shape `(n_obs, dim)`, dtype `float32`)
        One row per cell; NaN rows for cells without any known gene where the model cannot embed them. With `out` and a
        path, a dask array that stays on the disk, if dask is installed. With `lazy` a :class:`dask.array.Array` of the same
        values in chunks of `settings.block_cells` rows. Whatever reads it computes it: compute it once and write it back, or to
        a file.
    `.uns['<model>' | key_added]` : :class:`dict`
        `params`, `checkpoint` (name, file, hash and source), `device` (where it was computed), `genes` (matched, duplicates,
        share of counts covered) and `cells` (how many could not be embedded); with `out`, `store` (path, blocks and
        fingerprint). With `lazy`, what only the values tell is left out: the share of counts covered and the number of cells
        that could not be embedded, and the device. Of a student, also `teacher`: its name, hash, license, and how
        close the student comes to it; of language models `sentences` (genes expressed and written, cells
        that were cut). The slots of a student are `X_student_<teacher>` and `student_<teacher>`.

    Raises
    ------
    ValueError
        Unknown model, an engine that it cannot be converted for, no raw counts where the model needs them, or less than 1 % of
        the counts in genes that it knows.
        `out` holds the run of another model, of other options or other cells; the message names what differs.
    OSError
        The disk of `out` is full or fails, or another process computes the same blocks. What is finished is safe; the
        message says what to do.
    TypeError
        The model has no such option, or `lazy=True` and the matrix is no dask array.
    FileNotFoundError
        There is no such file, or files of the checkpoint are missing and cannot be downloaded.
    ImportError
        The engine is not installed, or `lazy=True` and dask is not.
    KeyError
        `layer`, `group_key` or `modality` does not exist.
    MemoryError
        There is not enough memory for a single cell.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=4, cells_per_sample=20)
    >>> sdr.tl.embed(adata, "pca", n_comps=10)
    >>> adata.obsm["X_sdr_pca"].shape
    (80, 10)
    >>> sdr.tl.embed(adata, "pca", dry_run=True).disk_bytes  # doctest: +ELLIPSIS
        cells  80 with pca on cpu (fitted to these cells)
    ...
    16000

    Into a store, from which it can be read without this package, too:

    >>> sdr.tl.embed(adata, "pca", n_comps=10, out="cells.zarr")  # doctest: +SKIP
    """
    if lazy and checkpoint is not None:  # a worker may run in another folder
        checkpoint = Path(checkpoint).expanduser().absolute()
    how: dict[str, Any] = {"engine": engine, "precision": precision}
    recipe = Recipe(model, checkpoint=checkpoint, options=options, **how)
    model = recipe.model  # as the table spells it
    spec, row = find(model)
    if lazy and out is not None:
        msg = "`lazy` leaves computing to your scheduler, `out` computes now, block by block: pass one of them."
        raise ValueError(msg)
    into = Into.of(out, shard, check_blocks, partial=allow_partial, spec=spec)
    seed, target = seed_of(rng), Target(data, modality, copy, key_added)
    adata, groups = target.adata, set_codes(target.obs, group_key)
    asked: Any = {"layer": layer, "genes": genes, "seed": seed, "groups": groups, "options": options} | how
    missing = to_fetch(spec, row, checkpoint) if dry_run and row is not None else []
    if missing:
        return told(estimate(Job.supposed(adata, model, spec, **asked), missing, batch_tokens))
    job = Job.of(adata, model, spec, recipe.load, lazy=lazy, **asked)
    if dry_run:
        return told(estimate(job, [], batch_tokens))
    about: dict[str, Any] = {}
    values: Any
    if lazy:
        values, empty = lazy_embedding(job, recipe.load, batch_tokens), None
    elif into is None:
        values = job.run(batch_tokens)
        empty = int(np.isnan(values).any(axis=1).sum())
        check_values(values, empty, adata.n_obs, model)
    else:
        run, store = into.run(job, data, adata, batch_tokens)
        if shard is not None:
            return run
        values, empty, about = values_of(store, run, lazily=target.opened), run.not_embedded, {"store": run.note()}
        check_values(some_values(store, run), empty, adata.n_obs - run.cells_missing, model)

    keys = EmbeddingKeys.of(slot_base(model, job.embedder), key_added)
    note = job.note(group_key=group_key, not_embedded=empty) | about
    note |= {"obsm": keys.obsm, "sequence": 1 + last_sequence(adata)}
    changed = target.write(obsm={keys.obsm: values}, uns={keys.uns: note})
    text = "added\n    %r, the %s embedding (adata.obsm)\n    %r, its parameters (adata.uns)"
    logger.info(text, keys.obsm, spec.title, keys.uns)
    return changed
