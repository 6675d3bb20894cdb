"""All drugs of a reference for groups of cells: predictions, their uncertainty, naive rows and abstentions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._core.keys import CALL_CLASSES, RESISTANT, SENSITIVE, UNCERTAIN
from .abstain import drug_reasons, group_reasons
from .align import standardize, within_sample
from .chance import below, interval, probability
from .lineage import contradiction, likeness
from .programs import visible_programs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from .pseudobulk import Pseudobulk
    from .reference import Reference


@dataclass(frozen=True, eq=False)
class GroupAnswers:
    """What a reference says of groups of cells; arrays are `(n_groups, n_drugs)` with no abstention applied."""

    groups: list[str]
    z: np.ndarray
    """Predicted response in units of the spread of the drug; lower is more sensitive."""
    prob: np.ndarray
    """P(sensitive); NaN if the platform is not known."""
    low: np.ndarray
    high: np.ndarray
    tissue_mean_z: np.ndarray
    like: np.ndarray
    """Correlation with lineages, shape `(n_groups, n_lineages)`."""
    nearest: list[str]
    reasons: list[str]
    """Why nothing can be said of a group."""
    programs: list[str]
    """Programs of treatment that a group shows; `''` for none, or where that cannot be told."""
    aligned: bool


def answer_groups(
    reference: Reference,
    bulk: Pseudobulk,
    groups: Sequence[str],
    *,
    chemistry: str | None = None,
    lineages: Sequence[str | None] | None = None,
) -> GroupAnswers:
    """Predict every drug for every group.

    Values of a group are log2(CPM + 1), standardized within the group, minus the shift of the platform. They do not depend
    on the other groups.

    Parameters
    ----------
    reference
        The model.
    bulk
        Groups over the genes of the reference.
    groups
        Their names.
    chemistry
        Platform, a key of `reference.shifts`. For any other one the drugs are ranked, without probability or interval.
    lineages
        Stated lineage of each group, `None` where unknown.
    """
    shift = reference.shifts.get(chemistry) if chemistry is not None else None
    values = within_sample(bulk.values, bulk.seen, reference.scale)
    Z = standardize(values, reference.scale, None if shift is None else shift.values)
    usable = bulk.seen if shift is None else bulk.seen & np.isfinite(shift.values)
    stated = [None] * len(groups) if lineages is None else list(lineages)
    like = likeness(Z, reference.centroids, usable)
    against = [contradiction(row, reference.lineages, reference.gaps, own) for row, own in zip(like, stated)]
    response = reference.predict(Z)
    prob = low = high = np.full(response.shape, np.nan)
    if shift is not None:
        errors = reference.errors_on(shift)
        share = below(response, errors, reference.drugs["sensitive_below"].to_numpy())
        prob = probability(share, reference.recalibration)
        low, high = (reference.z(limit) for limit in interval(response, errors))
    return GroupAnswers(
        groups=[str(group) for group in groups],
        z=reference.z(response),
        prob=prob,
        low=low,
        high=high,
        tissue_mean_z=np.array([_tissue_mean(reference, own) for own in stated]),
        like=like,
        nearest=[reference.lineages[k] for k in np.argmax(like, axis=1)] if reference.lineages else [""] * len(groups),
        reasons=group_reasons(bulk, against),
        programs=visible_programs(Z, reference.genes, usable, reference.programs) if shift else [""] * len(groups),
        aligned=shift is not None,
    )


def _tissue_mean(reference: Reference, lineage: str | None) -> np.ndarray:
    if lineage not in reference.lineages:
        return np.full(len(reference.drugs), np.nan)
    return reference.z(reference.tissue_means[:, reference.lineages.index(lineage)])


def ranking_table(reference: Reference, answers: GroupAnswers) -> pd.DataFrame:
    """One row per group and drug, the most sensitive first; abstentions stand last, with their reason and no number.

    Returns
    -------
    `drug`, `targets`, `group`, `rank` (1 is the most sensitive of the group), `z`, `P`, `low`, `high` (of `z`, 90 %),
    `call`, `tissue_mean_z`, `gain_over_tissue` (held-out correlation of the drug minus that of the tissue mean), `drug_r`,
    `screen_agreement` and `abstain_reason`.
    """
    import pandas as pd

    card, by_drug = reference.drugs, drug_reasons(reference.drugs)
    limit = reference.z(card["sensitive_below"].to_numpy())
    parts = []
    for i, group in enumerate(answers.groups):
        reason = np.array([answers.reasons[i] or drug for drug in by_drug], dtype=object)
        silent = reason != ""
        numbers = {
            name: np.where(silent, np.nan, values[i])
            for name, values in (("z", answers.z), ("P", answers.prob), ("low", answers.low), ("high", answers.high))
        }
        call = np.select([numbers["high"] < limit, numbers["low"] > limit], [SENSITIVE, RESISTANT], UNCERTAIN)
        part = pd.DataFrame({"drug": card.index.astype(str), "targets": card["targets"].to_numpy(), "group": group})
        part = part.assign(**numbers, call=pd.Categorical(call, categories=list(CALL_CLASSES)))
        part = part.assign(
            tissue_mean_z=answers.tissue_mean_z[i],
            gain_over_tissue=card["gain_over_tissue"].to_numpy(),
            drug_r=card["r"].to_numpy(),
            screen_agreement=card["screen_agreement"].to_numpy(),
            abstain_reason=reason,
        )
        part.insert(3, "rank", part["z"].rank(method="first").astype("Int64"))
        parts.append(part.sort_values("z", kind="stable", na_position="last"))
    return pd.concat(parts, ignore_index=True)
