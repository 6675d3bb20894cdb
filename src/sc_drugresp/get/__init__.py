"""The numbers behind every plot, as data frames."""

from __future__ import annotations

from ._evaluation import (
    calibration_df,
    evaluation_card,
    leakage_gap_df,
    metrics_df,
    risk_coverage_df,
    roc_df,
    split_design_df,
    state_control_df,
)
from ._predictions import history_df, predictions_df, samples_df

__all__ = [
    "calibration_df",
    "evaluation_card",
    "history_df",
    "leakage_gap_df",
    "metrics_df",
    "predictions_df",
    "risk_coverage_df",
    "roc_df",
    "samples_df",
    "split_design_df",
    "state_control_df",
]
