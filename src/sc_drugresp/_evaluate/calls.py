"""Calls that stand in `.obs` already, such as those of a language model: scored as they are, nothing is fitted.

There is no probability, so that metrics of ranking and of calibration stay empty. A missing answer counts as wrong in one
set of metrics, and is left out in another, whose names end in `_answered`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.keys import CALL_CLASSES, RESISTANT, SENSITIVE, LLMKeys
from .._data.modalities import in_memory
from .._data.obs import as_text, read_column
from .._stats.auroc import Interval
from .._stats.folds import LeakError
from .._stats.intervals import metric_intervals, share_intervals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd
    from anndata import AnnData

    from .cohort import Cohort
    from .request import Request
    from .scores import Truth

OF_CALLS = (
    "accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1", "f1_resistant", "mcc",
)  # fmt: skip
"""Metrics that need no probability."""
ANSWERED = "_answered"
NONE = -1


@dataclass(frozen=True)
class Calls:
    """Calls of the labeled cells as a row of the comparison.

    Parameters
    ----------
    name
        Name of the row.
    codes
        1 sensitive, 0 resistant, -1 for neither: uncertain, or no answer.
    answered
        Whether there is an answer, `uncertain` among them.
    caution
        What is to be said against its score, in words.
    knows
        Why it may know the labels of the test cells; empty.
    """

    name: str
    codes: np.ndarray
    answered: np.ndarray
    caution: str = ""
    knows: str = ""


def read_calls(adata: AnnData, obs: pd.DataFrame, cohort: Cohort, request: Request) -> list[Calls]:
    """The columns that were named.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        A column holds something else.
    LeakError
        A column is the label, or was made with examples that are held out together with the cells in question.
    """
    out = []
    for name, column in (request.calls or {}).items():
        text = as_text(read_column(obs, column, "calls"))[cohort.rows]
        other = sorted(set(text) - {*CALL_CLASSES, ""})
        if other:
            msg = (
                f"Column {column!r} (`calls`) should hold {' / '.join(CALL_CLASSES)} or be missing, found {other[:5]}."
            )
            raise ValueError(msg)
        if column == request.label_key:
            msg = f"Column {column!r} (`calls`) is the label itself."
            raise LeakError(msg)
        codes = np.select([text == SENSITIVE, text == RESISTANT], [1, 0], NONE)
        caution = _examples(adata, obs, column, cohort, request)
        out.append(Calls(name, codes.astype(np.int64), text != "", caution))
    return out


def _examples(adata: AnnData, obs: pd.DataFrame, column: str, cohort: Cohort, request: Request) -> str:
    """What labels the calls were made with, in words; refused if these are held out together with the cells in question."""
    stored = in_memory(adata.uns.get(column))
    records = stored.get(LLMKeys.records) if isinstance(stored, dict) else None
    if records is None or not {"sample", "examples"} <= set(records):
        return "not written by tl.ask_llm, so that nobody can say whether these calls were made with the labels"
    shown = records[["sample", "examples"]].drop_duplicates()
    shown = shown[shown["examples"].astype(str) != ""]
    if not len(shown):
        return ""
    names = as_text(obs[stored["params"]["group_key"]])[cohort.rows]
    own_split = request.split not in ("auto", "group")
    held = as_text(obs[request.split])[cohort.rows] if own_split else cohort.plan.groups.astype(str)
    groups = {str(name): set(held[names == name].tolist()) | {f"\t{name}"} for name in np.unique(names)}
    for sample, examples in zip(shown["sample"].astype(str), shown["examples"].astype(str)):
        own = groups.get(sample, set())
        for example in examples.split("\t"):
            if own & groups.get(example, set()) and not request.options.allow_leaks:
                msg = (
                    f"{column!r} (`calls`) was asked about {sample!r} with the label of {example!r} as an example, and both are held "
                    "out together. Ask again without `examples`, or with `group_key` naming what is held out."
                )
                raise LeakError(msg)
    return f"made with the labels of {int(stored['params']['examples'])} other samples for each sample"


def call_metric_rows(
    calls: Calls, protocol: str, truth: Truth, tested: np.ndarray, *, n_boot: int, rng: int
) -> list[dict[str, Any]]:
    """Tidy rows by cell and by sample, whose call is that of most of its called cells."""
    fixed = {"model": calls.name, "kind": "model", "protocol": protocol, "n_labeled": 0, "caution": calls.caution}
    cells, codes, answered = truth.at(tested), calls.codes[tested], calls.answered[tested]
    samples, (up, down, some) = cells.samples(codes == 1, codes == 0, answered)
    of_samples = np.select([up > down, down > up], [1, 0], NONE)
    rows = []
    for level, part, found, told in (("cell", cells, codes, answered), ("sample", samples, of_samples, some > 0)):
        if len(part.y):
            for metric, by in _metrics(part, found, told, n_boot=n_boot, rng=rng):
                rows += [
                    {**fixed, "dataset": name, "level": level, "metric": metric, **vars(found_)}
                    for name, found_ in by.items()
                ]
    return rows


def _metrics(
    part: Truth, codes: np.ndarray, told: np.ndarray, *, n_boot: int, rng: int
) -> Iterator[tuple[str, Mapping[str, Interval]]]:
    """Metric to data set to interval."""
    called = codes >= 0
    right = np.where(called, codes, 1 - part.y)
    whole = metric_intervals(part.y, right, part.names, part.datasets, n_boot=n_boot, rng=rng)
    empty = {name: Interval(np.nan, np.nan, np.nan, by["accuracy"].n_groups) for name, by in whole.items()}
    yield "auroc", empty
    for metric in OF_CALLS:
        yield metric, {name: by[metric] for name, by in whole.items()}
    only = part.at(called)
    if called.any():
        left = metric_intervals(only.y, codes[called], only.names, only.datasets, n_boot=n_boot, rng=rng)
        for metric in OF_CALLS:
            yield metric + ANSWERED, {name: by[metric] for name, by in left.items()}
    every = np.ones(len(codes))
    shares = {
        "answered": (told, every),
        "called": (called, every),
        "called_wrong": (called & (codes != part.y), called),
    }
    for metric, (hits, of) in shares.items():
        yield metric, share_intervals(hits, of, part.y, part.names, part.datasets, n_boot=n_boot, rng=rng)
