"""Findings of `check` about labels, samples and what is confounded with the label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._core.keys import GROUP_CANDIDATES, RESISTANT, RESPONSE_CLASSES, SENSITIVE
from .._data.label_words import word_of
from .._design.judge import assess
from .._design.split import CELLS
from .._stats.groups import encode_groups, spread_rows

if TYPE_CHECKING:
    import pandas as pd

    from ._findings import Findings
    from ._scan import Scan

_FEW_CELLS = 20
_MOST_CELLS = 200_000
"""Labeled cells that the verdict and the role of depth are read from, evenly spread over samples and classes."""
_FEW_SAMPLES = 3
_CELLS_LEAK, _SAMPLES_LEAK = 0.75, 0.9


def check_labels(findings: Findings, labels: np.ndarray | None, label_key: str) -> np.ndarray | None:
    """Labels as 1, 0 and -1 if both classes are there, else `None` with a finding that says why."""
    if labels is None:
        message = (
            f"No column {label_key!r}. A trained model predicts without labels; training and evaluation need them."
        )
        fix = "Run pp.harmonize_labels, or name the column with label_key=."
        findings.info("labels-absent", label_key, message, fix)
        return None
    y = np.select([labels == SENSITIVE, labels == RESISTANT], [1, 0], -1)
    other = sorted(set(labels[(y < 0) & (labels != "")].tolist()))
    n_sensitive, n_resistant, n_missing = (int((y == value).sum()) for value in (1, 0, -1))
    told = f"{n_sensitive} {SENSITIVE}, {n_resistant} {RESISTANT}, {n_missing} missing"
    if other:
        known = all(word_of(value) is not None for value in other)
        meanings = "" if known else ", sensitive=..., resistant=..."
        message = f"Values other than {' / '.join(RESPONSE_CLASSES)}: {', '.join(map(repr, other[:5]))}."
        findings.error(
            "labels-wording", label_key, message, f"Run pp.harmonize_labels(adata, {label_key!r}{meanings})."
        )
    elif n_missing == len(y):
        fix = "Label some cells to train or evaluate; a trained model predicts without labels."
        findings.error("labels-missing", label_key, "Every label is missing.", fix)
    elif not n_sensitive or not n_resistant:
        message = f"No {RESISTANT if n_sensitive else SENSITIVE} cell ({told})."
        findings.error("labels-one-class", label_key, message, "Add samples of the other class.")
    else:
        findings.info("labels", label_key, f"{told}.")
        return y
    return None


def check_groups(findings: Findings, groups: np.ndarray | None, group_key: str | None) -> np.ndarray | None:
    """Samples as they are, if every cell has one; findings about few or small samples."""
    if groups is None:
        looked = ", ".join(GROUP_CANDIDATES)
        message = (
            f"No column names the sample of each cell (looked for {looked}). Without it no honest score is possible."
        )
        findings.warning("groups-absent", "obs", message, "Name the column with group_key=.")
        return None
    subject = str(group_key)
    absent = int((groups == "").sum())
    if absent:
        message = f"{absent} cells have no sample."
        findings.error("groups-missing", subject, message, "Give every cell a sample, or remove these cells.")
        return None
    names, sizes = np.unique(groups, return_counts=True)
    small = names[sizes < _FEW_CELLS].tolist()
    if small:
        listed = ", ".join(map(repr, small[:5]))
        message = f"{len(small)} of {len(names)} samples have fewer than {_FEW_CELLS} cells ({listed})."
        fix = "Their calls and scores are uncertain; consider leaving them out."
        findings.warning("small-samples", subject, message, fix)
    told = f"{len(names)} samples of {sizes.min()} to {sizes.max()} cells."
    findings.info("groups", subject, told)
    return groups


def judged_rows(y: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Labeled cells that the design is read from, evenly spread over samples and classes where there are many.

    The design is about samples: so many cells of each say what all of them do.
    """
    rows = np.flatnonzero(y >= 0)
    if len(rows) <= _MOST_CELLS:
        return rows
    codes = np.zeros(len(y), dtype=np.intp) if groups is None else encode_groups(groups)[0]
    return spread_rows(rows, codes * 2 + (y == 1), _MOST_CELLS)


def check_verdict(findings: Findings, obs: pd.DataFrame, y: np.ndarray, group_key: str | None, label_key: str) -> None:
    """The verdict that training and evaluation would reach, and what it rests on."""
    found = assess(obs, y, group_key=group_key, label_key=label_key)
    verdict, level = found.verdict, found.keys.get(found.plan.level, found.plan.level)
    fix, told = " ".join(verdict.suggestions), str(verdict)
    if verdict.code == "OK":
        findings.info("verdict", level, told)
    elif verdict.code == "ALIASED":
        aliased = [item.name for item in found.confounding.found if item.aliased]
        subject = level if found.plan.verdict.code == "ALIASED" or not aliased else aliased[0]
        findings.error("labels-aliased", subject, told, fix)
    elif verdict.code == "CONFOUNDED":
        named = found.confounding.confounders
        for item in [item for item in named if item.family != "several"] or named[:1]:
            findings.warning("labels-confounded", item.name, f"CONFOUNDED: {item} goes with the label.", fix)
    elif found.plan.level == CELLS or (group_key is not None and obs[group_key].nunique() < 2):
        findings.error("groups-one", level, told, fix)
    else:
        findings.warning("few-samples", level, told, fix)
    for text in verdict.cautions:
        findings.info("verdict-caution", level, text)


def check_depth(findings: Findings, scanned: Scan, rows: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> None:
    """Find out whether sequencing depth alone tells the classes of these cells apart; labels and samples are theirs."""
    import pandas as pd

    if scanned.matrix.kind == "scaled":
        return
    measures = {"detected genes": scanned.detected[rows]}
    if scanned.is_counts:
        measures["counts per cell"] = scanned.totals[rows]
    for name, values in measures.items():
        cells = _strength(y, values)
        told = f"{name} alone: AUROC {cells:.2f} over cells"
        leaks = cells >= _CELLS_LEAK
        if groups is not None:
            frame = pd.DataFrame({"class": y, "depth": values})
            samples = frame.groupby(groups).agg({"class": "mean", "depth": "median"})
            samples = samples[samples["class"].isin([0, 1])]
            fewest = min((samples["class"] == value).sum() for value in (0, 1))
            if fewest >= _FEW_SAMPLES:
                strength = _strength(samples["class"].to_numpy(), samples["depth"].to_numpy())
                told += f", {strength:.2f} over {len(samples)} samples"
                leaks = leaks or (strength >= _SAMPLES_LEAK and fewest > _FEW_SAMPLES)
        if leaks:
            fix = "A model can score by depth alone: compare with the 'QC only' row of tl.evaluate."
            findings.warning("depth-by-label", name, f"{told}.", fix)
        else:
            findings.info("depth-by-label", name, f"{told}.")


def _strength(y: np.ndarray, values: np.ndarray) -> float:
    """AUROC of labeled cells or samples, whichever class has the larger values."""
    from sklearn.metrics import roc_auc_score

    auroc = float(roc_auc_score(y, values))
    return max(auroc, 1 - auroc)
