"""Columns of `.obs` that the user wants to be sent: nothing that names a sample or a study, or tells the response."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from .._core.keys import GROUP_CANDIDATES, RESPONSE, ROLE_CANDIDATES
from .._data.label_words import word_of
from .._data.obs import as_text, has_labels, read_column, read_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from .units import Units

_ACCESSION = re.compile(
    r"(?i)\b(GS[EM]|[SED]R[RPXS]|PRJ[A-Z]{2}|SAM(N|EA|D)|E-MTAB-|EGA[SDN]|phs|HRA|SCP|TCGA-|GDSC|CCLE)\d*[-\w]*\d"
)
_NAMES = frozenset({*GROUP_CANDIDATES, *ROLE_CANDIDATES["dataset"], *ROLE_CANDIDATES["batch"], "barcode", "accession"})
_LONGEST = 60


def check_metadata(obs: pd.DataFrame, names: Sequence[str], units: Units, label_key: str, groupby: str | None) -> None:
    """Refuse columns that name a sample or a study, or tell the response.

    Raises
    ------
    KeyError
        A column does not exist.
    ValueError
        A column must not be sent.
    """
    samples = {name.casefold() for name in units.samples if len(name) > 2}
    for name in names:
        column = as_text(read_column(obs, name, "metadata"))
        found = _reason(obs, name, column, units, samples, label_key, groupby)
        if found:
            msg = f"Column {name!r} (`metadata`) is not sent: {found}. Leave it out."
            raise ValueError(msg)


def _reason(
    obs: pd.DataFrame,
    name: str,
    column: np.ndarray,
    units: Units,
    samples: set[str],
    label_key: str,
    groupby: str | None,
) -> str:
    """Why a column must not be sent; empty if nothing speaks against it."""
    values = np.unique(column[column != ""])
    if name in {label_key, RESPONSE}:
        return "it is the label"
    if name in {units.sample_key, groupby} or name.casefold() in _NAMES:
        return "it names samples, batches or studies"
    if any(_ACCESSION.search(value) for value in values):
        return "it holds accession numbers"
    if any(samples & set(re.split(r"[^\w.-]+", value.casefold())) for value in values):
        return "it holds names of samples"
    if len(values) and obs[name].dtype.kind not in "fiu" and all(word_of(value) for value in values):
        return "its values are words for a response"
    if obs[name].dtype.kind not in "fiu" and len(values) > 2 and _same_partition(column, units.cells):
        return "it has a value of its own for every sample"
    if has_labels(obs, label_key):
        y = read_labels(obs, label_key)
        known = (y >= 0) & (column != "")
        if len(np.unique(column[known])) == 2 and _same_partition(column[known], y[known].astype(str)):
            return "it says the same as the label"
    return ""


def _same_partition(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two columns divide the cells in the same way."""
    known = (first != "") & (second != "")
    pairs = {*zip(first[known].tolist(), second[known].tolist())}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) > 0


def describe(obs: pd.DataFrame, names: Sequence[str], codes: np.ndarray, n: int) -> list[str]:
    """Lines of text about each unit: the mean of numbers, and the most frequent word."""
    lines: list[list[str]] = [[] for _ in range(n)]
    kept = codes >= 0
    for name in names:
        column = obs[name]
        if column.dtype.kind in "fiu":
            means = column[kept].astype(float).groupby(codes[kept]).mean().reindex(range(n))
            texts = ["" if np.isnan(value) else f"{value:.3g}" for value in means]
        else:
            words = column[kept].astype(object).dropna().astype(str)
            most = words.groupby(codes[kept][column[kept].notna().to_numpy()]).agg(lambda part: part.mode().iloc[0])
            texts = most.reindex(range(n)).fillna("").tolist()
        for unit, text in enumerate(texts):
            if text:
                lines[unit].append(f"{_one_line(name)}: {_one_line(text)}")
    return ["\n".join(part) for part in lines]


def _one_line(text: str) -> str:
    return " ".join(str(text).split())[:_LONGEST]
