"""One response model applied to embedded cells, and how several are fused. Arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from .._core.keys import CALL_CLASSES, RESISTANT, SENSITIVE, UNCERTAIN
from .._stats.ood import REASONS
from .trust import log_odds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .trust import Trust


@dataclass(frozen=True)
class Prediction:
    """What is said of every cell.

    Parameters
    ----------
    usable
        Whether the cell has an embedding, shape `(n_cells,)`, bool.
    prob, low, high
        P(sensitive) and its interval; NaN where there is none.
    sets
        Whether `sensitive` and `resistant` are still possible, shape `(n_cells, 2)`, bool.
    ood, ood_score, codes
        Unlike the training cells or not, distance (1 at the threshold), and the bits of `REASONS`.
    """

    usable: np.ndarray
    prob: np.ndarray
    low: np.ndarray
    high: np.ndarray
    sets: np.ndarray
    ood: np.ndarray
    ood_score: np.ndarray
    codes: np.ndarray

    def calls(self, threshold: float | None) -> np.ndarray:
        """`sensitive` or `resistant` where one class is left, or by a threshold of the probability; else `uncertain`."""
        call = np.full(len(self.prob), UNCERTAIN, dtype=object)
        single = self.sets.sum(axis=1) == 1
        call[single] = np.where(self.sets[single, 0], SENSITIVE, RESISTANT)
        if threshold is not None:
            call = np.where(self.prob >= threshold, SENSITIVE, RESISTANT).astype(object)
        call[~self.usable] = UNCERTAIN
        return call

    def columns(self, threshold: float | None) -> dict[str, Any]:
        """Values of `.obs` by the field of `PredictionKeys`."""
        import pandas as pd

        call = pd.Categorical(self.calls(threshold), categories=list(CALL_CLASSES))
        return {"call": call} | {name: getattr(self, name) for name in ("prob", "low", "high", "ood", "ood_score")}

    def reasons(self) -> dict[str, int]:
        """How many flagged cells there are for each reason; a cell may have several."""
        flagged = self.codes[self.ood & self.usable]
        counts = {text: int(((flagged & bit) > 0).sum()) for bit, text in REASONS.items()}
        return {text.replace("/", " or "): count for text, count in counts.items() if count}


def predict(
    trust: Trust,
    values: np.ndarray,
    logits: np.ndarray,
    *,
    groups: np.ndarray | None,
    depth: np.ndarray | None,
) -> Prediction:
    """Probability, interval, conformal set and distance of every cell; NaN where there is no embedding.

    With `groups`, whole samples that lie apart are recognized as well; with `depth`, cells outside the usual range.
    """
    n, usable = len(logits), np.isfinite(logits)
    prob, low, high, score = (np.full(n, np.nan) for _ in range(4))
    sets, ood, codes = np.ones((n, 2), dtype=bool), ~usable, np.zeros(n, dtype=np.intp)
    if usable.any():
        prob[usable] = trust.calibration.probability(logits[usable])
        low[usable], high[usable] = trust.calibration.interval(logits[usable])
        sets[usable] = trust.conformal.sets(logits[usable])
        if trust.reference is not None:
            found = trust.reference.score(
                values[usable],
                groups=None if groups is None else groups[usable],
                depth=None if depth is None else depth[usable],
            )
            score[usable], ood[usable], codes[usable] = found.score, found.flag, found.codes
    return Prediction(usable, prob, low, high, sets, ood | ~sets.any(axis=1), score, codes)


def fuse(parts: Sequence[Prediction]) -> Prediction:
    """Late fusion: mean of the calibrated logits; a class is excluded only where every model excludes it.

    The union of prediction sets keeps the error level of its members. A cell is out of distribution if it is so for
    most of them.
    """
    if len(parts) == 1:
        return parts[0]
    usable = np.all([part.usable for part in parts], axis=0)

    def mean(name: str) -> np.ndarray:
        return np.asarray(expit(np.mean([log_odds(getattr(part, name)) for part in parts], axis=0)))

    return Prediction(
        usable,
        mean("prob"),
        mean("low"),
        mean("high"),
        sets=np.any([part.sets for part in parts], axis=0),
        ood=(np.mean([part.ood for part in parts], axis=0) > 0.5) | ~usable,
        ood_score=np.median([part.ood_score for part in parts], axis=0),
        codes=np.bitwise_or.reduce([part.codes for part in parts], axis=0),
    )


def disagreement(parts: Sequence[Prediction]) -> np.ndarray:
    """Standard deviation of P(sensitive) between models, shape `(n_cells,)`."""
    return np.std([part.prob for part in parts], axis=0)
