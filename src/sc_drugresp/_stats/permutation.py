"""Compare a score with that of labels dealt out to the groups (samples) at random.

Cells of one group share everything but the noise, so that labels are permuted between groups. When few groups make few
arrangements, all of them are tried and the p-value is exact; its smallest possible value is then limited by the number of
groups. A few groups with both classes count as the class of most of their cells. Where more than a fifth of the groups are
mixed, the groups' own AUROCs are compared with one half by sign flips instead.

The test holds the scores fixed. It is exact for scores that were made without these labels. Cross-validated scores were
made with the labels of the other groups, which makes the test somewhat liberal (at a nominal 0.05 it rejects in 8 to 13
of 100 data sets without signal); models that are refitted to each arrangement give the exact test, see
:func:`~sc_drugresp._evaluate.naive.permuted_scores`.

`scipy.stats.permutation_test` refuses classes of a single group, which real designs have, and would compute the AUROC of
every arrangement from pairs of groups where one matrix product does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from math import comb

import numpy as np

from .groups import encode_groups, majority_classes
from .metrics import group_kernel

MAX_EXACT = 10_000


@dataclass(frozen=True)
class Permutation:
    """A one-sided permutation test of AUROC > 0.5.

    Parameters
    ----------
    value
        Observed AUROC over cells; where groups count as their majority, all of their cells do.
    null
        AUROC of each arrangement.
    exact
        Every arrangement was tried.
    """

    value: float
    null: np.ndarray
    exact: bool

    @property
    def p_value(self) -> float:
        """Share of the arrangements that score at least as high; NaN where nothing can be permuted."""
        if not len(self.null):
            return float("nan")
        higher = int(np.sum(self.null >= self.value - 1e-12))
        return higher / len(self.null) if self.exact else (higher + 1) / (len(self.null) + 1)


def permutation_test(
    y: np.ndarray,
    score: np.ndarray,
    groups: np.ndarray,
    *,
    n_permutations: int = 1000,
    rng: np.random.Generator | int = 0,
) -> Permutation:
    """Test AUROC against labels dealt out to groups at random; scores are held fixed.

    Parameters
    ----------
    y, score
        Label (1 sensitive, 0 resistant) and score of each cell.
    groups
        Independent unit of each cell.
    n_permutations
        Random arrangements when there are too many to try all.
    rng
        Seed or generator.

    Returns
    -------
    :class:`Permutation`.
    """
    index, names = encode_groups(groups)
    size = np.bincount(index).astype(float)
    n_groups, labels = len(names), majority_classes(y, index, len(names))
    mixed = np.flatnonzero(labels == 2)
    rng = np.random.default_rng(rng)
    if not len(mixed) and 0 < labels.sum() < n_groups:
        everyone = np.ones(len(y), dtype=bool)
        kernel = group_kernel(score, everyone, everyone, index, n_groups)
        dealt, exact = label_arrangements(labels, n_permutations, rng)
        value = float(_auroc(labels[None, :], kernel, size)[0])
        return Permutation(value, _auroc(dealt, kernel, size), exact)
    if len(mixed) >= 2:
        from sklearn.metrics import roc_auc_score

        gain = np.array([roc_auc_score(y[index == g], score[index == g]) - 0.5 for g in mixed])
        signs, exact = sign_arrangements(len(gain), n_permutations, rng)
        return Permutation(0.5 + gain.mean(), 0.5 + signs @ gain / len(gain), exact)
    return Permutation(float("nan"), np.zeros(0), exact=False)


def label_arrangements(labels: np.ndarray, n_permutations: int, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """All ways to deal `labels` out again, or `n_permutations` random ones; shape `(arrangements, n)`, and exact or not."""
    n, k = len(labels), int(labels.sum())
    if comb(n, k) <= MAX_EXACT:
        chosen = np.array(list(combinations(range(n), k)), dtype=np.int64).reshape(-1, k)
        out = np.zeros((len(chosen), n))
        np.put_along_axis(out, chosen, 1.0, axis=1)
        return out, True
    return rng.permuted(np.tile(labels.astype(float), (n_permutations, 1)), axis=1), False


def sign_arrangements(n: int, n_permutations: int, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """All ways to give `n` numbers a sign, or `n_permutations` random ones, and exact or not."""
    if 2**n <= MAX_EXACT:
        return np.array(list(product((1.0, -1.0), repeat=n))), True
    return rng.choice((1.0, -1.0), size=(n_permutations, n)), False


def _auroc(labels: np.ndarray, kernel: np.ndarray, size: np.ndarray) -> np.ndarray:
    """AUROC over cells of every row of group labels."""
    other = 1 - labels
    return ((labels @ kernel) * other).sum(axis=1) / ((labels @ size) * (other @ size))
