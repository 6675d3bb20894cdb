"""Response heads for inference: arrays in, logits out. No torch, no scikit-learn, nothing to unpickle."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

HeadKind = Literal["logistic", "mlp"]


@dataclass(frozen=True)
class LinearHead:
    """Logistic regression on a standardized embedding."""

    mean: np.ndarray
    scale: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray
    kind: ClassVar[str] = "logistic"

    def logit(self, x: np.ndarray) -> np.ndarray:
        """Log-odds of `sensitive`, shape `(n,)`, float64; NaN where the embedding is NaN."""
        return ((np.asarray(x, dtype=np.float64) - self.mean) / self.scale) @ self.coef + np.ravel(self.intercept)[0]


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
        h = (np.asarray(x, dtype=np.float64) - self.mean) / self.scale
        for weight, bias in ((self.w1, self.b1), (self.w2, self.b2)):
            h = np.maximum(h @ weight.T + bias, 0)
        out = h @ self.w3.T + self.b3
        return out[:, 1] - out[:, 0]


Head = LinearHead | MLPHead


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
    head = {head.kind: head for head in (LinearHead, MLPHead)}[kind]
    return head(**{field.name: arrays[field.name] for field in fields(head)})
