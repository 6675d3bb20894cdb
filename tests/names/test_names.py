"""Names of drugs, cell lines and tissues."""

from __future__ import annotations

import pandas as pd
import pytest

from sc_drugresp import names
from sc_drugresp.names import _drugs

GDSC = pd.DataFrame(
    {
        "synonyms": ["Tarceva|RG-1415|CP-358774", "STI-571", "", "PLX4720", "SAHA", "", "", "TKI-X", "AZD1775", ""],
    },
    index=["Erlotinib", "Imatinib", "Dabrafenib", "PLX-4720", "Vorinostat", "5-Fluorouracil", "Bleomycin (50 uM)", "XYZ-1",
           "MK-1775", "Rapamycin"],
)  # fmt: skip
CTRP = pd.DataFrame(index=["erlotinib", "PLX-4032", "ABT-199", "cytarabine hydrochloride", "sirolimus", "MLN2238"])


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("erlotinib", "Erlotinib"),
        ("ERLOTINIB", "Erlotinib"),
        ("Erlotinib HCl", "Erlotinib"),
        ("erlotinib-hydrochloride", "Erlotinib"),
        ("Tarceva", "Erlotinib"),
        ("cp358774", "Erlotinib"),
        ("Gleevec", "Imatinib"),
        ("imatinib mesylate", "Imatinib"),
        ("dabrafenib mesylate", "Dabrafenib"),
        ("Tafinlar", "Dabrafenib"),
        ("plx4720", "PLX-4720"),
        ("saha", "Vorinostat"),
        ("5-FU", "5-Fluorouracil"),
        ("fluorouracil", "5-Fluorouracil"),
        ("TKI X", "XYZ-1"),
        ("XYZ-1 mesylate", "XYZ-1"),
        ("TKI-X sulfate hydrate", "XYZ-1"),
        ("adavosertib", "MK-1775"),
        ("sirolimus", "Rapamycin"),
    ],
)
def test_drug_is_found_under_its_other_names(typed, found):
    assert names.match_drug(typed, GDSC) == found


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("PLX4032", "PLX-4032"),
        ("Zelboraf", "PLX-4032"),
        ("venetoclax", "ABT-199"),
        ("Ara-C", "cytarabine hydrochloride"),
        ("Cytarabine", "cytarabine hydrochloride"),
        ("rapamycin", "sirolimus"),
        ("ixazomib citrate", "MLN2238"),
    ],
)
def test_codes_stand_for_generic_names(typed, found):
    assert names.match_drug(typed, CTRP) == found


def test_similar_names_are_suggested_never_taken():
    with pytest.raises(ValueError, match="Did you mean 'Erlotinib'"):
        names.match_drug("erlotnib", GDSC)
    with pytest.raises(ValueError, match=r"a name of vemurafenib\) was not measured.* are other drugs: 'PLX-4720'"):
        names.match_drug("PLX4032", GDSC)  # another molecule
    with pytest.raises(
        ValueError, match=r"a name of trastuzumab\) was not measured in this screen of 10 drugs\. Antibodies"
    ):
        names.match_drug("Herceptin", GDSC)
    with pytest.raises(ValueError, match=r"among the 10 drugs of this screen\.$"):
        names.match_drug("qqqq", GDSC)


def test_a_name_of_several_drugs_is_refused_unless_one_fits_better():
    two = pd.DataFrame({"synonyms": ["shared|first", "shared"]}, index=["A-1", "B-2"])
    with pytest.raises(ValueError, match="means several drugs: 'A-1', 'B-2'"):
        names.match_drug("Shared", two)
    assert names.match_drug("first", two) == "A-1"
    misspelled = pd.DataFrame(index=["Venotoclax", "Venetoclax"])
    assert names.match_drug("ABT-199", misspelled) == "Venetoclax"
    assert names.match_drug("Venotoclax", misspelled) == "Venotoclax"
    salts = pd.DataFrame(index=["GSK-LSD1", "GSK-LSD1-2HCl"])
    assert names.match_drug("gsk lsd1", salts) == "GSK-LSD1"
    assert names.match_drug("GSK-LSD1 2HCl", salts) == "GSK-LSD1-2HCl"


@pytest.mark.parametrize("typed", ["", " - ", None, 3])
def test_a_drug_is_named_by_text(typed):
    with pytest.raises(ValueError, match="must be named by text"):
        names.match_drug(typed, GDSC)


def test_packaged_names_mean_one_drug_each():
    owner: dict[str, str] = {}
    for generic, others in _drugs._table().items():
        for name in (generic, *others):
            assert owner.setdefault(names.drug_key(name), generic) == generic, name
            assert len(names.drug_key(name)) > 2
    assert len(_drugs._table()) > 200


def test_salts_are_dropped_from_the_end_only():
    assert names.drug_key("arsenic trioxide", salt=False) == "arsenictrioxide"
    assert names.drug_key("sodium", salt=False) == "sodium"
    assert names.drug_key("Sepantronium bromide", salt=False) == "sepantronium"
    assert names.drug_key("JQ-1:UNC0638 (2:1 mol/mol)") != names.drug_key("JQ-1:UNC0638 (1:1 mol/mol)")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NCI-H1975", "NCIH1975"),
        ("H1975", "NCIH1975"),
        ("h23", "NCIH23"),
        ("H4", "H4"),
        ("H-EMC-SS", "HEMCSS"),
        ("MDA-MB-468", "MDAMB468"),
        ("mcf7", "MCF7"),
        ("SKBR3_BREAST", "SKBR3"),
        ("TT", "TT"),
        ("TT_THYROID", "TT"),
        ("TT_OESOPHAGUS", "TDOTT"),
        ("T-T", "TDOTT"),
        ("T.T", "TDOTT"),
        ("KM-H2", "KMH2"),
        ("KMH-2", "KMHDASH2"),
        ("KMH2_HAEMATOPOIETIC_AND_LYMPHOID_TISSUE", "KMH2"),
        ("786-0", "786O"),
        ("786-O", "786O"),
        ("NIH:OVCAR-3", "OVCAR3"),
        ("OVCAR-3", "OVCAR3"),
        ("U-266", "U266B1"),
        ("Hs 578T", "HS578T"),
        (" A549 ", "A549"),
        (None, ""),
        (float("nan"), ""),
    ],
)
def test_line_key(name, key):
    assert names.line_key(name) == key


@pytest.mark.parametrize(
    ("text", "lineage"),
    [
        ("LUAD", "lung"),
        ("SCLC", "lung"),
        ("lung_NSCLC", "lung"),
        ("lung adenocarcinoma", "lung"),
        ("Non-Small Cell Lung Cancer", "lung"),
        ("COAD/READ", "bowel"),
        ("COREAD", "bowel"),
        ("large_intestine", "bowel"),
        ("Bowel", "bowel"),
        ("BRCA", "breast"),
        ("Triple-negative breast cancer", "breast"),
        ("SKCM", "skin"),
        ("metastatic melanoma", "skin"),
        ("uveal melanoma", "eye"),
        ("oesophagus", "esophagus"),
        ("Esophageal Adenocarcinoma", "esophagus"),
        ("upper_aerodigestive_tract", "head and neck"),
        ("Head and Neck Squamous Cell Carcinoma", "head and neck"),
        ("Bladder/Urinary Tract", "bladder"),
        ("CNS/Brain", "brain"),
        ("GBM", "brain"),
        ("Diffuse Large B-Cell Lymphoma", "lymphoid"),
        ("ALL", "lymphoid"),
        ("lymphoid_neoplasm other", "lymphoid"),
        ("LAML", "myeloid"),
        ("Plasma Cell Myeloma", "plasma cell"),
        ("haematopoietic_and_lymphoid_tissue", "blood"),
        ("leukemia", "blood"),
        ("autonomic_ganglia", "peripheral nervous system"),
        ("Ewing's Sarcoma", "bone"),
        ("Other Sarcomas", "soft tissue"),
        ("renal cell carcinoma", "kidney"),
        ("all cancers", None),
        ("all", None),
        ("squamous cell carcinoma", None),
        ("Esophagus/Stomach", None),
        ("UNABLE TO CLASSIFY", None),
        ("breast cancer metastasis in the lung", None),
        ("", None),
        (float("nan"), None),
    ],
)
def test_lineage(text, lineage):
    assert names.lineage_of(text) == lineage
    assert lineage is None or lineage in names.LINEAGES


def test_every_lineage_names_itself():
    assert [names.lineage_of(lineage) for lineage in names.LINEAGES] == list(names.LINEAGES)


def test_unknown_cancer_suggests_near_names():
    assert names.check_lineage("BREAST") == "breast"
    with pytest.raises(
        ValueError, match=r"`cancer` must name one tissue .* found 'melanona'\. Did you mean 'melanoma'"
    ):
        names.check_lineage("melanona")
    with pytest.raises(ValueError, match=r"`tissue` must name one .*Tissues: adrenal gland, "):
        names.check_lineage("qqqq", argument="tissue")


def test_blood_agrees_with_its_kinds():
    assert names.lineages_agree("blood", "plasma cell")
    assert names.lineages_agree("skin", "skin")
    assert not names.lineages_agree("lymphoid", "myeloid")
    assert not names.lineages_agree("skin", "blood")
    assert not names.lineages_agree(None, None)
