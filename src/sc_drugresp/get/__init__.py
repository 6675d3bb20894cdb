"""The numbers behind every plot, as data frames, and how far to trust them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.lazy import attach

if TYPE_CHECKING:
    from ._evaluation import calibration_df as calibration_df
    from ._evaluation import evaluation_card as evaluation_card
    from ._evaluation import leakage_gap_df as leakage_gap_df
    from ._evaluation import metrics_df as metrics_df
    from ._evaluation import risk_coverage_df as risk_coverage_df
    from ._evaluation import roc_df as roc_df
    from ._evaluation import split_design_df as split_design_df
    from ._llm import prompt as prompt
    from ._predictions import predictions_df as predictions_df
    from ._predictions import predictive_values_df as predictive_values_df
    from ._predictions import samples_df as samples_df
    from ._ranking import drug_ranking_df as drug_ranking_df
    from ._reliability import reliability as reliability
    from ._training import history_df as history_df
    from ._training import state_control_df as state_control_df

_FRAMES = {
    "._evaluation": (
        "calibration_df", "evaluation_card", "leakage_gap_df", "metrics_df", "risk_coverage_df", "roc_df",
        "split_design_df",
    ),
    "._llm": ("prompt",),
    "._predictions": ("predictions_df", "predictive_values_df", "samples_df"),
    "._ranking": ("drug_ranking_df",),
    "._reliability": ("reliability",),
    "._training": ("history_df", "state_control_df"),
}  # fmt: skip

__getattr__, __dir__, __all__ = attach(__name__, {name: home for home, names in _FRAMES.items() for name in names})
