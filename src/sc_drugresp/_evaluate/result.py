"""The tables of an evaluation, as they are written into `.uns`: frames, strings and numbers that survive h5ad."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._stats.comparison import compare_models, further_samples
from .._stats.intervals import MACRO
from .._stats.metrics import sample_scores
from .design import aliasing, design_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from .inputs import Design
    from .run import OutOfFold
    from .table import Run

WANTED_HALF_WIDTH = 0.1


def collect(
    design: Design,
    rows: list[dict[str, Any]],
    predictions: Mapping[tuple[str, str], OutOfFold],
    runs: Mapping[str, Run],
    *,
    params: dict[str, Any],
    notes: dict[str, Any],
    digest: str,
) -> dict[str, Any]:
    """Everything but versions, as `.uns['evaluation']` holds it."""
    import pandas as pd

    metrics = pd.DataFrame(rows)
    verdict = design.plan.verdict
    result: dict[str, Any] = {
        "metrics": metrics,
        "leakage_gap": leakage_gap(metrics),
        "folds": _fold_table(design, runs),
        "samples": _sample_table(design, predictions),
        "design": design_table(design.y, design.columns),
        "aliasing": _aliasing_table(design),
        "verdict": {
            "code": verdict.code,
            "reason": verdict.reason,
            "suggestions": np.array(verdict.suggestions, dtype=str),
            "cautions": np.array(
                [*design.plan.cautions, *(text for text in (notes["genes"],) if text), *notes["leaks"]], dtype=str
            ),
        },
        "power": power(metrics, design),
        "params": params,
        "data": {
            "hash": digest,
            "n_cells": len(design.y),
            "n_sensitive": int(design.y.sum()),
            "n_units": len(np.unique(design.units)),
            "n_datasets": len(np.unique(design.datasets)),
            "duplicates_removed": int(notes["duplicates_removed"]),
        },
        "command": command(params),
    }
    compared = comparison(metrics)
    if compared:
        result["comparison"] = compared
    return result


def command(params: Mapping[str, Any]) -> str:
    """The call that repeats the evaluation."""
    lists = {name: [str(value) for value in params[name]] for name in ("use_rep", "model", "obs_features")}
    shown = {name: value for name, value in lists.items() if value}
    same = (
        "label_key",
        "group_key",
        "protocol",
        "split",
        "head",
        "mode",
        "n_boot",
        "n_permutations",
        "n_refits",
        "allow_leaks",
        "rng",
    )
    shown |= {name: params[name] for name in same if params[name] != ""}
    arguments = [f"{name}={value!r}" for name, value in shown.items()]
    return f"sc_drugresp.tl.evaluate(adata, {', '.join([*arguments, *params['options']])})"


def leakage_gap(metrics: pd.DataFrame) -> pd.DataFrame:
    """Random-cell minus strict AUROC by cell, for every row of the table that has both."""
    shown = metrics[
        (metrics["metric"] == "auroc")
        & (metrics["level"] == "cell")
        & (metrics["dataset"] == MACRO)
        & (metrics["n_labeled"] == 0)
    ]
    wide = shown.pivot_table(index=["model", "kind"], columns="protocol", values="value", sort=False, dropna=False)
    wide = wide.dropna(how="all").reindex(columns=["pooled", "leave_group_out"]).reset_index()
    wide.columns.name = None
    wide["gap"] = wide["pooled"] - wide["leave_group_out"]
    return wide


def power(metrics: pd.DataFrame, design: Design) -> dict[str, Any]:
    """How firmly the strict AUROC of the first model is known, and how many samples would make it +- 0.1."""
    rows = metrics[
        (metrics["kind"] == "model")
        & (metrics["protocol"] == "leave_group_out")
        & (metrics["metric"] == "auroc")
        & (metrics["level"] == "cell")
        & (metrics["dataset"] == MACRO)
    ]
    if not len(rows) or not np.isfinite(rows.iloc[0]["low"]):
        return {}
    first = rows.iloc[0]
    half = float(first["high"] - first["low"]) / 2
    kind = aliasing(design.y, design.units)
    n_s, n_r = kind.n_sensitive + kind.n_mixed, kind.n_resistant + kind.n_mixed
    return {
        "auroc": float(first["value"]),
        "half_width": half,
        "wanted_half_width": WANTED_HALF_WIDTH,
        "further_samples": further_samples(
            float(first["value"]), WANTED_HALF_WIDTH, n_s, n_r, observed_half_width=half
        ),
    }


def comparison(metrics: pd.DataFrame, protocol: str = "leave_group_out") -> dict[str, Any]:
    """Ranks over data sets of models and naive rows; empty with fewer than two of either."""
    rows = metrics[
        (metrics["protocol"] == protocol)
        & (metrics["metric"] == "auroc")
        & (metrics["level"] == "cell")
        & (metrics["dataset"] != MACRO)
        & ~metrics["model"].isin(["constant", "prevalence", "permuted_labels"])
        & (metrics["n_labeled"] == 0)
    ]
    wide = rows.pivot_table(index="dataset", columns="model", values="value", sort=False)
    if min(wide.shape) < 2 or not len(wide.dropna()):
        return {}
    result = compare_models(wide)
    return {
        "ranks": result.ranks.rename_axis("model").reset_index(),
        "pairs": result.pairs,
        "friedman_p": result.friedman_p,
        "critical_difference": result.critical_difference,
        "n_datasets": result.n_datasets,
        "caution": result.caution,
    }


def _fold_table(design: Design, runs: Mapping[str, Run]) -> pd.DataFrame:
    import pandas as pd

    y, units = design.y, design.units
    rows = [
        {
            "protocol": protocol,
            "fold": fold.name,
            "n_labeled": fold.n_labeled,
            "n_train": len(fold.train),
            "n_test": len(fold.test),
            "train_sensitive": int(y[fold.train].sum()),
            "test_sensitive": int(y[fold.test].sum()),
            "train_units": len(np.unique(units[fold.train])),
            "test_units": len(np.unique(units[fold.test])),
            "shared_units": len(np.intersect1d(units[fold.train], units[fold.test])),
        }
        for protocol, run in runs.items()
        for fold in run.folds
    ]
    return pd.DataFrame(rows)


def _sample_table(design: Design, predictions: Mapping[tuple[str, str], OutOfFold]) -> pd.DataFrame:
    """Mean out-of-fold score of each sample, by model and protocol."""
    import pandas as pd

    parts = []
    for (model, protocol), out in predictions.items():
        for dataset in np.unique(design.datasets):
            keep = out.scored & (design.datasets == dataset)
            if not keep.any():
                continue
            scores = sample_scores(design.y[keep], out.prob[keep], design.units[keep])
            parts.append(
                pd.DataFrame(
                    {
                        "model": model,
                        "protocol": protocol,
                        "dataset": str(dataset),
                        "sample": scores.groups.astype(str),
                        "label": np.where(scores.y == 1, "sensitive", "resistant"),
                        "prob": scores.prob,
                        "n_cells": scores.n_cells,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def _aliasing_table(design: Design) -> pd.DataFrame:
    import pandas as pd

    found = [(role, design.keys[role], aliasing(design.y, values, role)) for role, values in design.columns.items()]
    return pd.DataFrame(
        [
            {
                "role": role,
                "column": key,
                "n_levels": kind.n_levels,
                "n_sensitive": kind.n_sensitive,
                "n_resistant": kind.n_resistant,
                "n_mixed": kind.n_mixed,
                "determines_label": kind.determines_label,
                "aliased": kind.aliased,
            }
            for role, key, kind in found
        ],
        columns=["role", "column", "n_levels", "n_sensitive", "n_resistant", "n_mixed", "determines_label", "aliased"],
    )
