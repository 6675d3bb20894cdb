"""Columns of a data set to genes of a model's vocabulary, and columns that are the same gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ._aliases import Aliases, load_aliases
from ._resolve import Resolution, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence


def match(
    data_names: Sequence[str],
    data_ids: Sequence[str] | None,
    vocab_names: Sequence[str],
    vocab_kind: Literal["symbol", "ensembl"] = "symbol",
    *,
    aliases: Aliases | None = None,
) -> np.ndarray:
    """Index into a vocabulary for each gene of a data set.

    An exact name counts first, then the Ensembl id without its version, then both sides are resolved to genes (see
    :func:`resolve`) and compared. A gene that the vocabulary holds twice, or a name that means several genes, is left out.

    Parameters
    ----------
    data_names
        `var_names`, shape `(n_data,)`.
    data_ids
        A second identifier of each gene (Ensembl id or symbol), `""` where unknown.
    vocab_names
        Names of the vocabulary.
    vocab_kind
        What the vocabulary holds; decides which of two identifiers is compared first.
    aliases
        As in :func:`resolve`.

    Returns
    -------
    Shape `(n_data,)`, int32; -1 where the vocabulary does not have the gene. Several genes of the data may get the same
    index: their counts are to be added.

    Examples
    --------
    >>> from sc_drugresp.genes import match
    >>> match(["ENSG00000141510.17", "SEPT9", "H3F3A", "what"], None, ["SEPTIN9", "TP53", "H3-3A"]).tolist()
    [1, 0, 2, -1]
    """
    aliases = load_aliases() if aliases is None else aliases
    names = [str(name) for name in data_names]
    others = [""] * len(names) if data_ids is None else [str(name) for name in data_ids]
    index: dict[str, int] = {}
    for i, name in enumerate(vocab_names):
        index.setdefault(str(name), i)
    out = np.full(len(names), -1, dtype=np.int32)
    for i, (name, other) in enumerate(zip(names, others)):
        pair = (other, name) if vocab_kind == "ensembl" and other.startswith("ENS") else (name, other)
        for text in pair:
            found = index.get(text, index.get(text.split(".")[0], -1) if text.startswith("ENS") else -1)
            if text and found >= 0:
                out[i] = found
                break
    left = np.flatnonzero(out < 0)
    if len(left) == 0:
        return out
    vocab = resolve(list(index), organism="human", aliases=aliases)
    positions = np.fromiter(index.values(), dtype=np.int32, count=len(index))
    # The whole data set is resolved, not only what is left: its other names tell the species.
    data = resolve(names, ids=None if data_ids is None else others, target="human", aliases=aliases)
    known = {key: place for key, place in _places(vocab, positions).items() if place >= 0}
    for i in left.tolist():
        if data.status[i] in {"ambiguous", "lost", "other_species", "no_ortholog"}:
            continue
        for key in (data.ensembl_id[i], data.symbol[i]):
            if key and key in known:
                out[i] = known[key]
                break
    return out


def _places(vocab: Resolution, positions: np.ndarray) -> dict[str, int]:
    """Ensembl id and symbol of each gene of a vocabulary to its place; -1 where two entries claim the gene."""
    places: dict[str, int] = {}
    sure: dict[str, bool] = {}
    own_name = np.isin(vocab.status, ("symbol", "ensembl"))
    for i in np.flatnonzero(vocab.matched | (vocab.status == "unlisted")):
        for key in {vocab.ensembl_id[i], vocab.symbol[i]} - {""}:
            if key not in places or (own_name[i] and not sure[key]):
                places[key], sure[key] = int(positions[i]), bool(own_name[i])
            elif own_name[i] == sure[key] and places[key] != positions[i]:
                places[key] = -1
    return places


def gene_groups(names: Sequence[str], resolution: Resolution) -> np.ndarray:
    """Number the genes of a data set so that columns of the same gene share a number.

    Parameters
    ----------
    names
        `var_names`, shape `(n_genes,)`; what was not resolved is one gene for each distinct name.
    resolution
        What the names mean.

    Returns
    -------
    Shape `(n_genes,)`, int32, numbered in the order of first appearance. Sum the columns of a number for its counts.
    """
    numbers: dict[tuple[str, str], int] = {}
    out = np.empty(len(resolution), dtype=np.int32)
    for i, (name, symbol, ensembl_id, matched) in enumerate(
        zip(names, resolution.symbol, resolution.ensembl_id, resolution.matched)
    ):
        key = ("gene", ensembl_id or symbol) if matched else ("name", str(name))
        out[i] = numbers.setdefault(key, len(numbers))
    return out
