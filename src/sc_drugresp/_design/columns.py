"""Columns of `.obs` as numbers of each patient: what a score could read instead of response."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from .._core.keys import SPLIT, EvaluationKeys, PredictionKeys
from .._data.label_words import word_of
from .._data.obs import as_text
from .aliasing import nested

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd


Family = Literal["design", "measured", "derived"]
_MOST_LEVELS = 200
_DESIGN = re.compile(
    r"batch|librar|plate|lane|run|seq|flow_?cell|chip|channel|pool|hashtag|platform|techn|chemistry|kit|protocol|assay|"
    r"method|site|cent(er|re)|hospital|clinic|institut|lab|operator|machine|instrument|version|condition|treat|drug|dose|"
    r"arm|stim|expos|time|date|day|week|month|year|dataset|study|cohort|source|origin|preserv|storage|fresh|frozen|"
    r"dissociat|enrich|sort|vendor|reagent|prep|process"
)
"""Names of columns that say how a sample came to be measured."""
_DERIVED = re.compile(
    r"cell_?type|celltype|cluster|leiden|louvain|phase|annot|subtype|subclass|lineage|(^|_)(s|g2m)_score"
)
"""Names of columns that were read from expression: that they go with response may be the biology that is asked for."""
_IDENTITY = re.compile(
    r"(^|_)(id|ids|number|num|no|nr|index|barcode|name)$|patient|donor|subject|sample|individual|cell_?line|orig_ident"
)
"""Names of columns that number things; that their order goes with the label is how people count."""
_MEASURED_OUTCOME = re.compile(
    r"(^|_)(ln|log|log2|log10|p)?_?(ic|ec|gi|gr)_?50(_|$)|(^|_)(auc|aac|dss|viability|survival|pfs|overall_survival|os|"
    r"rfs|dfs|efs|ttp)(_|$)"
)
"""Names of columns that hold what a drug did to a sample, as a number: dose response of a line, survival of a patient."""


@dataclass(frozen=True)
class Column:
    """A column of cells that was found usable.

    Parameters
    ----------
    name, family
        Its name, and what it tells: how samples were measured, what was measured in them, what was read from expression.
    codes, levels
        Level of each cell and their names; empty for numbers.
    numbers
        Value of each cell, NaN where missing; empty for names.
    """

    name: str
    family: Family
    codes: np.ndarray
    levels: tuple[str, ...] = ()
    numbers: np.ndarray | None = None

    def of_rows(self, rows: np.ndarray, n: int) -> np.ndarray:
        """Share of each level, or mean value and share of missing ones, in each row; `(n, k)`."""
        size = np.maximum(np.bincount(rows, minlength=n), 1)
        if self.numbers is None:
            flat = np.bincount(rows * len(self.levels) + self.codes, minlength=n * len(self.levels))
            return flat.reshape(n, -1) / size[:, None]
        known = np.isfinite(self.numbers)
        there = np.bincount(rows, known, minlength=n)
        total = np.bincount(rows, np.where(known, self.numbers, 0.0), minlength=n)
        mean = np.divide(total, there, out=np.full(n, np.nan), where=there > 0)
        mean = np.where(np.isnan(mean), np.nanmedian(mean), mean)
        return np.column_stack([mean, 1 - there / size]) if (there < size).any() else mean[:, None]

    def take(self, cells: np.ndarray) -> Column:
        """The same of some cells."""
        numbers = None if self.numbers is None else self.numbers[cells]
        return Column(self.name, self.family, self.codes[cells], self.levels, numbers)


def usable_columns(
    obs: pd.DataFrame, y: np.ndarray, units: np.ndarray, held: np.ndarray, *, skip: Iterable[str] = ()
) -> tuple[list[Column], list[str]]:
    """Columns that can go with the label, and names of those that hold the label in other words.

    Left out are columns with one value, identities (of which no value is shared by two of the things that are held
    out), numbers that count patients or samples, what this package wrote, and outcomes: columns that hold words of
    response such as 'CR' or 'non-responder', and numbers of each patient that are named after a measure of response (AUC,
    IC50, survival).

    Parameters
    ----------
    obs
        Table of the labeled cells.
    y
        Their labels.
    units, held
        Patient of each cell, and what is held out together with it.
    skip
        Names not to look at.
    """
    out, copies = [], []
    written = _written(obs) | {str(name) for name in skip}
    for name in obs.columns:
        if str(name) in written:
            continue
        series = obs[name]
        if getattr(series, "ndim", 1) != 1:
            continue  # the same name twice
        column = read(str(name), series, units, held)
        if column is None:
            continue
        if column.numbers is not None and names_outcome(str(name)) and nested(units, column.numbers):
            if _separates(column.numbers, y):
                copies.append(str(name))
            continue
        if column.levels and _outcome(column):
            by_unit = [
                set(y[column.codes == code].tolist()) for code in range(len(column.levels)) if column.levels[code]
            ]
            if all(len(classes) == 1 for classes in by_unit):
                copies.append(str(name))
            continue
        out.append(column)
    return out, copies


def read(name: str, series: pd.Series, units: np.ndarray, held: np.ndarray) -> Column | None:
    """A column as levels or numbers; `None` if it cannot tell anything about samples that are held out."""
    plain = _plain(name)
    family: Family = "derived" if _DERIVED.search(plain) else "design" if _DESIGN.search(plain) else "measured"
    numbers = _numbers(series)
    few = len(np.unique(units)) / 2
    if numbers is not None:
        known = numbers[np.isfinite(numbers)]
        distinct = len(np.unique(known))
        if distinct + (len(known) < len(numbers)) < 2:
            return None
        if distinct > few:
            return (
                None
                if _IDENTITY.search(plain) and nested(units, numbers)
                else Column(name, family, np.zeros(len(numbers), dtype=int), numbers=numbers)
            )
    text = as_text(series)
    levels, codes = np.unique(text, return_inverse=True)
    if len(levels) < 2:
        return None
    pairs = np.unique(np.column_stack([codes, np.unique(held, return_inverse=True)[1]]), axis=0)
    shared = np.bincount(pairs[:, 0], minlength=len(levels)) > 1
    if not shared.any():
        if _IDENTITY.search(plain):
            return None
        numbers = _parsed(levels)
        if numbers is None or not nested(units, text):
            return None
        return Column(name, family, np.zeros(len(codes), dtype=int), numbers=numbers[codes])
    if len(levels) > _MOST_LEVELS and shared.mean() < 1:
        levels, codes = _together(levels, codes, shared)
    return Column(name, family, codes, tuple(map(str, levels))) if len(levels) <= _MOST_LEVELS else None


def names_outcome(name: str) -> bool:
    """Whether a column is named after a measure of response: AUC, IC50, survival."""
    return bool(_MEASURED_OUTCOME.search(_plain(name)))


def _together(levels: np.ndarray, codes: np.ndarray, shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels that a single group has become one."""
    new = np.where(shared, np.cumsum(shared) - 1, shared.sum())
    return np.append(levels[shared], "other"), new[codes]


def _numbers(series: pd.Series) -> np.ndarray | None:
    kind = getattr(series.dtype, "kind", "O")
    if kind in "mM":
        values = series.astype("int64").to_numpy(dtype=float)
        return np.where(series.isna(), np.nan, values)
    if kind in "iuf":
        values = series.to_numpy(dtype=float, na_value=np.nan)
        return np.where(np.isfinite(values), values, np.nan)
    return None


def _parsed(levels: np.ndarray) -> np.ndarray | None:
    """Numbers or dates that are written as text; `None` if they are neither."""
    import pandas as pd

    known = levels != ""
    numbers = pd.to_numeric(pd.Series(levels), errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(numbers[known]).all():
        if not all(re.search(r"\d.*[-/. ].*\d", level) for level in levels[known]):
            return None
        dates = pd.to_datetime(pd.Series(levels[known]), errors="coerce", format="mixed")
        if dates.isna().any():
            return None
        numbers = np.full(len(levels), np.nan)
        numbers[known] = dates.astype("int64")
    return numbers


def _plain(name: str) -> str:
    """The name of a column in lower case, its words joined by `_`."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()).strip("_")


def _separates(numbers: np.ndarray, y: np.ndarray) -> bool:
    """Whether a threshold tells the label of every cell with a number."""
    one, other = (numbers[(y == label) & np.isfinite(numbers)] for label in (0, 1))
    return bool(len(one) and len(other) and (one.max() < other.min() or other.max() < one.min()))


def _outcome(column: Column) -> bool:
    words = [word_of(level) for level in column.levels if level]
    return all(word is not None for word in words) and any(words)


def _written(obs: pd.DataFrame) -> set[str]:
    """Columns that this package wrote, under their usual names or those that the user chose."""
    names = {str(name) for name in obs.columns}
    out = {SPLIT}
    bases = {
        "evaluation",
        "predicted_response",
        *(name.removesuffix("_fold") for name in names if name.endswith("_fold")),
    }
    bases |= {name.removesuffix("_ood_score") for name in names if name.endswith("_ood_score")}
    for base in bases:
        evaluation, prediction = EvaluationKeys.of(base), PredictionKeys.of(base)
        if {evaluation.prob, evaluation.fold} <= names:
            out |= {value for key, value in vars(evaluation).items() if key != "uns"}
        if {prediction.prob, prediction.ood} <= names:
            out |= {value for key, value in vars(prediction).items() if key not in ("uns", "samples")}
    return out
