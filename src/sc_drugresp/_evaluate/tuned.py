"""Rows of `tl.evaluate` for encoders that are tuned inside the folds, each beside the same encoder left as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import models
from .._response.features import warn_low_coverage
from .._response.tune.response import tuning_options
from ..models._registry import find

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData

    from .._stats.folds import Fold
    from .inputs import Design
    from .run import Features


@dataclass(frozen=True)
class Tuning:
    """How the foundation models of an evaluation are loaded and tuned."""

    mode: Any
    head: Any
    checkpoint: Any
    options: dict[str, Any]

    @property
    def of_encoder(self) -> dict[str, Any]:
        """Options of the encoder, without the settings of tuning."""
        from .._response.tune.options import FineTuning

        return self.options if self.mode == "frozen" else FineTuning.take(self.options)[1]


def check_tuned(
    mode: str, model: Sequence[str], head: str, protocol: str, n_refits: int, options: dict[str, Any]
) -> None:
    """Check what was asked for before anything is loaded.

    Raises
    ------
    ValueError
        No foundation model is named, the head has no gradient, or the evaluation prescribes other training.
    TypeError
        There is no such option.
    """
    if mode not in ("frozen", "lora", "full"):
        msg = f"`mode` must be one of ('frozen', 'lora', 'full'), found {mode!r}."
        raise ValueError(msg)
    encoders: list[str | None] = [name for name in model if find(name)[0].kind == "encoder"]
    if mode == "frozen":
        if options and not encoders:
            msg = f"Options {sorted(options)} belong to a foundation model, but `model` names none."
            raise TypeError(msg)
        return
    if protocol.startswith("scdrugmap"):
        msg = f"protocol={protocol!r} repeats scDrugMap's training of a head; tune with another protocol."
        raise ValueError(msg)
    if n_refits:
        msg = f"`n_refits` refits heads to permuted labels, not encoders; use n_refits=0 with mode={mode!r}."
        raise ValueError(msg)
    for name in encoders or [next(iter(model), None)]:
        tuning_options(name, mode, head, options)


def tuned_features(
    adata: AnnData, design: Design, model: str, tuning: Tuning, *, layer: str | None, rng: int
) -> Features:
    """An encoder to be tuned in every fold; samples are the units of the design."""
    from .._response.tune.folds import TunedFeatures

    settings, encoder_options = tuning_options(model, tuning.mode, tuning.head, tuning.options)
    encoder = models.load(model, checkpoint=tuning.checkpoint, **encoder_options)
    source = encoder.read(adata, layer)
    warn_low_coverage(source, encoder)
    return TunedFeatures(
        f"{model}.{tuning.mode}",
        lambda: models.load(model, checkpoint=tuning.checkpoint, **encoder_options),
        encoder.tokenize(source, rows=design.rows, rng=rng),
        design.y,
        np.asarray(design.units),
        mode=tuning.mode,
        kind=tuning.head,
        options=settings,
        seed=rng,
    )


def check_folds(features: Iterable[Features], folds: Sequence[Fold]) -> None:
    """Refuse folds that an encoder cannot be tuned on, before the first one is.

    Raises
    ------
    ValueError
        A fold has a single sample of a class to learn from.
    """
    for row in features:
        if hasattr(row, "check"):
            row.check(folds)
