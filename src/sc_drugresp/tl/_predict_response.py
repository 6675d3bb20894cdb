"""`tl.predict_response`: per-cell response, how sure, and whether the model knows such cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import TRAIN_RESPONSE, PredictionKeys, color_key, colors_of
from .._core.log import logger
from .._core.rng import Rng, seed_of
from .._data.modalities import Target

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import Share, SlotName
    from .._response.ensemble import ModelLike
    from .._response.reference_answers import ReferenceLike


@doc_params()
@checked
def predict_response(
    data: AnnData | MuData | str | PathLike[str],
    model: ModelLike | Sequence[ModelLike] | None = None,
    *,
    use_rep: str | None = None,
    label_key: str = "response",
    group_key: str | None = None,
    threshold: Share | None = None,
    correct_prevalence: bool = False,
    prevalence: Share | None = None,
    allow_aliased: bool = False,
    checkpoint: str | PathLike[str] | None = None,
    layer: str | None = None,
    drug: str | None = None,
    reference: ReferenceLike = None,
    groupby: str | None = None,
    malignant_key: str | None = None,
    cancer: str | None = None,
    chemistry: str | None = None,
    per_cell: bool = False,
    key_added: SlotName | None = None,
    modality: str = "rna",
    rng: Rng = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Predict for every cell whether it responds to the drug.

    With `drug`, no labels are needed: groups of cells are compared with cell lines in which the drug was measured, see
    :func:`~sc_drugresp.tl.rank_drugs`, and every cell gets the answer of its group. Which answer to trust where there are
    several is explained in :doc:`/explanation/which_answer`.

    Without a model, and with labels for some cells, it trains on the labeled cells (the latest embedding that
    :func:`~sc_drugresp.tl.embed` wrote, else PCA), cross-validates over samples, and predicts all cells: labeled cells by
    a model that never saw their sample, the others by the final one. PCA learns from at most 20,000 and a head from at most
    50,000 labeled cells, evenly spread, so that memory does not grow with the number of cells.

    Parameters
    ----------
    {cells}
    model
        A :class:`~sc_drugresp.models.ResponseModel`, or the folder of a saved one. Several are fused: the mean of their
        calibrated logits, with their disagreement as uncertainty. `None` trains on the labeled cells.
    use_rep
        Key of `.obsm` with the embedding to train on, without a model.
    {label_key}
    {group_key}
    threshold
        Call cells by P(sensitive) against this value, without a stated error level. By default a cell stays `uncertain`
        unless conformal prediction excludes one class *and* such calls were right often enough for held-out samples. Cells
        that are out of distribution are never called.
    correct_prevalence
        Estimate the share of sensitive cells among these cells (EM of Saerens et al., 2002) and shift the probabilities
        to it; calls do not change. Refused, with the reason, where the scores cannot tell. Reported in `.uns`.
    prevalence
        A share of sensitive samples for which the predictive values of calls are stated, beside that in training. It changes
        neither probabilities nor calls.
    allow_aliased
        Give probabilities also if, in training, response could not be told from something else (verdict `ALIASED`). By
        default they are NaN. Nothing is called either way.
    checkpoint
        Folder with the files of the foundation model that the model needs.
    {layer}
    drug
        Name, brand or code of a drug in `reference`, for cells without labels. Together with `model` both answers are fused:
        the mean of their logits, with their disagreement as uncertainty.
    {reference}
    groupby
        Column of `.obs` with clusters, clones or samples of at least 10 cells, for `drug`. `None` clusters the cells by Leiden.
    {malignant_key}
    {cancer}
    {chemistry}
    per_cell
        Also score single cells by the reference. Half of the differences between cells are noise, which `.uns` quantifies.
    {key_added}
    {modality}
    {rng}
    {copy}

    Returns
    -------
    `None`, the changed copy if `copy=True`, or the opened object if `data` is a path. The score is P(sensitive). Sets the following fields:

    `.obs['predicted_response' | key_added]` : :class:`pandas.Series` (dtype `category`)
        `sensitive`, `resistant` or `uncertain`.
    `.obs['predicted_response_prob']` : :class:`pandas.Series` (dtype `float64`)
        P(sensitive); NaN for cells without an embedding, and if training was aliased.
    `.obs['predicted_response_low']`, `.obs['predicted_response_high']` : :class:`pandas.Series` (dtype `float64`)
        90 % interval of the calibrated probability; NaN when the model is uncalibrated.
    `.obs['predicted_response_ood']` : :class:`pandas.Series` (dtype `bool`)
        Whether the cell is unlike the cells that were learned from.
    `.obs['predicted_response_ood_score']` : :class:`pandas.Series` (dtype `float64`)
        Distance to known cells, 1 at the threshold.
    `.obs['predicted_response_disagreement']` : :class:`pandas.Series` (dtype `float64`)
        Only with several models: standard deviation of their P(sensitive).
    `.obs['predicted_response_cell_score']` : :class:`pandas.Series` (dtype `float64`)
        Only with `per_cell=True`: response of the single cell in units of the spread of the drug, lower is more sensitive.
    `.obsm['X_<model>_lora']`, `.obsm['X_<model>_full']` : :class:`numpy.ndarray` (dtype `float32`)
        Only with a tuned model: its embedding.
    `.uns['predicted_response']` : :class:`dict`
        Parameters, calibration, verdict on the training data, error level in words, held-out metrics of the model, and under
        `predictive_values` what calls are worth, see :func:`~sc_drugresp.get.predictive_values_df`.
    `.uns['predicted_response_colors']`, `.uns['<label_key>_colors']` : :class:`numpy.ndarray`
        Colors for scanpy's plots, the same for calls and labels; those of labels only where there are none yet.

    Raises
    ------
    ValueError
        There is neither a model nor a label, or the embedding does not fit the model.
    KeyError
        A column or embedding does not exist.
    FileNotFoundError
        There is no such file.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(12, unlabeled=0.3)
    >>> sdr.tl.predict_response(adata)
    >>> adata.obs["predicted_response"].cat.categories.tolist()
    ['sensitive', 'resistant', 'uncertain']
    """
    if model is not None and use_rep is not None:
        msg = (
            f"`use_rep` chooses what to train on without a model, but a model was given; leave out use_rep={use_rep!r}."
        )
        raise ValueError(msg)
    asked = {"groupby": groupby, "malignant_key": malignant_key, "cancer": cancer, "chemistry": chemistry}
    given = [
        name
        for name, value in {**asked, "reference": reference, "per_cell": per_cell or None}.items()
        if value is not None
    ]
    if drug is None and given:
        msg = f"{given[0]!r} belongs to a prediction by drug: pass drug=..., or leave it out."
        raise ValueError(msg)
    seed, target = seed_of(rng), Target(data, modality, copy, key_added)
    adata, obs = target.adata, target.obs

    from .._response.answers import answer_from_labels, answer_from_models
    from .._response.answers import correct_prevalence as correct
    from .._response.train import training_record

    answer: Any
    if drug is not None:
        from .._response.drug_answer import answer_for_drug

        other = None
        if model is not None:
            other = answer_from_models(
                adata,
                obs,
                model,
                group_key=group_key,
                checkpoint=checkpoint,
                layer=layer,
                allow_aliased=allow_aliased,
            )
        answer = answer_for_drug(
            adata, obs, drug, reference, other=other, layer=layer, per_cell=per_cell, rng=seed, **asked
        )
    elif model is None:
        answer = answer_from_labels(
            adata,
            obs,
            use_rep,
            label_key=label_key,
            group_key=group_key,
            layer=layer,
            rng=seed,
            allow_aliased=allow_aliased,
        )
    else:
        answer = answer_from_models(
            adata,
            obs,
            model,
            group_key=group_key,
            checkpoint=checkpoint,
            layer=layer,
            allow_aliased=allow_aliased,
        )
    columns, summary = answer.columns(threshold), answer.summary(threshold, prevalence)
    if correct_prevalence:
        columns, found = correct(columns, obs, group_key, answer)
        summary |= found

    keys = PredictionKeys.of(key_added)
    uns: dict[str, Any] = {keys.uns: summary, color_key(keys.call): colors_of(columns["call"])}
    label_colors = colors_of(obs[label_key]) if label_key in adata.obs else None
    if label_colors is not None and color_key(label_key) not in adata.uns:
        uns[color_key(label_key)] = label_colors
    if answer.trained_here:
        uns[TRAIN_RESPONSE] = training_record(answer.models[0])
    written = {getattr(keys, name): column for name, column in columns.items()}
    out = target.write(obs=written, obsm=answer.embeddings, uns=uns)
    logger.info(
        "added\n    %r, the call (adata.obs)\n    %r, P(sensitive) (adata.obs)\n    %r, %r, its interval (adata.obs)\n"
        "    %r, out of distribution (adata.obs)\n    %r, how it was made (adata.uns)",
        *(keys.call, keys.prob, keys.low, keys.high, keys.ood, keys.uns),
    )
    return out
