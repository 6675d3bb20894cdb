"""`tl.train_response`: from labeled cells to a `ResponseModel`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import TRAIN_RESPONSE
from .._core.log import logger, warn
from .._core.rng import Rng, seed_of
from .._data.modalities import Target, as_adata, observations
from .._data.obs import read_groups, read_labels, require_both_classes
from .._response.heads import HeadChoice, check_tunable
from .._response.recipe import Mode, Recipe

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import ErrorLevel, SlotName
    from .._response.model import ResponseModel
    from .._response.tune.options import FineTuning


@doc_params()
@checked
def train_response(
    data: AnnData | MuData,
    *,
    use_rep: str | None = None,
    model: str | None = None,
    label_key: str = "response",
    group_key: str | None = None,
    mode: Mode = "frozen",
    head: HeadChoice = "logistic",
    error_level: ErrorLevel = 0.1,
    checkpoint: str | PathLike[str] | None = None,
    tuning: FineTuning | None = None,
    start: ResponseModel | None = None,
    layer: str | None = None,
    key_added: SlotName | None = None,
    modality: str = "rna",
    rng: Rng = 0,
    **options: Any,
) -> ResponseModel:
    """Learn drug response from labeled cells.

    Every sample weighs the same within its class, and both classes weigh the same. Held-out scores come from heads that
    never saw the sample they score; calibration and calls are learned from them, sample by sample. What the design of the data
    allows to conclude goes into the model (`.info["verdict"]`) and limits what it will say.
    Baselines (`pca`, `hvg`, `scvi`) are refitted in every fold.

    Parameters
    ----------
    {data}
    use_rep
        Key of `.obsm` with an embedding. An embedding that :func:`~sc_drugresp.tl.embed` fitted to these cells is
        fitted anew, so that it can be used on other data.
    model
        Name of a model to embed with, instead of `use_rep`. Without both, the latest embedding or `'pca'` is taken.
    {label_key}
    {group_key}
    mode
        `'frozen'` trains a head on the embedding; `'lora'` and `'full'` also tune the encoder.
    head
        `'logistic'` (L2, standardized embedding, the mean of its cells for a sample), `'pseudobulk_lda'` (shrinkage LDA
        of the means of samples), `'mil'` (logistic regression of the fifth of the cells of each sample that looks most
        sensitive, or most resistant), `'mlp'` (scDrugMap's), or `'auto'`: the best of the first three in nested
        cross-validation over samples, with at least 6 samples of each class; otherwise `'logistic'`, with a warning.
        Penalties and choices are made once, for the folds and for the final head.
    error_level
        Error level of the calls: at most this share of those called, and of each class, should get a wrong call. A level of
        0.1 needs at least 22 held-out samples, 9 of each class; 0.2 needs 11, 4 of each class. Otherwise, or where held-out
        calls are wrong too often, nothing is called.
    checkpoint
        Folder with the files of a foundation model.
    tuning
        Settings of `'lora'` and `'full'`, see :class:`~sc_drugresp.tl.FineTuning`.
    start
        A model trained elsewhere to continue from (few-shot transfer): its tuned weights, its adapter (with the rank it
        has) and its head are the beginning. Only for `'lora'` and `'full'`.
    {layer}
    {key_added}
    {modality}
    {rng}
    options
        Options of the model named with `model`, as in :func:`~sc_drugresp.tl.embed`.

    Returns
    -------
    A :class:`~sc_drugresp.models.ResponseModel`. Its score is P(sensitive). Sets the following field:

    `.uns['train_response' | key_added]` : :class:`dict`
        Parameters, held-out metrics, `head` (kind and penalty; where there was a choice, the AUROC of each kind inside the
        training samples, the nested one, and the optimism between the two) and, for tuned encoders, the history of
        epochs.

    Raises
    ------
    ValueError
        One class only, unknown labels, unknown mode or head, a head that cannot be tuned, too few samples to tune, or no
        raw counts where the model needs them.
    KeyError
        A column or embedding does not exist.
    TypeError
        There is no such option, or options are given without a model that takes them.
    FileNotFoundError
        The files of the foundation model are not there.
    RuntimeError
        Training diverged.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy()
    >>> model = sdr.tl.train_response(adata, model="pca", group_key="sample")
    >>> model.info["n_groups"]
    8
    """
    from .._design.told import check_told
    from .._response.cells import read_training_cells
    from .._response.choose import Matrices, choose_features
    from .._response.train import train_frozen, training_record

    recipe = _recipe(use_rep, model, mode, checkpoint, tuning, options)
    if start is not None and mode == "frozen":
        msg = "`start` continues a tuned model; use mode='lora' or 'full', or train on both data sets together."
        raise ValueError(msg)
    if recipe is not None and recipe.tuned:
        check_tunable(head)
    seed, key = seed_of(rng), key_added or TRAIN_RESPONSE
    target = Target(data, modality, copy=False, key_added=key_added)
    adata, obs = as_adata(data, modality=modality), observations(data, modality=modality)
    y = read_labels(obs, label_key)
    require_both_classes(y, label_key)
    group_key, groups = read_groups(obs, group_key)
    rows = np.flatnonzero(y >= 0)
    matrices, labels = Matrices(adata, rows, layer), y[rows].astype(np.int64)
    cells = read_training_cells(
        obs.iloc[rows], labels, groups[rows], matrices, label_key=label_key, group_key=group_key
    )
    if recipe is not None:
        check_told(obs, recipe.told, label_key=label_key, group_key=group_key)
    common: dict[str, Any] = {"head": head, "error_level": error_level, "rng": seed}
    if recipe is not None and recipe.tuned:
        from .._response.tune.train import train_tuned

        trained = train_tuned(recipe, adata, rows, cells, layer=layer, start=start, **common)
    else:
        sets = np.unique(groups, return_inverse=True)[1]
        features = choose_features(adata, matrices, use_rep=use_rep, recipe=recipe, sets=sets, rng=seed)
        depth = matrices.depth()
        trained, _ = train_frozen(features, cells, depth=None if depth is None else depth[rows], **common)
    verdict = trained.info["verdict"]
    if verdict["code"] in {"ALIASED", "CONFOUNDED"}:
        warn(f"These data are {verdict['code']}: {verdict['reason']}")
    target.write(uns={key: training_record(trained)})
    logger.info("added\n    %r, parameters and held-out metrics (adata.uns)", key)
    return trained


def _recipe(
    use_rep: str | None, model: str | None, mode: Mode, checkpoint: Any, tuning: Any, options: dict[str, Any]
) -> Recipe | None:
    """The model that was asked for; `None` for a slot or the latest embedding.

    Raises
    ------
    ValueError
        Both a slot and a model are named, or tuning is asked for without a model.
    TypeError
        Options are given for a slot.
    """
    if mode != "frozen" and use_rep is not None:
        msg = f"mode={mode!r} tunes a model on counts: give `model`, not `use_rep` (found {use_rep!r})."
        raise ValueError(msg)
    if use_rep is not None and model is not None:
        msg = f"Give either `use_rep` or `model`, not both (found {use_rep!r} and {model!r})."
        raise ValueError(msg)
    given = [*options, *(name for name, value in (("checkpoint", checkpoint), ("tuning", tuning)) if value is not None)]
    if use_rep is not None and given:
        msg = f"{given[0]!r} is an option of a model, but `use_rep` takes the embedding {use_rep!r} as it is."
        raise TypeError(msg)
    if model is None and mode == "frozen" and not given:
        return None
    return Recipe(model or "pca", mode, checkpoint, tuning, options)
