"""Names to genes: every way in which a name may be written, and no guesses."""

from __future__ import annotations

import time

import numpy as np
import pytest

import sc_drugresp as sdr
from sc_drugresp.genes import Aliases, gene_groups, gene_table, load_aliases, match, resolve
from sc_drugresp.genes._resolve import STATUSES

NONE = Aliases()
HGNC = Aliases(
    approved={
        "TP53": "ENSG00000141510",
        "MATR3": "ENSG00000015479",
        "NEWGENE1": "ENSG00000999999",
        "EGFR": "ENSG00000146648",
    },
    previous={"OLDTP": ("TP53",), "SHARED": ("TP53", "EGFR"), "OLDNEW": ("NEWGENE1",)},
    alias={"P53X": ("TP53",), "OLDTP": ("EGFR",)},
    orthologs={"Trp53": "TP53", "Egfr": "EGFR"},
)


@pytest.mark.parametrize(
    ("name", "symbol", "status"),
    [
        ("TP53", "TP53", "symbol"),
        ("ENSG00000141510", "TP53", "ensembl"),
        ("ENSG00000141510.17", "TP53", "ensembl_version"),
        ("GRCh38_TP53", "TP53", "symbol"),
        ("hg19_ENSG00000141510", "TP53", "ensembl"),
        ("tp53", "TP53", "case"),
        ("C9ORF72", "C9orf72", "case"),
        ("HLA.A", "HLA-A", "case"),
        ("SEPT9", "SEPTIN9", "alias"),
        ("AARS", "AARS1", "alias"),
        ("H3F3A", "H3-3A", "alias"),
        ("HGF", "HGF", "symbol"),  # also a synonym of IL6: the current symbol wins
        ("CD99", "CD99", "symbol"),  # on X and Y: one pseudo-autosomal gene
        ("MT-CO1", "MT-CO1", "symbol"),
        ("Y_RNA", "Y_RNA", "ambiguous"),
        ("QARS", "", "ambiguous"),
        ("ENSG99999999999", "", "unlisted"),
        ("not_a_gene", "", "lost"),
        ("", "", "lost"),
        ("nan", "", "lost"),
    ],
)
def test_one_name(name, symbol, status):
    found = resolve([name, "GAPDH", "ACTB"], aliases=NONE)
    assert found.symbol[0] == symbol
    assert found.status[0] == status
    assert found.matched[0] == (status in STATUSES[:7])
    if found.matched[0]:
        table = gene_table("human")
        assert table.symbol[table.row_of_id[found.ensembl_id[0]]] == symbol


def test_published_facts_of_the_table():
    human, mouse = gene_table("human"), gene_table("mouse")
    # Identifiers and positions as published by Ensembl, release 110 and 102.
    expected = {"TP53": ("ENSG00000141510", "17", 7661779), "EGFR": ("ENSG00000146648", "7", 55019017)}
    for symbol, facts in expected.items():
        row = human.row_of_symbol[symbol]
        assert (human.ensembl_id[row], human.chromosome[row], human.start[row]) == facts
    assert mouse.ensembl_id[mouse.row_of_symbol["Trp53"]] == "ENSMUSG00000059552"
    assert len(human) > 30_000
    assert len(mouse) > 30_000
    assert len(set(human.ensembl_id)) == len(human)
    assert human.ensembl_id[human.row_of_symbol["CD99"]] == "ENSG00000002586"  # the copy on X


def test_unknown_organism():
    with pytest.raises(ValueError, match="must be one of"):
        gene_table("zebrafish")
    with pytest.raises(ValueError, match="must be one of"):
        resolve(["TP53"], organism="rat")  # type: ignore[arg-type]


def test_previous_counts_more_than_alias_and_ties_are_ambiguous():
    found = resolve(["OLDTP", "SHARED", "P53X", "OLDNEW", "MATR3", "oldtp"], aliases=HGNC)
    assert found.status.tolist() == ["previous", "ambiguous", "alias", "previous", "symbol", "previous"]
    assert found.symbol.tolist() == ["TP53", "", "TP53", "NEWGENE1", "MATR3", "TP53"]
    assert found.ensembl_id[4] == "ENSG00000015479"  # two genes carry the symbol, HGNC names the owner


def test_an_ensembl_id_counts_more_than_the_name():
    found = resolve(
        ["EGFR", "oddname", "TP53"], ids=["ENSG00000141510.3", "ENSG00000146648", "ENSG99999999999"], aliases=NONE
    )
    assert found.symbol.tolist() == ["TP53", "EGFR", "TP53"]
    assert found.status.tolist() == ["ensembl_version", "ensembl", "symbol"]
    with pytest.raises(ValueError, match="one entry for each"):
        resolve(["TP53"], ids=[], aliases=NONE)


def test_names_made_unique_are_the_gene_again():
    found = resolve(["TBCE", "TBCE-1", "EGFR.1", "NKX2-1", "RP11-34P13.7"], aliases=NONE)
    assert found.symbol.tolist() == ["TBCE", "TBCE", "", "NKX2-1", ""]  # EGFR itself is not there: no guess


def test_species_of_a_data_set():
    mouse = ["Trp53", "Egfr", "Actb", "Gapdh", "Xist"]
    found = resolve(mouse, aliases=NONE)
    assert (found.organism, found.target) == ("mouse", "mouse")
    assert found.counts() == {"symbol": 5}
    assert resolve(["TP53", "EGFR", "ACTB"], aliases=NONE).organism == "human"
    assert resolve(["what", "ever"], aliases=NONE).organism == "unknown"


def test_orthologs_only_one_to_one_and_only_when_asked():
    found = resolve(["Trp53", "Egfr", "Actb", "ENSMUSG00000059552.9"], target="human", aliases=HGNC)
    assert found.symbol.tolist() == ["TP53", "EGFR", "", "TP53"]
    assert found.status.tolist() == ["ortholog", "ortholog", "no_ortholog", "ortholog"]
    assert found.release.endswith("(human)")
    back = resolve(["TP53", "ACTB"], target="mouse", aliases=HGNC)
    assert back.symbol.tolist() == ["Trp53", ""]


def test_mixture_of_species_is_never_added_up():
    names = ["GRCh38_TP53", "GRCh38_EGFR", "mm10___Trp53", "mm10___Egfr"]
    found = resolve(names, aliases=HGNC)
    assert found.organism == "mixed"
    assert found.status.tolist() == ["symbol", "symbol", "other_species", "other_species"]
    assert found.species.tolist() == ["human", "human", "mouse", "mouse"]
    assert found.symbol.tolist()[2:] == ["", ""]


def test_match_both_ways():
    names = ["TP53", "SEPT9", "H3F3A", "QARS", "nothing", "tp53"]
    assert match(names, None, ["SEPTIN9", "TP53", "H3-3A"], aliases=NONE).tolist() == [1, 0, 2, -1, -1, 1]
    # A vocabulary with old names, data with new ones, and ids against symbols.
    assert match(["SEPTIN9", "AARS1"], None, ["AARS", "SEPT9"], aliases=NONE).tolist() == [1, 0]
    ids = ["ENSG00000141510", "ENSG00000184640"]
    assert match(["TP53", "SEPT9"], None, ids, "ensembl", aliases=NONE).tolist() == [0, 1]
    assert match(["x", "y"], ["ENSG00000184640.4", ""], ids, "ensembl", aliases=NONE).tolist() == [1, -1]
    out = match([], None, ids, "ensembl", aliases=NONE)
    assert out.shape == (0,)
    assert out.dtype == np.int32


def test_match_takes_the_current_name_where_a_vocabulary_holds_two():
    # The vocabulary has the gene under its current and an old name: the exact name wins on both sides.
    assert match(["SEPT9", "SEPTIN9"], None, ["SEPT9", "SEPTIN9"], aliases=NONE).tolist() == [0, 1]
    assert match(["ENSG00000184640"], None, ["SEPT9", "SEPTIN9"], aliases=NONE).tolist() == [1]
    # Two old names of one gene: no guess.
    assert match(["ENSG00000141510"], None, ["P53X", "OLDTP"], aliases=HGNC).tolist() == [-1]


def test_old_names_beside_the_gene_itself_are_not_added_to_it():
    # OLDTP was a name of TP53; in data that name TP53 outright, OLDTP must be something else.
    assert resolve(["OLDTP", "EGFR"], aliases=HGNC).status[0] == "previous"
    found = resolve(["OLDTP", "TP53"], aliases=HGNC)
    assert found.status.tolist() == ["ambiguous", "symbol"]
    assert found.symbol[0] == found.ensembl_id[0] == ""
    assert match(["OLDTP", "TP53"], None, ["TP53"], aliases=HGNC).tolist() == [-1, 0]
    # A certain identity is the same gene again.
    assert match(["TP53", "ENSG00000141510.9", "tp53"], None, ["TP53"], aliases=HGNC).tolist() == [0, 0, 0]
    # The vocabulary holds an old name that a column of the data has too.
    assert match(["OLDTP", "TP53"], None, ["OLDTP"], aliases=HGNC).tolist() == [0, -1]


def test_match_never_takes_a_mouse_gene_for_a_human_one():
    names = ["Trp53", "Egfr", "Actb", "Gapdh"]
    assert match(names, None, ["TP53", "EGFR", "ACTB", "GAPDH"], aliases=NONE).tolist() == [-1] * 4
    assert match(names, None, ["TP53", "EGFR", "ACTB", "GAPDH"], aliases=HGNC).tolist() == [0, 1, -1, -1]


def test_gene_groups_share_a_number():
    names = ["TP53", "ENSG00000141510.2", "odd", "EGFR", "odd", "tp53"]
    groups = gene_groups(names, resolve(names, aliases=NONE))
    assert groups.tolist() == [0, 0, 1, 2, 1, 0]


def test_sixty_thousand_genes_take_less_than_a_second():
    names = gene_table("human").symbol.tolist() + [f"odd{i}" for i in range(28_000)]
    resolve(names[:10], aliases=NONE)
    before = time.process_time()
    found = resolve(names, aliases=NONE)
    assert time.process_time() - before < 2  # about 0.25 s on one quiet core
    assert found.matched.sum() > 30_000


def test_against_the_published_tables(shared):
    """Every approved symbol of HGNC that carries an Ensembl id of our release resolves to that id."""
    with sdr.settings.override(data_dir=shared / "data"):
        aliases = load_aliases()
    assert set(aliases.sources) == {"hgnc", "orthologs"}
    table = gene_table("human")
    pairs = [(symbol, gene) for symbol, gene in aliases.approved.items() if gene in table.row_of_id]
    found = resolve([symbol for symbol, _ in pairs], organism="human", aliases=aliases)
    wrong = [pair for pair, gene in zip(pairs, found.ensembl_id) if gene != pair[1]]
    assert len(pairs) > 25_000
    assert len(wrong) < 0.002 * len(pairs)  # symbols that moved to another gene between the releases
