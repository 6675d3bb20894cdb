"""Compare a score with that of labels dealt out to the samples at random.

Cells of one sample share everything but the noise, so that labels are permuted between samples. When few samples make
few arrangements, all of them are tried and the p-value is exact; its smallest possible value is then limited by the
number of samples, which is reported. In mixed samples (both classes inside) the samples' own AUROCs are compared with
one half by sign flips instead.

The test holds the scores fixed. It is exact for scores that were made without these labels. Cross-validated scores were
made with the labels of the other samples, which makes the test somewhat liberal (at a nominal 0.05 it rejects in 8 to 13
of 100 data sets without signal); models that are refitted to each arrangement give the exact test, see
:func:`~sc_drugresp._evaluate.naive.permuted_scores`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from math import comb

import numpy as np

from .intervals import group_kernel

MAX_EXACT = 10_000


@dataclass(frozen=True)
class Permutation:
    """A one-sided permutation test of AUROC > 0.5.

    Parameters
    ----------
    value
        Observed AUROC (over cells).
    p_value
        Share of the arrangements that score at least as high; NaN where nothing can be permuted.
    smallest_p
        Smallest p-value that this number of samples allows.
    null
        AUROC of each arrangement.
    kind
        `'labels of samples'`, `'sign flips of mixed samples'` or `'none'`.
    exact
        Every arrangement was tried.
    """

    value: float
    p_value: float
    smallest_p: float
    null: np.ndarray
    kind: str
    exact: bool


def permutation_test(
    y: np.ndarray,
    score: np.ndarray,
    groups: np.ndarray,
    *,
    n_permutations: int = 1000,
    rng: np.random.Generator | int = 0,
) -> Permutation:
    """Test AUROC against labels dealt out to samples at random; scores are held fixed.

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
    y, score = np.asarray(y), np.asarray(score, dtype=np.float64)
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    n_groups = len(names)
    n = np.bincount(index, minlength=n_groups).astype(float)
    share = np.bincount(index, y, n_groups) / np.maximum(n, 1)
    rng = np.random.default_rng(rng)
    pure = (share == 0) | (share == 1)
    if n_groups >= 2 and pure.all() and 0 < share.sum() < n_groups:
        everyone = np.ones(len(y), dtype=bool)
        kernel = group_kernel(score, everyone, everyone, index, n_groups)
        labels, exact = label_arrangements(share.astype(int), n_permutations, rng)
        null = _pure_auroc(labels, kernel, n)
        value = float(_pure_auroc(share[None, :], kernel, n)[0])
        smallest = 1 / comb(n_groups, int(share.sum())) if exact else 1 / (len(null) + 1)
        return Permutation(value, _p_value(value, null, exact), smallest, null, "labels of samples", exact)
    if (~pure).sum() >= 2:
        return _sign_flips(y, score, index, np.flatnonzero(~pure), n_permutations, rng)
    nan = float("nan")
    return Permutation(nan, nan, nan, np.zeros(0), "none", exact=False)


def label_arrangements(
    labels: np.ndarray, n_permutations: int, rng: np.random.Generator, *, max_exact: int = MAX_EXACT
) -> tuple[np.ndarray, bool]:
    """All ways to deal `labels` out again, or `n_permutations` random ones; shape `(arrangements, n)`, and exact or not."""
    n, k = len(labels), int(labels.sum())
    if comb(n, k) <= max(max_exact, 1):
        chosen = np.array(list(combinations(range(n), k)), dtype=np.int64).reshape(-1, k)
        out = np.zeros((len(chosen), n))
        np.put_along_axis(out, chosen, 1.0, axis=1)
        return out, True
    return rng.permuted(np.tile(labels.astype(float), (n_permutations, 1)), axis=1), False


def _pure_auroc(labels: np.ndarray, kernel: np.ndarray, n: np.ndarray) -> np.ndarray:
    other = 1 - labels
    return ((labels @ kernel) * other).sum(axis=1) / ((labels @ n) * (other @ n))


def _p_value(value: float, null: np.ndarray, exact: bool) -> float:  # noqa: FBT001
    higher = int(np.sum(null >= value - 1e-12))
    return higher / len(null) if exact else (higher + 1) / (len(null) + 1)


def _sign_flips(
    y: np.ndarray,
    score: np.ndarray,
    index: np.ndarray,
    mixed: np.ndarray,
    n_permutations: int,
    rng: np.random.Generator,
) -> Permutation:
    from sklearn.metrics import roc_auc_score

    gain = np.array([roc_auc_score(y[index == g], score[index == g]) - 0.5 for g in mixed])
    k = len(gain)
    exact = 2**k <= MAX_EXACT
    if exact:
        signs = np.array(list(product((1.0, -1.0), repeat=k)))
    else:
        signs = rng.choice((1.0, -1.0), size=(n_permutations, k))
    null, value = 0.5 + signs @ gain / k, 0.5 + float(gain.mean())
    smallest = 1 / len(null) if exact else 1 / (len(null) + 1)
    return Permutation(value, _p_value(value, null, exact), smallest, null, "sign flips of mixed samples", exact)
