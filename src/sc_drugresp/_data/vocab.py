"""The genes that a model knows, and how the columns of a data set map to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GeneMode = Literal["auto", "exact"]
Duplicates = Literal["sum", "first", "keep", "collapse"]


@dataclass(frozen=True)
class GeneVocab:
    """Gene names of a model and the token id of each.

    Parameters
    ----------
    names
        Gene names, symbols or Ensembl ids; no special tokens.
    ids
        Token id of each name, shape `(n_genes,)`, int32. `None` numbers them from 0.
    kind
        What the names are.
    duplicates
        Upstream's rule for a gene that several columns hold, applied with `genes="exact"`:
        add the counts, take the first column, or keep the columns as separate tokens. `'collapse'` is Geneformer's:
        add, and put the sums behind the other columns, but only if two *different* names meet in a gene, else keep.
    fold_case
        Whether upstream compares names without regard to case.
    synonyms
        The model's own table of other names, name to vocabulary name (Geneformer's retired Ensembl ids).
    special
        Special tokens, name to id.
    """

    names: Sequence[str]
    ids: np.ndarray | None = None
    kind: Literal["symbol", "ensembl"] = "symbol"
    duplicates: Duplicates = "sum"
    fold_case: bool = False
    synonyms: Mapping[str, str] = field(default_factory=dict)
    special: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = np.arange(len(self.names)) if self.ids is None else self.ids
        object.__setattr__(self, "ids", np.asarray(ids, dtype=np.int32))
        if len(self.ids) != len(self.names):  # type: ignore[arg-type]
            msg = f"A vocabulary needs one id for each of its {len(self.names)} names, found {len(self.ids)}."  # type: ignore[arg-type]
            raise ValueError(msg)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> int:
        """Token id of a special token or a gene name."""
        return int(self.special[name]) if name in self.special else int(self._lookup[self._fold(name)])

    def __contains__(self, name: str) -> bool:
        return name in self.special or self._fold(name) in self._lookup

    @property
    def symbols(self) -> Sequence[str]:
        """Names as the tables of genes spell them."""
        return self.names

    def _fold(self, name: str) -> str:
        return name.upper() if self.fold_case else name

    @cached_property
    def _lookup(self) -> dict[str, int]:
        table: dict[str, int] = {}
        for name, token in zip(self.names, self.ids.tolist()):  # type: ignore[union-attr]
            table.setdefault(self._fold(name), token)
        for name, target in self.synonyms.items():
            if self._fold(target) in table:
                table.setdefault(self._fold(name), table[self._fold(target)])
        return table

    def align(
        self, names: Sequence[str], other: Sequence[str] | None = None, *, mode: GeneMode = "auto"
    ) -> GeneAlignment:
        """Map the columns of a data set to token ids.

        Parameters
        ----------
        names
            `var_names` of the data.
        other
            A second identifier of each gene (`.var["ensembl_id"]` or `.var["symbol"]`), `""` where unknown.
        mode
            `'exact'` matches as upstream does. `'auto'` also matches through Ensembl ids, current, previous and
            alias symbols, wherever the answer is unique, and always adds the counts of duplicates.
        """
        if mode not in get_args(GeneMode):
            msg = f"`genes` must be one of {get_args(GeneMode)}, found {mode!r}."
            raise ValueError(msg)
        names = [str(name) for name in names]
        direct = self._ids_of(names)
        ids = direct if other is None else self._from_other(direct, self._ids_of(other), mode)
        if mode == "auto":
            return GeneAlignment(self._from_tables(ids, names, other), mode, "sum", n_vocabulary=len(self))
        duplicates = self.duplicates
        if duplicates == "collapse":
            texts = names if other is None or np.array_equal(ids, direct) else other
            spellings = {self._fold(str(text)) for text, token in zip(texts, ids.tolist()) if token >= 0}
            duplicates = "collapse" if len(spellings) > len(np.unique(ids[ids >= 0])) else "keep"
        return GeneAlignment(ids, mode, duplicates, n_vocabulary=len(self))

    def _ids_of(self, names: Sequence[str]) -> np.ndarray:
        known = self._lookup
        folded = map(self._fold, map(str, names)) if self.fold_case else map(str, names)
        return np.fromiter((known.get(name, -1) for name in folded), dtype=np.int32, count=len(names))

    @staticmethod
    def _from_other(ids: np.ndarray, second: np.ndarray, mode: GeneMode) -> np.ndarray:
        """Use the second identifier: where names fail, or instead of them if only it is of the right kind."""
        if mode == "auto":
            return np.where(ids < 0, second, ids)
        return ids if (ids >= 0).any() else second

    def _from_tables(self, ids: np.ndarray, names: list[str], other: Sequence[str] | None) -> np.ndarray:
        """Match what is left through the gene tables; the other columns tell the species, and which names are taken."""
        from .. import genes

        if (ids >= 0).all():
            return ids
        index = genes.match(names, other, self.names, self.kind)
        return np.where((ids < 0) & (index >= 0), self.ids[index], ids)  # type: ignore[index]


@dataclass(frozen=True)
class GeneAlignment:
    """Token id of each column of a data set (-1: unknown to the model), and the rule for duplicates.

    `unknown_id` is the token that stands for any unknown gene in models that keep its place in the sequence.
    """

    ids: np.ndarray
    mode: GeneMode
    duplicates: Duplicates
    n_vocabulary: int
    unknown_id: int | None = None

    @property
    def matched(self) -> np.ndarray:
        """Which columns the model knows, shape `(n_columns,)`, bool."""
        return self.ids >= 0 if self.unknown_id is None else (self.ids >= 0) & (self.ids != self.unknown_id)

    @cached_property
    def columns(self) -> np.ndarray:
        """Where the counts of each column go: the column itself, the first column of the same gene, or -1 (dropped)."""
        columns = np.where(self.ids >= 0, np.arange(len(self.ids)), -1)
        if self.duplicates == "keep":
            return columns
        known = np.flatnonzero(self.ids >= 0)
        _, first, inverse = np.unique(self.ids[known], return_index=True, return_inverse=True)
        target = known[first][inverse]
        columns[known] = target if self.duplicates != "first" else np.where(target == known, known, -1)
        return columns

    def summary(self) -> dict[str, Any]:
        """What `.uns` records: the columns matched, the genes of the vocabulary that they cover, and duplicates."""
        matched = int(self.matched.sum())
        distinct = len(np.unique(self.ids[self.matched]))
        return {
            "mode": self.mode,
            "n_genes": len(self.ids),
            "n_matched": matched,
            "n_vocabulary": self.n_vocabulary,
            "n_vocabulary_seen": distinct,
            "n_duplicates": matched - distinct,
            "duplicates": self.duplicates,
        }
