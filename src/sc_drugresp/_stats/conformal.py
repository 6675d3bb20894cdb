"""Conformal prediction sets and calls whose unit is the group (sample): of cells, and of whole samples.

A set holds each class that a score does not contradict at error level `alpha`: {sensitive}, {resistant}, both (uncertain) or
none (unlike either class, and uncertain too). Cells of one group are not exchangeable with cells of a new one, so groups are
the unit: quantiles of cells alone would be overconfident. A call needs more than a set with one class in it: held-out calls
have to be right often enough, see :mod:`.selective`.

Sources: Dunn, Wasserman & Ramdas (2023, arXiv:1809.07441) for pooled distribution functions of two-layer data; Vovk et al.
(2005) for class-conditional (Mondrian) sets and p-values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .groups import encode_groups, equal_weights, groups_per_class, weighted_quantile
from .selective import HeldOutCalls, most_lenient, singletons
from .state import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import ArrayLike, NDArray

    from .groups import BoolArray, FloatArray, IntArray

_LEVELS = np.linspace(0.5, 1.0, 501)
_GRID = 1_000
_STRICTER = (1.0, 0.5, 0.2)
"""Fractions of the error level that are tried one after another where calls at the level itself do not pass."""


@dataclass(frozen=True, eq=False)
class Conformal(State):
    """Thresholds on a score that give each class a stated error level, and what held-out calls by them were worth."""

    alpha: float
    """Error level of the sets: that of calls, or a stricter one at which held-out calls are right often enough."""
    thresholds: FloatArray
    """"Sensitive" is in the set if the score is at least the first, "resistant" if at most the second."""
    held_out: HeldOutCalls

    def sets(self, scores: ArrayLike) -> BoolArray:
        """Prediction sets: columns sensitive, resistant; shape `(n, 2)`.

        Parameters
        ----------
        scores
            Larger = more sensitive. A score that is missing excludes nothing.
        """
        z = np.asarray(scores, dtype=np.float64)
        low, high = self.thresholds
        return np.column_stack([(z >= low) | np.isnan(z), (z <= high) | np.isnan(z)])

    def calls(self, scores: ArrayLike) -> BoolArray:
        """Who is called sensitive and resistant, shape `(n, 2)`: one class is left, and such calls are made."""
        made = [self.held_out.sensitive, self.held_out.resistant]
        return singletons(self.sets(scores)) & made

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return {"alpha": self.alpha, "held_out": self.held_out.to_dict()}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays by name."""
        return {"thresholds": self.thresholds, "counts": self.held_out.counts}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None) -> Self:
        """Rebuild from both.

        Raises
        ------
        KeyError
            A field is missing.
        """
        given = {**data, **(arrays or {})}
        held_out = HeldOutCalls.from_dict(given["held_out"], {"counts": np.asarray(given["counts"], dtype=np.float64)})
        return cls(float(given["alpha"]), np.asarray(given["thresholds"], dtype=np.float64), held_out)


def fit_conformal(
    scores: ArrayLike, y: ArrayLike, groups: ArrayLike, *, alpha: float = 0.1, informative: bool = True
) -> Conformal:
    """Find the scores of cells from which a class may be excluded, and whether calls by them are worth making.

    Every group has the same mass. The quantile is the one at which groups that are left out in turn are covered at
    `1 - alpha` on average: coverage close to nominal, without a proof. A class with fewer than `1 / alpha - 1` groups is
    never excluded.

    Parameters
    ----------
    scores
        Scores of cells by a head that was fitted without their group, shape `(n,)`.
    y
        1 = sensitive, 0 = resistant, shape `(n,)`.
    groups
        Group (patient, cell line) of each cell, shape `(n,)`.
    alpha
        Error level: of each class for the sets, and among calls for the calls.
    informative
        Whether the score ranks held-out groups at all; if not, nothing is called.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat(np.arange(40), 50)
    >>> y = groups % 2
    >>> fitted = fit_conformal(rng.normal(5.0 * y - 2.5), y, groups)
    >>> fitted.calls([-3.0, 3.0]).tolist()
    [[False, True], [True, False]]
    """
    z, labels = np.asarray(scores, dtype=np.float64), np.asarray(y)
    codes, _ = encode_groups(groups)
    n_resistant, n_sensitive = groups_per_class(labels, codes)
    units = np.unique(codes * 2 + labels, return_inverse=True)[1]
    classes = np.zeros(int(units.max(initial=-1)) + 1, dtype=np.intp)
    classes[units] = labels
    size = np.bincount(units)

    def attempts() -> Iterator[tuple[tuple[float, FloatArray], FloatArray]]:
        for level in alpha * np.array(_STRICTER):
            low = -_quantile(-z[labels == 1], codes[labels == 1], level) if _enough(n_sensitive, alpha) else -np.inf
            high = _quantile(z[labels == 0], codes[labels == 0], level) if _enough(n_resistant, alpha) else np.inf
            limits = np.array([low, high])
            single = singletons(np.column_stack([z >= low, z <= high])) & informative
            called = np.column_stack([np.bincount(units, single[:, k], len(size)) for k in (0, 1)])
            yield (float(level), limits), called / np.maximum(size, 1)[:, None]

    (level, limits), held_out = most_lenient(attempts(), classes, alpha)
    return Conformal(level, limits, held_out)


def fit_sample_calls(scores: ArrayLike, y: ArrayLike, *, alpha: float = 0.1, informative: bool = True) -> Conformal:
    """The same for whole samples, one held-out score each: split conformal p-values in each class.

    The p-value of a class is `(number of its held-out samples at least as nonconforming + 1) / (n_k + 1)`; a class is
    excluded where it is at most `alpha`. The guarantee of coverage is exact for exchangeable samples of a class.

    Parameters
    ----------
    scores
        Scores of held-out samples, shape `(n_samples,)`, larger = more sensitive.
    y
        1 = sensitive, 0 = resistant.
    alpha, informative
        As in :func:`fit_conformal`.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.arange(40) % 2
    >>> fitted = fit_sample_calls(np.random.default_rng(0).normal(6.0 * y - 3), y)
    >>> fitted.calls([-3.0, 0.0, 3.0]).tolist()
    [[False, True], [False, False], [True, False]]
    """
    z, labels = np.asarray(scores, dtype=np.float64), np.asarray(y)
    sensitive, resistant = np.sort(z[labels == 1]), np.sort(z[labels == 0])[::-1]

    def limit(ordered: FloatArray, level: float, towards: float) -> float:
        """Score beyond which a class is excluded: that of the first held-out sample whose p-value exceeds the level."""
        at = int(np.floor(level * (len(ordered) + 1) + 1e-9)) - 1
        return -towards * np.inf if at < 0 else float(ordered[min(at, len(ordered) - 1)])

    def attempts() -> Iterator[tuple[tuple[float, FloatArray], FloatArray]]:
        levels = {(k + 1) / (n + 1) for n in (len(sensitive), len(resistant)) for k in range(n)} | {alpha}
        for level in sorted((found for found in levels if found <= alpha + 1e-12), reverse=True):
            limits = np.array([limit(sensitive, level, 1), limit(resistant, level, -1)])
            single = singletons(np.column_stack([z >= limits[0], z <= limits[1]])) & informative
            yield (float(level), limits), single.astype(np.float64)

    (level, limits), held_out = most_lenient(attempts(), labels, alpha)
    return Conformal(level, limits, held_out)


def _enough(n: int, alpha: float) -> bool:
    """Whether a class of `n` groups can be excluded at all."""
    return (n + 1) * alpha >= 1 - 1e-9


def _quantile(scores: FloatArray, codes: IntArray, alpha: float) -> float:
    codes = np.unique(codes, return_inverse=True)[1]
    weights = equal_weights(codes)
    return weighted_quantile(scores, weights, _left_out_level(scores, codes, weights, alpha))


def _left_out_level(scores: FloatArray, codes: IntArray, weights: FloatArray, alpha: float) -> float:
    """Smallest level at which each group, left out in turn, is covered at `1 - alpha` on average.

    The plain level `1 - alpha` covers new groups too rarely, the more so the fewer and the more different they are.
    """
    order = np.argsort(scores, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    at = np.unique(np.minimum(np.searchsorted(share, np.linspace(0, 1, _GRID)), len(scores) - 1))
    grid = scores[order][at]
    n = int(codes.max()) + 1
    by_group = np.split(scores[np.argsort(codes, kind="stable")], np.cumsum(np.bincount(codes))[:-1])
    # Distribution function of each group on the grid, (groups, grid).
    inside = np.array([np.searchsorted(np.sort(values), grid, side="right") / len(values) for values in by_group])
    covered = np.zeros(len(_LEVELS))
    total = inside.sum(axis=0)
    for own in inside:
        rest = (total - own) / (n - 1)
        index = np.searchsorted(rest, np.minimum(_LEVELS, rest[-1]) - 1e-12)
        covered += own[np.minimum(index, len(grid) - 1)] / n
    enough = np.flatnonzero(covered >= 1 - alpha - 1e-12)
    return float(_LEVELS[enough[0]]) if len(enough) else 1.0
