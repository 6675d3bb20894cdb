"""Plots: matplotlib, one `Axes` each (a `Figure` for grids); nothing is shown or saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.lazy import attach
from ._plain import plain_text

if TYPE_CHECKING:
    from ._calibration import calibration as calibration
    from ._clone_coverage import clone_coverage as clone_coverage
    from ._drug_heatmap import drug_heatmap as drug_heatmap
    from ._drug_ranking import drug_ranking as drug_ranking
    from ._history import history as history
    from ._leakage_gap import leakage_gap as leakage_gap
    from ._metrics import metrics as metrics
    from ._model_comparison import model_comparison as model_comparison
    from ._response import response as response
    from ._risk_coverage import risk_coverage as risk_coverage
    from ._roc import roc as roc
    from ._samples import samples as samples
    from ._split_design import split_design as split_design
    from ._state_control import state_control as state_control

_PLOTS = (
    "calibration", "clone_coverage", "drug_heatmap", "drug_ranking", "history", "leakage_gap", "metrics",
    "model_comparison", "response", "risk_coverage", "roc", "samples", "split_design", "state_control",
)  # fmt: skip

__getattr__, __dir__, __all__ = attach(__name__, {name: f"._{name}" for name in _PLOTS}, around=plain_text)
