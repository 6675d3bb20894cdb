"""Cells as sentences: a template, the names of the genes in order of expression, and what the user lets be told."""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from .._data.rank_kernels import rank_by_value
from .._data.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._data.counts import CountBlock

FIELDS = frozenset({"genes", "metadata"})


@cache
def packaged_template() -> str:
    """The sentence that is used where the user gives none."""
    return (files(__package__) / "prompts" / "cell_sentence.txt").read_text(encoding="utf-8").rstrip("\n")


def check_template(text: str) -> str:
    """A template, if it has a place for the genes and for nothing unknown.

    Raises
    ------
    ValueError
        `{genes}` is missing or stands twice, there is another field, or a brace is open.
    """
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        msg = f"`template` has a brace that is not closed ({error}): {text!r:.80}. Write {{{{ for a brace."
        raise ValueError(msg) from error
    if fields.count("genes") != 1 or fields.count("metadata") > 1 or not set(fields) <= FIELDS:
        msg = f"`template` must have the field {{genes}} once and may have {{metadata}} once, found {sorted(fields)}."
        raise ValueError(msg)
    return text


@dataclass
class Told:
    """What was told of the cells so far: genes that were expressed and written, and cells that were cut."""

    cells: int = 0
    expressed: int = 0
    written: int = 0
    cut: int = 0

    def summary(self) -> dict[str, Any]:
        """Cells that were written, their mean numbers of genes, and how many of them were cut, as not all genes did fit.

        A run into a store that goes on counts the cells that it wrote itself.
        """
        if not self.cells:
            return {"cells": 0}
        return {
            "cells": self.cells,
            "genes_expressed": self.expressed / self.cells,
            "genes_written": self.written / self.cells,
            "cells_cut": self.cut,
        }


class Sentences:
    """Writes blocks of cells as sentences and turns them into tokens; a sentence ends with a whole gene.

    Parameters
    ----------
    encode
        From texts to token ids, with what the model puts around a text.
    names
        Name of each gene id.
    template
        The text with `{genes}` and perhaps `{metadata}`.
    n_genes
        Most genes of a cell.
    values
        Write the value after each gene: log1p of counts per 10,000, with one digit.
    limit
        Most tokens of a cell.
    """

    def __init__(
        self,
        encode: Callable[[list[str]], list[list[int]]],
        names: Sequence[str],
        *,
        template: str,
        n_genes: int,
        values: bool,
        limit: int,
    ) -> None:
        self.encode, self.names, self.template = encode, names, check_template(template)
        self.n_genes, self.values, self.limit = n_genes, values, limit
        self.told = Told()

    def words(self, block: CountBlock) -> list[list[str]]:
        """The genes of each cell, highest first; equal counts follow the id, which is the order of the names."""
        cells = np.repeat(np.arange(len(block)), np.diff(block.indptr))
        order = np.lexsort((block.gene_ids, cells))
        scale = np.ones(len(self.names))
        counts = (block.indptr, block.gene_ids[order], block.counts[order], block.totals)
        indptr, ids, values = rank_by_value(*counts, scale, self.n_genes, False)  # noqa: FBT003 (numba)
        words = [self.names[i] for i in ids.tolist()]
        if self.values:
            words = [f"{word} {value:.1f}" for word, value in zip(words, np.log1p(values).tolist())]
        return [words[start:stop] for start, stop in zip(indptr[:-1].tolist(), indptr[1:].tolist())]

    def text(self, words: Sequence[str], about: str = "") -> str:
        """The sentence of a cell."""
        return self.template.format(genes=" ".join(words), metadata=about)

    def tokenize(self, block: CountBlock, about: Sequence[str]) -> Tokens:
        """Tokens of each cell, as many genes as fit; none for a cell without genes.

        Raises
        ------
        ValueError
            Not even one gene fits.
        """
        words = self.words(block)
        full = [i for i, of_cell in enumerate(words) if of_cell]
        ids: dict[int, list[int]] = {}
        low, high = dict.fromkeys(full, 0), {i: len(words[i]) for i in full}
        tried, open_ = dict(high), full
        while open_:  # the largest number of genes that fits, by halving, for all cells at once
            for i, sequence in zip(open_, self.encode([self.text(words[i][: tried[i]], about[i]) for i in open_])):
                if len(sequence) <= self.limit:
                    low[i], ids[i] = tried[i], sequence
                else:
                    high[i] = tried[i] - 1
                tried[i] = (low[i] + high[i] + 1) // 2
            open_ = [i for i in open_ if low[i] < high[i]]
        if lost := [i for i in full if low[i] == 0]:
            msg = f"The sentence of a cell with one gene has more than {self.limit} tokens ({len(lost)} cells). Raise `max_tokens`, or shorten the template or the metadata."
            raise ValueError(msg)
        told = self.told
        told.cells, told.expressed = told.cells + len(block), told.expressed + len(block.gene_ids)
        told.written += sum(low.values())
        told.cut += sum(low[i] < len(words[i]) for i in full)
        lengths = [len(ids.get(i, ())) for i in range(len(block))]
        flat = [token for i in full for token in ids[i]]
        return Tokens(np.concatenate([[0], np.cumsum(lengths)]), np.array(flat, dtype=np.int32))
