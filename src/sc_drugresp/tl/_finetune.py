"""The tuned modes of `tl.train_response`: encoder, tokens, tuning, and the model that results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import models
from .._keys import EmbeddingKeys
from .._logging import warn
from ..models._registry import find
from ._represent import warn_low_coverage

if TYPE_CHECKING:
    from anndata import AnnData

    from .._train.finetune import Tuned
    from ..models._response import ResponseModel


def finetune_response(
    adata: AnnData,
    model: str | None,
    y: np.ndarray,
    groups: np.ndarray,
    *,
    mode: Any,
    head: Any,
    checkpoint: Any,
    layer: str | None,
    alpha: float,
    rng: int,
    keys: dict[str, str],
    start: ResponseModel | None,
    options: dict[str, Any],
) -> ResponseModel:
    """Tune the encoder named `model` on the labeled cells; labels, groups and modes were checked before.

    Raises
    ------
    ValueError
        No foundation model is named, or there are too few samples.
    """
    from .._train.finetune import finetune, split_samples
    from .._train.options import FineTuning

    if model is None or find(model)[0].kind != "encoder":
        msg = (
            f"mode={mode!r} tunes a foundation model: name one with `model=`, found {model!r}. "
            f"Available: {models.available('encoder')}."
        )
        raise ValueError(msg)
    tuning, encoder_options = FineTuning.take(options)
    rows = np.flatnonzero(y >= 0)
    y, groups = y[rows].astype(np.int64), groups[rows]
    train, held_out = split_samples(y, groups, validation=tuning.validation, seed=rng, force=tuning.force)
    encoder = models.load(model, checkpoint=checkpoint, **encoder_options)
    source = encoder.read(adata, layer)
    warn_low_coverage(source, encoder)
    tokens = encoder.tokenize(source, rows=rows, rng=rng)
    if start is not None:
        continue_from(encoder, start)
    tuned = finetune(
        encoder,
        tokens,
        y,
        groups,
        mode=mode,
        head=head,
        options=tuning,
        seed=rng,
        train=train,
        held_out=held_out,
        start=None if start is None else start.head,
    )
    description = {
        "kind": "encoder",
        "use_rep": EmbeddingKeys.of(f"{model}.{mode}").obsm,
        "model": model,
        "options": encoder_options,
        "genes": "auto",
        "rng": rng,
        "group_key": keys["group_key"] if encoder.set_based else "",
        "checkpoint": dict(encoder.checkpoint),
    }
    info = keys | {"mode": mode, "alpha": alpha, "rng": rng}
    return _response_model(encoder, tuned, tokens, y, groups, description, info)


def _response_model(
    encoder: Any,
    tuned: Tuned,
    tokens: Any,
    y: np.ndarray,
    groups: np.ndarray,
    description: dict[str, Any],
    info: dict[str, Any],
) -> ResponseModel:
    """Calibrate on the held-out samples and put everything together."""
    from .._train.finetune import compare, embed_by_sample
    from ..models._response import ResponseModel
    from ._trust import describe_training, fit_states

    logits = np.full(len(y), np.nan)
    logits[tuned.held_out] = tuned.logits
    values = embed_by_sample(encoder, tokens, groups)
    states = fit_states(logits, y, groups, values, alpha=info["alpha"], rng=info["rng"])
    comparison = compare(tuned, y, groups)
    info = describe_training(logits, y, groups, values) | info
    info["comparison"] = comparison
    info["trainable"], info["parameters"], info["adapted"] = tuned.trainable, tuned.total, tuned.adapted
    if len(comparison) == 2 and not comparison[1]["held_out_loss"] < comparison[0]["held_out_loss"]:
        warn("Tuning did not improve on the frozen model on held-out samples; see .info['comparison'].")
    return ResponseModel(tuned.head, description, info, states, None, tuned.adapter, tuned.weights, tuned.history)


def continue_from(encoder: Any, start: ResponseModel) -> None:
    """Begin with an earlier model: its tuned weights become part of the base.

    Raises
    ------
    ValueError
        The earlier model has another base checkpoint.
    """
    from .._train.adapters import apply_tuned
    from ._represent import check_same_checkpoint

    check_same_checkpoint(encoder.checkpoint, start.representation)
    apply_tuned(encoder, start, merge=True)
