"""What `check` says about labels, samples and what the label is tied to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._core.keys import GROUP_CANDIDATES, RESISTANT, RESPONSE_CLASSES, SENSITIVE
from .._evaluate.design import aliasing, nested
from ._labels import word_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._findings import Findings
    from ._scan import Scan

_FEW_CELLS = 20
_FEW_SAMPLES = 3
_CELLS_LEAK, _SAMPLES_LEAK = 0.75, 0.9
_MOST_LEVELS = 200
"""A column with more values is no batch, platform or condition."""


def check_labels(findings: Findings, labels: np.ndarray | None, label_key: str) -> np.ndarray | None:
    """Labels as 1, 0 and -1 if both classes are there, else `None` with a finding that says why."""
    if labels is None:
        message = (
            f"No column {label_key!r}. Prediction with a trained model needs no labels; training and evaluation do."
        )
        findings.add(
            "labels-absent", "info", label_key, message, "Run pp.harmonize_labels, or name the column with label_key=."
        )
        return None
    y = np.select([labels == SENSITIVE, labels == RESISTANT], [1, 0], -1)
    other = sorted(set(labels[(y < 0) & (labels != "")].tolist()))
    if other:
        known = [value for value in other if word_of(value) is not None]
        how = (
            f"pp.harmonize_labels(adata, {label_key!r}"
            + ("" if len(known) == len(other) else ", sensitive=..., resistant=...")
            + ")"
        )
        message = f"Values other than {' / '.join(RESPONSE_CLASSES)}: {', '.join(map(repr, other[:5]))}."
        findings.add("labels-wording", "error", label_key, message, f"Run {how}.")
        return None
    numbers = {SENSITIVE: int((y == 1).sum()), RESISTANT: int((y == 0).sum()), "missing": int((y < 0).sum())}
    told = ", ".join(f"{number} {name}" for name, number in numbers.items())
    if numbers["missing"] == len(y):
        message = "Every label is missing."
        findings.add(
            "labels-missing",
            "error",
            label_key,
            message,
            "Training needs labels; prediction with a trained model does not.",
        )
        return None
    if 0 in (numbers[SENSITIVE], numbers[RESISTANT]):
        absent = SENSITIVE if not numbers[SENSITIVE] else RESISTANT
        findings.add(
            "labels-one-class", "error", label_key, f"No {absent} cell ({told}).", "Add samples of the other class."
        )
        return None
    findings.add("labels", "info", label_key, f"{told}.")
    return y


def find_group(columns: Mapping[str, np.ndarray]) -> str | None:
    """The first usual column that names samples: one with several values if there is one."""
    present = [key for key in GROUP_CANDIDATES if key in columns]
    several = [key for key in present if len(np.unique(columns[key])) > 1]
    return next(iter(several or present), None)


def check_groups(
    findings: Findings, groups: np.ndarray | None, group_key: str | None, y: np.ndarray | None
) -> np.ndarray | None:
    """Samples as they are, if every cell has one; findings about few or small samples."""
    if groups is None:
        usual = ", ".join(GROUP_CANDIDATES)
        message = (
            f"No column names the sample of each cell (looked for {usual}). Without it no honest score is possible."
        )
        findings.add("groups-absent", "warning", "obs", message, "Name the column with group_key=.")
        return None
    subject = str(group_key)
    if (groups == "").any():
        message = f"{int((groups == '').sum())} cells have no sample."
        findings.add(
            "groups-missing", "error", subject, message, "Every cell needs a sample; fill in or remove these cells."
        )
        return None
    names, sizes = np.unique(groups, return_counts=True)
    small = names[sizes < _FEW_CELLS]
    if len(small):
        message = f"{len(small)} of {len(names)} samples have fewer than {_FEW_CELLS} cells ({', '.join(map(repr, small[:5].tolist()))})."
        findings.add(
            "small-samples",
            "warning",
            subject,
            message,
            "Their calls and scores are uncertain; consider leaving them out.",
        )
    if y is None:
        findings.add("groups", "info", subject, f"{len(names)} samples of {sizes.min()} to {sizes.max()} cells.")
        return groups
    kind = aliasing(y, groups, "sample")
    n = {SENSITIVE: kind.n_sensitive + kind.n_mixed, RESISTANT: kind.n_resistant + kind.n_mixed}
    told = f"{n[SENSITIVE]} samples with sensitive cells, {n[RESISTANT]} with resistant ones, {kind.n_mixed} with both"
    if kind.n_levels < 2:
        findings.add(
            "groups-one", "error", subject, "All labeled cells are of one sample.", "A score needs other samples."
        )
    elif kind.aliased:
        message = f"A class comes from a single sample ({told}): response cannot be told from the sample."
        findings.add(
            "labels-aliased",
            "error",
            subject,
            message,
            "Add samples, or score on other data (protocol='cross_dataset').",
        )
    elif min(n.values()) < _FEW_SAMPLES:
        findings.add(
            "few-samples",
            "warning",
            subject,
            f"{told}: scores will have wide intervals.",
            "Add samples of the smaller class.",
        )
    else:
        findings.add("groups", "info", subject, f"{told}; {sizes.min()} to {sizes.max()} cells each.")
    return groups


def check_aliasing(
    findings: Findings, columns: Mapping[str, np.ndarray], y: np.ndarray, groups: np.ndarray | None, skip: set[str]
) -> None:
    """Find columns (batch, platform, condition, ...) of which every value has one class only."""
    labeled = y >= 0
    for name, values in columns.items():
        levels = np.unique(values[labeled])
        if name in skip or not 2 <= len(levels) <= min(_MOST_LEVELS, labeled.sum() / 2):
            continue
        if all(word_of(level) in RESPONSE_CLASSES for level in levels):
            continue  # another label
        # A column that divides the samples further, or names them again, says nothing new.
        if groups is not None and nested(values[labeled], groups[labeled]):
            continue
        kind = aliasing(y, values, name)
        if kind.determines_label:
            message = (
                f"Every value of {name!r} has one class only ({kind.n_sensitive} sensitive, {kind.n_resistant} resistant): "
                "response and this column cannot be told apart."
            )
            findings.add(
                "labels-aliased",
                "warning",
                name,
                message,
                "Read scores as recognition of this column, or add data that break the tie.",
            )


def check_depth(findings: Findings, scanned: Scan, y: np.ndarray, groups: np.ndarray | None) -> None:
    """Find out whether sequencing depth alone tells the classes apart."""
    from sklearn.metrics import roc_auc_score

    if scanned.kind == "scaled":
        return
    labeled = y >= 0
    for name, values in (("counts per cell", scanned.totals), ("detected genes", scanned.detected)):
        if name == "counts per cell" and not scanned.is_counts:
            continue
        cells = _strength(roc_auc_score(y[labeled], values[labeled]))
        told = f"{name} alone: AUROC {cells:.2f} over cells"
        leaks = cells >= _CELLS_LEAK
        if groups is not None:
            keys = np.unique(groups[labeled])
            share = np.array([y[labeled & (groups == key)].mean() for key in keys])
            pure = np.isin(share, (0, 1))
            least = min(int((share[pure] == value).sum()) for value in (0, 1))
            if least >= _FEW_SAMPLES:
                medians = np.array([np.median(values[labeled & (groups == key)]) for key in keys])
                samples = _strength(roc_auc_score(share[pure], medians[pure]))
                told += f", {samples:.2f} over {int(pure.sum())} samples"
                leaks = leaks or (samples >= _SAMPLES_LEAK and least > _FEW_SAMPLES)
        fix = "A model can score by depth alone: compare with the 'QC only' row of tl.evaluate." if leaks else ""
        findings.add("depth-by-label", "warning" if leaks else "info", name, f"{told}.", fix)


def _strength(auroc: float) -> float:
    return max(float(auroc), 1 - float(auroc))
