"""`tl.evaluate`: what a score is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import CALL_CLASSES, EvaluationKeys
from .._core.log import logger
from .._core.rng import Rng, seed_of
from .._data.modalities import Target, as_adata, observations
from .._evaluate.options import EvaluationOptions, Protocol
from .._evaluate.request import Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import SlotName
    from .._evaluate.request import ModelArgument
    from .._response.heads import HeadChoice


@doc_params()
@checked
def evaluate(
    data: AnnData | MuData,
    *,
    use_rep: str | Sequence[str] | None = None,
    model: ModelArgument | Sequence[ModelArgument] | None = None,
    calls: Mapping[str, str] | None = None,
    label_key: str = "response",
    group_key: str | None = None,
    dataset_key: str | None = None,
    protocol: Protocol = "leave_group_out",
    split: str = "auto",
    head: HeadChoice = "logistic",
    options: EvaluationOptions | None = None,
    layer: str | None = None,
    modality: str = "rna",
    rng: Rng = 0,
    key_added: SlotName | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Score how well embeddings predict drug response in samples that were not learned from.

    Everything that is fitted (genes, components, scaling, penalty, head) is fitted inside the folds. Samples are held out
    in pairs of both classes, in many pairings over which scores are averaged. The strict score stands beside that of a
    random split of cells, whose excess is the leakage gap, and beside naive baselines. Intervals and p-values count
    samples, not cells; those of AUROC cover what a model learned from as many samples scores on new ones.

    AUROC and AUPRC rank cells by the mean of their held-out scores. All other metrics judge what users get: the
    calibrated P(sensitive), and the calls at an error level of 10 % (`called`, the share of cells and samples that are
    called, and `called_wrong`, the share of these calls that are wrong), with calibrator and thresholds fitted to the
    held-out scores of the other samples. Under a random split of cells, probabilities are not calibrated.

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

        Trained models (:class:`~sc_drugresp.models.ResponseModel`, or the folder of a saved one) are scored as they are
        on all labeled cells, with their own probabilities and calls: the protocol is `'external'`, nothing is fitted, and
        the cells have to be of samples that the models were not trained on.
    calls
        Calls that stand in `.obs` already, such as those of :func:`~sc_drugresp.tl.ask_llm`, as rows of their own: name of the
        row to column, with `sensitive`, `resistant`, `uncertain` or nothing. They stand beside the models, are scored as they
        are, and have no probability: AUROC, AUPRC and the metrics of calibration stay empty. Cells without a call count as
        wrong; metrics whose names end in `_answered` leave them out, and `answered` is the share with an answer. The call of
        a sample is that of most of its called cells.
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
        `'logistic'` (class- and sample-balanced; one penalty for all folds, chosen over their training samples; it is 1 as
        in scikit-learn under a random split of cells, where nobody looks at samples), `'pseudobulk_lda'`, `'mil'`,
        `'mlp'` or `'auto'`, as in :func:`~sc_drugresp.tl.train_response`.
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
        `metrics` (tidy: model, kind, protocol, n_labeled, dataset, level, metric, value, low, high, n_groups, repeat_sd,
        repeat_low, repeat_high, p_value, p_adjusted, caution), `leakage_gap`, `folds`, `samples` (mean score per sample),
        `heads` (kinds of head that were compared, the one that was chosen for all folds, its penalty, and the AUROC that the
        choice promised and kept), `design`, `verdict` (`code`, `reason`, `suggestions`, `cautions`; `strongest` column, its `association` with the
        response as AUROC over patients with `p_association`, and the strict AUROC `score_within` its strata with `p_within`
        from `pairs_within` pairs), `power`, `comparison` (with several models and data sets), `params`, `data`, `versions`,
        and `command`, the call that repeats the evaluation (a model that is given as an object has to be saved for that).
    `.obs['evaluation_prob' | key_added + '_prob']` : :class:`float`
        Calibrated P(sensitive) of each labeled cell by heads and a calibrator that did not see it, for the first model.
    `.obs['evaluation_score' | key_added + '_score']` : :class:`float`
        The score that AUROC ranks the cells by: the mean of P(sensitive) over pairings, before calibration.
    `.obs['evaluation_call' | key_added + '_call']` : :class:`pandas.Categorical`
        `sensitive`, `resistant` or `uncertain`; missing where nothing is called (a random split of cells).
    `.obs['evaluation_fold' | key_added + '_fold']` : :class:`pandas.Categorical`
        Fold that tested the cell, in the first pairing.

    Raises
    ------
    ValueError
        One class only, a split that is not possible or leaks, a fold with too few samples to tune on, or a trained model
        that is to be split, stands beside other rows, or was trained on these cells.
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
        calls=calls,
    )

    import pandas as pd

    from .._evaluate.run import run_evaluation

    adata = as_adata(data, modality=modality)
    found = run_evaluation(adata, observations(data, modality=modality), request)
    shown, rows = found.shown, found.rows

    def column(values: np.ndarray, absent: float) -> np.ndarray:
        """A value for every cell of the object."""
        out = np.full(adata.n_obs, absent, dtype=values.dtype)
        out[rows] = values
        return out

    keys = EvaluationKeys.of(key_added)
    said = np.array([*CALL_CLASSES, None], dtype=object)[column(shown.deployed.call_codes(), -1)]
    obs = {
        keys.prob: column(shown.deployed.prob, np.nan),
        keys.score: column(shown.score, np.nan),
        keys.call: pd.Categorical(said, categories=list(CALL_CLASSES)),
        keys.fold: pd.Categorical.from_codes(column(shown.fold, -1), categories=pd.Index(found.folds)),
    }
    out = target.write(obs=obs, uns={keys.uns: found.tables})
    logger.info(
        "added\n    %r, P(sensitive) of held-out cells (adata.obs)\n    %r, %r, %r, their score, call and fold "
        "(adata.obs)\n    %r, scores and verdict (adata.uns)",
        *(keys.prob, keys.score, keys.call, keys.fold, keys.uns),
    )
    return out
