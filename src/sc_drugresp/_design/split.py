"""The strictest split that a cohort allows, with the verdict on its score.

A label that is the same thing as a sample, batch, time point or drug can be predicted perfectly by recognizing that
thing. No score can then tell drug response from recognition, and the verdict says so in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._stats.groups import encode_groups
from .aliasing import aliasing, nested
from .verdict import aliased, one_unit, power_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .verdict import Verdict

LEVELS = ("dataset", "patient", "sample", "batch")
"""Roles that can be held out, strictest first. Below them are only single cells."""
CONFOUNDERS = ("dataset", "batch", "timepoint", "drug")
"""Roles that must not be the same thing as the label, whatever is held out."""
CELLS = "cells"
_WORDS = {"dataset": "data set", "timepoint": "time point", "cell_line": "cell line"}


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
    thing
        What a unit is called.
    """

    level: str
    groups: np.ndarray
    units: np.ndarray
    verdict: Verdict
    thing: str = "sample"

    @property
    def strict(self) -> bool:
        """A strict score exists."""
        return self.level != CELLS and self.verdict.code != "ALIASED"


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
            return Plan(role, groups, groups if units is None else units, aliased(found[role], called[role]))
    cautions: tuple[str, ...] = ()
    # Combination of all held-out roles: replicates inside a patient count as samples of a training fold.
    finest = np.zeros(len(y), dtype=np.intp)
    for role in levels:
        if role in columns:
            part, values = encode_groups(columns[role])
            finest = encode_groups(finest * len(values) + part)[0]
    for role in varying:
        groups, kind = columns[role], found[role]
        if role == "dataset" and "patient" in varying and not nested(columns["patient"], groups):
            cautions = (
                *cautions,
                f"Data sets share names of a {called['patient']}, so that it is held out instead of the data set.",
            )
            continue
        if role == "dataset" and not _every_fold_trains(y, groups, finest, 2):
            cautions = (*cautions, "Leaving out data sets would leave a training fold with too few samples of a class.")
            continue
        if kind.aliased or not _every_fold_trains(y, groups, finest, 1):
            return Plan(role, groups, groups, aliased(kind, called[role]), called[role])
        unit = groups if role != "dataset" or units is None else units
        thing = called[role] if unit is groups else "sample"
        return Plan(role, groups, unit, power_of(y, unit, thing).with_cautions(*cautions), thing)
    everything = np.full(len(y), "all cells")
    verdict = one_unit([called[role] for role in levels if role in found])
    return Plan(CELLS, everything, everything, verdict.with_cautions(*cautions))


def _every_fold_trains(y: np.ndarray, groups: np.ndarray, samples: np.ndarray, least: int) -> bool:
    """Leaving out any group leaves both classes, each from at least `least` samples."""
    for group in np.unique(groups[y >= 0]):
        rest = groups != group
        if any(len(np.unique(samples[rest & (y == label)])) < least for label in (0, 1)):
            return False
    return True
