"""Every name of every gene of an organism, and how names are written."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from ._table import gene_table

if TYPE_CHECKING:
    from ._aliases import Aliases

_ENSEMBL = re.compile(r"(ENS(?:MUS)?G\d{11})(\.\d+)?(_PAR_Y)?")
_GENOME = re.compile(r"(?:(GRCh3[78]|hg19|hg38)|(GRCm3[89]|mm9|mm10|mm39))_+(?=.)", re.IGNORECASE)
_PUNCTUATION = str.maketrans("._", "--")


class Name(NamedTuple):
    """A name taken apart: without its genome prefix; the Ensembl id without version, or `""`; the prefix's species."""

    text: str
    stable_id: str
    genome: str


NO_NAME = Name("", "", "")


def parse(name: str) -> Name:
    """Take a name apart; nothing is left of a missing value."""
    text = str(name).strip()
    if text in {"", "nan", "NaN", "None", "<NA>"}:
        return NO_NAME
    prefix = _GENOME.match(text)
    genome = ("human" if prefix[1] else "mouse") if prefix else ""
    text = text[prefix.end() :] if prefix else text
    ensembl = _ENSEMBL.fullmatch(text) if text.startswith("ENS") else None
    return Name(text, ensembl[1] if ensembl else "", genome)


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
                        _put(self.of_alias, name, gene)
        self.of_spelling = _folded(self.of_symbol)
        aliased = {name: (gene, "alias") for name, gene in _folded(self.of_alias).items()}
        previous = {name: (gene, "previous") for name, gene in _folded(self.of_previous).items()}
        self.of_other_spelling = aliased | previous

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
                _put(self.of_previous, symbol, gene)  # another release names this gene differently
        for table, names_of in ((self.of_previous, aliases.previous), (self.of_alias, aliases.alias)):
            for name, symbols in names_of.items():
                for symbol in symbols:
                    _put(table, name, genes[symbol])

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


def _put(table: dict[str, int], name: str, gene: int) -> None:
    """Add a name; one that means several genes gets -1."""
    if table.setdefault(name, gene) != gene:
        table[name] = -1


def _folded(genes: dict[str, int]) -> dict[str, int]:
    """The same genes by the spelling of their names."""
    out: dict[str, int] = {}
    for name, gene in genes.items():
        _put(out, spelling(name), gene)
    return out


def spelling(name: str) -> str:
    """A name without its case and punctuation: `HLA.A` (from R) and `hla-a` are `HLA-A`."""
    return name.upper().translate(_PUNCTUATION)


@lru_cache(maxsize=4)
def gene_names(organism: str, aliases: Aliases) -> GeneNames:
    """The names of one organism, built once for each set of aliases."""
    return GeneNames(organism, aliases)
