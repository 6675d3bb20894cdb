"""What a reference says of groups of cells: all drugs, or one drug with the uncertainty of the cells themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.log import warn
from .._data.counts import read_counts
from .._reference.clones import combine_clones, rank_pairs
from .._reference.pseudobulk import pseudobulk
from .._reference.rank import answer_groups, ranking_table
from .._reference.reference import Reference
from .reference_groups import group_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

    from .._data.counts import CountSource
    from .._reference.rank import GroupAnswers
    from .reference_groups import CellGroups

    ReferenceLike = Reference | str | PathLike[str] | None

STATEMENT = (
    "A screen of cell lines says how drugs order these cells by expression. 'sensitive' means a response in the lowest quarter "
    "of the lines of the screen. Held-out lines are predicted with a median correlation of {r:.2f}, much of which the tissue "
    "alone would give, so that the mean of the tissue stands beside each number. Not for clinical use."
)


@dataclass(frozen=True, eq=False)
class ReferenceAnswer:
    """Groups, what the reference says of them, and the table of all drugs."""

    reference: Reference
    groups: CellGroups
    answers: GroupAnswers
    table: pd.DataFrame
    seen: float

    def describe(self) -> dict[str, Any]:
        """Provenance, statement and warnings, in values that survive files."""
        reference = self.reference
        told = {key: str(reference.info[key]) for key in ("release", "licence", "citation") if key in reference.info}
        return {
            "reference": {
                "name": reference.name,
                **told,
                "median_r": float(reference.drugs["r"].median()),
                "n_drugs": len(reference.drugs),
                "chemistry": self.groups.chemistry or "",
                "aligned": self.answers.aligned,
                "genes_seen": self.seen,
            },
            "statement": STATEMENT.format(r=reference.drugs["r"].median()),
            "warnings": np.array(self.groups.warnings, dtype=str),
        }

    def group_table(self) -> pd.DataFrame:
        """One row per group, with the nearest lineage and why it gets no answer."""
        frame = self.groups.table()
        frame["nearest_lineage"] = self.answers.nearest
        frame["treatment_programs"] = self.answers.programs
        frame["abstain_reason"] = self.answers.reasons
        return frame

    def usable(self) -> np.ndarray:
        """Groups that get an answer, shape `(n_groups,)`, bool."""
        return np.array([not reason for reason in self.answers.reasons], dtype=bool)


def open_reference(given: ReferenceLike) -> Reference:
    """A reference as it is, or read by its name or from its folder.

    Raises
    ------
    TypeError
        It is something else.
    """
    if given is None or isinstance(given, str | PathLike):
        return Reference.load(given)
    if not isinstance(given, Reference):
        msg = f"`reference` must be a sc_drugresp.models.Reference, a name or a folder, found {type(given).__name__}."
        raise TypeError(msg)
    return given


def ask_reference(
    adata: AnnData, obs: pd.DataFrame, reference: Reference, *, layer: str | None, **who: Any
) -> tuple[ReferenceAnswer, CountSource]:
    """Ask a reference about all drugs; `who` are the arguments of `group_cells`. Also the reader of the cells."""
    source = read_counts(adata, layer=layer, expect="any")
    groups = group_cells(obs, source, reference, **who)
    bulk = pseudobulk(source, reference.genes, groups.codes, len(groups.names))
    answers = answer_groups(reference, bulk, groups.names, chemistry=groups.chemistry, lineages=groups.lineages)
    reasons = ["; ".join(filter(None, pair)) for pair in zip(groups.reasons, answers.reasons)]
    answers = replace(answers, reasons=reasons)
    shown = [text for text in answers.programs if text]
    if shown:
        said = (
            f"{len(shown)} of {len(groups.names)} groups show a gene program of treated cells ({shown[0]}). Such cells show what a "
            "drug did to them (state), not how they would have responded (sensitivity)."
        )
        groups = replace(groups, warnings=[*groups.warnings, said])
    for text in groups.warnings:
        warn(text)
    table = ranking_table(reference, answers)
    return ReferenceAnswer(reference, groups, answers, table, float(bulk.seen.mean())), source


def rank_samples(answer: ReferenceAnswer, drugs: Sequence[str]) -> pd.DataFrame:
    """Each drug over the clones of a sample: mean by abundance, and the worst clone, shrunk.

    Groups without an answer are left out and counted.
    """
    import pandas as pd

    z, n_cells = answer.answers.z, answer.groups.table()["n_cells"].to_numpy()
    at = answer.reference.drugs.index.get_indexer(pd.Index(drugs))
    samples, usable, rows = np.array(answer.groups.samples), answer.usable(), []
    for sample in dict.fromkeys(answer.groups.samples):
        own = np.flatnonzero((samples == sample) & usable)
        if not len(own):
            continue
        mean, worst, which = combine_clones(z[np.ix_(own, at)], n_cells[own].astype(float))
        part = {
            "sample": sample,
            "drug": list(drugs),
            "mean_z": mean,
            "worst_z": worst,
            "worst_group": [answer.groups.names[own[k]] for k in which],
            "n_groups": len(own),
            "n_groups_left_out": int(((samples == sample) & ~usable).sum()),
            "n_cells": int(n_cells[own].sum()),
        }
        rows.append(pd.DataFrame(part).sort_values("mean_z", kind="stable"))
    columns = ["sample", "drug", "mean_z", "worst_z", "worst_group", "n_groups", "n_groups_left_out", "n_cells"]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)


def rank_sample_pairs(answer: ReferenceAnswer, drugs: Sequence[str]) -> pd.DataFrame:
    """Pairs of drugs by the clones that they cover, for each sample."""
    import pandas as pd

    at = answer.reference.drugs.index.get_indexer(pd.Index(drugs))
    n_cells = answer.groups.table()["n_cells"].to_numpy().astype(float)
    samples, usable, rows = np.array(answer.groups.samples), answer.usable(), []
    for sample in dict.fromkeys(answer.groups.samples):
        own = np.flatnonzero((samples == sample) & usable)
        if len(own) and len(drugs) > 1:
            found = rank_pairs(answer.answers.z[np.ix_(own, at)], n_cells[own], list(drugs))
            found.insert(0, "sample", sample)
            rows.append(found)
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["sample", "drug_1", "drug_2"])


def scores_of_cells(answer: ReferenceAnswer, drugs: Sequence[str]) -> np.ndarray:
    """`z` of the group of each cell, float32 of shape `(n_cells, n_drugs)`; NaN where there is no answer."""
    import pandas as pd

    at = answer.reference.drugs.index.get_indexer(pd.Index(drugs))
    z = np.where(answer.usable()[:, None], answer.answers.z[:, at], np.nan).astype(np.float32)
    # The last row is that of the cells without a group, whose code is -1.
    return np.vstack([z, np.full((1, len(at)), np.nan, dtype=np.float32)])[answer.groups.codes]
