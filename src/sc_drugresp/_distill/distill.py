"""`models.distill`: a small network that gives the embedding of a large one."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.arguments import checked
from .._core.keys import RESPONSE
from .._core.log import logger, warn
from .._core.process import leaves_alone
from .._core.rng import Rng, seed_of
from .._core.versions import package_versions
from .._data.counts import read_counts
from .._data.modalities import as_adata, observations
from .._data.obs import has_labels, read_groups, read_labels
from .._stats.folds import profile_hashes, shared_profiles
from ..models.student import Student
from .split import JUDGE, LEARN, STOP, choose_cells, deal_samples
from .teacher import find_teacher

if TYPE_CHECKING:
    from typing import Annotated, TypeAlias

    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import PositiveFloat, PositiveInt, Range, Share
    from .._response.recipe import Recipe
    from ..models._encoder import CellEncoder
    from ..models._fitted import FittedEmbedder

    Genes: TypeAlias = Annotated[int, Range(least=2, most=5_000)]
    Width: TypeAlias = Annotated[int, Range(least=1, most=8_192)]
    Cells: TypeAlias = Annotated[int, Range(least=10)]


@checked
@leaves_alone
def distill(
    teacher: str | Recipe | CellEncoder | FittedEmbedder,
    data: AnnData | MuData,
    *,
    use_rep: str | None = None,
    group_key: str | None = None,
    label_key: str | None = RESPONSE,
    layer: str | None = None,
    n_genes: Genes = 2_000,
    width: Width = 512,
    epochs: PositiveInt = 50,
    patience: PositiveInt = 5,
    batch_size: PositiveInt = 256,
    learning_rate: PositiveFloat = 1e-3,
    held_out: Share = 0.3,
    validation: Share = 0.15,
    max_cells: Cells = 50_000,
    modality: str = "rna",
    rng: Rng = 0,
) -> Student:
    """Train a small network to give the embedding of a large model from counts, for millions of cells.

    Samples are dealt out to three parts: some teach, by some training stops, and the rest judges. Inputs are log1p counts per
    10,000 of the most variable genes among those that the teacher knows, and the depth; the network is a ridge regression and a perceptron with one residual block that learns to correct it. The loss is the mean squared error of the standardized embedding plus one minus the cosine of the centered one
    (distillation: :cite:p:`Hinton2015`). The ridge regression alone and as many principal components are judged on the same samples. A
    warning says when the student is no better than the ridge regression, or has learned nothing.

    Parameters
    ----------
    teacher
        `'model'` or `'model.checkpoint'`, a :class:`~sc_drugresp.tl.Recipe`, or a loaded model. Baselines are fitted to the
        cells of the samples that teach.
    data
        Annotated data with raw counts; a MuData with a modality of them. It is not changed.
    use_rep
        Embedding of the teacher in `.obsm`, as :func:`~sc_drugresp.tl.embed` wrote it, so that it is not computed again. One
        from elsewhere is taken as the work of what `teacher` names.
    group_key
        Column of `.obs` that names the sample (patient) of each cell; `None` looks for the usual names.
    label_key
        Column of `.obs` with labels, for the difference that heads make of the two embeddings; without it, and with `None`, that is left out.
    layer
        Matrix with raw counts; `None` finds it.
    n_genes
        Most genes to read.
    width
        Width of the hidden layers.
    epochs, patience
        Most epochs, and epochs without a lower loss on the samples by which training stops.
    batch_size
        Cells in a batch; only the rows of a batch are ever dense.
    learning_rate
        Highest learning rate of AdamW.
    held_out, validation
        Shares of the samples that judge, and by which training stops; at least one sample each.
    max_cells
        Most cells that the teacher embeds and that are learned from and judged on: random ones, the same share of every sample.
    modality
        Modality of a MuData.
    rng
        Seed of the samples, the weights and the order of cells, or a generator to draw it from. Global generators are left alone.

    Returns
    -------
    The student, with what was measured in `fidelity` and :meth:`~sc_drugresp.models.Student.fidelity_df`. Save it with
    :meth:`~sc_drugresp.models.Student.save`; `tl.embed(adata, "student", checkpoint=folder)` embeds with it.

    Raises
    ------
    ValueError
        There is no such teacher, there are no raw counts, fewer than three samples, or `use_rep` is another model's or was
        fitted to these cells.
    KeyError
        `use_rep`, `group_key`, `label_key`, `layer` or `modality` does not exist.
    FileNotFoundError
        Files of the teacher are missing and cannot be downloaded.
    RuntimeError
        The loss is no finite number.

    Examples
    --------
    >>> import warnings
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=8, cells_per_sample=40)
    >>> with warnings.catch_warnings(
    ...     action="ignore"
    ... ):  # PCA is linear: a ridge regression would do, and a warning says so
    ...     student = sdr.models.distill("pca", adata, group_key="sample", epochs=2, width=32)
    >>> student.name
    'student(pca)'
    >>> student.embed(adata).shape
    (320, 50)
    """
    seed = seed_of(rng)
    adata, obs = as_adata(data, modality=modality), observations(data, modality=modality)
    group_key, groups = read_groups(obs, group_key)
    y = read_labels(obs, label_key) if label_key is not None and has_labels(obs, label_key) else None
    deal_samples(groups, y, held_out=held_out, validation=validation, seed=seed)  # are there enough?
    source = read_counts(adata, layer=layer)
    found = find_teacher(teacher, adata, use_rep)

    from .cells import read_cells
    from .fidelity import Labels, measure
    from .naive import Naive, regress
    from .scales import Scales
    from .train import Settings, train_student

    usable = np.ones(len(groups), dtype=bool) if found.values is None else np.isfinite(found.values).all(axis=1)
    rows = choose_cells(groups, usable, max_cells, seed)
    copied = shared_profiles(profile_hashes(source.take(rows).blocks(), len(rows)), groups[rows])
    if copied.any():
        warn(f"{int(copied.sum())} cells are copies of cells of another sample; nothing is learned from them.")
    rows = rows[~copied]
    how: dict[str, Any] = {"held_out": held_out, "validation": validation, "seed": seed}
    part = deal_samples(groups[rows], None if y is None else y[rows], **how)
    sets = np.unique(groups[rows], return_inverse=True)[1]
    wanted = found.embed(adata, rows, sets, part == LEARN, layer=layer, seed=seed)
    cells = read_cells(source, rows, found.vocab, part == LEARN, n_genes)
    known = np.isfinite(wanted).all(axis=1) & ~cells.empty
    rows, part, wanted, cells = rows[known], part[known], wanted[known], cells.take(known)
    _check_parts(part)

    train, stop, judge = (np.flatnonzero(part == one) for one in (LEARN, STOP, JUDGE))
    scales = Scales.of(cells.profiles[train], wanted[train])
    targets = scales.standardized(wanted)
    settings = Settings(width, epochs, patience, batch_size, learning_rate)
    logger.info("training on %d cells, stopping by %d, judging on %d", len(train), len(stop), len(judge))
    naive = Naive(cells.profiles[train], targets[train], scales)
    regression = naive.ridge(cells.profiles[stop], targets[stop])
    arrays, history = train_student(
        cells.profiles, targets, scales, regression, train=train, stop=stop, settings=settings, seed=seed
    )
    data_told = {
        "n_cells": len(rows),
        "group_key": group_key,
        "samples": {name: np.unique(groups[rows[at]]).tolist() for name, at in zip(_PARTS, (train, stop, judge))},
        "cells": {name: len(at) for name, at in zip(_PARTS, (train, stop, judge))},
        "genes_sha256": hashlib.sha256("\n".join(map(str, source.names)).encode()).hexdigest(),
        "counts_covered": cells.coverage,
    }
    training = {**vars(settings), "rng": seed, "history": history, "versions": package_versions()}
    student = Student(cells.genes, cells.gene_kind, arrays, found.identity, {}, data_told, training)

    everything = cells.profiles
    ridge = scales.restored(regression.predict(everything))
    (components,) = naive.components(wanted.shape[1], everything)
    by_components = scales.restored(regress(components[train], targets[train], components[judge]))
    own = np.concatenate([student.embed_profiles(everything[at : at + 4096]) for at in range(0, len(rows), 4096)])
    labels = None
    if y is not None:
        labels = Labels(y[rows], groups[rows], (part != JUDGE) & (y[rows] >= 0), (part == JUDGE) & (y[rows] >= 0))
    student.fidelity = measure(
        {"student": (own[judge], own), "ridge": (ridge[judge], ridge), "pca": (by_components, components)},
        wanted,
        scales,
        groups[rows],
        part == JUDGE,
        labels if labels is not None and labels.usable else None,
        seed=seed,
    )
    if student.fidelity["verdict"] != "OK":
        warn(student.fidelity["reason"])
    return student


_PARTS = ("learned", "stopped_by", "held_out")


def _check_parts(part: np.ndarray) -> None:
    """Refuse to train where a part has lost its cells.

    Raises
    ------
    ValueError
        A part has fewer than three cells.
    """
    sizes = [int((part == one).sum()) for one in (LEARN, STOP, JUDGE)]
    if min(sizes) < 3:
        msg = (
            f"Distilling needs at least 3 cells with counts and an embedding of the teacher in each part of the samples "
            f"(`group_key`), found {sizes[0]} to learn from, {sizes[1]} to stop by and {sizes[2]} to be judged on."
        )
        raise ValueError(msg)
