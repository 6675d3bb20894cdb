"""What our verbs write into `.uns`, as far as frames, plots and the report read it."""

from __future__ import annotations

from typing import Any

from .._core.contents import FLAG, NUMBER, PLAIN, TEXT, TEXTS, Table
from .._core.keys import CALL_CLASSES

_CALLS = {"call": CALL_CLASSES}
_METRICS = Table(
    text="model protocol dataset level metric",
    numbers="n_labeled value low high n_groups repeat_sd repeat_low repeat_high p_value p_adjusted",
    any="caution",
    values={"kind": ("model", "naive")},
    filled=True,
)
EVALUATION: dict[str, Any] = {
    "metrics": _METRICS,
    "leakage_gap": Table(text="model kind", numbers="pooled leave_group_out gap"),
    "folds": Table(any="protocol fold"),
    "design": Table(numbers="n_cells n_sensitive n_resistant n_unlabeled", filled=True),
    "aliasing": Table(text="role", any="aliased"),
    "verdict": {"code": TEXT, "reason": TEXT, "suggestions": TEXTS, "cautions": TEXTS, "*": PLAIN},
    "power": {"half_width?": NUMBER, "wanted_half_width?": NUMBER, "further_samples?": NUMBER},
    "params": {
        "label_key": TEXT,
        "group_key": TEXT,
        "dataset_key": TEXT,
        "level": TEXT,
        "level_key": TEXT,
        "models": TEXTS,
        "prob_model": TEXT,
        "prob_protocol": TEXT,
        "*": PLAIN,
    },
    "data": {"hash": TEXT, "*": PLAIN},
    "versions": {"*": TEXT},
    "command": TEXT,
    "comparison?": {
        "ranks": Table(text="model", numbers="rank", key="model", filled=True),
        "pairs": Table(text="first second", numbers="p_adjusted"),
        "critical_difference": NUMBER,
        "friedman_p": NUMBER,
        "n_datasets": NUMBER,
    },
}
SAMPLES = Table(
    numbers="n_cells mean mean_low mean_high worst worst_low worst_high fraction_sensitive fraction_ood",
    text="worst_clone interval",
    values=_CALLS,
)
_PREDICTION: dict[str, Any] = {
    "statement": TEXT,
    "calls": TEXT,
    "calibrated": FLAG,
    "calibration": TEXT,
    "n_cells": NUMBER,
    "n_without_embedding": NUMBER,
    "n_out_of_distribution": NUMBER,
    "models": {"*": {"use_rep": TEXT, "head": TEXT, "mode": TEXT, "n_cells": NUMBER, "n_groups": NUMBER}},
    "samples?": SAMPLES,
    "group_key?": TEXT,
    "call_score?": TEXT,
}
PREDICTION: dict[str, Any] = _PREDICTION | {
    "verdict": TEXT,
    "verdict_reason": TEXT,
    "prevalence?": {"statement?": TEXT, "refused?": TEXT, "shift?": NUMBER},
    "predictive_values": Table(
        text="unit call at",
        numbers="held_out_called held_out_wrong expected_error expected_error_low expected_error_high prevalence "
        "predictive_value predictive_value_low predictive_value_high",
        any="model made",
    ),
}
_REFERENCE = {"name": TEXT, "median_r": NUMBER, "genes_seen": NUMBER, "chemistry": TEXT}
_GROUPS = "sample stated_lineage markers nearest_lineage abstain_reason"
BY_REFERENCE: dict[str, Any] = _PREDICTION | {
    "drug": TEXT,
    "reference": _REFERENCE | {"calls": TEXT},
    "warnings": TEXTS,
    "groups": Table(
        text=f"group {_GROUPS}",
        numbers="n_cells z z_low z_high P P_low P_high tissue_mean_z drug_r gain_over_tissue",
        values=_CALLS,
        key="group",
        filled=True,
    ),
    "cell_reliability?": NUMBER,
    "fused_with?": {"statement": TEXT},
}
RANKING: dict[str, Any] = {
    "table": Table(
        text="drug targets group abstain_reason",
        numbers="rank z P low high tissue_mean_z gain_over_tissue drug_r screen_agreement",
        values=_CALLS,
        key="drug group",
        filled=True,
    ),
    "groups": Table(text=f"group {_GROUPS}", numbers="n_cells", key="group", filled=True),
    "samples": Table(
        text="sample drug worst_group", numbers="mean_z worst_z n_groups n_groups_left_out n_cells", key="sample drug"
    ),
    "pairs?": Table(text="sample drug_1 drug_2"),
    "reference": _REFERENCE,
    "statement": TEXT,
    "warnings": TEXTS,
}
TRAINING: dict[str, Any] = {
    "params": {},
    "metrics": {"*": NUMBER},
    "n_cells?": NUMBER,
    "n_groups?": NUMBER,
    "history?": Table(numbers="epoch loss"),
    "comparison?": Table(),
}
CONTROL: dict[str, Any] = {
    "verdict": TEXT,
    "reason": TEXT,
    "table": Table(numbers="value low high n_samples"),
}


def evaluation_problem(found: dict[str, Any]) -> str | None:
    """What does not fit together in an evaluation."""
    params, models = found["params"], set(found["metrics"]["model"].astype(str))
    unknown = [name for name in (params["prob_model"], *params["models"]) if name not in models]
    return f"`metrics` has no row of the model {unknown[0]!r}" if unknown else None


def ranking_problem(found: dict[str, Any]) -> str | None:
    """What does not fit together in a ranking of drugs."""
    table, groups, samples = found["table"], found["groups"], found["samples"]
    pairs = (
        ("group", table["group"], "groups", groups["group"]),
        ("group", groups["group"], "table", table["group"]),
        ("sample", samples["sample"], "groups", groups["sample"]),
        ("drug", samples["drug"], "table", table["drug"]),
    )
    for what, names, part, known in pairs:
        if absent := sorted(set(names.astype(str)) - set(known.astype(str))):
            return f"`{part}` lacks the {what} {absent[0]!r}"
    return None


CONTROL_ROWS = ("auroc", "erased", "pretreatment", "treated", "treated_erased")


def control_problem(found: dict[str, Any]) -> str | None:
    """What is missing in a state control."""
    absent = [row for row in CONTROL_ROWS if row not in found["table"].index]
    return f"`table` lacks the row {absent[0]!r}" if absent else None
