"""What else goes with the label, and what remains of a score inside its strata."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .association import Association, associations, count_pairs
from .columns import Column, usable_columns
from .units import UnitTable
from .verdict import Verdict, plural

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from .split import Plan

_MOST_NAMED = 3


@dataclass(frozen=True)
class Within:
    """A score inside the strata of a column: AUROC over patients and its p-value; NaN where no stratum has both classes."""

    auroc: float = float("nan")
    p_value: float = float("nan")
    n_pairs: int = 0


@dataclass(frozen=True)
class Confounding:
    """What goes with the label.

    Parameters
    ----------
    table
        The patients.
    columns
        Columns that were looked at, for all labeled cells.
    found
        Their associations, the strongest first.
    copies
        Columns that hold the label in other words.
    """

    table: UnitTable
    columns: list[Column] = field(default_factory=list)
    found: list[Association] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)

    @property
    def strongest(self) -> Association | None:
        """The column that goes with the label most clearly; `None` if there is no usable column."""
        return next((found for found in self.found if found.family != "derived"), None)

    @property
    def confounders(self) -> list[Association]:
        """What is called a confounder."""
        return [found for found in self.found if found.confounds]

    def within(self, prob: np.ndarray) -> Within:
        """A score of cells inside the strata of the strongest column.

        Parameters
        ----------
        prob
            Score of each labeled cell; NaN where it has none.
        """
        table, strongest = self.table, self.strongest
        if strongest is None:
            return Within()
        cells = np.flatnonzero((table.row_of_cell >= 0) & np.isfinite(prob))
        rows = table.row_of_cell[cells]
        size = np.bincount(rows, minlength=len(table))
        mean = np.bincount(rows, prob[cells], minlength=len(table)) / np.maximum(size, 1)
        # Rows without a score form strata of one.
        strata = np.where(
            size > 0, strongest.strata * (table.strata.max() + 1) + table.strata, -1 - np.arange(len(table))
        )
        labels = table.arrangements(strata)
        right, pairs = count_pairs(mean, labels, strata)
        if not pairs[0]:
            return Within()
        share = right / np.maximum(pairs, 1)
        return Within(float(share[0]), float(np.mean(share >= share[0] - 1e-12)), int(pairs[0]))

    def weigh(self, verdict: Verdict, thing: str = "patient") -> Verdict:
        """The verdict with what was found: lowered where a column goes with the label beyond chance."""
        cautions = (
            [f"{', '.join(map(repr, self.copies))} hold the label in other words and were not judged as confounders."]
            if self.copies
            else []
        )
        cautions += [
            f"{(found.family == 'derived' and 'The composition by ') or ''}{found} goes with the label over {plural(thing)}"
            + ("; this may be the biology, or how the samples were taken." if found.family == "derived" else ".")
            for found in self.found
            if found.striking and not found.confounds and found.family != "several"
        ][:_MOST_NAMED]
        aliased = next((found for found in self.found if found.aliased), None)
        if verdict.code == "ALIASED":
            return verdict.with_cautions(*cautions)
        if aliased is not None:
            return replace(_aliased(aliased, thing), cautions=(*verdict.cautions, *cautions))
        named = self.confounders
        if not named:
            return verdict.with_cautions(*cautions)
        if verdict.code == "UNDERPOWERED":
            told = [f"{found} goes with the label over {plural(thing)}; a score can come from it." for found in named]
            return verdict.with_cautions(*told[:_MOST_NAMED], *cautions)
        return replace(_confounded(named, thing), cautions=(verdict.reason, *verdict.cautions, *cautions))

    def record(self, within: Within) -> dict[str, Any]:
        """Numbers for `.uns`."""
        strongest = self.strongest
        return {
            "strongest": strongest.name if strongest else "",
            "association": strongest.auroc if strongest else float("nan"),
            "p_association": strongest.p_value if strongest else float("nan"),
            "score_within": within.auroc,
            "p_within": within.p_value,
            "pairs_within": within.n_pairs,
        }


def examine(
    obs: pd.DataFrame, y: np.ndarray, plan: Plan, datasets: np.ndarray | None = None, *, skip: Iterable[str] = ()
) -> Confounding:
    """Compare the columns of labeled cells with the label, over the units of a plan.

    Parameters
    ----------
    obs
        Table of the labeled cells.
    y
        Their labels.
    plan
        What is held out, and what the units are.
    datasets
        Data set of each cell.
    skip
        Columns not to look at.
    """
    datasets = np.zeros(len(y)) if datasets is None else datasets
    mixed = any(len(np.unique(y[datasets == name])) > 1 for name in np.unique(datasets))
    held = plan.groups if mixed else plan.units  # data sets of one class each are themselves suspect
    table = UnitTable.of(y, plan.units, held, datasets)
    columns, copies = usable_columns(obs, y, plan.units, held, skip=skip)
    found = associations(columns, table, y) if len(np.unique(table.held)) > 1 else []
    return Confounding(table, columns, found, copies)


_SEPARATE = "Add data in which the two do not go together, or compare patients within its levels."
_IGNORE = "If it is an outcome or another name of the label, leave it out: options=EvaluationOptions(ignore_obs=[...])."


def _confounded(named: list[Association], thing: str) -> Verdict:
    others = [found.name for found in named[1:] if found.family != "several"][:_MOST_NAMED]
    more = f" So do {', '.join(others)}." if others else ""
    first = named[0]
    nothing = (
        ""
        if first.n != first.right
        else f" No level of it has {plural(thing)} of both classes: nothing can be compared inside its strata."
    )
    return Verdict(
        "CONFOUNDED",
        f"{first} goes with the label over {plural(thing)}, so that a score can come from recognizing it.{nothing}{more}",
        (_SEPARATE, _IGNORE),
    )


def _aliased(found: Association, thing: str) -> Verdict:
    return Verdict(
        "ALIASED",
        f"{found.name!r} is the same thing as the label: it tells the label of {found.right} of {found.n} {plural(thing)} and a class "
        f"stands on a single level of it. Response cannot be told from {found.name!r}, so that no performance estimate is "
        "possible within these data; a random split of cells would score recognition of it.",
        (f"Add data with both classes at a level of {found.name!r}.", _IGNORE),
    )
