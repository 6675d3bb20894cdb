"""Lines that stem from one patient: they must be left out together, or a split by name leaks."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from ..names import line_key

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

SAME_PROFILE = 0.9
"""Correlation of standardized profiles above which two lines are taken for cultures of one line."""
_DERIVED = re.compile(r"(?=.*\d).{4,}")


@cache
def known_families() -> tuple[tuple[str, ...], ...]:
    """Curated families of lines, by line key."""
    table = files(__package__) / "tables" / "relatives.tsv"
    rows = table.read_text(encoding="utf-8").splitlines()
    names = (row.split("\t")[0].split("|") for row in rows if row and not row.startswith("#"))
    return tuple(tuple(dict.fromkeys(map(line_key, family))) for family in names)


def families(lines: Sequence[str], *, patients: Sequence[str] | None = None, Z: np.ndarray | None = None) -> np.ndarray:
    """Number of the family of each line, shape `(n_lines,)`, int.

    Two lines are relatives if a curated table says so, if the name of one is the other's followed by a letter
    (`BT474CLONE5`), if both have the same patient, or if their profiles are those of one line.

    Parameters
    ----------
    lines
        Line keys.
    patients, Z
        Patient (`''` where unknown) and standardized expression, shape `(n, n_genes)`, of the first `n` lines.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    place = {line: i for i, line in enumerate(lines)}
    pairs: list[tuple[int, int]] = []
    for family in known_families():
        there = [place[line] for line in family if line in place]
        pairs += [(there[0], other) for other in there[1:]]
    for line, i in place.items():
        for cut in range(4, len(line)):
            base = line[:cut]
            if base in place and line[cut].isalpha() and _DERIVED.fullmatch(base):
                pairs.append((place[base], i))
    first: dict[str, int] = {}
    for i, patient in enumerate(patients if patients is not None else ()):
        if patient:
            pairs.append((first.setdefault(patient, i), i))
    if Z is not None:
        unit = Z - Z.mean(axis=1, keepdims=True)
        unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
        pairs += [tuple(pair) for pair in np.argwhere(np.tril(unit @ unit.T, -1) > SAME_PROFILE)]
    ones, (a, b) = np.ones(len(pairs)), np.array(pairs, dtype=int).reshape(-1, 2).T
    return connected_components(coo_matrix((ones, (a, b)), shape=(len(lines), len(lines))), directed=False)[1]


def with_relatives(
    names: Collection[str],
    lines: Sequence[str],
    *,
    patients: Sequence[str] | None = None,
    Z: np.ndarray | None = None,
) -> set[str]:
    """The lines among `lines` that are named or are relatives of a named one, which need not be there itself."""
    wanted = {line_key(name) for name in names}
    everything = [*lines, *sorted(wanted - set(lines))]
    codes = families(everything, patients=patients, Z=Z).tolist()
    own = {family for line, family in zip(everything, codes) if line in wanted}
    return {line for line, family in zip(lines, codes) if family in own}
