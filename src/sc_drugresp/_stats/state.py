"""State of fitted statistics that is written without pickle: arrays apart, the rest as JSON."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .._core.json import jsonable

if TYPE_CHECKING:
    from numpy.typing import NDArray


class State:
    """Base of frozen dataclasses whose fields are arrays, numbers and strings.

    `to_dict` and `arrays` together hold everything; `from_dict` puts them back. A missing number is `NaN` in Python
    and `None` in JSON.
    """

    def _values(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays by field name, contiguous and numeric, ready for safetensors."""
        values = self._values().items()
        return {name: np.ascontiguousarray(value) for name, value in values if isinstance(value, np.ndarray)}

    def to_dict(self) -> dict[str, Any]:
        """Everything that is not an array, as JSON-able values."""
        values = self._values().items()
        return {name: jsonable(value) for name, value in values if not isinstance(value, np.ndarray)}

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
                values[field.name] = np.nan if value is None and field.type == "float" else value
            else:
                msg = f"Saved {cls.__name__} lacks {field.name!r}; it holds {sorted([*data, *arrays])}."
                raise ValueError(msg)
        return cls(**values)
