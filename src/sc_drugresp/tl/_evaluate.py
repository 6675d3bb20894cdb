"""`tl.evaluate`: what a score is worth."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.calls import call_text
from .._core.checks import check_choice
from .._core.docs import (
    doc_copy,
    doc_data,
    doc_group_key,
    doc_key_added,
    doc_label_key,
    doc_layer,
    doc_modality,
    doc_params,
    doc_rng,
)  # fmt: skip
from .._core.keys import EvaluationKeys
from .._core.log import logger
from .._core.rng import Rng, seed_of
from .._data.modalities import Target, as_adata, observations
from .._data.obs import read_labels, require_both_classes
from .._evaluate.options import EvaluationOptions
from .._evaluate.protocols import Protocol
from .._response.heads import HeadKind
from .._response.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

    from .._evaluate.cohort import Cohort
    from .._evaluate.run import Evaluation


@doc_params(
    data=doc_data,
    label_key=doc_label_key,
    group_key=doc_group_key,
    layer=doc_layer,
    modality=doc_modality,
    rng=doc_rng,
    key_added=doc_key_added,
    copy=doc_copy,
)
def evaluate(
    data: AnnData | MuData,
    *,
    use_rep: str | Sequence[str] | None = None,
    model: str | Recipe | Sequence[str | Recipe] | None = None,
    label_key: str = "response",
    group_key: str | None = None,
    dataset_key: str | None = None,
    protocol: Protocol = "leave_group_out",
    split: str = "auto",
    head: HeadKind = "logistic",
    options: EvaluationOptions | None = None,
    layer: str | None = None,
    modality: str = "rna",
    rng: Rng = 0,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Score how well embeddings predict drug response in samples that were not learned from.

    Everything that is fitted (genes, components, scaling, penalty, head) is fitted inside the folds. The strict score
    stands beside that of a random split of cells, whose excess is the leakage gap, and beside naive baselines. Intervals
    and p-values count samples, not cells. The score is P(sensitive).

    Where the response is the same thing as a sample, batch, time point or drug, the verdict is `ALIASED` and there is
    no strict score: nothing can be concluded from such data about other samples.

    Parameters
    ----------
    {data}
    use_rep
        Keys of `.obsm`. Embeddings that :func:`~sc_drugresp.tl.embed` fitted to these cells (`pca`, `hvg`, `scvi`) are
        fitted again in every fold.
    model
        Models to embed with, by name or as a :class:`~sc_drugresp.tl.Recipe` (another checkpoint, options, LoRA). A tuned
        model is tuned anew in every fold, on its training samples alone, beside the same model as published. Without
        `use_rep` and `model`, all embeddings that :func:`~sc_drugresp.tl.embed` wrote are evaluated, else `'pca'`.
    {label_key}
    {group_key}
    dataset_key
        Column of `.obs` with the data set. `None` takes `dataset` or `study` where they are there.
    protocol
        `'leave_group_out'` holds out whole data sets, patients or samples; `'pooled'` splits cells at random;
        `'cross_dataset'` learns from some data sets and tests on another, without and with a few labeled samples of it.
    split
        `'auto'` takes the strictest split whose training folds hold both classes (data set, patient or cell line,
        sample, batch); `'group'` holds out `group_key` as it is; any other value is a column of `.obs` with your own
        folds (missing: never tested). Splits of yours are refused if they leak.
    head
        `'logistic'` (class- and sample-balanced; the penalty is tuned over the training samples of each fold, and is 1 as
        in scikit-learn under a random split of cells, where nobody looks at samples) or `'mlp'` (scDrugMap's).
    options
        Numbers of draws, naive baselines, columns of `.obs` as a row and so on, see
        :class:`~sc_drugresp.tl.EvaluationOptions`.
    {layer}
    {modality}
    {rng}
    {key_added}
    {copy}

    Returns
    -------
    `None`, or the changed copy if `copy=True`. Sets the following fields:

    `.uns['evaluation' | key_added]` : :class:`dict`
        `metrics` (tidy: model, kind, protocol, n_labeled, dataset, level, metric, value, low, high, n_groups, p_value,
        caution), `leakage_gap`, `folds`, `samples` (mean score per sample), `design`, `verdict` (`code`, `reason`,
        `suggestions`, `cautions`), `power`, `comparison` (with several models and data sets), `params`, `data`,
        `versions`, and `command`, the call that repeats the evaluation.
    `.obs['evaluation_prob' | key_added + '_prob']` : :class:`float`
        P(sensitive) of each labeled cell by a head that did not see it, for the first model.
    `.obs['evaluation_fold' | key_added + '_fold']` : :class:`pandas.Categorical`
        Fold that tested the cell.

    Raises
    ------
    ValueError
        One class only, a split that is not possible or leaks, or a fold with too few samples to tune on.
    TypeError
        A model has no such option.
    KeyError
        A column or embedding does not exist.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100)
    >>> sdr.tl.evaluate(adata, model="pca", options=sdr.tl.EvaluationOptions(baselines=False, n_boot=50))
    >>> adata.uns["evaluation"]["verdict"]["code"]
    'UNDERPOWERED'
    """
    check_choice("protocol", protocol, Protocol)
    check_choice("head", head, HeadKind)
    options = EvaluationOptions() if options is None else options
    if not isinstance(options, EvaluationOptions):
        msg = f"`options` must be a sc_drugresp.tl.EvaluationOptions, found {type(options).__name__}."
        raise TypeError(msg)
    slots, named = _listed(use_rep), _listed(model)
    recipes = [item if isinstance(item, Recipe) else Recipe(item) for item in named]
    if options.n_refits and any(recipe.tuned for recipe in recipes):
        msg = "`n_refits` refits heads to permuted labels, not encoders; use n_refits=0 with a tuned model."
        raise ValueError(msg)
    seed, target = seed_of(rng), Target(data, modality, copy)
    asked = {
        "use_rep": use_rep,
        "model": model,
        "label_key": label_key,
        "group_key": group_key,
        "dataset_key": dataset_key,
    }
    asked |= {
        "protocol": protocol,
        "split": split,
        "head": head,
        "options": options,
        "layer": layer,
        "modality": modality,
    }
    asked |= {"rng": seed, "key_added": key_added}
    defaults = {name: item.default for name, item in inspect.signature(evaluate).parameters.items()}
    command = call_text("sdr.tl.evaluate", asked, defaults | {"options": EvaluationOptions()}, first=("adata",))

    from .._evaluate.candidates import make_candidates
    from .._evaluate.cohort import read_cohort
    from .._evaluate.leakage import genes_chosen_before
    from .._evaluate.run import run_evaluation
    from .._response.features import Matrices

    adata, obs = as_adata(data, modality=modality), observations(data, modality=modality)
    y = read_labels(obs, label_key)
    require_both_classes(y, label_key)
    cohort = read_cohort(
        obs,
        y,
        group_key=group_key,
        dataset_key=dataset_key,
        split=split,
        allow_leaks=options.allow_leaks,
        pairs=options.hold_out == "pairs",
        rng=seed,
    )
    matrices = Matrices(adata, cohort.rows, layer)
    candidates, left_out = make_candidates(
        adata,
        obs,
        cohort,
        matrices,
        use_rep=slots,
        recipes=recipes,
        obs_features=options.obs_features,
        label_key=label_key,
        head=head,
        allow_leaks=options.allow_leaks,
        rng=seed,
    )
    source = matrices.labeled()
    params = _params(asked, cohort, options, source.origin, [candidate.name for candidate in candidates])
    found = run_evaluation(
        cohort,
        candidates,
        source,
        protocol=protocol,
        head=head,
        options=options,
        params=params,
        cautions=[*genes_chosen_before(adata), *left_out],
        command=command,
        rng=seed,
    )
    data, adata = target.open()
    _write(adata, cohort, found, EvaluationKeys.of(key_added))
    return data if copy else None


def _listed(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str | Recipe) else list(value)


def _params(
    asked: dict[str, Any], cohort: Cohort, options: EvaluationOptions, origin: str, models: list[str]
) -> dict[str, Any]:
    """What was asked for and what was found for it, in values that survive h5ad."""
    same = {name: asked[name] for name in ("protocol", "split", "head", "label_key", "rng")}
    numbers = {
        name: getattr(options, name) for name in ("hold_out", "n_boot", "n_permutations", "n_refits", "allow_leaks")
    }
    return {
        **same,
        **numbers,
        "level": cohort.plan.level,
        "level_key": cohort.keys.get(cohort.plan.level, asked["group_key"] or ""),
        "group_key": cohort.unit_key or asked["group_key"] or "",
        "dataset_key": cohort.keys.get("dataset", ""),
        "layer": origin,
        "models": np.array(models, dtype=str),
        "recipes": np.array([repr(item) for item in _listed(asked["model"]) if isinstance(item, Recipe)], dtype=str),
        "obs_features": np.array(list(options.obs_features), dtype=str),
    }


def _write(adata: AnnData, cohort: Cohort, found: Evaluation, keys: EvaluationKeys) -> None:
    """Write all slots at once, after everything has been computed."""
    import pandas as pd

    out, names = found.shown
    prob, fold = np.full(adata.n_obs, np.nan), np.full(adata.n_obs, -1)
    prob[cohort.rows], fold[cohort.rows] = out.prob, out.fold
    adata.obs[keys.prob] = prob
    adata.obs[keys.fold] = pd.Categorical.from_codes(fold, categories=pd.Index(names))
    adata.uns[keys.uns] = found.tables
    logger.info(
        "added\n    %r, P(sensitive) out of fold (adata.obs)\n    %r, the fold (adata.obs)\n    %r, scores and verdict "
        "(adata.uns)",
        *(keys.prob, keys.fold, keys.uns),
    )
