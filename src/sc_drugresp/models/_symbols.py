"""The vocabulary of tGPT: its tokenizer file, and the genes that its authors did not rank."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .._data import GeneAlignment, GeneVocab
from ._files import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .._data.vocab import GeneMode

NOT_RANKED = re.compile(r"MT-|RP[LS]\d|RPLP\d|(RPSA|MALAT1|NEAT1|XIST)$")
"""Genes that the authors took out before ranking, judged from their published rankings and vocabulary."""
_PIECES = re.compile(r"\w+|[^\w\s]+")


@dataclass(frozen=True)
class SymbolVocab(GeneVocab):
    """Symbols with `-` and `.` written as `_`; with `genes="exact"` any text is cut into words as upstream does.

    Parameters
    ----------
    unknown_id
        Token of a word that is not in the vocabulary; it keeps its place in the ranking.
    n_tokens
        Size of the vocabulary with special tokens. Ids from here on stand for several tokens, or for none.
    gene_filter
        See :class:`~sc_drugresp.models.tgpt.TGPTConfig`.
    """

    unknown_id: int = 3
    n_tokens: int = 0
    gene_filter: bool | None = None
    _words: dict[tuple[int, ...], int] = field(default_factory=dict, repr=False, compare=False)

    def _fold(self, name: str) -> str:
        return name.replace("-", "_").replace(".", "_")

    @property
    def symbols(self) -> list[str]:
        """Names to look up in the gene tables; `_` nearly always stands for a dash."""
        return [name.replace("_", "-") for name in self.names]

    @cached_property
    def _name_of(self) -> dict[int, str]:
        return dict(zip(self.ids.tolist(), self.names))  # type: ignore[union-attr]

    def align(
        self, names: Sequence[str], other: Sequence[str] | None = None, *, mode: GeneMode = "auto"
    ) -> GeneAlignment:
        """Map the columns of a data set to token ids, or to ids beyond the vocabulary for several tokens or none."""
        alignment = super().align(names, other, mode=mode)
        ids, texts = alignment.ids.copy(), [str(name) for name in names]
        if mode == "exact":
            if other is not None and (ids >= 0).any() and not any(self._fold(text) in self._lookup for text in texts):
                texts = [str(text) for text in other]
            ids[:] = [self._id_of(self._fold(text)) for text in texts]
        if self.gene_filter or (self.gene_filter is None and mode == "auto"):
            left_out = self._words.setdefault((), self.n_tokens + len(self._words))
            seconds = texts if other is None else [str(text) for text in other]
            for i, (text, second) in enumerate(zip(texts, seconds)):
                known = self._name_of.get(int(ids[i]), "")
                if NOT_RANKED.match(text) or NOT_RANKED.match(second) or NOT_RANKED.match(known):
                    ids[i] = left_out
        unknown = self.unknown_id if mode == "exact" else None
        return GeneAlignment(ids, mode, alignment.duplicates, len(self), unknown_id=unknown)

    def _id_of(self, text: str) -> int:
        pieces = tuple(self._lookup.get(piece, self.unknown_id) for piece in _PIECES.findall(text))
        if len(pieces) == 1:
            return pieces[0]
        return self._words.setdefault(pieces, self.n_tokens + len(self._words)) if pieces else -1

    def words(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens that ids beyond the vocabulary stand for, as CSR arrays `indptr`, `ids`."""
        words = list(self._words)
        indptr = np.cumsum([0, *map(len, words)]).astype(np.int64)
        return indptr, np.array([piece for word in words for piece in word], dtype=np.int32)

    @classmethod
    def of(cls, ids: Mapping[str, int], config: Any) -> Self:
        """Separate the special tokens of a table of token ids from its symbols."""
        reserved = {config.begin_id, config.end_id, config.pad_id, config.unknown_id}
        genes = {name: token for name, token in ids.items() if token not in reserved}
        return cls(
            list(genes),
            np.array(list(genes.values())),
            duplicates="keep",
            special={name: token for name, token in ids.items() if token in reserved},
            unknown_id=config.unknown_id,
            n_tokens=config.vocab_size,
            gene_filter=config.gene_filter,
        )


def read_tokenizer(path: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Token ids of a `tokenizer.json`, and the ids of its begin, end and unknown tokens.

    Raises
    ------
    ValueError
        It is the tokenizer of another model.
    """
    try:
        return _tokenizer(path)
    except (AttributeError, KeyError, TypeError, StopIteration) as error:
        msg = f"{path} is not the tokenizer of tGPT, or damaged ({type(error).__name__}: {error}). Download it again."
        raise ValueError(msg) from error


def _tokenizer(path: Path) -> tuple[dict[str, int], dict[str, int]]:
    published = read_json(path)
    model = published.get("model") or {}
    cutter = (published.get("pre_tokenizer") or {}).get("type")
    found = (model.get("type", "WordLevel"), cutter, published.get("normalizer"))
    if found != ("WordLevel", "Whitespace", None) or not isinstance(model.get("vocab"), dict):
        msg = (
            f"{path} is not the tokenizer of tGPT: expected a WordLevel model that cuts at white space, found a "
            f"{found[0]} model, {found[1]} cutting and the normalizer {found[2]}."
        )
        raise ValueError(msg)
    ids = model["vocab"]
    if not all(type(token) is int for token in ids.values()):
        msg = f"{path} should number its tokens with whole numbers; it is damaged. Download it again."
        raise ValueError(msg)
    template = [next(iter(step.items())) for step in (published.get("post_processor") or {}).get("single", [])]
    ends = [value["id"] for kind, value in template if kind == "SpecialToken"]
    if [kind for kind, _ in template] != ["SpecialToken", "Sequence", "SpecialToken"] or not {*ends} <= ids.keys():
        msg = f"{path} does not put one token before and one behind a sequence; it is not the tokenizer of tGPT."
        raise ValueError(msg)
    unknown = model.get("unk_token", "<unk>")
    if unknown not in ids:
        msg = f"{path} names {unknown!r} as its unknown token, which is not in its vocabulary."
        raise ValueError(msg)
    return ids, {"begin_id": ids[ends[0]], "end_id": ids[ends[1]], "unknown_id": ids[unknown]}
