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
from .._core.log import logger, warn
from .._design.verdict import Verdict
from .model import ResponseModel
from .predict import Prediction, call_names, disagreement, fuse

ModelLike = ResponseModel | str | PathLike[str]
_SEVERITY = ("OK", "UNDERPOWERED", "CONFOUNDED", "ALIASED")


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
    group_key
        Column that names the samples; empty where there is none.
    allow_aliased
        Whether probabilities are given where the label could not be told from something else in training.
    """

    models: list[ResponseModel]
    parts: list[Prediction]
    trained_here: bool = False
    embeddings: dict[str, np.ndarray] = field(default_factory=dict)
    group_key: str = ""
    allow_aliased: bool = False

    @cached_property
    def fused(self) -> Prediction:
        """The common answer; without calls, and unless they were asked for without probabilities, if training was aliased."""
        fused = fuse(self.parts)
        return fused.withheld(probability=not self.allow_aliased) if self.aliased else fused

    @cached_property
    def verdict(self) -> Verdict:
        """On the data that were learned from: the worst over members."""
        found = [Verdict.from_dict(model.info["verdict"]) for model in self.models]
        return max(found, key=lambda verdict: _SEVERITY.index(verdict.code))

    @property
    def aliased(self) -> bool:
        """Whether a member learned from data in which response cannot be told from something else."""
        return self.verdict.code == "ALIASED"

    @property
    def calibrated(self) -> bool:
        """Whether every member is calibrated."""
        return all(model.trust.calibration.is_calibrated for model in self.models)

    @property
    def prevalence(self) -> float:
        """Share of sensitive cells that the probabilities assume: the mean over members on the logit scale."""
        return float(expit(np.mean([logit(model.trust.calibration.prevalence) for model in self.models])))

    def summary(self, threshold: float | None, prevalence: float | None = None) -> dict[str, Any]:
        """What goes to `.uns`: how calls were made and how far they can be trusted, member by member and together."""
        import pandas as pd

        fused = self.fused
        trusts = [model.trust for model in self.models]
        self._tell(threshold)
        statement = _joined([trust.statement() for trust in trusts])
        if threshold is not None:
            statement = "Calls by a threshold; no error level is stated."
        if self.aliased:
            given = "given on request" if self.allow_aliased else "not given"
            statement = f"No calls are made and probabilities are {given}: {self.verdict.reason}"
        elif self.verdict.code != "OK":
            statement = f"{statement} Of the training data: {self.verdict}"
        rows = [
            {"model": i, **row}
            for i, trust in enumerate(trusts)
            for row in trust.worth({"training": self._sample_prevalence(i)} | _stated(prevalence))
        ]
        out: dict[str, Any] = {
            "score": f"P({SENSITIVE})",
            "calls": "none" if self.aliased else "threshold" if threshold is not None else "conformal",
            "error_level": float(max(trust.level for trust in trusts)),
            "statement": statement,
            "verdict": self.verdict.code,
            "verdict_reason": self.verdict.reason,
            "calibrated": self.calibrated,
            "calibration": _joined([_calibration(model) for model in self.models]),
            "n_cells": len(fused.prob),
            "n_without_embedding": int((~fused.usable).sum()),
            "n_out_of_distribution": int(fused.ood.sum()),
            "out_of_distribution": fused.reasons(),
            "trained_on_these_cells": self.trained_here,
            "predictive_values": pd.DataFrame(rows),
            "models": {str(i): _describe(model, part) for i, (model, part) in enumerate(zip(self.models, self.parts))},
        }
        if threshold is not None:
            out["threshold"] = threshold
        return out | self._spread() | self._bags() | self._sample_calls()

    def _tell(self, threshold: float | None) -> None:
        """Say aloud what a reader of the calls must not miss."""
        verdict, trusts = self.verdict, [model.trust for model in self.models]
        if self.aliased:
            how = "" if self.allow_aliased else " `allow_aliased=True` gives the probabilities all the same."
            warn(f"The training data are ALIASED: {verdict.reason} Nothing is called.{how}")
        elif verdict.code == "CONFOUNDED":
            warn(f"The training data are CONFOUNDED: {verdict.reason}")
        elif verdict.code != "OK":
            logger.warning("The training data are %s", verdict)
        if threshold is None and not self.aliased and not any(trust.conformal.held_out.made for trust in trusts):
            logger.warning(
                "All calls are 'uncertain'. %s Probabilities are given; `threshold=` calls by them.",
                trusts[0].statement(),
            )

    def _sample_prevalence(self, i: int) -> float:
        """Share of sensitive samples among those that were held out."""
        calibration = self.models[i].trust.calibration
        n = calibration.n_sensitive + calibration.n_resistant
        return calibration.n_sensitive / n if n else np.nan

    def _sample_calls(self) -> dict[str, Any]:
        """Calls of whole samples, and what `tl.aggregate` needs to call samples of which some cells count."""
        import pandas as pd

        out: dict[str, Any] = {}
        found = self.fused.samples
        if found is not None:
            table = pd.DataFrame(
                {"score": found.score, "call": call_names(found.called).astype(str)}, index=found.names.astype(str)
            )
            out["sample_calls"] = {"group_key": self.group_key, "table": table}
        if len(self.models) == 1 and not self.aliased:
            means = self.models[0].trust.means
            out["mean_calls"] = means.to_dict() | means.arrays()
        return out

    def columns(self, threshold: float | None) -> dict[str, Any]:
        """Values of `.obs` by the field of `PredictionKeys`; with several models, also their disagreement."""
        out = self.fused.columns(threshold)
        if len(self.parts) == 1:
            return out
        return out | {"disagreement": np.where(np.isfinite(self.fused.prob), disagreement(self.parts), np.nan)}

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


def _stated(prevalence: float | None) -> dict[str, float]:
    return {} if prevalence is None else {"stated": prevalence}


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
        "statement": trust.statement(),
        "verdict": str(info["verdict"]["code"]),
        "calibration": _calibration(model),
        "prevalence": float(trust.calibration.prevalence),
        "out_of_distribution": part.reasons(),
    }
