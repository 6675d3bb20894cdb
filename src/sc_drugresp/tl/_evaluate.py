"""`tl.evaluate`: what a score is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._core.docs import doc_params
from .._core.keys import EvaluationKeys
from .._core.log import logger
from .._core.rng import Rng, seed_of
from .._data.modalities import Target, as_adata, observations
from .._evaluate.options import EvaluationOptions, Protocol
from .._evaluate.request import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

    from .._response.heads import HeadKind
    from .._response.recipe import Recipe


@doc_params()
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

    Where the response is the same thing as a sample, batch, platform, time point or drug, the verdict is `ALIASED` and there
    is no strict score: nothing can be concluded from such data about other samples. Every column of `.obs`, and the depth of
    the cells, is compared with the response over patients (permutation, one error level for all columns); where one goes
    with it beyond chance, the verdict is `CONFOUNDED`, and the strict score is also given inside the strata of that column.
    Copies and near copies of test cells are not learned from, and names that seem to be one patient are held out together.

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
        `suggestions`, `cautions`; `strongest` column, its `association` with the response as AUROC over patients with
        `p_association`, and the strict AUROC `score_within` its strata with `p_within` from `pairs_within` pairs), `power`, `comparison` (with several models and data sets), `params`, `data`,
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
    target = Target(data, modality, copy, key_added)
    request = Request(
        use_rep=use_rep,
        model=model,
        label_key=label_key,
        group_key=group_key,
        dataset_key=dataset_key,
        protocol=protocol,
        split=split,
        head=head,
        options=EvaluationOptions() if options is None else options,
        layer=layer,
        modality=modality,
        rng=seed_of(rng),
        key_added=key_added,
    )

    import pandas as pd

    from .._evaluate.run import run_evaluation

    adata = as_adata(data, modality=modality)
    found = run_evaluation(adata, observations(data, modality=modality), request)
    prob, fold = np.full(adata.n_obs, np.nan), np.full(adata.n_obs, -1)
    prob[found.rows], fold[found.rows] = found.shown.prob, found.shown.fold
    keys = EvaluationKeys.of(key_added)
    obs = {keys.prob: prob, keys.fold: pd.Categorical.from_codes(fold, categories=pd.Index(found.folds))}
    out = target.write(obs=obs, uns={keys.uns: found.tables})
    logger.info(
        "added\n    %r, P(sensitive) out of fold (adata.obs)\n    %r, the fold (adata.obs)\n    %r, scores and verdict "
        "(adata.uns)",
        *(keys.prob, keys.fold, keys.uns),
    )
    return out
