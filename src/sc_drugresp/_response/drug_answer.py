"""The answer of a reference for one drug, cell by cell, alone or together with a trained model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from .._core.keys import CALL_CLASSES, REFERENCE, RESISTANT, SENSITIVE, UNCERTAIN
from .._core.log import warn
from .._reference.redraw import cell_scores, redrawn_probability
from .reference_answers import ask_reference, open_reference
from .trust import log_odds

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from .ensemble import Ensemble
    from .model import ResponseModel
    from .reference_answers import ReferenceAnswer, ReferenceLike

CALLS = (
    "A group is called where the 90 % interval of its response, from the errors in held-out lines, lies wholly on one side of "
    "the lowest quarter of the screen; most single drugs stay 'uncertain'."
)


@dataclass(frozen=True, eq=False)
class DrugAnswer:
    """One drug for groups of cells, with what is written of it.

    Parameters
    ----------
    drug
        Its name in the reference.
    answer
        What the reference says of all groups.
    table
        One row per group.
    other
        What trained models say of the same cells; both are fused.
    cell_score, reliability
        Response of single cells, and the share of its variance that is no noise; `None` unless asked for.
    """

    drug: str
    answer: ReferenceAnswer
    table: pd.DataFrame
    other: Ensemble | None = None
    cell_score: np.ndarray | None = None
    reliability: float | None = None
    trained_here: bool = False
    calibrated: bool = False
    embeddings: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def models(self) -> list[ResponseModel]:
        """Trained models that took part."""
        return [] if self.other is None else self.other.models

    def columns(self, threshold: float | None) -> dict[str, Any]:
        """Values of `.obs` by the field of `PredictionKeys`: those of the group of each cell."""
        import pandas as pd

        call = self._spread(self.table["call"].astype(str).to_numpy(dtype=object), UNCERTAIN)
        out: dict[str, Any] = {
            name: self._numbers(column) for name, column in (("prob", "P"), ("low", "P_low"), ("high", "P_high"))
        }
        codes = self.answer.groups.codes
        if threshold is not None:
            known = np.isfinite(out["prob"])
            call = np.where(known, np.where(out["prob"] >= threshold, SENSITIVE, RESISTANT), UNCERTAIN)
        foreign = np.array([bool(reason) for reason in self.answer.answers.reasons])
        out["ood"] = (codes < 0) | foreign[np.maximum(codes, 0)]
        if self.other is not None:
            out, call = self._fused(out, call, self.other.columns(threshold))
        if self.cell_score is not None:
            out["cell_score"] = self.cell_score
        return out | {"call": pd.Categorical(call, categories=list(CALL_CLASSES))}

    def summary(self, threshold: float | None, *_: Any) -> dict[str, Any]:
        """What `.uns` keeps."""
        told = self.answer.describe()
        told["reference"] = told["reference"] | {"calls": CALLS}
        codes = self.answer.groups.codes
        foreign = int((self.columns(None)["ood"] & (codes >= 0)).sum())
        out: dict[str, Any] = {
            "kind": REFERENCE,
            "drug": self.drug,
            "score": f"P({SENSITIVE})",
            "calls": "threshold" if threshold is not None else "interval",
            "calibrated": self.answer.answers.aligned,
            "calibration": "errors of the drug in held-out cell lines"
            if self.answer.answers.aligned
            else "uncalibrated: unknown platform",
            "n_cells": len(codes),
            "n_without_embedding": int((codes < 0).sum()),
            "n_out_of_distribution": foreign,
            "out_of_distribution": {},
            "trained_on_these_cells": False,
            "groups": self.table.rename_axis("group").reset_index(),
            **told,
        }
        if self.reliability is not None:
            out["cell_reliability"] = float(self.reliability)
        if threshold is not None:
            out["threshold"] = threshold
        if self.other is None:
            return out | {"models": {}}
        fused = self.other.summary(threshold, None)
        return out | {"models": fused["models"], "fused_with": fused}

    def _fused(
        self, own: dict[str, Any], call: np.ndarray, theirs: dict[str, Any]
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Mean of the logits of both; a call stays where neither contradicts it; disagreement beside."""
        both = np.isfinite(own["prob"]) & np.isfinite(theirs["prob"])
        out = dict(own)
        for name in ("prob", "low", "high"):
            mean = expit((log_odds(own[name]) + log_odds(theirs[name])) / 2)
            out[name] = np.where(both, mean, np.where(np.isfinite(own["prob"]), own[name], theirs[name]))
        out["ood"] = own["ood"] & theirs["ood"]
        out["disagreement"] = np.where(both, np.abs(own["prob"] - theirs["prob"]) / 2, np.nan)
        said = np.asarray(theirs["call"].astype(str), dtype=object)
        agreed = np.where(call == UNCERTAIN, said, np.where((said == UNCERTAIN) | (said == call), call, UNCERTAIN))
        return out, agreed

    def _spread(self, values: np.ndarray, missing: Any) -> np.ndarray:
        codes = self.answer.groups.codes
        return np.where(codes >= 0, values[np.maximum(codes, 0)], missing)

    def _numbers(self, column: str) -> np.ndarray:
        return self._spread(self.table[column].to_numpy(dtype=float), np.nan).astype(float)


def answer_for_drug(
    adata: AnnData,
    obs: pd.DataFrame,
    drug: str,
    reference: ReferenceLike,
    *,
    other: Ensemble | None,
    layer: str | None,
    per_cell: bool,
    rng: int,
    groupby: str | None,
    **who: Any,
) -> DrugAnswer:
    """Ask a reference about one drug; `who` are the other arguments of `group_cells`."""
    model = open_reference(reference)
    name = model.match(drug)
    answer, source = ask_reference(adata, obs, model, layer=layer, rng=rng, groupby=groupby, sample_key=None, **who)
    groups = answer.groups
    rows = answer.table[answer.table["drug"] == name].set_index("group").reindex(groups.names)
    low, high = redrawn_probability(model, source, groups.codes, len(groups.names), name, groups.chemistry, rng=rng)
    columns = ["z", "low", "high", "P", "call", "tissue_mean_z", "gain_over_tissue", "drug_r", "abstain_reason"]
    table = answer.group_table().drop(columns="abstain_reason")
    table = table.join(rows[columns].rename(columns={"low": "z_low", "high": "z_high"}))
    silent = table["P"].isna().to_numpy()
    table["P_low"], table["P_high"] = np.where(silent, np.nan, low), np.where(silent, np.nan, high)
    reasons = [reason for reason in table["abstain_reason"] if reason]
    if reasons:
        warn(f"No answer for {name!r} in {len(reasons)} of {len(table)} groups: {reasons[0]}.")
    score, reliability = None, None
    if per_cell:
        keep = groups.codes >= 0
        score, reliability = cell_scores(model, source, keep, name, groups.chemistry, rng=rng)
        warn(
            f"Scores of single cells have a split-half reliability of {reliability:.2f}: the rest of their variance is noise of counting."
        )
    return DrugAnswer(name, answer, table, other, score, reliability)
