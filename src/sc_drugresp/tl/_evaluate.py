"""`tl.evaluate`: what a score is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from .._core.docs import (
    doc_copy,
    doc_data,
    doc_group_key,
    doc_key_added,
    doc_label_key,
    doc_layer,
    doc_modality,
    doc_params,
)
from .._core.keys import EvaluationKeys
from .._core.log import logger, warn
from .._data.counts import read_counts
from .._data.modalities import as_adata
from .._data.obs import read_labels, require_both_classes
from .._evaluate.card import data_hash, package_versions
from .._evaluate.inputs import Design, genes_chosen_before, labeled_source, model_features, read_design
from .._evaluate.naive import (
    naive_features,
)
from .._evaluate.table import FEW_SHOT, POOLED, STRICT, Run, Table, runs_removed
from .._evaluate.tuned import Tuning, check_folds, check_tuned
from .._stats import folds as splits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

    from .._stats.folds import Fold


Protocol = Literal["leave_group_out", "pooled", "cross_dataset", "scdrugmap_pooled", "scdrugmap_cross"]
HoldOut = Literal["pairs", "one"]
HeadName = Literal["logistic", "mlp"]
Mode = Literal["frozen", "lora", "full"]


@doc_params(
    data=doc_data,
    label_key=doc_label_key,
    group_key=doc_group_key,
    layer=doc_layer,
    modality=doc_modality,
    key_added=doc_key_added,
    copy=doc_copy,
)
def evaluate(
    data: AnnData | MuData,
    *,
    use_rep: str | Sequence[str] | None = None,
    model: str | Sequence[str] | None = None,
    label_key: str = "response",
    group_key: str | None = None,
    dataset_key: str | None = None,
    protocol: Protocol = "leave_group_out",
    split: str = "auto",
    hold_out: HoldOut = "pairs",
    head: HeadName = "logistic",
    mode: Mode = "frozen",
    checkpoint: str | PathLike[str] | None = None,
    obs_features: Sequence[str] = (),
    baselines: bool = True,
    few_shot: Sequence[int] = (1, 3, 5, 10),
    n_boot: int = 1000,
    n_permutations: int = 1000,
    n_refits: int = 0,
    allow_leaks: bool = False,
    layer: str | None = None,
    modality: str = "rna",
    rng: int = 0,
    key_added: str | None = None,
    copy: bool = False,
    **options: Any,
) -> AnnData | MuData | None:
    """Score how well embeddings predict drug response in samples that were not learned from.

    Everything that is fitted (genes, components, scaling, penalty, head) is fitted inside the folds. The strict score
    stands beside that of a random split of cells, whose excess is the leakage gap, and beside what answers score that
    know nothing about drug response. Intervals and p-values count samples, not cells. The score is P(sensitive).

    Where the response is the same thing as a sample, batch, time point or drug, the verdict is `ALIASED` and there is
    no strict score: nothing can be concluded from such data about other samples.

    Parameters
    ----------
    {data}
    use_rep
        Keys of `.obsm`. Embeddings that :func:`~sc_drugresp.tl.embed` fitted to these cells (`pca`, `hvg`, `scvi`) are
        fitted again in every fold.
    model
        Names of models to embed with. Without `use_rep`, `model` and `obs_features`, all embeddings that
        :func:`~sc_drugresp.tl.embed` wrote are evaluated, else `'pca'`.
    {label_key}
    {group_key}
    dataset_key
        Column of `.obs` with the data set. `None` takes `dataset` or `study` where they are there.
    protocol
        `'leave_group_out'` holds out whole data sets, patients or samples; `'pooled'` splits cells at random;
        `'cross_dataset'` learns from some data sets and tests on another, without and with a few labeled samples of it;
        `'scdrugmap_pooled'` and `'scdrugmap_cross'` repeat the protocol of scDrugMap (arXiv 2505.05612): its head,
        optimizer, epochs, batches, and 80 % of the cells by seed 24, or whole data sets (that part of its code is not
        public; ours is stated here).
    split
        `'auto'` takes the strictest split whose training folds hold both classes (data set, patient or cell line,
        sample, batch); `'group'` holds out `group_key` as it is; any other value is a column of `.obs` with your own
        folds (missing: never tested). Splits of yours are refused if they leak.
    hold_out
        `'pairs'` holds out a sensitive and a resistant sample at a time, so that every training set has the same balance;
        `'one'` holds out one at a time (the usual leave-one-out), which pulls scores without signal below 0.5. Beyond 20
        samples, both are ten class-stratified folds.
    head
        `'logistic'` (class- and sample-balanced; the penalty is tuned over the training samples of each fold, and is 1 as
        in scikit-learn under a random split of cells, where nobody looks at samples) or
        `'mlp'` (scDrugMap's; always used in its protocols).
    mode
        `'lora'` and `'full'` tune every foundation model of `model` anew in every fold, on its training samples alone
        (row `<model>.lora`), and evaluate it as it is on the same folds beside it (row `<model>`).
    checkpoint
        Folder with the files of the foundation model in `model`.
    obs_features
        Columns of `.obs` to evaluate as a row of their own, for example clinical covariates.
    baselines
        Add the naive rows.
    few_shot
        Numbers of labeled samples of the target, for `'cross_dataset'`.
    n_boot
        Bootstrap draws over samples; 0 leaves out all intervals but those of AUROC.
    n_permutations
        Arrangements of the sample labels for the p-values of AUROC; all of them are tried where they are at most 10,000.
        Scores are held fixed, which is slightly liberal for cross-validated scores. A random split of cells gets no such
        p-value, since it rewards recognizing samples.
    n_refits
        Take the p-values from so many refits of each model to labels dealt out to the samples at random instead: exact,
        and slow. 99 or more are needed for a p-value of 0.01.
    allow_leaks
        Score splits and features that are known to leak; what leaks is recorded.
    {layer}
    {modality}
    rng
        Seed.
    {key_added}
    {copy}
    options
        Options of the foundation models in `model`; for the tuned modes also settings of
        :class:`~sc_drugresp.tl.FineTuning`.

    Returns
    -------
    `None`, or the changed copy if `copy=True`. Sets the following fields:

    `.uns['evaluation' | key_added]` : :class:`dict`
        `metrics` (tidy: model, kind, protocol, n_labeled, dataset, level, metric, value, low, high, n_groups, p_value,
        caution), `leakage_gap`, `folds`, `samples` (mean score per sample), `design`, `verdict` (`code`, `reason`,
        `suggestions`), `power`, `comparison` (with several models and data sets), `params`, `data`, `versions`, `command`.
    `.obs['evaluation_prob' | key_added + '_prob']` : :class:`float`
        P(sensitive) of each labeled cell by a head that did not see it, for the first model.
    `.obs['evaluation_fold' | key_added + '_fold']` : :class:`pandas.Categorical`
        Fold that tested the cell.

    Raises
    ------
    ValueError
        One class only, a split that is not possible or leaks, or a fold with too few samples to tune on.
    TypeError
        There is no such option.
    KeyError
        A column or embedding does not exist.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100)
    >>> sdr.tl.evaluate(adata, model="pca", baselines=False, n_boot=50)
    >>> adata.uns["evaluation"]["verdict"]["code"]
    'UNDERPOWERED'
    """
    _validate(
        {"protocol": (protocol, Protocol), "head": (head, HeadName), "hold_out": (hold_out, HoldOut)},
        (n_boot, n_permutations, n_refits),
        few_shot,
    )
    check_tuned(mode, _listed(model), head, protocol, n_refits, options)
    adata = as_adata(data, modality=modality)
    y = read_labels(adata.obs, label_key)
    require_both_classes(y, label_key)
    design = read_design(
        adata,
        y,
        group_key=group_key,
        dataset_key=dataset_key,
        split=split,
        allow_leaks=allow_leaks,
        pairs=hold_out == "pairs",
        rng=rng,
    )
    source = labeled_source(read_counts(adata, layer=layer, expect="any"), design.rows)
    listed = model_features(
        adata,
        design,
        use_rep=_listed(use_rep),
        model=_listed(model),
        obs_features=list(obs_features),
        layer=layer,
        source=source,
        label_key=label_key,
        allow_leaks=allow_leaks,
        rng=rng,
        tuning=Tuning(mode, head, checkpoint, options),
    )
    head = "mlp" if protocol.startswith("scdrugmap") else head
    hashes = splits.profile_hashes(source.blocks(), source.n_obs)
    runs = _folds(design, hashes, protocol, few_shot, rng)
    if not design.plan.strict:
        warn(f"{design.plan.verdict} Only the score of a random split of cells is given.")
    check_folds([features for features, _ in listed], [fold for run in runs.values() for fold in run.folds])
    table = Table(design, n_boot=n_boot, n_permutations=n_permutations, n_refits=n_refits, rng=rng)
    naive = naive_features(source, design.units, rng=rng) if baselines else {}
    for name, run in runs.items():
        for features, caution in listed:
            table.add_model(features, name, run, head=head, caution=caution)
        if baselines and name != FEW_SHOT:
            table.add_naive(naive, name, run)

    from .._evaluate.result import collect

    params = {
        "protocol": protocol,
        "split": split,
        "hold_out": hold_out,
        "level": design.plan.level,
        "label_key": label_key,
        "level_key": design.keys.get(design.plan.level, group_key or ""),
        "group_key": design.unit_key or group_key or "",
        "dataset_key": design.keys.get("dataset", ""),
        "head": head,
        "mode": mode,
        "options": np.array([f"{name}={value!r}" for name, value in options.items()], dtype=str),
        "n_boot": n_boot,
        "n_permutations": n_permutations,
        "n_refits": n_refits,
        "layer": source.origin,
        "rng": int(rng),
        "allow_leaks": allow_leaks,
        "models": np.array([features.name for features, _ in listed], dtype=str),
        "use_rep": np.array(_listed(use_rep), dtype=str),
        "model": np.array(_listed(model), dtype=str),
        "obs_features": np.array(list(obs_features), dtype=str),
    }
    notes = {"duplicates_removed": runs_removed(runs), "genes": genes_chosen_before(adata), "leaks": design.leaks}
    digest = data_hash(hashes, design.y, design.units)
    result = collect(design, table.rows, table.predictions, runs, params=params, notes=notes, digest=digest)
    result["versions"] = package_versions()
    target = data.copy() if copy else data
    _write(as_adata(target, modality=modality), design, table, result, runs, EvaluationKeys.of(key_added))
    return target if copy else None


def _folds(design: Design, hashes: np.ndarray, protocol: Protocol, few_shot: Sequence[int], rng: int) -> dict[str, Run]:
    """Folds of the protocol that was asked for, then of those that stand beside it."""
    y, datasets = design.y, design.datasets
    runs: dict[str, Run] = {}
    if protocol in ("cross_dataset", "scdrugmap_cross"):
        runs[protocol] = Run(*splits.without_duplicates(splits.cross_dataset(y, datasets), hashes))
    if protocol == "cross_dataset" and few_shot:
        shots = splits.few_shot(y, datasets, design.units, (0, *few_shot), rng=rng)
        if shots:
            runs[FEW_SHOT] = Run(*splits.without_duplicates(shots, hashes))
        else:
            logger.warning(
                "no data set has enough samples of both classes to give some of them away: no few-shot scores"
            )
    if protocol == "scdrugmap_pooled":
        # As published, copies and all.
        runs[protocol] = Run(splits.scdrugmap_pooled(len(y)))
    if design.folds:
        clean, removed = splits.without_duplicates(design.folds, hashes)
        remake = design.remake

        def again(labels: np.ndarray) -> list[Fold]:
            return splits.without_duplicates(remake(labels), hashes)[0]

        runs[STRICT] = Run(clean, removed, again)
    random = Run(splits.pooled(y, rng=rng), remake=lambda labels: splits.pooled(labels, rng=rng))
    return {POOLED: random, **runs} if protocol == "pooled" else {**runs, POOLED: random}


def _validate(choices: dict[str, tuple[str, Any]], numbers: tuple[int, ...], few_shot: Sequence[int]) -> None:
    for name, (value, allowed) in choices.items():
        if value not in get_args(allowed):
            msg = f"`{name}` must be one of {get_args(allowed)}, found {value!r}."
            raise ValueError(msg)
    if min(*numbers, *few_shot) < 0:
        msg = (
            f"Numbers of draws, refits and labeled samples must not be negative, found {numbers} and {list(few_shot)}."
        )
        raise ValueError(msg)


def _listed(value: str | Sequence[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _write(
    adata: AnnData,
    design: Design,
    table: Table,
    result: dict[str, Any],
    runs: dict[str, Run],
    keys: EvaluationKeys,
) -> None:
    """Write all slots at once, after everything has been computed."""
    import pandas as pd

    model, protocol = result["params"]["models"][0], next(iter(runs))
    out, names = table.predictions[model, protocol], [fold.name for fold in runs[protocol].folds]
    prob = np.full(adata.n_obs, np.nan)
    prob[design.rows] = out.prob
    fold = np.full(adata.n_obs, -1)
    fold[design.rows] = out.fold
    result["params"] |= {"prob_model": model, "prob_protocol": protocol}
    adata.obs[keys.prob] = prob
    adata.obs[keys.fold] = pd.Categorical.from_codes(fold, categories=pd.Index(names))
    adata.uns[keys.uns] = result
    logger.info(
        "added\n    %r, P(sensitive) out of fold (adata.obs)\n    %r, the fold (adata.obs)\n    %r, scores and verdict "
        "(adata.uns)",
        keys.prob,
        keys.fold,
        keys.uns,
    )
