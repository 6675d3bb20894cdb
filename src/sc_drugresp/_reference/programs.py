"""Gene programs of cells under treatment, beside the same programs in the untreated lines of a reference.

A cell whose growth signal is blocked transcribes neither the targets of the MAPK pathway nor the genes of the cell cycle; one with
damaged DNA and an intact p53 has stopped dividing while the targets of p53 are on. Either half alone is common among
untreated lines, so both must lie beyond 95 % of them. Cells that have survived for days often look like untreated ones
again: that nothing is visible does not mean that a sample is untreated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TAIL = 0.05
"""Share of untreated lines beyond the limit of a program."""
MIN_GENES = 8
"""Genes of a program that the model and the sample must have."""


@dataclass(frozen=True)
class Program:
    """Name, sign (+1 if treatment raises it) and genes."""

    name: str
    sign: int
    genes: tuple[str, ...]


PATTERNS = (("MAPK output", "cell cycle"), ("p53 targets", "cell cycle"))
"""Programs that must all be beyond their limits."""


@cache
def programs() -> tuple[Program, ...]:
    """The packaged table."""
    text = (files(__package__) / "tables" / "programs.tsv").read_text(encoding="utf-8")
    rows = (row.split("\t") for row in text.splitlines() if not row.startswith("#"))
    return tuple(Program(name, 1 if sign == "up" else -1, tuple(genes.split())) for name, sign, genes in rows)


def program_limits(Z: np.ndarray, genes: Sequence[str]) -> dict[str, float]:
    """Score of each program that 5 % of the lines exceed, in the direction of treatment; programs with few genes are left out.

    Parameters
    ----------
    Z, genes
        Standardized expression of untreated lines, shape `(n_lines, n_genes)`, and its genes.
    """
    scores = _scores(Z, genes, np.ones(len(genes), dtype=bool))
    return {name: float(np.quantile(score, 1 - TAIL)) for name, score in scores.items()}


def visible_programs(Z: np.ndarray, genes: Sequence[str], usable: np.ndarray, limits: Mapping[str, float]) -> list[str]:
    """The programs of treatment that each sample shows, in words; `''` for none, or where too few genes are there.

    Parameters
    ----------
    Z, genes, usable
        Aligned and standardized expression, shape `(n, n_genes)`, its genes, and which of them the sample has.
    limits
        From :func:`program_limits`.
    """
    scores = _scores(Z, genes, usable)
    out = []
    for i in range(len(Z)):
        beyond = {name for name, score in scores.items() if name in limits and score[i] > limits[name]}
        found = [_words(pattern) for pattern in PATTERNS if beyond.issuperset(pattern)]
        out.append("; ".join(found))
    return out


def _words(pattern: tuple[str, ...]) -> str:
    sign = {program.name: program.sign for program in programs()}
    told = [f"{name} {'higher' if sign[name] > 0 else 'lower'}" for name in pattern]
    return f"{' and '.join(told)} than in {1 - TAIL:.0%} of untreated lines"


def _scores(Z: np.ndarray, genes: Sequence[str], usable: np.ndarray) -> dict[str, np.ndarray]:
    """Signed mean over the genes of each program, for programs with enough of them."""
    place = {gene: j for j, gene in enumerate(genes) if usable[j]}
    out = {}
    for program in programs():
        at = [place[gene] for gene in program.genes if gene in place]
        if len(at) >= MIN_GENES:
            out[program.name] = program.sign * Z[:, at].mean(axis=1)
    return out
