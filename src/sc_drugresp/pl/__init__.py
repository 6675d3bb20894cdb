"""Plots: matplotlib, one `Axes` each (a `Figure` for grids); nothing is shown or saved behind your back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.lazy import attach

if TYPE_CHECKING:
    from ._calibration import calibration as calibration
    from ._calibration import risk_coverage as risk_coverage
    from ._leakage_gap import leakage_gap as leakage_gap
    from ._metrics import metrics as metrics
    from ._metrics import roc as roc
    from ._model_comparison import history as history
    from ._model_comparison import model_comparison as model_comparison
    from ._response import response as response
    from ._samples import samples as samples
    from ._split_design import split_design as split_design
    from ._state_control import state_control as state_control

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "calibration": "._calibration",
        "history": "._model_comparison",
        "leakage_gap": "._leakage_gap",
        "metrics": "._metrics",
        "model_comparison": "._model_comparison",
        "response": "._response",
        "risk_coverage": "._calibration",
        "roc": "._metrics",
        "samples": "._samples",
        "split_design": "._split_design",
        "state_control": "._state_control",
    },
)
