"""Names and numbers as a reader should see them; used by every plot and by the report."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from .._core.keys import LLM, EmbeddingKeys
from .._evaluate.calls import ANSWERED
from ..models._registry import is_language_model, registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    import pandas as pd

STRICT, RANDOM_CELLS, EXTERNAL = "leave_group_out", "pooled", "external"
NAIVE = {
    "constant": "Constant",
    "prevalence": "Prevalence",
    "permuted_labels": "Permuted labels",
    "qc": "QC only",
    "design_only": "Design only",
    "pseudobulk_ridge": "Pseudobulk + ridge",
    "pca_logistic": "PCA + logistic regression",
    "hvg_boosting": "HVG + boosting",
}
METRICS = {
    "auroc": "AUROC", "auprc": "AUPRC", "f1": "F1", "f1_resistant": "F1 of resistant", "mcc": "MCC", "ece": "ECE",
    "brier": "Brier score", "called": "share called", "called_wrong": "share of calls that are wrong",
    "answered": "share answered", "recall": "sensitivity",
}  # fmt: skip
MODES = {"lora": "LoRA", "full": "fully fine-tuned", "random": "random weights"}
PROTOCOLS = {
    RANDOM_CELLS: "random split of cells", "cross_dataset": "other data sets", "few_shot": "few labeled samples",
    EXTERNAL: "samples from elsewhere",
}  # fmt: skip
PLURAL = {"dataset": "data sets", "cell_line": "cell lines", "patient": "patients", "batch": "batches"}


@cache
def _titles() -> dict[str, str]:
    """Titles by every name that a row of a table can have: model, checkpoint, slot in `.obsm`, tuned or not."""
    out = {**NAIVE, "obs_features": "Columns of .obs"}
    for spec in registry().values():
        for tag in ("", *spec.checkpoints):
            title = f"{spec.title} ({tag})" if tag else spec.title
            for mode in ("", *MODES):
                full = f"{title}, {MODES[mode]}" if mode else title
                for base in {spec.name, spec.slot}:
                    name = ".".join(part for part in (base, tag, mode) if part)
                    out |= {name: full, EmbeddingKeys.of(name).obsm: full}
            base = ".".join(part for part in (spec.name, tag) if part)
            student = f"student of {title}"
            out |= {f"student({base})": student, EmbeddingKeys.of(f"student.{base}").obsm: student}
    return out


def model_name(name: object) -> str:
    """Display name of a model, an embedding or a naive baseline; a user's own names stay as they are.

    Of a language model in a folder the last part of the path is shown: a report may be passed on.
    """
    text = str(name)
    if is_language_model(text):
        *before, last = re.split(r"[/\\]", text.removeprefix(LLM).rstrip("/\\"))
        return f"{LLM}{last}" if len(before) != 1 or before[0] in {"", ".", "~"} else text
    return _titles().get(text, text)


def model_names(names: Iterable[str]) -> dict[str, str]:
    """Display names of those that appear together.

    Where two would look the same (`pca` and `X_sdr_pca`), the name of the table follows in parentheses.
    """
    titles = {str(name): model_name(name) for name in names}
    count = Counter(titles.values())
    return {name: title if count[title] == 1 else f"{title} ({name})" for name, title in titles.items()}


def metric_name(metric: str) -> str:
    """Display name of a metric."""
    base = metric.removesuffix(ANSWERED)
    return METRICS.get(base, base.replace("_", " ")) + (" of those answered" if base != metric else "")


def protocol_name(protocol: str, params: Mapping[str, Any]) -> str:
    """Display name of a protocol, with what was held out."""
    if protocol == STRICT:
        units = [PLURAL[key] for key in (params.get("level_key"), params.get("level")) if key in PLURAL]
        return f"held-out {(units or ['samples'])[0]}"
    return PROTOCOLS.get(protocol, protocol.replace("_", " "))


def interval_text(low: float, high: float) -> str:
    """`0.62 to 0.91`, with a remark where it covers nearly the whole range; empty where there is none."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return ""
    return f"{low:.2f} to {high:.2f}" + (", uninformative" if high - low > 0.9 else "")


def score_text(value: float, low: float, high: float) -> str:
    """`0.80 (0.62 to 0.91)`, or the value alone where there is no interval; empty where there is no value."""
    limits = interval_text(low, high)
    return "" if not np.isfinite(value) else f"{value:.2f} ({limits})" if limits else f"{value:.2f}"


def score_texts(frame: pd.DataFrame, absent: str = "") -> list[str]:
    """Texts of the rows of a frame with `value`, `low` and `high`; `absent` where there is no value."""
    return [score_text(*row) or absent for row in frame[["value", "low", "high"]].to_numpy(dtype=float)]


def range_text(low: float, high: float) -> str:
    """`0.61 to 0.67`, or the value alone where both are the same; empty where there is none."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return ""
    return f"{low:.2f} to {high:.2f}" if f"{low:.2f}" != f"{high:.2f}" else f"{low:.2f}"


def p_text(p: float) -> str:
    """Two digits of a p-value; empty where there is none."""
    return "" if not np.isfinite(p) else f"{p:.2g}" if p >= 0.001 else "< 0.001"
