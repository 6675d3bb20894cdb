"""State of fitted statistics that is written without pickle: arrays apart, the rest as JSON."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .._core.json import jsonable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class State:
    """Base of frozen dataclasses whose fields are arrays, numbers and strings.

    `to_dict` and `arrays` together hold everything; `from_dict` puts them back. A missing number is `NaN` in Python
    and `None` in JSON.
    """

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays by field name, contiguous and numeric, ready for safetensors."""
        return {name: np.ascontiguousarray(x) for name, x in vars(self).items() if isinstance(x, np.ndarray)}

    def to_dict(self) -> dict[str, Any]:
        """Everything that is not an array, as JSON-able values."""
        return {name: jsonable(x) for name, x in vars(self).items() if not isinstance(x, np.ndarray)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None) -> Self:
        """Rebuild the state from what `to_dict` and `arrays` gave.

        Raises
        ------
        KeyError
            A field is missing.
        """
        given = {**data, **(arrays or {})}
        values = {field.name: given[field.name] for field in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: np.nan if value is None else value for name, value in values.items()})
