"""Which gene does each name mean? Never a guess: what is not unique stays unresolved."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ._aliases import Aliases, load_aliases
from ._table import Organism, gene_table

if TYPE_CHECKING:
    from collections.abc import Sequence

OrganismChoice = Literal["auto", "human", "mouse"]
STATUSES = (
    "ensembl",
    "ensembl_version",
    "symbol",
    "case",
    "previous",
    "alias",
    "ortholog",
    "unlisted",
    "no_ortholog",
    "other_species",
    "ambiguous",
    "lost",
)
"""How a name was understood. The first seven are matches; see :class:`Resolution`."""
MATCHED = STATUSES[:7]
SURE = STATUSES[:4]
"""Statuses that leave no doubt about the gene; an old or other name may have been another gene once."""

_ENSEMBL = re.compile(r"(ENS(?:MUS)?G\d{11})(\.\d+)?(_PAR_Y)?")
_GENOME = re.compile(r"(?:(GRCh3[78]|hg19|hg38)|(GRCm3[89]|mm9|mm10|mm39))_+(?=.)", re.IGNORECASE)
_SUFFIX = re.compile(r"(.+)[-.]\d{1,2}")
_MIXED_SHARE = 0.05
"""From this share of either species on, a data set counts as a mixture."""
_PUNCTUATION = str.maketrans("._", "--")


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
    matched_as
        The text that was recognized, `""` where nothing was.
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
    matched_as: np.ndarray
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

    def counts(self) -> dict[str, int]:
        """Number of genes of each status that occurs."""
        names, numbers = np.unique(self.status.astype(str), return_counts=True)
        found = dict(zip(names.tolist(), numbers.tolist()))
        return {status: found[status] for status in STATUSES if status in found}


class GeneNames:
    """Every name of every gene of one organism. A gene is a number; -1 stands for several genes."""

    def __init__(self, organism: str, aliases: Aliases) -> None:
        table = gene_table(organism)
        self.organism, self.table = organism, table
        self.ids: list[str] = table.ensembl_id.tolist()
        self.symbols: list[str] = table.symbol.tolist()
        self.of_id = dict(table.row_of_id)
        self.of_symbol = dict(table.row_of_symbol)
        self.of_previous: dict[str, int] = {}
        self.of_alias: dict[str, int] = {}
        if organism == "human":
            self._add_hgnc(aliases)
        for symbol, names in table.synonyms.items():
            gene = self.of_symbol.get(symbol)
            # HGNC's word counts more than a synonym of unknown standing.
            if gene is not None:
                for name in names:
                    if name not in self.of_previous and name not in aliases.alias:
                        self._put(self.of_alias, name, gene)
        self.of_spelling: dict[str, int] = {}
        for symbol, gene in self.of_symbol.items():
            self._put(self.of_spelling, spelling(symbol), gene)
        self.of_other_spelling: dict[str, tuple[int, str]] = {}
        for status, names_of in (("previous", self.of_previous), ("alias", self.of_alias)):
            folded: dict[str, int] = {}
            for name, gene in names_of.items():
                self._put(folded, spelling(name), gene)
            for name, gene in folded.items():
                self.of_other_spelling.setdefault(name, (gene, status))

    @staticmethod
    def _put(table: dict[str, int], name: str, gene: int) -> None:
        if table.setdefault(name, gene) != gene:
            table[name] = -1

    def _add_hgnc(self, aliases: Aliases) -> None:
        genes: dict[str, int] = {}
        for symbol, ensembl_id in aliases.approved.items():
            gene = self.of_id.get(ensembl_id) if ensembl_id else None
            if gene is None:
                gene = self.of_symbol.get(symbol)
            elif self.of_symbol.get(symbol) == -1:
                self.of_symbol[symbol] = gene  # several genes carry the symbol; HGNC says which one owns it
            if gene is None or gene < 0:
                gene = len(self.ids)
                self.ids.append(ensembl_id)
                self.symbols.append(symbol)
                self.of_symbol[symbol] = gene
                if ensembl_id:
                    self.of_id.setdefault(ensembl_id, gene)
            genes[symbol] = gene
            if symbol not in self.of_symbol:
                self._put(self.of_previous, symbol, gene)  # another release names this gene differently
        for table, names_of in ((self.of_previous, aliases.previous), (self.of_alias, aliases.alias)):
            for name, symbols in names_of.items():
                for symbol in symbols:
                    self._put(table, name, genes[symbol])

    def find(self, name: str) -> tuple[int, str]:
        """Gene and status of a symbol in any spelling; `(-1, 'ambiguous')` or `(-2, 'lost')` if there is none."""
        gene = self.of_symbol.get(name)
        if gene is not None:
            return (gene, "symbol") if gene >= 0 else (-1, "ambiguous")
        folded = spelling(name)
        gene = self.of_spelling.get(folded)
        if gene is not None and gene >= 0:
            return gene, "case"
        for table, status in ((self.of_previous, "previous"), (self.of_alias, "alias")):
            gene = table.get(name)
            if gene is not None:
                return (gene, status) if gene >= 0 else (-1, "ambiguous")
        if folded in self.of_other_spelling:
            gene, status = self.of_other_spelling[folded]
            return (gene, status) if gene >= 0 else (-1, "ambiguous")
        return -2, "lost"


def spelling(name: str) -> str:
    """A name without its case and punctuation: `HLA.A` (from R) and `hla-a` are `HLA-A`."""
    return name.upper().translate(_PUNCTUATION)


@lru_cache(maxsize=4)
def gene_names(organism: str, aliases: Aliases) -> GeneNames:
    """The names of one organism, built once for each set of aliases."""
    return GeneNames(organism, aliases)


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
    previous symbol, alias. A name that fits several genes is `ambiguous`, and so is an old or other name of a gene that
    the same data also name outright. A genome prefix (`GRCh38_`, `mm10___`) is
    taken off and decides the species; so does an exact symbol of one species only.

    Parameters
    ----------
    names
        Gene names, any mixture, shape `(n_genes,)`.
    organism
        Species of names that do not tell; `'auto'` takes the species of most names.
    target
        Species to report genes of. `None` is the organism, or human for a mixture.
        For the other species one-to-one orthologs are used, where a table of them is at hand.
    ids
        A second identifier of each gene, `""` where unknown. Ensembl ids count more than symbols.
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
    for name, value, choices in (
        ("organism", organism, get_args(OrganismChoice)),
        ("target", target, (None, *get_args(Organism))),
    ):
        if value not in choices:
            msg = f"`{name}` must be one of {choices}, found {value!r}."
            raise ValueError(msg)
    if ids is not None and len(ids) != len(names):
        msg = f"`ids` must have one entry for each of the {len(names)} names, found {len(ids)}."
        raise ValueError(msg)
    aliases = load_aliases() if aliases is None else aliases
    given = [_clean(name) for name in names]
    second = [None] * len(given) if ids is None else [_clean(name) for name in ids]
    books = {species: gene_names(species, aliases) for species in get_args(Organism)}
    species = [_species(one, two, books) for one, two in zip(given, second)]
    overall = _overall(species) if organism == "auto" else organism
    default = overall if overall in books else "human"
    target = target or default  # type: ignore[assignment]

    n = len(given)
    symbol, ensembl_id, status, matched_as = (np.full(n, "", dtype=object) for _ in range(4))
    present = {text for text, _, _ in given}
    for i, (one, two) in enumerate(zip(given, second)):
        # A name that fits both species, or neither, belongs to the species of the data set.
        own = species[i] if species[i] and (overall == "mixed" or organism == "auto" or one[2]) else default
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
            symbol[i], ensembl_id[i], matched_as[i] = books[target].symbols[gene], books[target].ids[gene], text
        elif own == target and how == "unlisted":
            ensembl_id[i] = text
        elif own == target and how == "ambiguous" and one[0] in book.of_symbol:
            symbol[i] = one[0]  # the symbol is right, only the Ensembl id is open
        species[i] = own if how not in {"lost", "ambiguous"} or species[i] else ""
    _withdraw(symbol, ensembl_id, status, matched_as)
    return Resolution(
        symbol=symbol,
        ensembl_id=ensembl_id,
        status=status,
        matched_as=matched_as,
        species=np.array(species, dtype=object),
        organism=overall,
        target=target,  # type: ignore[arg-type]
        release=f"{books[target].table.release} ({target})",
        sources=dict(aliases.sources),
    )


def _withdraw(symbol: np.ndarray, ensembl_id: np.ndarray, status: np.ndarray, matched_as: np.ndarray) -> None:
    """Take back old and other names of genes that the same data also name outright.

    One annotation does not name a gene twice: `HNRNPU-AS1` beside `HNRNPU` is another gene, although it was once a
    name of `HNRNPU`.
    """
    sure = np.isin(status, SURE)
    named = set(zip(symbol[sure], ensembl_id[sure]))
    for i in np.flatnonzero(np.isin(status, ("previous", "alias"))).tolist():
        if (symbol[i], ensembl_id[i]) in named:
            symbol[i] = ensembl_id[i] = matched_as[i] = ""
            status[i] = "ambiguous"


_Name = tuple[str, str, str]
"""Text without genome prefix, Ensembl id without version (or `""`), species of the prefix (or `""`)."""


def _clean(name: str) -> _Name:
    text = str(name).strip()
    if text in {"", "nan", "NaN", "None", "<NA>"}:
        return "", "", ""
    prefix = _GENOME.match(text)
    genome = ("human" if prefix[1] else "mouse") if prefix else ""
    if prefix:
        text = text[prefix.end() :]
    stable = _ENSEMBL.fullmatch(text) if text.startswith("ENS") else None
    return text, stable[1] if stable else "", genome


def _species(one: _Name, two: _Name | None, books: dict[str, GeneNames]) -> str:
    """What a name itself says about its species; `""` if nothing."""
    for name in (one, two):
        if name is None:
            continue
        if name[2]:
            return name[2]
        if name[1]:
            return "mouse" if name[1].startswith("ENSMUSG") else "human"
    in_human, in_mouse = one[0] in books["human"].of_symbol, one[0] in books["mouse"].of_symbol
    return "" if in_human == in_mouse else "human" if in_human else "mouse"


def _overall(species: list[str]) -> str:
    human, mouse = species.count("human"), species.count("mouse")
    if human + mouse == 0:
        return "unknown"
    if min(human, mouse) >= max(_MIXED_SHARE * (human + mouse), 2):
        return "mixed"
    return "human" if human >= mouse else "mouse"


def _find(one: _Name, two: _Name | None, book: GeneNames, present: set[str]) -> tuple[int, str, str]:
    unlisted = ""
    pair = (one,) if two is None else (two, one)
    for text, stable, _ in pair:
        if stable:
            gene = book.of_id.get(stable)
            if gene is not None:
                return gene, "ensembl" if text == stable else "ensembl_version", text
            unlisted = unlisted or stable
    best = (-2, "unlisted" if unlisted else "lost", unlisted)
    for text, stable, _ in reversed(pair):  # for symbols, the name itself counts more
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
