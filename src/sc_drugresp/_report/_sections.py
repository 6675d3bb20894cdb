"""The sections of a report: each reads what the tools wrote, and says what it means in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import get, pl
from .._core.keys import CALL_CLASSES, STATE_CONTROL, EvaluationKeys, PredictionKeys
from . import _page as html

if TYPE_CHECKING:
    from anndata import AnnData

VERDICTS = {
    "OK": "A performance estimate is possible: samples of both classes could be held out.",
    "UNDERPOWERED": "The split is valid, but there are too few independent samples to show much.",
    "ALIASED": "No performance estimate is possible from these data: the label is the same thing as a sample, batch, "
    "time point or drug.",
}
SHOWN = ("auroc", "auprc", "f1", "mcc", "balanced_accuracy", "brier", "ece")


def data_section(adata: AnnData, label_key: str) -> str:
    """Size, labels, and the findings of `pp.check`."""
    from .. import pp

    facts = {"cells": adata.n_obs, "genes": adata.n_vars}
    if label_key in adata.obs:
        counts = adata.obs[label_key].value_counts(dropna=False)
        facts["labels"] = ", ".join(f"{name}: {n}" for name, n in counts.items())
    embeddings = [v for v in adata.uns.values() if isinstance(v, dict) and v.get("kind") == "embedding"]
    for note in embeddings:
        covered = note["genes"].get("counts_covered")
        share = f", {covered:.0%} of the counts in known genes" if covered is not None else ""
        facts[f"embedding {note['obsm']}"] = f"{note['params']['model']}{share}"
    findings = pp.check(adata, label_key=label_key) if label_key in adata.obs else pp.check(adata)
    text = html.definitions(facts)
    if len(findings):
        text += html.paragraph("Findings of the check before any work:") + html.table(findings)
    return text


def prediction_section(adata: AnnData, label_key: str) -> str:
    """Calls, probabilities, out-of-distribution cells."""
    keys = PredictionKeys()
    stored = adata.uns[keys.uns]
    frame = get.predictions_df(adata, label_key=label_key)
    counts = frame["call"].value_counts().reindex(CALL_CLASSES).fillna(0).astype(int)
    share = ", ".join(f"{name} {n} ({n / len(frame):.0%})" for name, n in counts.items())
    text = html.paragraph(f"The score is P(sensitive). Calls: {share}.")
    text += html.box(str(stored["statement"]), "ok" if (counts.iloc[:2] > 0).any() else "warn")
    calibrated = bool(stored["calibrated"])
    text += html.paragraph(
        ("Probabilities are calibrated: " if calibrated else "Probabilities are NOT calibrated: ")
        + str(stored["calibration"])
        + "."
    )
    if stored.get("trained_on_these_cells"):
        text += html.paragraph(
            "No model was given: one was trained on the labeled cells. Labeled cells were scored by a model that never saw "
            "their sample."
        )
    ood = int(stored["n_out_of_distribution"])
    text += html.paragraph(f"{ood} of {len(frame)} cells ({ood / len(frame):.0%}) are unlike the cells learned from.")
    if any(np.ndim(value) == 2 and value.shape[1] >= 2 for value in adata.obsm.values()):
        panels = ["call", "prob", "ood"] + (["label"] if "label" in frame else [])
        drawn = pl.response(adata, color=panels, label_key=label_key)
        text += html.figure(drawn, "Each dot is a cell.", "Predictions over an embedding of cells")
    return text


def sample_section(adata: AnnData, label_key: str) -> str:
    """The forest plot and table of samples."""
    frame = get.samples_df(adata, label_key=label_key)
    text = ""
    if len(frame) <= 80:
        text += html.figure(
            pl.samples(adata, label_key=label_key), "Mean P(sensitive) of each sample.", "Forest plot of samples"
        )
    columns = [
        "call",
        *(["label"] if "label" in frame else []),
        "mean",
        "mean_low",
        "mean_high",
        "worst",
        "worst_clone",
    ]
    columns += ["fraction_sensitive", "fraction_ood", "n_cells", "interval"]
    return text + html.table(frame[columns], index=True)


def evaluation_section(adata: AnnData) -> str:
    """Verdict, metrics with floors, leakage gap, calibration, design."""
    result = adata.uns[EvaluationKeys().uns]
    verdict = result["verdict"]
    code = str(verdict["code"])
    text = html.box(f"{code}: {VERDICTS[code]} {verdict['reason']}", "ok" if code == "OK" else "warn")
    text += html.bullets([str(item) for item in [*verdict["suggestions"], *verdict["cautions"]]])
    metrics = get.metrics_df(adata)
    metrics = metrics[metrics["n_labeled"] == 0]
    for protocol in metrics["protocol"].unique():
        text += f"<h3>{protocol.replace('_', ' ')}</h3>\n" + _metric_table(metrics[metrics["protocol"] == protocol])
    text += html.paragraph(
        "Gray rows are floors: answers that know nothing about drug response. Intervals are 95 % over samples; p-values "
        "compare with labels dealt out to the samples at random."
    )
    text += html.figure(pl.leakage_gap(adata), "What a random split of cells adds to the score.", "Leakage gap")
    text += html.figure(
        pl.split_design(adata), "Who was held out, and what says the same as the label.", "Design tiles"
    )
    if code != "ALIASED":
        text += html.figure(pl.metrics(adata), "Strict AUROC by cell with its floors.", "AUROC of models")
        text += html.figure(pl.roc(adata), "ROC of held-out scores.", "ROC curves")
        text += html.figure(pl.calibration(adata), "Predicted against observed, over samples.", "Calibration curve")
        text += html.figure(
            pl.risk_coverage(adata), "Error when only the surest cells are called.", "Risk against coverage"
        )
    power = dict(result.get("power") or {})
    if power.get("further_samples") is not None:
        text += html.paragraph(
            f"The strict AUROC is known to +-{power['half_width']:.2f}; about {power['further_samples']:.0f} further samples "
            f"would make it +-{power['wanted_half_width']:.2f}."
        )
    if "comparison" in result:
        text += html.figure(pl.model_comparison(adata), "Models over data sets.", "Critical-difference diagram")
    return text


def _metric_table(rows: Any) -> str:
    import pandas as pd

    lines, naive = [], []
    for (model, kind), part in rows.groupby(["model", "kind"], sort=False, observed=True):
        cells = part[part["level"] == "cell"].set_index("metric")
        samples = part[part["level"] == "sample"].set_index("metric")
        line: dict[str, Any] = {"model": str(model).replace("_", " ")}
        for metric in SHOWN:
            if metric in cells.index:
                line[metric] = cells.loc[metric, "value"]
                if metric == "auroc" and np.isfinite(cells.loc[metric, "low"]):
                    line["95 % interval"] = f"{cells.loc[metric, 'low']:.2f} to {cells.loc[metric, 'high']:.2f}"
                    line["p"] = cells.loc[metric, "p_value"]
        if "samples_right" in samples.index:
            row = samples.loc["samples_right"]
            line["samples right"] = f"{row['value']:.0f} of {row['n_groups']:.0f}"
        lines.append(line)
        naive.append(kind == "naive")
    return html.table(pd.DataFrame(lines), naive=np.asarray(naive))


def state_section(adata: AnnData) -> str:
    """State or sensitivity: verdict and AUROCs of the control."""
    stored = adata.uns[STATE_CONTROL]
    verdict = str(stored["verdict"])
    text = html.box(f"{verdict}: {stored['reason']}", "ok" if verdict == "pre-treatment signal" else "warn")
    return text + html.figure(pl.state_control(adata), "What is left without the treatment.", "State control")


def training_section(adata: AnnData) -> str:
    """Parameters, held-out metrics and epochs of the latest training."""
    from .._core.keys import TRAIN_RESPONSE

    stored = adata.uns[TRAIN_RESPONSE]
    text = html.definitions(
        dict(stored["params"]) | {"labeled cells": stored["n_cells"], "samples": stored["n_groups"]}
    )
    if stored["metrics"]:
        wanted = ("cell_auroc", "cell_f1", "cell_brier", "sample_auroc", "samples_right", "samples")
        text += html.paragraph("Held-out scores:")
        text += html.definitions(
            {name: stored["metrics"][name] for name in wanted if stored["metrics"].get(name) is not None}
        )
    if "comparison" in stored:
        text += html.paragraph("The tuned model beside the frozen one, on the same held-out samples:")
        text += html.table(stored["comparison"])
    if len(get.history_df(adata)):
        text += html.figure(pl.history(adata), "Loss and held-out scores by epoch.", "Training history")
    return text


def limits_section(adata: AnnData) -> str:
    """What cannot be concluded."""
    limits = [
        (
            "Labels of a sample are spread over its cells; a cell-level score is not a statement about single cells unless "
            "labels were measured per cell."
        ),
        (
            "Conformal calls state an error level for random cells of new samples from the same population; another cancer, "
            "drug, platform or species is another population."
        ),
    ]
    keys = EvaluationKeys()
    if keys.uns in adata.uns:
        code = str(adata.uns[keys.uns]["verdict"]["code"])
        if code != "OK":
            limits.insert(0, VERDICTS[code])
    else:
        limits.insert(0, "No evaluation was run (tl.evaluate), so nothing is known about performance on new samples.")
    return html.bullets(limits)


def methods_section(adata: AnnData, versions: dict[str, str]) -> str:
    """A paragraph to copy into a paper, the command, versions, and references."""
    listed = ", ".join(f"{name} {number}" for name, number in versions.items())
    text = html.paragraph(
        "Drug response was predicted with sc_drugresp. Heads were fitted with every sample and both classes weighing the "
        "same; performance was estimated by holding out whole samples, with everything that is fitted fitted inside the "
        "folds, beside naive baselines and a permutation null; intervals were computed over samples. Probabilities were "
        "calibrated and calls made conformal on held-out samples."
    )
    keys = EvaluationKeys()
    if keys.uns in adata.uns:
        result = adata.uns[keys.uns]
        text += html.preformatted(str(result["command"])) + html.paragraph(f"Data hash: {result['data']['hash']}")
    text += html.paragraph(f"Versions: {listed}.")
    return text + html.preformatted(BIBTEX)


BIBTEX = """@article{scdrugmap, title={scDrugMap: benchmarking large foundation models for drug response prediction},
  author={Wang, Q. and others}, journal={arXiv:2505.05612}, year={2025}}
@article{scanpy, title={SCANPY: large-scale single-cell gene expression data analysis},
  author={Wolf, F. A. and Angerer, P. and Theis, F. J.}, journal={Genome Biology}, volume={19}, pages={15}, year={2018}}
@article{conformal, title={Distribution-free prediction sets for two-layer hierarchical models},
  author={Dunn, R. and Wasserman, L. and Ramdas, A.}, journal={JASA}, year={2023}}"""
