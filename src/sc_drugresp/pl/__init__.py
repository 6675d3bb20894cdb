"""Plots: matplotlib, one `Axes` each (a `Figure` for grids); nothing is shown or saved behind your back."""

from __future__ import annotations

from ._calibration import calibration, risk_coverage
from ._leakage_gap import leakage_gap
from ._metrics import metrics, roc
from ._model_comparison import history, model_comparison
from ._response import response
from ._samples import samples
from ._split_design import split_design
from ._state_control import state_control

__all__ = [
    "calibration",
    "history",
    "leakage_gap",
    "metrics",
    "model_comparison",
    "response",
    "risk_coverage",
    "roc",
    "samples",
    "split_design",
    "state_control",
]
