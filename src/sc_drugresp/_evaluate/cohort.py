"""The labeled cells of a study: what is known about each, and how they will be split."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from .._core.keys import ROLE_CANDIDATES
from .._core.log import logger
from .._data.obs import read_column, read_groups
from .._design.confounding import examine
from .._design.roles import role_columns
from .._design.split import CELLS, choose_split
from .._stats.folds import Fold, LeakError, find_leaks, given_folds, leave_group_out

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd

    from .._design.confounding import Confounding
    from .._design.split import Plan
    from .request import Request


@dataclass(frozen=True)
class Cohort:
    """The labeled cells: what is known about each, and how they will be split.

    Parameters
    ----------
    rows
        Rows of the labeled cells.
    y
        Their labels, 1 sensitive and 0 resistant.
    columns
        Role to values, for labeled cells.
    keys
        Role to name of the `.obs` column.
    plan
        Strictest valid split, with the verdict.
    confounding
        What else goes with the label.
    folds
        Its folds; empty where no strict score is possible.
    remake
        Makes the folds that other labels would have had, and other pairings (`turn`).
    leaks
        What a split of the user's lets through, in words.
    identities
        Names of patients and cell lines, by column.
    """

    rows: np.ndarray
    y: np.ndarray
    columns: dict[str, np.ndarray]
    keys: dict[str, str]
    plan: Plan
    confounding: Confounding
    folds: list[Fold]
    remake: Callable[..., list[Fold]]
    leaks: list[str] = field(default_factory=list)
    identities: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def datasets(self) -> np.ndarray:
        """Data set of each labeled cell."""
        return self.columns.get("dataset", np.full(len(self.y), "all"))

    @property
    def units(self) -> np.ndarray:
        """Independent unit of each labeled cell."""
        return self.plan.units

    @property
    def unit_key(self) -> str:
        """Column of `.obs` that names the units; empty where nothing does."""
        for role in ("patient", "sample", "batch", *self.columns):
            if role in self.columns and np.array_equal(self.columns[role], self.units):
                return self.keys[role]
        return ""


def read_cohort(
    obs: pd.DataFrame,
    y: np.ndarray,
    request: Request,
    measured: Mapping[str, np.ndarray] | None = None,
    join: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> Cohort:
    """Choose or check the split of the cells with a label (`y >= 0`).

    `measured` holds what `.obs` does not say about the labeled cells, such as their depth; it is judged like columns. `join`
    gives the same name to units that are one patient.

    Raises
    ------
    ValueError
        The split that was asked for is not possible.
    LeakError
        It lets training see samples or patients of the test cells.
    """
    rows = np.flatnonzero(y >= 0)
    labels, labeled, group_key = y[rows].astype(np.int64), obs.iloc[rows], request.group_key
    if group_key is not None:
        read_groups(labeled, group_key)
    columns, keys = role_columns(labeled, group_key, request.dataset_key)
    own = read_groups(labeled, group_key) if request.split == "group" else None
    plan = _plan(labels, columns, keys, own)
    if join is not None:
        joined = join(plan.units, labels)
        if joined is not plan.units:
            columns = {role: joined if np.array_equal(v, plan.units) else v for role, v in columns.items()}
            own = None if own is None else (own[0], joined)
            plan = _plan(labels, columns, keys, own)
    if request.split not in ("auto", "group"):
        read_column(labeled, request.split, "split")
    skip = {request.label_key, request.split, *request.options.ignore_obs}
    confounding = examine(labeled.assign(**measured or {}), labels, plan, columns.get("dataset"), skip=skip)
    plan = replace(plan, verdict=confounding.weigh(plan.verdict, plan.thing))
    remake: Callable[..., list[Fold]] = partial(
        leave_group_out, groups=plan.groups, pairs=request.options.hold_out == "pairs", rng=request.rng
    )
    if request.split in ("auto", "group"):
        folds = remake(labels) if plan.strict else []
    else:
        column = labeled[request.split]
        folds = given_folds(np.where(column.isna(), "", column.astype(str)).astype(str))

        def remake(labels: np.ndarray, turn: int = 0) -> list[Fold]:
            return folds

    leaks = [] if request.split == "auto" else _leaks(folds, columns, keys, allowed=request.options.allow_leaks)
    if plan.level == CELLS and plan.units[0] == "all cells":
        finest = next((columns[role] for role in ("sample", "patient", "batch") if role in columns), plan.units)
        plan = replace(plan, units=finest)
    if plan.strict and request.split == "auto":
        logger.info("holding out every %s (.obs[%r])", plan.level, keys.get(plan.level, plan.level))
    return Cohort(rows, labels, columns, keys, plan, confounding, folds, remake, leaks, identities(labeled, columns))


def _plan(
    labels: np.ndarray, columns: dict[str, np.ndarray], keys: dict[str, str], own: tuple[str, np.ndarray] | None
) -> Plan:
    """The strictest split, or that of the user's own groups."""
    if own is None:
        return choose_split(labels, columns, names=keys)
    group_key, groups = own
    role = next((r for r in ("patient", "sample", "batch") if keys.get(r) == group_key), "sample")
    given = {r: v for r, v in columns.items() if r in ("timepoint", "drug")} | {role: groups}
    return choose_split(labels, given, levels=(role,), names=keys | {role: group_key})


def identities(obs: pd.DataFrame, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns that name patients and cell lines, which must not be shared between data sets."""
    found = {
        key: obs[key].astype(str).to_numpy(dtype=str)
        for key in ROLE_CANDIDATES["patient"]
        if key in obs and not obs[key].isna().any() and obs[key].nunique() > 1
    }
    return found | ({"patient": columns["patient"]} if "patient" in columns else {})


def _leaks(folds: list[Fold], columns: dict[str, np.ndarray], keys: dict[str, str], *, allowed: bool) -> list[str]:
    checked = {keys[role]: columns[role] for role in ("patient", "sample") if role in columns}
    found = [str(leak) for leak in find_leaks(folds, checked)]
    if found and not allowed:
        msg = (
            f"The given split leaks: {'; '.join(found[:3])}{' ...' if len(found) > 3 else ''}. Put everything of one patient "
            "or sample into one fold, use split='auto', or pass allow_leaks=True to score it anyway (it is recorded)."
        )
        raise LeakError(msg)
    return found
