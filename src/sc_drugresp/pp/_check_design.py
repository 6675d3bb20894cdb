"""Findings of `check` about labels, samples and what is confounded with the label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._core.keys import GROUP_CANDIDATES, RESISTANT, RESPONSE_CLASSES, SENSITIVE
from .._design.aliasing import aliasing, nested
from ._label_words import word_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._findings import Findings
    from ._scan import Scan

_FEW_CELLS = 20
_FEW_SAMPLES = 3
_CELLS_LEAK, _SAMPLES_LEAK = 0.75, 0.9
_MOST_LEVELS = 200
"""A column with more values is not taken for a batch, platform or condition."""


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


def check_groups(
    findings: Findings, groups: np.ndarray | None, group_key: str | None, y: np.ndarray | None
) -> np.ndarray | None:
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
    told = f"{len(names)} samples of {sizes.min()} to {sizes.max()} cells"
    if y is None:
        findings.info("groups", subject, f"{told}.")
    else:
        _check_classes(findings, groups, subject, y, told)
    return groups


def _check_classes(findings: Findings, groups: np.ndarray, subject: str, y: np.ndarray, told: str) -> None:
    """Find out whether enough samples hold each class."""
    kind = aliasing(y, groups, "sample")
    sensitive, resistant = kind.n_sensitive + kind.n_mixed, kind.n_resistant + kind.n_mixed
    classes = f"{sensitive} with sensitive cells, {resistant} with resistant ones, {kind.n_mixed} with both"
    if kind.n_levels < 2:
        message = "All labeled cells come from one sample."
        findings.error("groups-one", subject, message, "A score needs other samples.")
    elif kind.aliased:
        message = f"A class comes from a single sample ({classes}): response cannot be told from the sample."
        fix = "Add samples, or score on other data (protocol='cross_dataset')."
        findings.error("labels-aliased", subject, message, fix)
    elif min(sensitive, resistant) < _FEW_SAMPLES:
        message = f"{told}: {classes}. Scores will have wide intervals."
        findings.warning("few-samples", subject, message, "Add samples of the smaller class.")
    else:
        findings.info("groups", subject, f"{told}: {classes}.")


def check_aliasing(
    findings: Findings, columns: Mapping[str, np.ndarray], y: np.ndarray, groups: np.ndarray | None
) -> None:
    """Find columns (batch, platform, condition, ...) of which every value has one class only."""
    labeled = y >= 0
    for name, values in columns.items():
        levels = np.unique(values[labeled])
        if not 2 <= len(levels) <= min(_MOST_LEVELS, labeled.sum() / 2):
            continue
        if all(word_of(level) in RESPONSE_CLASSES for level in levels):
            continue  # another label
        # A column that divides the samples further, or names them again, adds nothing new.
        if groups is not None and nested(values[labeled], groups[labeled]):
            continue
        kind = aliasing(y, values, name)
        if kind.determines_label:
            message = (
                f"Every value of {name!r} has one class only ({kind.n_sensitive} sensitive, {kind.n_resistant} resistant): "
                "response and this column cannot be told apart."
            )
            fix = "Read scores as recognition of this column, or add data that break the tie."
            findings.warning("labels-aliased", name, message, fix)


def check_depth(findings: Findings, scanned: Scan, y: np.ndarray, groups: np.ndarray | None) -> None:
    """Find out whether sequencing depth alone tells the classes apart."""
    import pandas as pd

    if scanned.matrix.kind == "scaled":
        return
    measures = {"detected genes": scanned.detected}
    if scanned.is_counts:
        measures["counts per cell"] = scanned.totals
    for name, values in measures.items():
        cells = _strength(y, values)
        told = f"{name} alone: AUROC {cells:.2f} over cells"
        leaks = cells >= _CELLS_LEAK
        if groups is not None:
            frame = pd.DataFrame({"class": y, "depth": values})[y >= 0]
            samples = frame.groupby(groups[y >= 0]).agg({"class": "mean", "depth": "median"})
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

    auroc = float(roc_auc_score(y[y >= 0], values[y >= 0]))
    return max(auroc, 1 - auroc)
