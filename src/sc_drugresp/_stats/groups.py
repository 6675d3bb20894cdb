"""What the trust modules share: samples as the unit, weights, resampling, and state that is written without pickle."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    FloatArray: TypeAlias = NDArray[np.float64]
    IntArray: TypeAlias = NDArray[np.intp]
    BoolArray: TypeAlias = NDArray[np.bool_]


class State:
    """Fitted state of a frozen dataclass: arrays in one dictionary, the rest as JSON.

    `to_dict` and `arrays` together hold everything; `from_dict` puts them back. A missing number is `NaN` in Python
    and `None` in JSON, which has no `NaN`.
    """

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays by field name, contiguous and numeric, ready for safetensors."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {name: np.ascontiguousarray(value) for name, value in values.items() if isinstance(value, np.ndarray)}

    def to_dict(self) -> dict[str, Any]:
        """Everything that is not an array, as JSON-able values."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {name: _jsonable(value) for name, value in values.items() if not isinstance(value, np.ndarray)}

    @classmethod
    def from_dict(cls, data: dict[str, Any], arrays: dict[str, NDArray[Any]] | None = None) -> Self:
        """Rebuild the state from what `to_dict` and `arrays` gave."""
        arrays = arrays or {}
        values: dict[str, Any] = {}
        for field in fields(cls):  # type: ignore[arg-type]
            if field.name in arrays:
                values[field.name] = np.asarray(arrays[field.name])
            elif field.name in data:
                value = data[field.name]
                values[field.name] = np.nan if value is None and field.type == "float" else _tupled(value)
            else:
                msg = f"Saved {cls.__name__} lacks {field.name!r}; it holds {sorted([*data, *arrays])}."
                raise ValueError(msg)
        return cls(**values)


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_jsonable(item) for item in value]
    return value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value


def check_scores(scores: ArrayLike, name: str = "logits", *, allow_nan: bool = False) -> FloatArray:
    """One finite number per cell; `allow_nan` for cells of which nothing was embedded."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not (np.isfinite(values) | (allow_nan & np.isnan(values))).all():
        bad = "" if values.ndim != 1 else f" with {int((~np.isfinite(values)).sum())} values that are not finite"
        msg = f"`{name}` must hold one finite number per cell, found shape {values.shape}{bad}."
        raise ValueError(msg)
    return values


def check_labels(y: ArrayLike, n: int) -> IntArray:
    """One label per cell, 1 = sensitive and 0 = resistant."""
    values = np.asarray(y)
    if values.shape != (n,) or not np.isin(values, (0, 1)).all():
        found = np.unique(values)[:5].tolist() if values.dtype != object else "other objects"
        msg = (
            f"`y` must hold 1 (sensitive) or 0 (resistant) for each of {n} cells, found shape {values.shape}: {found}."
        )
        raise ValueError(msg)
    return values.astype(np.intp)


def encode_groups(groups: ArrayLike, n: int) -> tuple[IntArray, NDArray[Any]]:
    """Codes 0..g-1 of the samples and their names, sorted."""
    values = np.asarray(groups)
    if values.shape != (n,):
        msg = f"`groups` must name the sample of each of {n} cells, found shape {values.shape}."
        raise ValueError(msg)
    if values.dtype == object:
        missing = np.array([value is None or value != value for value in values])
        if missing.any():
            msg = f"`groups` is missing for {int(missing.sum())} cells; drop these cells or name their sample."
            raise ValueError(msg)
        values = values.astype(str)
    names, codes = np.unique(values, return_inverse=True)
    return codes.reshape(-1).astype(np.intp), names


def equal_weights(codes: IntArray, n_groups: int | None = None) -> FloatArray:
    """Cell weights that give every sample a total of one."""
    return 1.0 / np.bincount(codes, minlength=n_groups or 0)[codes]


def sample_classes(y: IntArray, codes: IntArray, n_groups: int) -> IntArray:
    """Class of each sample: 0 resistant, 1 sensitive, 2 both."""
    sensitive = np.bincount(codes, weights=y, minlength=n_groups)
    size = np.bincount(codes, minlength=n_groups)
    return np.where(sensitive == 0, 0, np.where(sensitive == size, 1, 2)).astype(np.intp)


def samples_per_class(y: IntArray, codes: IntArray) -> tuple[int, int]:
    """Numbers of samples with at least one resistant and at least one sensitive cell."""
    return len(np.unique(codes[y == 0])), len(np.unique(codes[y == 1]))


def bootstrap_counts(strata: IntArray, n_boot: int, rng: np.random.Generator) -> FloatArray:
    """How often each sample is drawn, `(n_boot, n_samples)`, when samples are redrawn within their stratum."""
    counts = np.zeros((n_boot, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        counts[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=n_boot)
    return counts


def weighted_quantile(values: FloatArray, weights: FloatArray, level: float, *, extra: float = 0.0) -> float:
    """Smallest value at which the weighted distribution function reaches `level`.

    `extra` is weight that sits at plus infinity, as conformal prediction adds for the unseen sample.
    """
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order]) / (weights.sum() + extra)
    # Rounding must not push an exactly reached level to the next value.
    index = int(np.searchsorted(share, level - 1e-12))
    return float(values[order[index]]) if index < len(values) else np.inf
