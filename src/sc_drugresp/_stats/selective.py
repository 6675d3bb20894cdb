"""Calls that are worth making: the error among the calls themselves, estimated on held-out samples.

Coverage of each class bounds how often a sensitive sample is called resistant. It does not bound how many of those *called*
resistant are wrong: with a weak score few are called, and most of these wrongly. Hence a second condition, on held-out calls.

Sources: Geifman & El-Yaniv (2017, arXiv:1705.08500) for selective prediction with a bound on the risk among the calls,
Clopper & Pearson (1934, Biometrika 26:404) for the bound. A sample counts with the share of it that was called, a number
between 0 and 1, for which the binomial bound is conservative (Hoeffding, 1963, theorem 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log
from typing import TYPE_CHECKING, Any

import numpy as np

from .state import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .groups import BoolArray, FloatArray, IntArray

CONFIDENCE = 0.9
"""Of the upper bound of the error among calls."""
_TINY = 1e-9


@dataclass(frozen=True, eq=False)
class HeldOutCalls(State):
    """What calls of held-out samples were worth, and whether further ones are made.

    Numbers are in samples: one of which half of the cells are called counts one half.
    """

    alpha: float
    """Stated error among calls."""
    made: bool
    reason: str
    """Why no calls are made."""
    sensitive: bool
    resistant: bool
    """Whether calls of this kind are made."""
    n_sensitive: int
    n_resistant: int
    counts: FloatArray
    """Called sensitive and resistant (columns) among sensitive and resistant held-out samples (rows), `(2, 2)`."""

    @property
    def called(self) -> float:
        """Held-out samples that are called."""
        return float(self.counts.sum())

    @property
    def wrong(self) -> float:
        """Those that are called wrongly."""
        return float(self.counts[0, 1] + self.counts[1, 0])

    def error(self) -> tuple[float, float, float]:
        """Error to expect among the calls, with its 90 % interval; `NaN` without calls.

        One more wrong call is counted, for the thresholds were chosen on the same samples.
        """
        if self.called <= _TINY:
            return np.nan, np.nan, np.nan
        low = clopper_pearson(self.wrong, self.called, 0.05)
        return (self.wrong + 1) / (self.called + 1), low, clopper_pearson(self.wrong + 1, self.called + 1, 0.95)

    def predictive_values(self, prevalence: float) -> dict[str, tuple[float, float, float]]:
        """Share of right ones among those called `sensitive` and `resistant`, with limits, at a prevalence of sensitive samples.

        The limits join the 95 % one-sided limits of both rates, and are therefore wide. `NaN` for calls that are not made.
        """
        out = {}
        for name, own, share in (("sensitive", 0, prevalence), ("resistant", 1, 1 - prevalence)):
            n_own, n_other = (self.n_sensitive, self.n_resistant)[:: 1 if own == 0 else -1]
            right, false = self.counts[own, own], self.counts[1 - own, own]
            if right + false <= _TINY or not min(n_own, n_other) > 0:
                out[name] = (np.nan, np.nan, np.nan)
                continue
            hits = (right / n_own, clopper_pearson(right, n_own, 0.05), clopper_pearson(right, n_own, 0.95))
            slips = (
                (false + 1) / (n_other + 1),
                clopper_pearson(false, n_other, 0.95),
                clopper_pearson(false, n_other, 0.05),
            )
            value, low, high = (
                float(share * hit / (share * hit + (1 - share) * slip)) if hit + slip > 0 else np.nan
                for hit, slip in zip(hits, slips)
            )
            out[name] = (value, low, high)
        return out

    def statement(self, unit: str = "samples") -> str:
        """What a reader may take from a call, in words."""
        if not self.made:
            return f"No {unit} are called: {self.reason}."
        value, low, high = self.error()
        return (
            f"Calls of {unit} aim at no more than {self.alpha:.0%} wrong ones among those called, for new samples like those "
            f"in training. Of {self.called:.3g} held-out samples called (of {self.n_sensitive + self.n_resistant}), "
            f"{self.wrong:.2g} were called wrongly; expected error among calls {value:.0%} (90 % interval {low:.0%} to {high:.0%})."
        )


def clopper_pearson(k: float, n: float, level: float) -> float:
    """Exact binomial confidence limit: lower for a `level` below one half, upper above it; numbers need not be whole."""
    from scipy.stats import beta

    if level < 0.5:
        return float(beta.ppf(level, k, n - k + 1)) if k > _TINY else 0.0
    return float(beta.ppf(level, k + 1, n - k)) if n - k > _TINY else 1.0


def too_few(n_sensitive: int, n_resistant: int, alpha: float) -> str:
    """Why no call can be made with so few held-out samples, and how many are needed; empty if one can."""
    least, calls = samples_for_level(alpha)
    if min(n_sensitive, n_resistant) >= least and n_sensitive + n_resistant >= calls:
        return ""
    return (
        f"an error of {alpha:.0%} among calls needs at least {least} held-out samples of each class and {calls} in all, found "
        f"{n_sensitive} sensitive and {n_resistant} resistant; a larger `error_level` needs fewer"
    )


def samples_for_level(alpha: float) -> tuple[int, int]:
    """Held-out samples of each class, and in all, without which an error level cannot be supported."""
    return ceil(1 / alpha - 1 - _TINY), ceil(log(1 - CONFIDENCE) / log(1 - alpha) - _TINY)


def judge_calls(called: FloatArray, y: IntArray, alpha: float) -> HeldOutCalls:
    """Decide by held-out calls whether others are made.

    Calls of one kind are made if the error to expect among them, `(wrong + 1) / (called + 1)`, is at most `alpha` and less
    than that of calls without knowledge; and together, if the upper 90 % bound of their error is.

    Parameters
    ----------
    called
        Share of each held-out sample that is called sensitive and resistant, `(n_samples, 2)`.
    y
        Class of each, 1 sensitive.
    alpha
        Stated error among calls.
    """
    n_s, n_r = int((y == 1).sum()), int((y == 0).sum())
    counts = np.array([called[y == 1].sum(axis=0), called[y == 0].sum(axis=0)], dtype=np.float64).reshape(2, 2)
    found: dict[str, Any] = {"alpha": float(alpha), "n_sensitive": n_s, "n_resistant": n_r}
    lacking = too_few(n_s, n_r, alpha)
    if lacking:
        return HeldOutCalls(made=False, reason=lacking, sensitive=False, resistant=False, counts=counts, **found)
    # Whoever calls without looking is wrong as often as the other class is frequent.
    blind = np.array([n_r, n_s]) / (n_s + n_r)
    total, wrong = counts.sum(axis=0), np.array([counts[1, 0], counts[0, 1]])
    good = (wrong + 1) / (total + 1) <= np.minimum(alpha, blind) + _TINY
    k, n = float(wrong[good].sum()), float(total[good].sum())
    made = bool(good.any()) and clopper_pearson(k, n, CONFIDENCE) <= min(alpha, float(blind @ (total * good)) / n)
    if made:
        return HeldOutCalls(
            made=True, reason="", sensitive=bool(good[0]), resistant=bool(good[1]), counts=counts * good, **found
        )
    if total.sum() > _TINY:
        bound = clopper_pearson(float(wrong.sum()), float(total.sum()), CONFIDENCE)
        told = (
            f"of {total.sum():.3g} held-out samples that calls would cover {wrong.sum():.2g} are wrong, so that the error may "
            f"be {bound:.0%}"
        )
    else:
        told = "no held-out sample can be told apart"
    reason = f"held-out samples do not support an error of {alpha:.0%} among calls ({told})"
    return HeldOutCalls(made=False, reason=reason, sensitive=False, resistant=False, counts=counts, **found)


def most_lenient(tries: Iterable[tuple[Any, FloatArray]], y: IntArray, alpha: float) -> tuple[Any, HeldOutCalls]:
    """The first rule whose held-out calls pass, or the first of all with the reason against it.

    Parameters
    ----------
    tries
        Rules from the most lenient to the strictest, each with the calls that it makes of the held-out samples.
    y, alpha
        As in :func:`judge_calls`.
    """
    judged: list[tuple[Any, HeldOutCalls]] = []
    for rule, called in tries:
        judged.append((rule, judge_calls(called, y, alpha)))
        if judged[-1][1].made:
            return judged[-1]
    return judged[0]


def singletons(sets: BoolArray) -> BoolArray:
    """Where one class alone is possible: sensitive, resistant; `(n, 2)`."""
    return sets & (sets.sum(axis=1) == 1)[:, None]
