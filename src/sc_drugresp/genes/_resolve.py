"""Resolve gene names to genes, never by guessing: names that are not unique stay unresolved."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from .._core.checks import check_choice
from ._aliases import Aliases, load_aliases
from ._names import NO_NAME, GeneNames, Name, gene_names, parse
from ._table import Organism

if TYPE_CHECKING:
    from collections.abc import Sequence

OrganismChoice = Literal["auto", "human", "mouse"]
SURE = ("ensembl", "ensembl_version", "symbol", "case")
"""Statuses that leave no doubt about the gene; an old or other name may have been another gene once."""
MATCHED = (*SURE, "previous", "alias", "ortholog")
STATUSES = (*MATCHED, "unlisted", "no_ortholog", "other_species", "ambiguous", "lost")
"""How a name was understood, see :class:`Resolution`."""

_SUFFIX = re.compile(r"(.+)[-.]\d{1,2}")
_MIXED_SHARE = 0.05
"""From this share of either species on, a data set counts as a mixture."""


@dataclass(frozen=True, eq=False)
class Resolution:
    """What each name of a data set means.

    Parameters
    ----------
    symbol, ensembl_id
        Current symbol and Ensembl id of the gene, `""` where unknown, object arrays of shape `(n_genes,)`.
    status
        One of :data:`STATUSES` for each gene: `ensembl` (current id), `ensembl_version` (id with a version suffix),
        `symbol` (current symbol), `case` (current symbol in another spelling: case, `.` or `_` for `-`),
        `previous`, `alias`, `ortholog` (one-to-one partner in the other species); not matched: `unlisted` (a well-formed
        Ensembl id that the table does not name; it is kept), `no_ortholog`, `other_species`, `ambiguous`, `lost`.
    species
        `human`, `mouse` or `""` for each gene as it was given.
    organism
        `human`, `mouse`, `mixed`, or `unknown` when no name was recognized.
    target
        Species of `symbol` and `ensembl_id`.
    release
        Release of the gene table of `target`.
    sources
        Files used beyond the packaged tables.
    """

    symbol: np.ndarray
    ensembl_id: np.ndarray
    status: np.ndarray
    species: np.ndarray
    organism: str
    target: str
    release: str
    sources: dict[str, str]

    def __len__(self) -> int:
        return len(self.status)

    @property
    def matched(self) -> np.ndarray:
        """Whether each name means one gene of the target species, bool of shape `(n_genes,)`."""
        return np.isin(self.status, MATCHED)

    @property
    def sure(self) -> np.ndarray:
        """Whether each name leaves no doubt about its gene, bool of shape `(n_genes,)`."""
        return np.isin(self.status, SURE)

    def counts(self) -> dict[str, int]:
        """Number of genes of each status that occurs."""
        found = Counter(self.status.tolist())
        return {status: found[status] for status in STATUSES if status in found}


def resolve(
    names: Sequence[str] | np.ndarray,
    *,
    organism: OrganismChoice = "auto",
    target: Organism | None = None,
    ids: Sequence[str] | np.ndarray | None = None,
    aliases: Aliases | None = None,
) -> Resolution:
    """Find the gene that each name means.

    Each name is judged on its own: Ensembl id (with or without version), current symbol, another spelling of it,
    previous symbol, alias. A name that fits several genes is `ambiguous`, and so is a previous or alias symbol of a gene
    that the same data also name directly. A genome prefix (`GRCh38_`, `mm10___`) is removed and decides the species, as
    does a symbol that exists in one species only.

    Parameters
    ----------
    names
        Gene names, any mixture, shape `(n_genes,)`.
    organism
        Species to assume for names that do not reveal it; `'auto'` takes that of most names.
    target
        Species to report genes of. `None` is the organism, or human for a mixture.
        For the other species one-to-one orthologs are used, where a table of them is at hand.
    ids
        A second identifier of each gene, `""` where unknown. Ensembl ids take precedence over symbols.
    aliases
        Names beyond the packaged tables; `None` reads those that are on this machine. Nothing is downloaded.

    Returns
    -------
    One entry for each name, in the same order.

    Raises
    ------
    ValueError
        Unknown organism, or `ids` has another length.

    Examples
    --------
    >>> from sc_drugresp.genes import resolve
    >>> found = resolve(["TP53", "ENSG00000146648.19", "SEPT9", "HLA.A", "not_a_gene"])
    >>> found.symbol.tolist()
    ['TP53', 'EGFR', 'SEPTIN9', 'HLA-A', '']
    >>> found.counts()
    {'ensembl_version': 1, 'symbol': 1, 'case': 1, 'alias': 1, 'lost': 1}
    """
    check_choice("organism", organism, OrganismChoice)
    check_choice("target", target, (None, *get_args(Organism)))
    if ids is not None and len(ids) != len(names):
        msg = f"`ids` must have one entry for each of the {len(names)} names, found {len(ids)}."
        raise ValueError(msg)
    aliases = load_aliases() if aliases is None else aliases
    given = [parse(name) for name in names]
    second = [parse(name) for name in ids] if ids is not None else [NO_NAME] * len(given)
    books = {species: gene_names(species, aliases) for species in get_args(Organism)}
    species = [_species(one, two, books) for one, two in zip(given, second)]
    overall = _overall(species) if organism == "auto" else organism
    default = overall if overall in books else "human"
    target = target or default  # type: ignore[assignment]

    symbol, ensembl_id, status = (np.full(len(given), "", dtype=object) for _ in range(3))
    present = {name.text for name in given}
    for i, (one, two) in enumerate(zip(given, second)):
        # A name that fits both species, or neither, belongs to the species of the data set.
        own = species[i] if species[i] and (overall == "mixed" or organism == "auto" or one.genome) else default
        book = books[own]
        gene, how, text = _find(one, two, book, present)
        if gene >= 0 and own != target:
            gene, how = (
                _ortholog(book.symbols[gene], own, books[target], aliases) if overall == own else (-2, "other_species")
            )
        elif gene < 0 and own != target and how == "lost" and overall != own:
            how = "other_species"
        status[i] = how
        if gene >= 0:
            symbol[i], ensembl_id[i] = books[target].symbols[gene], books[target].ids[gene]
        elif own == target and how == "unlisted":
            ensembl_id[i] = text
        elif own == target and how == "ambiguous" and one.text in book.of_symbol:
            symbol[i] = one.text  # the symbol is right, only the Ensembl id is open
        species[i] = own if how not in {"lost", "ambiguous"} or species[i] else ""
    _withdraw(symbol, ensembl_id, status)
    return Resolution(
        symbol=symbol,
        ensembl_id=ensembl_id,
        status=status,
        species=np.array(species, dtype=object),
        organism=overall,
        target=target,  # type: ignore[arg-type]
        release=f"{books[target].table.release} ({target})",
        sources=dict(aliases.sources),
    )


def _withdraw(symbol: np.ndarray, ensembl_id: np.ndarray, status: np.ndarray) -> None:
    """Take back old and other names of genes that the same data also name outright.

    One annotation does not name a gene twice: `HNRNPU-AS1` beside `HNRNPU` is another gene, although it was once a
    name of `HNRNPU`.
    """
    sure = np.isin(status, SURE)
    named = set(zip(symbol[sure], ensembl_id[sure]))
    for i in np.flatnonzero(np.isin(status, ("previous", "alias"))).tolist():
        if (symbol[i], ensembl_id[i]) in named:
            symbol[i] = ensembl_id[i] = ""
            status[i] = "ambiguous"


def _species(one: Name, two: Name, books: dict[str, GeneNames]) -> str:
    """What a name itself says about its species; `""` if nothing."""
    for name in (one, two):
        if name.genome:
            return name.genome
        if name.stable_id:
            return "mouse" if name.stable_id.startswith("ENSMUSG") else "human"
    in_human, in_mouse = (one.text in books[species].of_symbol for species in ("human", "mouse"))
    return "" if in_human == in_mouse else "human" if in_human else "mouse"


def _overall(species: list[str]) -> str:
    human, mouse = species.count("human"), species.count("mouse")
    if human + mouse == 0:
        return "unknown"
    if min(human, mouse) >= max(_MIXED_SHARE * (human + mouse), 2):
        return "mixed"
    return "human" if human >= mouse else "mouse"


def _find(one: Name, two: Name, book: GeneNames, present: set[str]) -> tuple[int, str, str]:
    """Gene (negative if there is none), status, and the text that decided."""
    unlisted = ""
    for text, stable, _ in (two, one):
        if stable:
            gene = book.of_id.get(stable)
            if gene is not None:
                return gene, "ensembl" if text == stable else "ensembl_version", text
            unlisted = unlisted or stable
    best = (-2, "unlisted" if unlisted else "lost", unlisted)
    for text, stable, _ in (one, two):  # for symbols, the name itself counts more
        if not text or stable:
            continue
        gene, status = book.find(text)
        if gene >= 0:
            return gene, status, text
        if status == "ambiguous":
            best = (gene, status, text)
        suffix = _SUFFIX.fullmatch(text)
        # "TBCE-1" and "TBCE.1" beside "TBCE": made by functions that make names unique.
        if status == "lost" and suffix and suffix[1] in present and book.of_symbol.get(suffix[1], -1) >= 0:
            return book.of_symbol[suffix[1]], "symbol", text
    return best


def _ortholog(symbol: str, own: str, target: GeneNames, aliases: Aliases) -> tuple[int, str]:
    pairs = aliases.orthologs if own == "mouse" else _reversed(aliases)
    partner = pairs.get(symbol)
    if partner is None:
        return -2, "no_ortholog"
    gene, _ = target.find(partner)
    return (gene, "ortholog") if gene >= 0 else (-2, "no_ortholog")


@lru_cache(maxsize=2)
def _reversed(aliases: Aliases) -> dict[str, str]:
    return {human: mouse for mouse, human in aliases.orthologs.items()}
