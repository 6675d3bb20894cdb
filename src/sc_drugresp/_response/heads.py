"""Response heads for inference: arrays in, logits out. No torch, no scikit-learn, nothing to unpickle."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HeadKind = Literal["logistic", "mlp", "pseudobulk_lda", "mil"]
HeadChoice = Literal["logistic", "mlp", "pseudobulk_lda", "mil", "auto"]
OVER_SAMPLES = ("pseudobulk_lda", "mil")
"""Heads whose score of a sample is more than the mean of its cells."""


_BLOCK = 8_192


@dataclass(frozen=True)
class LinearHead:
    """A linear function of the standardized embedding: logistic regression over cells."""

    mean: np.ndarray
    scale: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray
    kind: ClassVar[str] = "logistic"

    def logit(self, x: np.ndarray) -> np.ndarray:
        """Log-odds of `sensitive`, shape `(n,)`, float64; NaN where the embedding is NaN."""
        return _by_blocks(self._logit, x)

    def _logit(self, x: np.ndarray) -> np.ndarray:
        return ((x - self.mean) / self.scale) @ self.coef + np.ravel(self.intercept)[0]

    def sample_logit(self, x: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Names of the samples, sorted, and the score of each: the mean logit of its cells; NaN for a sample without."""
        return pool(self.logit(x), groups)


@dataclass(frozen=True)
class PseudobulkHead(LinearHead):
    """Linear discriminant of sample means. The mean of its logits is the logit of the mean, so cells add nothing."""

    kind: ClassVar[str] = "pseudobulk_lda"


@dataclass(frozen=True)
class TopShareHead(LinearHead):
    """Logistic regression of the cells that speak loudest in each sample.

    `share` says which: 0.2 the fifth that looks most sensitive, -0.2 the fifth that looks most resistant.
    """

    share: np.ndarray
    kind: ClassVar[str] = "mil"

    def sample_logit(self, x: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Names of the samples, sorted, and the score of each: the mean logit of the share of its cells that counts."""
        return pool(self.logit(x), groups, float(np.ravel(self.share)[0]))


@dataclass(frozen=True)
class MLPHead:
    """Two hidden layers with ReLU and two outputs (scDrugMap's head); the logit is their difference."""

    mean: np.ndarray
    scale: np.ndarray
    w1: np.ndarray
    b1: np.ndarray
    w2: np.ndarray
    b2: np.ndarray
    w3: np.ndarray
    b3: np.ndarray
    kind: ClassVar[str] = "mlp"

    def logit(self, x: np.ndarray) -> np.ndarray:
        """Log-odds of `sensitive`, shape `(n,)`, float64."""
        return _by_blocks(self._logit, x)

    def _logit(self, x: np.ndarray) -> np.ndarray:
        h = (x - self.mean) / self.scale
        for weight, bias in ((self.w1, self.b1), (self.w2, self.b2)):
            h = np.maximum(h @ weight.T + bias, 0)
        out = h @ self.w3.T + self.b3
        return out[:, 1] - out[:, 0]

    def sample_logit(self, x: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Names of the samples, sorted, and the mean logit of the cells of each."""
        return pool(self.logit(x), groups)


Head = LinearHead | MLPHead
_KINDS: tuple[type[Head], ...] = (LinearHead, PseudobulkHead, TopShareHead, MLPHead)


def _by_blocks(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """A function of float64 rows, of some thousand at once: the embedding is not copied as a whole."""
    out = np.empty(len(x))
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        out[rows] = function(np.asarray(x[rows], dtype=np.float64))
    return out


def check_tunable(head: str) -> None:
    """Refuse a head that cannot be trained together with an encoder.

    Raises
    ------
    ValueError
        It is fitted to whole samples, or was to be chosen.
    """
    if head not in ("logistic", "mlp"):
        msg = f"An encoder can be tuned with head='logistic' or head='mlp', found head={head!r}; use one of these."
        raise ValueError(msg)


def loudest(logit: np.ndarray, index: np.ndarray, share: float) -> np.ndarray:
    """Mask of the cells that count: the top `share` of each group by logit, or the bottom one if `share` is negative.

    Cells without a logit never count; of any group with a logit at least one cell does. Ties are broken by position.
    """
    known = np.isfinite(logit)
    order = np.lexsort((-np.sign(share) * logit, ~known, index))
    size = np.bincount(index)
    rank = np.empty(len(logit), dtype=np.int64)
    rank[order] = np.arange(len(logit)) - (np.cumsum(size) - size)[index[order]]
    wanted = np.ceil(abs(share) * np.bincount(index, known) - 1e-9)
    return known & (rank < wanted[index])


def pool(logit: np.ndarray, groups: np.ndarray, share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Names of the groups and the mean logit over the loudest `share` of the cells of each; NaN without a logit."""
    names, index = np.unique(groups, return_inverse=True)
    counts = loudest(logit, index, share)
    n = np.bincount(index[counts], minlength=len(names))
    total = np.bincount(index[counts], logit[counts], minlength=len(names))
    return names, np.where(n > 0, total / np.maximum(n, 1), np.nan)


def head_arrays(head: Head) -> dict[str, np.ndarray]:
    """All arrays of a head by name."""
    return {field.name: np.asarray(getattr(head, field.name)) for field in fields(head)}


def head_from_arrays(kind: str, arrays: Mapping[str, np.ndarray]) -> Head:
    """Rebuild a head.

    Raises
    ------
    KeyError
        There is no such kind of head, or an array is missing.
    """
    head = {head.kind: head for head in _KINDS}[kind]
    return head(**{field.name: arrays[field.name] for field in fields(head)})
