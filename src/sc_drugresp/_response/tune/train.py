"""Train an encoder and its head on labeled cells: tokens, tuning, calibration, and the model that results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..._core.keys import EmbeddingKeys
from ..._core.log import warn
from ..._embed.coverage import check_coverage
from ..choose import describe
from ..embedding import check_same_checkpoint
from ..model import ResponseModel
from ..trust import Trust, describe_training
from .finetune import compare, embed_by_sample, finetune
from .held_out import check_enough_samples
from .processes import own_device, started

if TYPE_CHECKING:
    from anndata import AnnData

    from ..cells import TrainingCells
    from ..recipe import Recipe


def train_tuned(
    recipe: Recipe,
    adata: AnnData,
    rows: np.ndarray,
    cells: TrainingCells,
    *,
    head: Any,
    layer: str | None,
    error_level: float,
    rng: int,
    start: ResponseModel | None,
) -> ResponseModel:
    """Tune the encoder of `recipe` on the labeled cells, which are `rows` of the object.

    Raises
    ------
    ValueError
        There are too few samples, `start` is another kind of model, or the processes asked for were not started.
    """
    check_enough_samples(cells.y, cells.units, force=recipe.settings.force)
    if start is not None:
        _check_start(start, recipe, head)
    with own_device(started(recipe.settings)):
        return _train(recipe, adata, rows, cells, head, layer, error_level, rng, start)


def _train(
    recipe: Recipe,
    adata: AnnData,
    rows: np.ndarray,
    cells: TrainingCells,
    head: Any,
    layer: str | None,
    error_level: float,
    rng: int,
    start: ResponseModel | None,
) -> ResponseModel:
    settings, y, groups = recipe.settings, cells.y, cells.units
    encoder = recipe.load()
    if start is not None:
        check_same_checkpoint(encoder.checkpoint, start.representation)
    source = encoder.read(adata, layer)
    check_coverage(source, encoder)
    tokens = encoder.tokenize(source, rows=rows, rng=rng)
    tuned = finetune(encoder, tokens, y, groups, mode=recipe.mode, head=head, options=settings, seed=rng, start=start)
    logits = np.full(len(y), np.nan)
    logits[tuned.held_out] = tuned.logits
    values = embed_by_sample(encoder, tokens, groups)
    trust = Trust.fit(logits, y, groups, values, error_level=error_level, rng=rng)
    comparison = compare(tuned, y, groups)
    if comparison:
        *others, last = (row["held_out_loss"] for row in comparison)
        if not last < min(others):
            warn("Tuning did not improve on the frozen model on held-out samples; see .info['comparison'].")
    params = {"model": recipe.model, "rng": rng, "group_key": cells.keys["group_key"] if encoder.set_based else ""}
    note = {"params": params | dict(recipe.options), "checkpoint": encoder.checkpoint}
    description = describe("encoder", EmbeddingKeys.of(recipe.name).obsm, note)
    info = describe_training(logits, cells, values) | {
        "mode": recipe.mode,
        "error_level": error_level,
        "rng": rng,
        "comparison": comparison,
    }
    info |= {"trainable": tuned.trainable, "parameters": tuned.total, "adapted": tuned.adapted}
    return ResponseModel(
        tuned.head, description, info, trust, adapter=tuned.adapter, weights=tuned.weights, history=tuned.history
    )


def _check_start(start: ResponseModel, recipe: Recipe, head: str) -> None:
    """Refuse an earlier model that training cannot go on from.

    Raises
    ------
    ValueError
        It reads another embedding, or has another head.
    """
    how = start.representation
    before = {"model": how["model"], "options": how["options"]}
    now = {"model": recipe.model, "options": dict(recipe.options)}
    if how["kind"] != "encoder" or before != now:
        msg = (
            f"`start` reads {how['use_rep']!r} ({before}), training was asked for {now}. Continue with the same model "
            "and options."
        )
        raise ValueError(msg)
    if start.head.kind != head:
        msg = f"`start` has a {start.head.kind!r} head, training was asked for head={head!r}. Use the same head."
        raise ValueError(msg)
