"""Tables and figures of a report, section by section; the sentences around them are in the template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import get, pl
from .._core.keys import CALL_CLASSES, REFERENCE, PredictionKeys
from .._data.modalities import as_adata, observations
from .._data.obs import has_labels
from .._embed.slots import embeddings
from .._evaluate.calls import ANSWERED
from ..get._names import (
    EXTERNAL,
    RANDOM_CELLS,
    metric_name,
    model_name,
    model_names,
    p_text,
    protocol_name,
    range_text,
    score_text,
)
from ._page import figure, table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    Plot = tuple[Callable[..., Any], str]

_BY_CELL = ("auprc", "f1", "mcc", "balanced_accuracy", "brier", "ece")
_MOST_SAMPLES = 80
_MOST_RANKED, _MOST_DRAWN = 60, 3
"""Rows of the table of drugs, and samples whose ranking is drawn."""


def describe_data(data: AnnData | MuData, label_key: str, modality: str) -> dict[str, Any]:
    """Size, labels, embeddings, and the findings of `pp.check`."""
    from .. import pp

    adata, obs = as_adata(data, modality=modality), observations(data, modality=modality)
    facts = {"cells": f"{adata.n_obs:,}", "genes": f"{adata.n_vars:,}"}
    labeled = has_labels(obs, label_key)
    if labeled:
        counts = obs[label_key].astype(object).fillna("missing").value_counts()
        facts["labels"] = ", ".join(f"{name}: {n:,}" for name, n in counts.items())
    for note in embeddings(adata):
        covered = note["genes"].get("counts_covered")
        share = "" if covered is None else f" ({covered:.0%} of the counts are in genes that it knows)"
        name, terms = note["params"]["model"], dict(note["checkpoint"]).get("license")
        if "teacher" in note:
            name = f"student({note['teacher']['name']})"
            facts[f"teacher of {note['obsm']}"] = _teacher_facts(note["teacher"])
        licensed = f"; license of the weights: {terms}" if terms else ""
        facts[f"embedding {note['obsm']}"] = model_name(name) + share + licensed
    findings = pp.check(data, label_key=label_key if labeled else None, modality=modality)
    return {"facts": facts, "findings": table(findings) if len(findings) else None}


def _teacher_facts(teacher: Mapping[str, Any]) -> str:
    """Whose embedding a student imitates, how well, and under whose terms."""
    return (
        f"{model_name(teacher['name'])}, imitated with a cosine of {teacher['cosine']:.2f} on {teacher['held_out_samples']} held-out samples "
        f"({teacher['verdict']}); license of its weights: {teacher['license']} ({teacher['publisher']}; commercial use "
        f"{teacher['commercial']})"
    )


def describe_prediction(data: AnnData | MuData, stored: dict[str, Any], **options: Any) -> dict[str, Any]:
    """How many cells got which call, where they lie, and what follows for samples."""
    frame = get.predictions_df(data, **options)
    counts = frame["call"].value_counts().reindex(CALL_CLASSES).fillna(0).astype(int)
    captions = {
        "call": "Calls.",
        "prob": "P(sensitive).",
        "ood": "Cells unlike those learned from.",
        "label": "Labels.",
    }
    try:
        shown = [panel for panel in captions if panel in frame and frame[panel].notna().any()]
        figures = [figure(pl.response(data, color=panel, **options), captions[panel]) for panel in shown]
    except KeyError:  # no embedding was kept
        figures = []
    aggregated = PredictionKeys().samples in stored
    return stored | {
        "counts": counts.to_dict(),
        "figures": figures,
        "worth": _worth_of_calls(stored["predictive_values"]) if "predictive_values" in stored else None,
        "used": [model_name(model["use_rep"]) for model in stored["models"].values()],
        "samples": _describe_samples(data, options) if aggregated else None,
        "by_reference": _describe_reference_groups(stored) if stored.get("kind") == REFERENCE else None,
    }


def _worth_of_calls(found: pd.DataFrame) -> dict[str, Any] | None:
    """Errors among held-out calls and predictive values, one row for each unit, call and prevalence; nothing without calls."""
    import pandas as pd

    rows = found[found["held_out_called"] > 0]
    if not len(rows):
        return None
    columns: dict[str, Any] = {"model": rows["model"]} if found["model"].nunique() > 1 else {}
    columns |= {
        "call": rows["unit"] + " " + rows["call"],
        "made": rows["made"].map({True: "yes", False: "withheld"}),
        "held-out samples called": rows["held_out_called"].map("{:.3g}".format),
        "wrongly": rows["held_out_wrong"].map("{:.2g}".format),
    }
    for title, name in (("expected error among calls", "expected_error"), ("predictive value", "predictive_value")):
        limits = rows[[name, f"{name}_low", f"{name}_high"]].to_numpy(dtype=float)
        columns[title] = [score_text(*row) for row in limits]
    columns["prevalence"] = rows["prevalence"].map("{:.2f}".format) + " (" + rows["at"] + ")"
    return table(pd.DataFrame(columns))


def _describe_reference_groups(stored: dict[str, Any]) -> dict[str, Any]:
    """What a reference says of one drug in each group, with where the reference comes from."""
    import pandas as pd

    groups = stored["groups"]
    columns = {
        "group": groups["group"],
        "cells": groups["n_cells"],
        "call": groups["call"].astype(str).where(groups["z"].notna(), "no answer"),
        "P(sensitive)": [score_text(*row) for row in groups[["P", "P_low", "P_high"]].to_numpy(dtype=float)],
        "z": _z_texts(groups, "z_low", "z_high"),
        "tissue mean": _texts(groups["tissue_mean_z"]),
        "stated": groups["stated_lineage"],
        "looks like": groups["nearest_lineage"],
        "why no answer": groups["abstain_reason"],
    }
    first = groups.iloc[0]
    facts = {"drug": stored["drug"], **_reference_facts(stored["reference"])}
    facts["r of the drug in held-out lines"] = f"{first['drug_r']:.2f}"
    facts["of this beyond the tissue mean"] = f"{first['gain_over_tissue']:+.2f}"
    if "cell_reliability" in stored:
        facts["reliability of cell scores"] = f"{stored['cell_reliability']:.2f}"
    return {"facts": facts, "groups": table(pd.DataFrame(columns))}


def _reference_facts(reference: dict[str, Any]) -> dict[str, str]:
    names = {"name": "reference", "release": "release", "licence": "license", "citation": "citation"}
    facts = {title: str(reference[key]) for key, title in names.items() if key in reference}
    facts["median r in held-out lines"] = f"{reference['median_r']:.2f}"
    facts["genes of the model in the data"] = f"{reference['genes_seen']:.0%}"
    return facts | {"platform": str(reference["chemistry"]) or "not known: ranks only"}


def _z_texts(frame: pd.DataFrame, low: str, high: str) -> list[str]:
    """`-1.20 (-2.70 to 0.10)`; empty where there is no answer."""
    limits = [f" ({a} to {b})" if a and b else "" for a, b in zip(_texts(frame[low]), _texts(frame[high]))]
    return [value + limit for value, limit in zip(_texts(frame["z"]), limits)]


def _texts(values: pd.Series) -> list[str]:
    return ["" if not np.isfinite(value) else f"{value:.2f}" for value in values.to_numpy(dtype=float)]


def describe_ranking(data: AnnData | MuData, stored: dict[str, Any], **options: Any) -> dict[str, Any]:
    """How weak the reference is, who gets an answer, the first drugs of each sample, pairs."""
    import pandas as pd

    groups, ranked = stored["groups"], stored["table"]
    answered = ranked[ranked["z"].notna()]
    samples = list(dict.fromkeys(stored["samples"]["sample"].astype(str)))
    n = int(np.clip(_MOST_RANKED // max(len(samples), 1), 3, 10))
    first = get.drug_ranking_df(data, n=n, level="sample", **options)
    clones = bool((first["n_groups"] > 1).any()) if len(first) else False
    columns: dict[str, Any] = {
        "sample": first["sample"],
        "rank": first["rank"].astype(int),
        "drug": first["drug"],
        "targets": first["targets"].astype(str).str.replace(";", ", "),
        "z": _z_texts(first, "low", "high"),
        "call": first["call"],
        "tissue mean": _texts(first["tissue_mean_z"]),
    }
    if clones:
        columns |= {"worst clone": first["worst_group"], "its z": _texts(first["worst_z"])}
    columns |= {"r of the drug": _texts(first["drug_r"]), "beyond the tissue": _texts(first["gain_over_tissue"])}
    plots: list[dict[str, Any]] = []
    if len(answered):
        for sample in samples[:_MOST_DRAWN]:
            drawn = pl.drug_ranking(data, sample, level="sample", **options)
            plots.append(figure(drawn, f"The first drugs of {sample}. A gray tick is the mean of the tissue."))
            if stored["samples"].query("sample == @sample")["n_groups"].max() > 1:
                plots.append(
                    figure(pl.clone_coverage(data, sample, **options), f"Clones of {sample} that drugs reach.")
                )
        if answered["group"].nunique() > 1:
            plots.append(figure(pl.drug_heatmap(data, **options), "Drugs by group of cells; gray: no answer."))
    pairs = stored.get("pairs")
    who = {"group": "group", "n_cells": "cells", "markers": "markers", "stated_lineage": "stated"}
    who |= {"nearest_lineage": "looks like", "abstain_reason": "why no answer"}
    return stored | {
        "n_groups": len(groups),
        "n_answered": int(answered["group"].nunique()),
        "n_drugs": int(ranked["drug"].nunique()),
        "n_drugs_answered": int(answered["drug"].nunique()),
        "drug_reasons": _count_reasons(ranked, groups),
        "facts": _reference_facts(stored["reference"]),
        "who": table(groups[list(who)].rename(columns=who)),
        "first": table(pd.DataFrame(columns)) if len(first) else None,
        "n_first": n,
        "first_pairs": None if pairs is None or not len(pairs) else _pair_table(pairs),
        "figures": plots,
    }


def _count_reasons(ranked: pd.DataFrame, groups: pd.DataFrame) -> dict[str, int]:
    """How many drugs have no answer anywhere for which kind of reason, groups without any answer apart."""
    usable = groups.loc[groups["abstain_reason"] == "", "group"].astype(str)
    rows = ranked[ranked["group"].astype(str).isin(usable)].drop_duplicates("drug")
    kinds = rows.loc[rows["z"].isna(), "abstain_reason"].astype(str).str.split(":").str[0]
    return {str(kind): int(n) for kind, n in kinds.value_counts().items()}


def _pair_table(pairs: pd.DataFrame) -> dict[str, Any]:
    import pandas as pd

    best = pairs.groupby("sample", sort=False).head(5)
    columns = {
        "sample": best["sample"],
        "pair": best["drug_1"].astype(str) + " + " + best["drug_2"].astype(str),
        "z": _texts(best["mean_z"]),
        "z of the worst clone": _texts(best["worst_z"]),
        "gain over the better drug": _texts(best["gain_over_best_single"]),
    }
    return table(pd.DataFrame(columns))


def _describe_samples(data: AnnData | MuData, options: dict[str, Any]) -> dict[str, Any]:
    """The forest plot and table of samples."""
    import pandas as pd

    frame = get.samples_df(data, **options)
    columns: dict[str, Any] = {"sample": frame.index, "call": frame["call"]}
    if "label" in frame:
        columns["label"] = frame["label"].fillna("")
    clones = frame.loc[frame["worst_clone"] != "", "worst_clone"].nunique() > 1
    titles = {"mean": "mean P(sensitive)", "worst": "P(sensitive) of the worst clone"}
    for score in ("mean", "worst") if clones else ("mean",):
        limits = frame[[score, f"{score}_low", f"{score}_high"]].to_numpy(dtype=float)
        columns[titles[score]] = [score_text(*row) for row in limits]
    if clones:
        columns["worst clone"] = frame["worst_clone"]
    columns |= {
        "sensitive cells": frame["fraction_sensitive"].map(lambda share: f"{share:.0%}" if np.isfinite(share) else ""),
        "out of distribution": frame["fraction_ood"].map("{:.0%}".format),
        "cells": frame["n_cells"],
        "interval over": frame["interval"],
    }
    drawn = frame["mean"].notna().any() and len(frame) <= _MOST_SAMPLES
    plots: list[Plot] = [(pl.samples, "Mean P(sensitive) of each sample.")] if drawn else []
    return {"table": table(pd.DataFrame(columns)), "figures": _draw(plots, data, options)}


def describe_evaluation(data: AnnData | MuData, stored: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Scores of models beside naive baselines, leakage gap, calibration, design."""
    metrics = get.metrics_df(data, **options)
    strict = bool((metrics["protocol"] != RANDOM_CELLS).any())
    external = str(stored["params"]["prob_protocol"]) == EXTERNAL
    gap: list[Plot] = [] if external else [(pl.leakage_gap, "What a random split of cells adds to the score.")]
    plots: list[Plot] = [
        *gap,
        (pl.split_design, "Who could be held out, and which factors say the same as the label."),
    ]
    if strict:
        plots = [
            (pl.metrics, "AUROC of models (black) and naive baselines (gray)."),
            *plots,
            (pl.roc, "ROC curves of the held-out scores."),
            (pl.calibration, "Predicted against observed."),
            (pl.risk_coverage, "Error rate when only the most certain cells are called."),
        ]
    if "comparison" in stored:
        plots.append((pl.model_comparison, "Ranks of models over data sets."))
    params = stored["params"]
    return stored | {
        "strict": strict,
        "external": external,
        "scores": {
            protocol_name(str(name), params): _score_table(rows, by_sample=name != RANDOM_CELLS)
            for name, rows in metrics.groupby("protocol", sort=False)
        },
        "held_out": protocol_name(str(params["prob_protocol"]), params),
        "p_values": bool(metrics["p_value"].notna().any()),
        "naive": bool((metrics["kind"] == "naive").any()),
        "models": [model_name(name) for name in params["models"]],
        "figures": _draw(plots, data, options),
    }


def _score_table(rows: pd.DataFrame, *, by_sample: bool) -> dict[str, Any]:
    """One row for each model, samples first; a random split holds out no samples."""
    import pandas as pd

    names = model_names(rows["model"].unique())
    lines, gray = [], []
    for (model, kind, shots), part in rows.groupby(["model", "kind", "n_labeled"], sort=False, observed=True):
        found: dict[Any, Any] = {(row.level, row.metric): row for row in part.itertuples()}
        line = {"model": names[str(model)] + (f", {shots} labeled samples" if shots else "")}
        for level in ("sample", "cell") if by_sample else ("cell",):
            row = found.get((level, "auroc"))
            line[f"AUROC by {level}"] = score_text(row.value, row.low, row.high) if row else ""
            line[f"single pairings by {level}"] = range_text(row.repeat_low, row.repeat_high) if row else ""
            p_value = (row.p_adjusted if kind == "model" else row.p_value) if row else np.nan
            line[f"p by {level}"] = p_text(p_value)
            right = found.get((level, "samples_right"))
            if by_sample and right:
                line["samples right"] = f"{right.value:.0f} of {right.n_groups:.0f}"
        for metric in _BY_CELL:
            row = found.get(("cell", metric))
            line[metric_name(metric)] = f"{row.value:.2f}" if row and np.isfinite(row.value) else ""
        for metric, title in {"called": "called", "called_wrong": "wrong among called"}.items():
            shares = [found.get((level, metric)) for level in ("sample", "cell")]
            texts = [f"{row.value:.0%}" if row and np.isfinite(row.value) else "–" for row in shares]
            line[title] = " / ".join(texts) if set(texts) != {"–"} else ""
        both = [found.get(("sample", f"balanced_accuracy{end}")) for end in ("", ANSWERED)]
        answered = found.get(("sample", "answered"))
        if by_sample and answered:  # calls without probabilities
            texts = [f"{row.value:.2f}" if row and np.isfinite(row.value) else "–" for row in both]
            line["balanced accuracy by sample, missing answers wrong / left out"] = " / ".join(texts)
            line["samples answered"] = f"{answered.value:.0%}"
        lines.append(line)
        gray.append(kind == "naive")
    shown = pd.DataFrame(lines).fillna("")
    return table(shown.loc[:, (shown != "").any()], gray=gray)


def describe_control(data: AnnData | MuData, stored: dict[str, Any], **options: Any) -> dict[str, Any]:
    """AUROCs of the state control."""
    plots = [(pl.state_control, "What is left of the score without the treatment.")]
    return stored | {"figures": _draw(plots, data, options)}


def describe_training(data: AnnData | MuData, stored: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Held-out metrics and epochs of the latest training."""
    metrics = stored["metrics"]
    scores = {"AUROC by sample": metrics.get("sample_auroc")}
    if "samples_right" in metrics:
        scores["samples right"] = f"{metrics['samples_right']} of {metrics['samples']}"
    scores |= {f"{metric_name(name)} by cell": metrics.get(f"cell_{name}") for name in ("auroc", "f1", "brier")}
    plots = [(pl.history, "Loss and held-out scores by epoch.")] if len(get.history_df(data, **options)) else []
    return stored | {
        "scores": {name: value for name, value in scores.items() if value is not None},
        "comparison": table(stored["comparison"]) if "comparison" in stored else None,
        "figures": _draw(plots, data, options),
    }


def _draw(plots: list[Plot], data: AnnData | MuData, options: dict[str, Any]) -> list[dict[str, Any]]:
    return [figure(plot(data, **options), caption) for plot, caption in plots]
