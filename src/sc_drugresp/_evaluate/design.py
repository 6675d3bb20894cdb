"""What can be concluded from a data set at all: the design table, aliasing, and the strictest valid split.

A label that is the same thing as a sample, batch, time point or drug can be predicted perfectly by recognizing that
thing. No score can then tell drug response from recognition, and the verdict says so in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Literal

import numpy as np

from .._stats.auroc import hanley_mcneil
from .._stats.groups import encode_groups, group_classes, majority_classes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

VerdictCode = Literal["OK", "ALIASED", "UNDERPOWERED"]
LEVELS = ("dataset", "patient", "sample", "batch")
"""Roles that can be held out, strictest first. Below them are only single cells."""
CONFOUNDERS = ("dataset", "batch", "timepoint", "drug")
"""Roles that must not be the same thing as the label, whatever is held out."""
CELLS = "cells"
_WORDS = {"dataset": "data set", "timepoint": "time point", "cell_line": "cell line"}
_SMALLEST_P = 0.05


@dataclass(frozen=True)
class Aliasing:
    """How one column relates to the label, among labeled cells.

    `n_sensitive`, `n_resistant` and `n_mixed` count levels whose cells are all sensitive, all resistant, or both.
    """

    role: str
    n_levels: int
    n_sensitive: int
    n_resistant: int
    n_mixed: int

    @property
    def with_sensitive(self) -> int:
        """Levels with at least one sensitive cell."""
        return self.n_sensitive + self.n_mixed

    @property
    def with_resistant(self) -> int:
        """Levels with at least one resistant cell."""
        return self.n_resistant + self.n_mixed

    @property
    def determines_label(self) -> bool:
        """The label is a function of the column."""
        return self.n_levels > 1 and self.n_mixed == 0

    @property
    def aliased(self) -> bool:
        """A class stands on a single level of the column, and no level holds both classes."""
        return self.determines_label and min(self.n_sensitive, self.n_resistant) < 2


@dataclass(frozen=True)
class Verdict:
    """Whether a performance estimate is possible, with the reason in words.

    `OK`: yes. `UNDERPOWERED`: the split is valid, but so few independent samples cannot show much. `ALIASED`: no; the
    label cannot be told from something else.
    """

    code: VerdictCode
    reason: str
    suggestions: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"


@dataclass(frozen=True)
class Plan:
    """The split that was chosen.

    Parameters
    ----------
    level
        Role that is held out, or `'cells'`.
    groups
        What is held out together, per cell.
    units
        Independent unit of every statistic, per cell: patients inside data sets, otherwise `groups`.
    verdict
        Whether its score means anything.
    cautions
        Further remarks in words.
    """

    level: str
    groups: np.ndarray
    units: np.ndarray
    verdict: Verdict
    cautions: tuple[str, ...] = ()

    @property
    def strict(self) -> bool:
        """A strict score exists."""
        return self.level != CELLS and self.verdict.code != "ALIASED"


def aliasing(y: np.ndarray, column: np.ndarray, role: str = "") -> Aliasing:
    """Count the pure and mixed levels of a column; cells with `y < 0` have no label and are left out."""
    labeled = y >= 0
    codes, levels = encode_groups(column[labeled])
    mixed, sensitive, resistant = (
        int((group_classes(y[labeled], codes, len(levels)) == kind).sum()) for kind in (2, 1, 0)
    )
    return Aliasing(role, len(levels), sensitive, resistant, mixed)


def design_table(y: np.ndarray, columns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Count cells by every combination of the columns: `n_cells`, `n_sensitive`, `n_resistant`, `n_unlabeled`."""
    import pandas as pd

    frame = pd.DataFrame({role: values.astype(str) for role, values in columns.items()}, index=range(len(y)))
    frame = frame.assign(n_cells=1, n_sensitive=y == 1, n_resistant=y == 0, n_unlabeled=y < 0)
    if not columns:
        return frame.sum().to_frame().T.astype(int)
    return frame.groupby(list(columns), sort=True, as_index=False, observed=True).sum()


def nested(inner: np.ndarray, outer: np.ndarray) -> bool:
    """Every level of `inner` lies within one level of `outer`."""
    pairs = np.unique(np.column_stack([inner.astype(str), outer.astype(str)]), axis=0)
    return len(pairs) == len(np.unique(pairs[:, 0]))


def choose_split(
    y: np.ndarray,
    columns: Mapping[str, np.ndarray],
    *,
    levels: tuple[str, ...] = LEVELS,
    names: Mapping[str, str] | None = None,
) -> Plan:
    """Choose the strictest split in which every training fold holds both classes.

    Leave data set out, else patient or cell line, else sample, else batch. The search does not go below patients or
    samples once there are two of them: with one sensitive and one resistant patient, leaving out their samples one by
    one would only reward recognizing the patient.

    Parameters
    ----------
    y
        1 sensitive, 0 resistant, negative for unlabeled.
    columns
        Role (`dataset`, `patient`, `sample`, `batch`, `timepoint`, `drug`) to the column's values per cell.
    levels
        Roles that may be held out, strictest first.
    names
        What to call a role in the reason, for example `{'patient': 'cell_line'}`.

    Returns
    -------
    :class:`Plan`.
    """
    found = {role: aliasing(y, values, role) for role, values in columns.items()}
    keys = {role: (names or {}).get(role, role) for role in (*columns, *levels)}
    called = {role: _WORDS.get(key, key.replace("_", " ")) for role, key in keys.items()}
    varying = [role for role in levels if role in found and found[role].n_levels > 1]
    units = next((columns[role] for role in varying if role != "dataset"), None)
    for role in CONFOUNDERS:
        if role in found and found[role].aliased:
            groups = columns[role]
            return Plan(role, groups, groups if units is None else units, _aliased(found[role], called[role]))
    cautions = tuple(
        f"The {called[role]} determines the label ({found[role].n_sensitive} levels are all sensitive, "
        f"{found[role].n_resistant} all resistant); a score can profit from recognizing it."
        for role in CONFOUNDERS
        if role in found and found[role].determines_label and role != "dataset"
    )
    # Combination of all held-out roles: replicates inside a patient count as samples of a training fold.
    parts = [encode_groups(columns[role])[0] for role in levels if role in columns]
    finest = np.unique(np.column_stack([np.zeros(len(y)), *parts]), axis=0, return_inverse=True)[1].ravel()
    for role in varying:
        groups, kind = columns[role], found[role]
        if role == "dataset" and not _every_fold_trains(y, groups, finest, 2):
            cautions = (*cautions, "Leaving out data sets would leave a training fold with too few samples of a class.")
            continue
        if kind.aliased or not _every_fold_trains(y, groups, finest, 1):
            return Plan(role, groups, groups, _aliased(kind, called[role]))
        unit = groups if role != "dataset" or units is None else units
        return Plan(role, groups, unit, _power(y, unit, called[role] if unit is groups else "sample"), cautions)
    everything = np.full(len(y), "all cells")
    return Plan(CELLS, everything, everything, _one_unit([called[role] for role in levels if role in found]), cautions)


def _every_fold_trains(y: np.ndarray, groups: np.ndarray, samples: np.ndarray, least: int) -> bool:
    """Leaving out any group leaves both classes, each from at least `least` samples."""
    for group in np.unique(groups[y >= 0]):
        rest = groups != group
        if any(len(np.unique(samples[rest & (y == label)])) < least for label in (0, 1)):
            return False
    return True


def _aliased(kind: Aliasing, thing: str) -> Verdict:
    few = [name for name, n in (("sensitive", kind.with_sensitive), ("resistant", kind.with_resistant)) if n < 2]
    source = "each class comes" if len(few) != 1 else f"all {few[0]} cells come"
    reason = (
        f"{source} from one {thing} only "
        f"({kind.n_sensitive} sensitive, {kind.n_resistant} resistant, {kind.n_mixed} mixed {thing}s). "
        f"Response cannot be told from {thing}, so that no performance estimate is possible within these data; "
        "a random split of cells would score recognition of it."
    )
    suggestions = (
        f"Add data with at least two {thing}s of each class.",
        "Score the model on other data sets with protocol='cross_dataset'.",
    )
    if kind.role == "timepoint":
        suggestions = (
            "Use cells from before treatment only: a treated cell differs whatever its fate.",
            suggestions[1],
        )
    return Verdict("ALIASED", reason, suggestions)


def _power(y: np.ndarray, units: np.ndarray, thing: str) -> Verdict:
    codes, names = encode_groups(units[y >= 0])
    classes = majority_classes(y[y >= 0], codes, len(names))
    n_mixed = int((classes == 2).sum())
    n_s, n_r = (int((classes == label).sum()) + n_mixed for label in (1, 0))
    smallest = 2.0**-n_mixed if n_mixed else 1 / comb(len(names), n_s)
    half = 1.96 * np.sqrt(hanley_mcneil(0.8, n_s, n_r))
    size = f"{n_s} sensitive and {n_r} resistant {thing}s" if not n_mixed else f"{len(names)} {thing}s"
    accuracy = f"an AUROC of 0.80 over samples would be known to +-{half:.2f}"
    if min(n_s, n_r) < 3 or smallest >= _SMALLEST_P:
        told = f"the smallest possible permutation p-value is {smallest:.2g}"
        lone = f"{told}, and a model that leaves one out learns a class from {min(n_s, n_r) - 1}"
        reason = f"only {size}: {accuracy}, {lone if min(n_s, n_r) < 3 else f'and {told}'}."
        advice = ("Read the interval, not the value.", "Add samples of the smaller class.")
        return Verdict("UNDERPOWERED", reason, advice)
    return Verdict("OK", f"{size}; {accuracy}.")


def _one_unit(known: list[str]) -> Verdict:
    what = (
        f"there is only one {' and one '.join(known)}" if known else "no column names samples, patients or cell lines"
    )
    reason = (
        f"{what}, so that nothing independent can be held out. The score of a random split of cells says how well other "
        "cells of the same sample are predicted, and nothing about another sample."
    )
    return Verdict("UNDERPOWERED", reason, ("Name the samples with `group_key=`.", "Add data of other samples."))
