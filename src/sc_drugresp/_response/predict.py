"""One response model applied to embedded cells, and how several are fused. Arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from .._core.keys import CALL_CLASSES, RESISTANT, SENSITIVE, UNCERTAIN
from .._stats.ood import REASONS
from .trust import log_odds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .trust import Trust

MOST = 0.5
"""Share of out-of-distribution cells above which nothing in a sample is called."""


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
    called
        Whether the cell is called `sensitive` and `resistant`, shape `(n_cells, 2)`, bool.
    samples
        Score and call of whole samples, see :class:`SampleCalls`; `None` where samples are not known.
    """

    usable: np.ndarray
    prob: np.ndarray
    low: np.ndarray
    high: np.ndarray
    sets: np.ndarray
    ood: np.ndarray
    ood_score: np.ndarray
    codes: np.ndarray
    called: np.ndarray
    samples: SampleCalls | None = None

    def calls(self, threshold: float | None) -> np.ndarray:
        """`sensitive` or `resistant` where such calls are supported, or by a threshold of the probability; else `uncertain`.

        Cells that are out of distribution, or have no probability, are never called.
        """
        if threshold is None:
            return call_names(self.called)
        above = self.prob >= threshold
        return call_names(
            np.column_stack([above, ~above]) & (self.usable & ~self.ood & np.isfinite(self.prob))[:, None]
        )

    def withheld(self, *, probability: bool) -> Prediction:
        """The same without any call and, if wanted, without a probability."""
        nan = np.full(len(self.prob), np.nan)
        numbers = {"prob": nan, "low": nan, "high": nan} if probability else {}
        samples = self.samples and replace(self.samples, called=np.zeros_like(self.samples.called))
        # A cell that is not usable is not called by a threshold either.
        return replace(self, called=np.zeros_like(self.called), samples=samples, **numbers)

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


@dataclass(frozen=True)
class SampleCalls:
    """What is said of whole samples: names, the score of each by the head, and whether it is called sensitive, resistant."""

    names: np.ndarray
    score: np.ndarray
    called: np.ndarray


def call_names(called: np.ndarray) -> np.ndarray:
    """Calls in words from columns sensitive, resistant."""
    return np.select([called[:, 0], called[:, 1]], [SENSITIVE, RESISTANT], UNCERTAIN).astype(object)


def predict(
    trust: Trust,
    values: np.ndarray,
    logits: np.ndarray,
    *,
    groups: np.ndarray | None,
    depth: np.ndarray | None,
    sample_scores: tuple[np.ndarray, np.ndarray] | None = None,
) -> Prediction:
    """Probability, interval, conformal set, call and distance of every cell; NaN where there is no embedding.

    With `groups`, whole samples that lie apart are recognized as well, and samples are called by `sample_scores` (their names
    and the score of each); with `depth`, cells outside the usual range.
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
                values if usable.all() else values[usable],
                groups=None if groups is None else groups[usable],
                depth=None if depth is None else depth[usable],
            )
            score[usable], ood[usable], codes[usable] = found.score, found.flag, found.codes
    if groups is None:
        called = trust.conformal.calls(logits) & ~ood[:, None]
        return Prediction(usable, prob, low, high, sets, ood, score, codes, called)
    names, index = np.unique(groups, return_inverse=True)
    known = np.maximum(np.bincount(index, usable), 1)
    foreign = np.bincount(index, ood & usable) / known > MOST
    called = trust.conformal.calls(logits) & ~(ood | foreign[index])[:, None]
    samples = None
    if sample_scores is not None:
        by_name = dict(zip(*(values.tolist() for values in sample_scores)))
        whole = np.array([by_name.get(name, np.nan) for name in names.tolist()], dtype=np.float64)
        calls = trust.samples.calls(whole) & ~foreign[:, None] & np.isfinite(whole)[:, None]
        samples = SampleCalls(names, whole, calls)
    return Prediction(usable, prob, low, high, sets, ood, score, codes, called, samples)


def fuse(parts: Sequence[Prediction]) -> Prediction:
    """Late fusion: mean of the calibrated logits; a class is excluded only where every model excludes it.

    The union of prediction sets keeps the error level of its members; a cell or sample is called where every member calls it
    the same. A cell is out of distribution if it is so for most of them.
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
        called=np.all([part.called for part in parts], axis=0),
        samples=_fuse_samples([part.samples for part in parts]),
    )


def _fuse_samples(parts: Sequence[SampleCalls | None]) -> SampleCalls | None:
    known = [part for part in parts if part is not None]
    first = known[0] if known else None
    if first is None or len(known) < len(parts) or any(not np.array_equal(p.names, first.names) for p in known):
        return None
    score = np.mean([part.score for part in known], axis=0)
    return SampleCalls(first.names, score, np.all([part.called for part in known], axis=0))


def disagreement(parts: Sequence[Prediction]) -> np.ndarray:
    """Standard deviation of P(sensitive) between models, shape `(n_cells,)`."""
    return np.std([part.prob for part in parts], axis=0)
