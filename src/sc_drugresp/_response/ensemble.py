"""One or several response models that answer together, and what is to be said about their answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
from scipy.special import expit, logit

from .._core.keys import SENSITIVE
from .._core.log import warn
from .model import ResponseModel
from .predict import Prediction, disagreement, fuse

ModelLike = ResponseModel | str | PathLike[str]


@dataclass(frozen=True)
class Ensemble:
    """Models and what each of them says of the same cells.

    Parameters
    ----------
    models
        The members.
    parts
        The prediction of each.
    trained_here
        Whether the only model was trained on labels of these cells.
    embeddings
        Embeddings of tuned encoders, by the slot of `.obsm` they go to.
    """

    models: list[ResponseModel]
    parts: list[Prediction]
    trained_here: bool = False
    embeddings: dict[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def fused(self) -> Prediction:
        """The common answer."""
        return fuse(self.parts)

    @property
    def calibrated(self) -> bool:
        """Whether every member is calibrated."""
        return all(model.trust.calibration.is_calibrated for model in self.models)

    @property
    def prevalence(self) -> float:
        """Share of sensitive cells that the probabilities assume: the mean over members on the logit scale."""
        return float(expit(np.mean([logit(model.trust.calibration.prevalence) for model in self.models])))

    def summary(self, threshold: float | None) -> dict[str, Any]:
        """What goes to `.uns`: how calls were made and how far they can be trusted, member by member and together."""
        fused = self.fused
        trusts = [model.trust for model in self.models]
        lacking = [trust.conformal.reason for trust in trusts if not trust.conformal.available]
        if threshold is None and lacking and fused.usable.any():
            warn(f"All calls are 'uncertain': {lacking[0]}. Probabilities are given; `threshold=` calls by them.")
        by_threshold = {"threshold": threshold, "statement": "Calls by a threshold; no error level is stated."}
        out: dict[str, Any] = {
            "score": f"P({SENSITIVE})",
            "calls": "threshold" if threshold is not None else "conformal",
            "error_level": float(max(trust.conformal.alpha for trust in trusts)),
            "statement": _joined([trust.conformal.statement() for trust in trusts]),
            "calibrated": self.calibrated,
            "calibration": _joined([_calibration(model) for model in self.models]),
            "n_cells": len(fused.prob),
            "n_without_embedding": int((~fused.usable).sum()),
            "n_out_of_distribution": int(fused.ood.sum()),
            "out_of_distribution": fused.reasons(),
            "trained_on_these_cells": self.trained_here,
            "models": {str(i): _describe(model, part) for i, (model, part) in enumerate(zip(self.models, self.parts))},
        }
        return out | ({} if threshold is None else by_threshold) | self._spread() | self._bags()

    def columns(self, threshold: float | None) -> dict[str, Any]:
        """Values of `.obs` by the field of `PredictionKeys`; with several models, also their disagreement."""
        out = self.fused.columns(threshold)
        return out | ({"disagreement": disagreement(self.parts)} if len(self.parts) > 1 else {})

    def _spread(self) -> dict[str, Any]:
        """How much samples differ: that of the member whose samples differ most, which cannot be too small."""
        spreads = [model.trust.spread for model in self.models]
        known = [spread for spread in spreads if spread is not None and np.isfinite(spread.between_sd)]
        if len(known) < len(spreads):
            return {}
        return {"spread": max(known, key=lambda spread: spread.between_sd).to_dict()}

    def _bags(self) -> dict[str, Any]:
        bags = self.models[0].trust.bags
        if len(self.models) > 1 or bags is None or not bags.available:
            return {}
        return {"bags": bags.to_dict() | bags.arrays()}


def open_models(given: ModelLike | Sequence[ModelLike]) -> list[ResponseModel]:
    """Models as they are, or read from their folders.

    Raises
    ------
    ValueError
        The list is empty.
    TypeError
        Something is neither a model nor a path.
    """
    items = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not items:
        msg = "`model` is an empty list; give at least one ResponseModel or the folder of a saved one."
        raise ValueError(msg)
    wrong = [item for item in items if not isinstance(item, ResponseModel | str | PathLike)]
    if wrong:
        msg = f"`model` must be a ResponseModel or the folder of a saved one, found {type(wrong[0]).__name__}."
        raise TypeError(msg)
    return [item if isinstance(item, ResponseModel) else ResponseModel.load(item) for item in items]


def _calibration(model: ResponseModel) -> str:
    calibration = model.trust.calibration
    return calibration.reason or f"{calibration.method} on {calibration.n_samples} held-out samples"


def _joined(texts: list[str]) -> str:
    """One text where all members say the same, else one after another."""
    distinct = list(dict.fromkeys(texts))
    return distinct[0] if len(distinct) == 1 else " ".join(f"Model {i}: {text}" for i, text in enumerate(texts))


def _describe(model: ResponseModel, part: Prediction) -> dict[str, Any]:
    info, trust = model.info, model.trust
    return {
        "use_rep": model.representation["use_rep"],
        "name": model.representation["model"],
        "head": model.head.kind,
        **{name: info[name] for name in ("mode", "label_key", "group_key", "n_cells", "n_groups", "n_held_out_groups")},
        "data_hash": info["data_hash"],
        "metrics": {name: value for name, value in info["metrics"].items() if value is not None},
        "statement": trust.conformal.statement(),
        "calibration": _calibration(model),
        "prevalence": float(trust.calibration.prevalence),
        "out_of_distribution": part.reasons(),
    }
