"""The tuned modes of `tl.train_response`: encoder, tokens, tuning, and the model that results."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import models
from ..._core.keys import EmbeddingKeys
from ..._core.log import warn
from ...models._load import model_class
from ...models._registry import find
from ..features import check_same_checkpoint, warn_low_coverage

if TYPE_CHECKING:
    from anndata import AnnData

    from ..model import ResponseModel
    from .finetune import Tuned
    from .options import FineTuning


def tuning_options(
    model: str | None, mode: str, head: str, options: dict[str, Any]
) -> tuple[FineTuning, dict[str, Any]]:
    """Check what was asked for before anything is loaded; settings of tuning, and options of the encoder.

    Raises
    ------
    ValueError
        No foundation model is named, or a setting is out of its range.
    TypeError
        There is no such option.
    """
    from .options import FineTuning

    if model is None or find(model)[0].kind != "encoder":
        msg = (
            f"mode={mode!r} tunes a foundation model: name one with `model=`, found {model!r}. "
            f"Available: {models.available('encoder')}."
        )
        raise ValueError(msg)
    tuning, encoder_options = FineTuning.take(options)
    known = {field.name for field in fields(model_class(find(model)[0]).Config)}
    unknown = sorted(encoder_options.keys() - known)
    if unknown:
        msg = (
            f"Unknown option {unknown[0]!r}. Options of tuning: {sorted(FineTuning.names())}; "
            f"options of {model!r}: {sorted(known)}."
        )
        raise TypeError(msg)
    return tuning, encoder_options


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
        No foundation model is named, there are too few samples, or `start` is another kind of model.
    TypeError
        There is no such option.
    """
    from .finetune import finetune
    from .held_out import split_samples

    tuning, encoder_options = tuning_options(model, mode, head, options)
    assert model is not None
    rows = np.flatnonzero(y >= 0)
    y, groups = y[rows].astype(np.int64), groups[rows]
    train, held_out = split_samples(y, groups, validation=tuning.validation, seed=rng, force=tuning.force)
    if start is not None:
        _check_start(start, model, head, encoder_options)
    encoder = models.load(model, checkpoint=checkpoint, **encoder_options)
    if start is not None:
        check_same_checkpoint(encoder.checkpoint, start.representation)
    source = encoder.read(adata, layer)
    warn_low_coverage(source, encoder)
    tokens = encoder.tokenize(source, rows=rows, rng=rng)
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
        start=start,
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
    from ..model import ResponseModel
    from ..trust import describe_training, fit_states
    from .finetune import compare, embed_by_sample

    logits = np.full(len(y), np.nan)
    logits[tuned.held_out] = tuned.logits
    values = embed_by_sample(encoder, tokens, groups)
    states = fit_states(logits, y, groups, values, alpha=info["alpha"], rng=info["rng"])
    comparison = compare(tuned, y, groups)
    info = describe_training(logits, y, groups, values) | info
    info["comparison"] = comparison
    info["trainable"], info["parameters"], info["adapted"] = tuned.trainable, tuned.total, tuned.adapted
    if comparison:
        *others, last = (row["held_out_loss"] for row in comparison)
        if not last < min(others):
            warn("Tuning did not improve on the frozen model on held-out samples; see .info['comparison'].")
    return ResponseModel(tuned.head, description, info, states, None, tuned.adapter, tuned.weights, tuned.history)


def _check_start(start: ResponseModel, model: str, head: str, options: dict[str, Any]) -> None:
    """Refuse an earlier model that training cannot go on from.

    Raises
    ------
    ValueError
        It reads another embedding, or has another head.
    """
    how = start.representation
    before, now = ({"model": how["model"], "options": how["options"]}, {"model": model, "options": options})
    if how["kind"] != "encoder" or before != now:
        msg = (
            f"`start` reads {how['use_rep']!r} ({before}), training was asked for {now}. Continue with the same model "
            "and options."
        )
        raise ValueError(msg)
    if start.head.kind != head:
        msg = f"`start` has a {start.head.kind!r} head, training was asked for head={head!r}. Use the same head."
        raise ValueError(msg)
