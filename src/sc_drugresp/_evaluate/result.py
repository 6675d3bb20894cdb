"""The tables of an evaluation, as they are written into `.uns`: frames, strings and numbers that survive h5ad."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._design.aliasing import aliasing, design_table
from .._design.confounding import Within
from .._response.choose import RANDOM
from .._stats.comparison import compare_models, further_samples
from .._stats.groups import encode_groups, group_classes, majority_classes
from .._stats.intervals import MACRO
from .._stats.metrics import sample_scores
from .naive import PERMUTED
from .options import POOLED, STRICT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from .cohort import Cohort
    from .protocols import Run
    from .request import Request
    from .table import Scored

WANTED_HALF_WIDTH = 0.1
_NOTED = ("protocol", "split", "head", "label_key", "rng")
_NOTED_OPTIONS = ("hold_out", "n_pairings", "n_boot", "n_permutations", "n_refits", "allow_leaks")
COLUMNS = [
    "model", "kind", "protocol", "n_labeled", "dataset", "level", "metric", "value", "low", "high", "n_groups", "repeat_sd",
    "repeat_low", "repeat_high", "p_value", "p_adjusted", "caution",
]  # fmt: skip


def describe(request: Request, cohort: Cohort, origin: str, models: list[str]) -> dict[str, Any]:
    """What was asked for and what was found for it, in values that survive h5ad."""
    recipes = [repr(recipe) for recipe in request.recipes if recipe.name != recipe.model or recipe.options]
    return {
        **{name: getattr(request, name) for name in _NOTED},
        **{name: getattr(request.options, name) for name in _NOTED_OPTIONS},
        "level": cohort.plan.level,
        "level_key": cohort.keys.get(cohort.plan.level, request.group_key or ""),
        "group_key": cohort.unit_key or request.group_key or "",
        "dataset_key": cohort.keys.get("dataset", ""),
        "layer": origin,
        "models": np.array(models, dtype=str),
        "recipes": np.array(recipes, dtype=str),
        "obs_features": np.array(list(request.options.obs_features), dtype=str),
    }


def collect(
    cohort: Cohort,
    rows: list[dict[str, Any]],
    scored: Mapping[tuple[str, str], Scored],
    runs: Mapping[str, Run],
    *,
    params: dict[str, Any],
    cautions: Sequence[str],
    digest: str,
    shown: np.ndarray | None,
) -> dict[str, Any]:
    """The tables of an evaluation, as `.uns` holds them; `shown` is the strict score of each cell by the first model."""
    import pandas as pd

    metrics = adjust_p_values(pd.DataFrame(rows, columns=COLUMNS))
    verdict = cohort.plan.verdict
    within = Within() if shown is None else cohort.confounding.within(shown)
    result: dict[str, Any] = {
        "metrics": metrics,
        "leakage_gap": leakage_gap(metrics),
        "folds": _fold_table(cohort, runs),
        "samples": _sample_table(cohort, scored),
        "heads": _head_table(scored),
        "design": design_table(cohort.y, cohort.columns),
        "aliasing": _aliasing_table(cohort),
        "verdict": {
            "code": verdict.code,
            "reason": verdict.reason + _remains(cohort, within),
            "suggestions": np.array(verdict.suggestions, dtype=str),
            "cautions": np.array([*verdict.cautions, *cautions, *cohort.leaks, *_remarks(metrics, cohort)], dtype=str),
            **cohort.confounding.record(within),
        },
        "power": power(metrics, cohort),
        "params": params,
        "data": {
            "hash": digest,
            "n_cells": len(cohort.y),
            "n_sensitive": int(cohort.y.sum()),
            "n_units": len(np.unique(cohort.units)),
            "n_datasets": len(np.unique(cohort.datasets)),
            "duplicates_removed": sum(run.removed for run in runs.values()),
        },
    }
    compared = comparison(metrics)
    return result | ({"comparison": compared} if compared else {})


def _remains(cohort: Cohort, within: Within) -> str:
    """What is left of the strict score where the confounder is held fixed, in words."""
    if cohort.plan.verdict.code != "CONFOUNDED" or not cohort.confounding.confounders:
        return ""
    if not within.n_pairs:
        return " Nothing of the score remains that could be checked inside its strata."
    return (
        f" Inside its strata the strict score has AUROC {within.auroc:.2f} over {within.n_pairs} pairs of {cohort.plan.thing}s "
        f"(p = {within.p_value:.2g} with labels dealt out within strata)."
    )


def adjust_p_values(metrics: pd.DataFrame) -> pd.DataFrame:
    """Fill in `p_adjusted`: Holm's p-values for as many models as are compared, by protocol, data set and level."""
    from statsmodels.stats.multitest import multipletests

    tested = metrics[(metrics["kind"] == "model") & metrics["p_value"].notna()]
    for _, rows in tested.groupby(["protocol", "n_labeled", "dataset", "level"], sort=False, observed=True):
        metrics.loc[rows.index, "p_adjusted"] = multipletests(rows["p_value"].to_numpy(float), method="holm")[1]
    return metrics


def _remarks(metrics: pd.DataFrame, cohort: Cohort) -> list[str]:
    """What the scores, and samples with both labels, give cause to say."""
    out = []
    codes, names = encode_groups(cohort.units)
    both = names[group_classes(cohort.y, codes, len(names)) == 2].astype(str).tolist()
    if both and (majority_classes(cohort.y, codes, len(names)) < 2).all():
        some = f"{', '.join(both[:3])}{' ...' if len(both) > 3 else ''}"
        out.append(
            f"{len(both)} of {len(names)} samples hold both labels ({some}): each counts as the label of most of its cells "
            "where samples are paired, scored and permuted."
        )
    shown = _auroc_by_cell(metrics)
    value = shown[(shown["protocol"] == STRICT) & (shown["dataset"] == MACRO)].set_index("model")["value"]
    for name in [name for name in value.index if f"{name}{RANDOM}" in value.index]:
        drawn = value[f"{name}{RANDOM}"]
        if value[name] <= drawn:
            out.append(
                f"{name} scores no higher than the same network with random weights (AUROC by cell {value[name]:.2f} against "
                f"{drawn:.2f}): its score is not owed to pretraining."
            )
    return out


def _auroc_by_cell(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows of AUROC by cell without labeled samples of the target."""
    return metrics[(metrics["metric"] == "auroc") & (metrics["level"] == "cell") & (metrics["n_labeled"] == 0)]


def leakage_gap(metrics: pd.DataFrame) -> pd.DataFrame:
    """Random-cell minus strict AUROC by cell, for every row of the table that has both."""
    shown = _auroc_by_cell(metrics)
    shown = shown[shown["dataset"] == MACRO]
    wide = shown.pivot_table(index=["model", "kind"], columns="protocol", values="value", sort=False, dropna=False)
    wide = wide.dropna(how="all").reindex(columns=[POOLED, STRICT]).reset_index()
    wide.columns.name = None
    wide["gap"] = wide[POOLED] - wide[STRICT]
    return wide


def power(metrics: pd.DataFrame, cohort: Cohort) -> dict[str, Any]:
    """How firmly the strict AUROC of the first model is known, and how many samples would make it +- 0.1."""
    shown = _auroc_by_cell(metrics)
    rows = shown[(shown["kind"] == "model") & (shown["protocol"] == STRICT) & (shown["dataset"] == MACRO)]
    if not len(rows) or not np.isfinite(rows.iloc[0]["low"]):
        return {}
    first = rows.iloc[0]
    half = float(first["high"] - first["low"]) / 2
    kind = aliasing(cohort.y, cohort.units)
    n_samples = kind.with_sensitive + kind.with_resistant
    return {
        "auroc": float(first["value"]),
        "half_width": half,
        "wanted_half_width": WANTED_HALF_WIDTH,
        "further_samples": further_samples(n_samples, half, WANTED_HALF_WIDTH),
    }


def comparison(metrics: pd.DataFrame) -> dict[str, Any]:
    """Ranks over data sets of models and naive baselines; empty with fewer than two of either."""
    shown = _auroc_by_cell(metrics)
    learned = ~shown["model"].isin(["constant", "prevalence", PERMUTED])
    rows = shown[learned & (shown["protocol"] == STRICT) & (shown["dataset"] != MACRO)]
    wide = rows.pivot_table(index="dataset", columns="model", values="value", sort=False)
    if min(wide.shape) < 2 or not len(wide.dropna()):
        return {}
    result = compare_models(wide)
    return vars(result) | {"ranks": result.ranks.rename_axis("model").reset_index()}


def _fold_table(cohort: Cohort, runs: Mapping[str, Run]) -> pd.DataFrame:
    import pandas as pd

    y, units = cohort.y, cohort.units
    rows = [
        {
            "protocol": protocol,
            "repeat": repeat,
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
        for repeat, folds in enumerate(run.repeats)
        for fold in folds
    ]
    return pd.DataFrame(rows)


def _sample_table(cohort: Cohort, scored: Mapping[tuple[str, str], Scored]) -> pd.DataFrame:
    """Mean held-out P(sensitive) of each sample, the score that it is ranked by, and its call, by model and protocol."""
    import pandas as pd

    parts = []
    for (model, protocol), found in scored.items():
        for dataset in np.unique(cohort.datasets):
            keep = (found.fold >= 0) & (cohort.datasets == dataset)
            if not keep.any():
                continue
            y, units = cohort.y[keep], cohort.units[keep]
            scores = sample_scores(y, found.deployed.prob[keep], units)
            table = {
                "model": model,
                "protocol": protocol,
                "dataset": str(dataset),
                "sample": scores.groups.astype(str),
                "label": np.where(scores.y == 1, "sensitive", "resistant"),
                "prob": scores.prob,
                "score": sample_scores(y, found.score[keep], units).prob,
                "n_cells": scores.n_cells,
            }
            parts.append(pd.DataFrame(table))
    return pd.concat(parts, ignore_index=True)


def _head_table(scored: Mapping[tuple[str, str], Scored]) -> pd.DataFrame:
    """Kinds of head that each model could have had, the one that was taken, and what the choice promised and kept."""
    import pandas as pd

    names = ["model", "protocol", "head", "chosen", "C", "share", "inner_auroc", "nested_auroc", "optimism"]
    rows = []
    for (model, protocol), found in scored.items():
        how = found.selection
        tried = how.get("inner_auroc", {})
        for kind in tried or ([how["head"]] if how else []):
            row = {"model": model, "protocol": protocol, "head": kind, "chosen": kind == how["head"]}
            row["inner_auroc"] = tried.get(kind, np.nan)
            rows.append(row | ({k: how.get(k, np.nan) for k in ("C", "share", *names[-2:])} if row["chosen"] else {}))
    return pd.DataFrame(rows, columns=names)


def _aliasing_table(cohort: Cohort) -> pd.DataFrame:
    import pandas as pd

    found = ["n_levels", "n_sensitive", "n_resistant", "n_mixed", "determines_label", "aliased"]
    rows = []
    for role, values in cohort.columns.items():
        kind = aliasing(cohort.y, values, role)
        rows.append([role, cohort.keys[role], *(getattr(kind, name) for name in found)])
    return pd.DataFrame(rows, columns=["role", "column", *found])
