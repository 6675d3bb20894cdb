"""The evaluation card: everything that another person needs to judge and to repeat an evaluation, as JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core.json import jsonable
from .._stats.intervals import MACRO

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

CARD_VERSION = 2
_SHOWN = (
    "auroc", "f1", "mcc", "balanced_accuracy", "brier", "called", "called_wrong", "answered", "mcc_answered",
    "balanced_accuracy_answered",
)  # fmt: skip
_FIELDS = ("value", "low", "high", "n_groups", "repeat_low", "repeat_high", "p_value", "p_adjusted")


def evaluation_card(result: Mapping[str, Any]) -> dict[str, Any]:
    """Build the card from what `tl.evaluate` wrote into `.uns`.

    Parameters
    ----------
    result
        `.uns['evaluation']`.

    Returns
    -------
    A dictionary of JSON values: `verdict`, `scores` (models: strict and random-cell AUROC with interval, range of single
    pairings and p-values, F1, Brier score, calls, and samples called correctly), `naive_baselines` (the same for naive
    rows), `leakage_gap`, `split`, `data`, `versions`, `command`, `params`.
    """
    metrics: pd.DataFrame = result["metrics"]
    macro = metrics[(metrics["dataset"] == MACRO) & (metrics["n_labeled"] == 0)]
    scores: dict[str, list[dict[str, Any]]] = {"model": [], "naive": []}
    for (model, kind, protocol), rows in macro.groupby(["model", "kind", "protocol"], sort=False, observed=True):
        scores[str(kind)].append({"name": str(model), "protocol": str(protocol), **_summary(rows)})
    card = {
        "card_version": CARD_VERSION,
        "score": "P(sensitive)",
        "verdict": dict(result["verdict"]),
        "scores": scores["model"],
        "naive_baselines": scores["naive"],
        "leakage_gap": result["leakage_gap"].to_dict(orient="records"),
        "split": {"level": result["params"]["level"], "folds": result["folds"].to_dict(orient="records")},
        "data": dict(result["data"]),
        "versions": dict(result["versions"]),
        "command": result["command"],
        "params": dict(result["params"]),
    }
    return jsonable(card)


def _summary(rows: pd.DataFrame) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for row in rows.to_dict(orient="records"):
        if row["metric"] in _SHOWN:
            name = f"{row['metric']}_{row['level']}"
            out[name] = {field: row[field] for field in _FIELDS}
        elif row["metric"] == "samples_right":
            out["samples_right"] = f"{int(row['value'])} of {int(row['n_groups'])}"
    return out
