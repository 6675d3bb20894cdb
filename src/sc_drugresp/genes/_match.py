"""Columns of a data set to genes of a model's vocabulary, and columns that are the same gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ._aliases import Aliases, load_aliases
from ._resolve import Resolution, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence


def match(
    data_names: Sequence[str] | np.ndarray,
    data_ids: Sequence[str] | np.ndarray | None,
    vocab_names: Sequence[str] | np.ndarray,
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
    places = _places(vocab, positions)
    named = set(out[out >= 0].tolist())
    sure, matched = data.sure, data.matched
    for i in left.tolist():
        if not (matched[i] or data.status[i] == "unlisted"):
            continue
        for key in (data.ensembl_id[i], data.symbol[i]):
            place, own_name = places.get(key, (-1, False)) if key else (-1, False)
            # Where a column names the entry exactly, only a certain identity adds to it.
            if place >= 0 and (place not in named or (own_name and sure[i])):
                out[i] = place
                break
    return out


def _places(vocab: Resolution, positions: np.ndarray) -> dict[str, tuple[int, bool]]:
    """Ensembl id and symbol of each gene of a vocabulary to its place, and whether the entry is the gene's own name.

    The place is -1 where two entries claim the gene with equal right.
    """
    places: dict[str, tuple[int, bool]] = {}
    sure = vocab.sure
    for i in np.flatnonzero(vocab.matched | (vocab.status == "unlisted")).tolist():
        for key in {vocab.ensembl_id[i], vocab.symbol[i]} - {""}:
            here = (int(positions[i]), bool(sure[i]))
            place, own_name = places.get(key, (-2, False))
            if place == -2 or (here[1] and not own_name):
                places[key] = here
            elif here[1] == own_name and place != here[0]:
                places[key] = (-1, own_name)
    return places


def gene_groups(names: Sequence[str] | np.ndarray, resolution: Resolution) -> np.ndarray:
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
    import pandas as pd

    gene = np.where(resolution.ensembl_id == "", resolution.symbol, resolution.ensembl_id)
    keys = np.where(resolution.matched, "gene " + gene, "name " + np.asarray(names, dtype=str).astype(object))
    return pd.factorize(keys)[0].astype(np.int32)
