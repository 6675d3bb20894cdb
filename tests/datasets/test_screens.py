"""`datasets.screen`: published layouts, identifiers, drugs, a user's folder."""

from __future__ import annotations

import builtins
import zipfile

import numpy as np
import pandas as pd
import pytest
import screen_files as files

import sc_drugresp as sdr
from sc_drugresp._core.hashing import sha256
from sc_drugresp.datasets._screen_lines import LineBook, tissue_of

KEYS = ["A549", "MCF7", "TDOTT", "TT", "KMH2", "NCIH1975", "786O", "5637"]
TISSUES = ["lung", "breast", "esophagus", "thyroid", "lymphoid", "lung", "kidney", "bladder"]


def matrix(screen) -> pd.DataFrame:
    return screen.response.pivot(index="line", columns="drug", values="value")


def gdsc_folder(folder):
    files.gdsc_response(folder, bom=True)
    files.gdsc_response(folder, "GDSC1")
    files.gdsc_compounds(folder)
    files.gdsc_arrays(folder / "arrays")
    files.sanger_models(folder)
    return folder


def check_common(screen, drugs):
    assert screen.response.columns.tolist() == ["line", "drug", "value"]
    assert screen.response["value"].dtype == np.float64
    assert not screen.response.duplicated(["line", "drug"]).any()
    assert screen.drugs.index.tolist() == sorted(drugs)
    assert screen.drugs.index.name == "drug"
    assert set(screen.response["drug"]) == set(drugs)
    assert screen.expression.index.name == "line"
    assert (screen.expression.dtypes == np.float32).all()
    assert screen.expression.columns.is_unique
    assert screen.lines.index.is_unique
    assert set(screen.response["line"]) | set(screen.expression.index) == set(screen.lines.index)
    assert screen.lines.loc[KEYS, "tissue"].tolist() == TISSUES


def test_gdsc_as_published(tmp_path):
    screen = sdr.datasets.screen("gdsc2", folder=gdsc_folder(tmp_path))
    check_common(screen, ["123138", "Afatinib", "Camptothecin", "Erlotinib"])
    assert (screen.name, screen.response_kind, screen.expression_kind) == ("gdsc2", "auc", "rma")
    assert screen.release == "GDSC 8.5 (October 2023)"
    assert screen.licence.startswith("GDSC terms")
    two_ids = 0.5 + 0.05 * np.arange(8) + 0.0001 * (1 + 1168) / 20
    np.testing.assert_allclose(matrix(screen).loc[KEYS, "Erlotinib"], two_ids)
    assert screen.match("CP-358774") == screen.match("Tarceva HCl") == "Erlotinib"
    assert screen.match("gilotrif") == "Afatinib"
    assert screen.drugs.loc["Afatinib", ["targets", "pathway"]].tolist() == ["ERBB2, EGFR", "EGFR signaling"]
    assert screen.drugs.loc["123138"].tolist() == ["", "Unclassified", ""]
    lines = screen.lines
    assert lines.loc[KEYS, "depmap_id"].tolist() == files.ACH
    assert lines.loc[KEYS, "cosmic_id"].tolist() == list(map(str, files.COSMIC))
    assert lines.loc[KEYS, "name"].tolist() == files.LINES
    assert lines.loc["A549", "patient_id"] == "SIDP00000"
    assert "OTHER1" not in lines.index
    assert set(screen.sources) == {
        "GDSC2_fitted_dose_response_27Oct23.csv", "screened_compounds_rel_8.5.csv", "model_list_20241120.csv",
        "Cell_line_RMA_proc_basalExp.txt.zip",
    }  # fmt: skip
    assert screen.sources["model_list_20241120.csv"] == sha256(tmp_path / "model_list_20241120.csv")
    assert "32 pairs (auc) of 8 lines and 4 drugs; 8 of the lines with 8 genes (rma)" in repr(screen)


def test_arrays_average_repeats_and_know_lines_by_cosmic_id(tmp_path):
    screen = sdr.datasets.screen("gdsc2", folder=gdsc_folder(tmp_path))
    assert screen.expression.columns.tolist() == files.GENES  # no column for the probe without a symbol
    np.testing.assert_allclose(screen.expression.loc[KEYS[1:], "EGFR"], files.LEVELS[1:, 1], rtol=1e-6)
    np.testing.assert_allclose(screen.expression.loc["A549", "EGFR"], files.LEVELS[0, 1] + 0.5, rtol=1e-6)
    np.testing.assert_allclose(screen.expression.loc["TT", "TP53"], files.LEVELS[3, 0] + 1.0, rtol=1e-6)
    unknown = screen.lines.loc["1"]  # a sample that no list names keeps its number
    assert unknown.tolist() == ["", "", "1", "", "", None]


def test_each_gdsc_screen_is_taken_by_the_column_not_the_name(tmp_path):
    header, rows = files.gdsc_rows("GDSC1")
    files.write_csv(tmp_path / "a.csv", header, rows)
    files.gdsc_arrays(tmp_path)
    screen = sdr.datasets.screen("gdsc1", folder=tmp_path)
    assert screen.release == "GDSC1 of a.csv"
    assert len(screen.response) == 32
    assert screen.lines.loc["TDOTT", "tissue"] == "esophagus"  # from TCGA_DESC alone
    with pytest.raises(
        FileNotFoundError, match=r"No table in `folder` holds the response of GDSC2\. It is in GDSC2_fitted"
    ):
        sdr.datasets.screen("gdsc2", folder=tmp_path)


def test_one_table_with_both_gdsc_screens_is_divided(tmp_path):
    header, rows = files.gdsc_rows("GDSC1")
    more = [[*row[:16], 0.1, *row[17:]] for row in files.gdsc_rows("GDSC2")[1]]
    files.write_csv(tmp_path / "both.csv", header, rows + more)
    files.gdsc_arrays(tmp_path)
    assert (sdr.datasets.screen("gdsc2", folder=tmp_path).response["value"] == 0.1).all()
    assert (sdr.datasets.screen("gdsc1", folder=tmp_path).response["value"] > 0.4).all()


def test_ln_ic50_on_request(tmp_path):
    screen = sdr.datasets.screen("gdsc2", folder=gdsc_folder(tmp_path), response="ln_ic50")
    assert screen.response_kind == "ln_ic50"
    auc = round(0.5 + 0.0001 * 1032 / 10, 6)
    assert matrix(screen).loc["A549", "Afatinib"] == pytest.approx(np.log(auc) * 10, abs=1e-5)


def test_gdsc_with_rna_seq_joins_by_identifiers(tmp_path):
    files.gdsc_response(tmp_path)
    files.sanger_models(tmp_path)
    files.depmap_models(tmp_path)
    files.depmap_expression(tmp_path)
    screen = sdr.datasets.screen("gdsc2", folder=tmp_path, expression="log2tpm")
    assert screen.expression_kind == "log2tpm"
    assert "CC BY 4.0" in screen.licence
    np.testing.assert_allclose(screen.expression.loc[KEYS], files.LEVELS, rtol=1e-6)
    without_choice = sdr.datasets.screen("gdsc2", folder=tmp_path)
    assert without_choice.expression_kind == "log2tpm"
    with pytest.raises(FileNotFoundError, match=r"expression \(rma\)\. It is in Cell_line_RMA_proc_basalExp\.txt\.zip"):
        sdr.datasets.screen("gdsc2", folder=tmp_path, expression="rma")


@pytest.mark.parametrize("new", [False, True], ids=["24Q4", "25Q2"])
def test_prism_as_published(tmp_path, new):
    files.prism_curves(tmp_path)
    files.depmap_models(tmp_path)
    files.depmap_expression(tmp_path, new=new)
    screen = sdr.datasets.screen("prism", folder=tmp_path)
    check_common(screen, ["afatinib", "erlotinib", "gefitinib"])
    assert screen.licence == "CC BY 4.0"
    np.testing.assert_allclose(screen.expression.loc[KEYS], files.LEVELS, rtol=1e-6)
    values = matrix(screen)
    np.testing.assert_allclose(values.loc[KEYS, "erlotinib"], 0.85 + 0.01 * np.arange(8))  # MTS010, both batches
    assert values.loc["A549", "gefitinib"] == 0.5  # MTS006 before HTS002
    assert np.isnan(values.loc["MCF7", "afatinib"])  # failed the identity check
    assert screen.drugs.loc["erlotinib", "targets"] == "EGFR, ERBB2"
    assert screen.match("BRD-K70401845-003") == screen.match("Tarceva") == "erlotinib"
    assert screen.lines.loc[["A549", "TDOTT"], "patient_id"].tolist() == ["PT-0", "PT-2"]
    assert screen.lines.loc["786O", "name"] == "786O_KIDNEY"


def test_missing_ic50_of_prism_are_missing(tmp_path):
    files.prism_curves(tmp_path)
    files.depmap_expression(tmp_path)
    values = matrix(sdr.datasets.screen("prism", folder=tmp_path, response="ln_ic50"))
    np.testing.assert_allclose(values.loc[KEYS, "erlotinib"], 1.0)
    assert values.loc["A549", "gefitinib"] == 0.0


def test_ctrp_as_published(tmp_path):
    files.ctrp_archive(tmp_path)
    files.depmap_models(tmp_path)
    files.depmap_expression(tmp_path)
    screen = sdr.datasets.screen("ctrp2", folder=tmp_path)
    check_common(screen, ["erlotinib", "selumetinib:PLX-4032 (8:1 mol/mol)"])
    assert screen.licence == "NCI CTD2 open access; acknowledge the CTD2 Network + CC BY 4.0"
    values = matrix(screen)
    assert values.loc["A549", "erlotinib"] == 9.0  # two experiments; the first has two runs and counts once
    np.testing.assert_allclose(values.loc[KEYS[1:], "erlotinib"], 8.0 + np.arange(1, 8))
    assert screen.drugs.loc["erlotinib"].tolist() == ["EGFR, ERBB2", "inhibitor of EGFR and HER2", "BRD-K70401845"]
    assert screen.lines.loc[KEYS, "depmap_id"].tolist() == files.ACH
    np.testing.assert_allclose(screen.expression.loc[KEYS], files.LEVELS, rtol=1e-6)


def test_extracted_archive_beside_the_archive_counts_once(tmp_path):
    with zipfile.ZipFile(files.ctrp_archive(tmp_path)) as archive:
        archive.extractall(tmp_path / "extracted")
    files.depmap_models(tmp_path)
    files.depmap_expression(tmp_path)
    screen = sdr.datasets.screen("ctrp2", folder=tmp_path)
    assert len(screen.response) == 16
    (tmp_path / "extracted" / "v20.meta.per_compound.txt").unlink()
    (tmp_path / "CTRPv2.0_2015_ctd2_ExpandedDataset.zip").unlink()
    with pytest.raises(
        ValueError, match=r"needs the other tables of its archive; missing: \['v20\.meta\.per_compound\.txt'\]"
    ):
        sdr.datasets.screen("ctrp2", folder=tmp_path)


def test_two_releases_in_one_folder_are_refused(tmp_path):
    gdsc_folder(tmp_path)
    files.gdsc_response(tmp_path, name="GDSC2_fitted_dose_response_24Jul22.csv")
    with pytest.raises(ValueError, match=r"Several files hold the response of GDSC2: .*24Jul22.*27Oct23.*Leave one"):
        sdr.datasets.screen("gdsc2", folder=tmp_path)


def test_other_matrices_of_depmap_are_not_taken_for_expression(tmp_path):
    files.prism_curves(tmp_path)
    genes = [f"{gene} ({j})" for j, gene in enumerate(files.GENES)]
    effect = [[ach, *(-level / 10)] for ach, level in zip(files.ACH, files.LEVELS)]
    files.write_csv(tmp_path / "CRISPRGeneEffect.csv", ["", *genes], effect)
    counts = [[ach, *(level * 1000)] for ach, level in zip(files.ACH, files.LEVELS)]
    files.write_csv(tmp_path / "OmicsExpressionRawReadCount.csv", ["", *genes], counts)
    copies = [[ach, *(level / 10)] for ach, level in zip(files.ACH, files.LEVELS)]
    files.write_csv(tmp_path / "OmicsCNGene.csv", ["", *genes], copies)
    with pytest.raises(
        FileNotFoundError, match=r"expression \(log2tpm or rma\)\. It is in OmicsExpressionProteinCoding"
    ):
        sdr.datasets.screen("prism", folder=tmp_path)
    files.depmap_expression(tmp_path)
    assert "OmicsExpressionProteinCodingGenesTPMLogp1.csv" in sdr.datasets.screen("prism", folder=tmp_path).sources


def test_screens_without_a_common_line_are_refused(tmp_path):
    files.prism_curves(tmp_path)
    genes = [f"{gene} ({j})" for j, gene in enumerate(files.GENES)]
    files.write_csv(tmp_path / "x.csv", ["", *genes], [["ACH-777777", *np.full(8, 7.0)]])
    with pytest.raises(ValueError, match=r"No line of secondary-screen.* has expression in x\.csv"):
        sdr.datasets.screen("prism", folder=tmp_path)


def workbook(path, sheets):
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)


def gdsc_workbooks(folder):
    header, rows = files.gdsc_rows()
    workbook(folder / "GDSC2_fitted_dose_response_27Oct23.xlsx", {"Sheet 1": [header, *rows]})
    details = ["Sample Name", "COSMIC identifier", "Whole Exome Sequencing (WES)", "GDSC\nTissue descriptor 1",
               "GDSC\nTissue\ndescriptor 2", "Cancer Type\n(matching TCGA label)"]  # fmt: skip
    tissue = [
        "lung_NSCLC",
        "breast",
        "aero_dig_tract",
        "thyroid",
        "lymphoma",
        "lung_NSCLC",
        "kidney",
        "urogenital_system",
    ]
    finer = [
        "lung_NSCLC_adenocarcinoma",
        "breast",
        "oesophagus",
        "thyroid",
        "Hodgkin_lymphoma",
        "lung",
        "kidney",
        "Bladder",
    ]
    body = [[files.LINES[i], files.COSMIC[i], "Y", tissue[i], finer[i], ""] for i in range(8)]
    workbook(
        folder / "Cell_Lines_Details.xlsx",
        {"Cell line details": [details, *body, ["TOTAL:", None, 8]], "Decode": [["x", "y"], [1, 2]]},
    )
    files.gdsc_arrays(folder)


@pytest.fixture
def needs_openpyxl():
    try:
        import openpyxl  # noqa: F401
    except ImportError:
        pytest.skip("needs openpyxl (the extra 'screens')")


@pytest.mark.usefixtures("needs_openpyxl")
def test_workbooks_of_gdsc(tmp_path):
    gdsc_workbooks(tmp_path)
    screen = sdr.datasets.screen("gdsc2", folder=tmp_path)
    check_common(screen, ["123138", "Afatinib", "Camptothecin", "Erlotinib"])
    assert screen.lines.loc["5637", ["name", "cosmic_id"]].tolist() == ["5637", "687452"]
    files.gdsc_response(tmp_path)  # the same table as text: read instead, not twice
    assert "GDSC2_fitted_dose_response_27Oct23.csv" in sdr.datasets.screen("gdsc2", folder=tmp_path).sources


@pytest.mark.usefixtures("needs_openpyxl")
def test_workbook_without_its_reader_says_what_to_do(tmp_path, monkeypatch):
    gdsc_workbooks(tmp_path)
    real = builtins.__import__

    def missing(name, *args, **options):
        if name.split(".")[0] == "openpyxl":
            raise ModuleNotFoundError(name, name="openpyxl")
        return real(name, *args, **options)

    monkeypatch.setattr("sc_drugresp._core.imports.importlib.import_module", lambda name: missing(name))
    with pytest.raises(
        FileNotFoundError,
        match=r"(?s)No table in `folder` holds the response.*Not looked into: .*xlsx: .*'openpyxl' is not",
    ) as e:
        sdr.datasets.screen("gdsc2", folder=tmp_path)
    assert "pip install 'sc-drugresp[screens]'" in str(e.value)
    assert "saved as CSV" in str(e.value)


def plain_folder(folder):
    genes = ["TP53", "EGFR", "VIM", "CDH1", "KRT8", "ERBB2", "SOX2", "MYC", "KRAS", "BRAF", "MET", "ALK", "CD4", "CD8A",
             "PTEN", "RB1", "ESR1", "AR", "KIT", "FLT3", "GATA3", "KRT18"]  # fmt: skip
    response = [
        ["GDSC2", key, name, ach, drug, i, 0.1 * i]
        for i, (key, name, ach) in enumerate([("A549", "A549", "ACH-000681"), ("TT", "TT", "ACH-001321"), ("TT", "T-T", "ACH-001321")])
        for drug in ("Erlotinib", "erlotinib ", "123")
    ]  # fmt: skip
    response.append(["GDSC1", "A549", "A549", "ACH-000681", "Erlotinib", 9, 9.0])
    header = ["screen", "line", "cell_line", "depmap_id", "drug", "ln_ic50", "auc"]
    files.write_csv(folder / "mixed.csv", header, response)
    values = (np.arange(3 * len(genes)).reshape(3, -1) - 30).tolist()
    rows = [[line, *row] for line, row in zip(["A549", "TT", "MCF7"], values)]
    files.write_csv(folder / "expression_rowz_x100.csv", ["line", *genes], rows)
    files.write_csv(folder / "scores.csv", ["line", *(f"PATHWAY_{gene}" for gene in genes)], rows)
    cells = [["ACH-000681", "A549_LUNG", "A549", "lung"], ["ACH-001321", "TT_THYROID", "", "thyroid"]]
    files.write_csv(folder / "cell_lines.csv", ["depmap_id", "ccle_id", "name", "site"], cells)
    return folder


def test_plain_tables(tmp_path):
    screen = sdr.datasets.screen("gdsc2", folder=plain_folder(tmp_path))
    assert screen.release == "GDSC2 of mixed.csv"
    assert screen.expression_kind == "rma_z"
    assert screen.expression.loc["A549", "TP53"] == np.float32(-0.3)
    assert matrix(screen).loc[["A549", "TT", "TDOTT"], "Erlotinib"].tolist() == pytest.approx([0.0, 0.1, 0.2])
    assert screen.drugs.index.tolist() == ["123", "Erlotinib"]
    assert screen.lines.loc[["A549", "TT"], "depmap_id"].tolist() == ["ACH-000681", "ACH-001321"]
    assert screen.lines.loc[["A549", "TT", "TDOTT"], "tissue"].tolist() == ["lung", "thyroid", None]
    assert sdr.datasets.screen("gdsc1", folder=tmp_path).response["value"].tolist() == [9.0]
    with pytest.raises(FileNotFoundError, match="response of CTRPv2"):
        sdr.datasets.screen("ctrp2", folder=tmp_path)
    (tmp_path / "mixed.csv").rename(tmp_path / "ctrpv2_auc.csv")  # the column says that it is another screen
    with pytest.raises(FileNotFoundError, match="response of CTRPv2"):
        sdr.datasets.screen("ctrp2", folder=tmp_path)


def test_tables_of_others_are_read(shared):
    two = [shared / "data" / "bulk2", shared / "data" / "bulk" / "cell_lines.csv"]
    gdsc = sdr.datasets.screen("gdsc2", folder=two)
    with_both = set(gdsc.response["line"]) & set(gdsc.expression.index)
    assert gdsc.expression_kind == "rma_z"
    assert len(with_both) > 900
    assert len(gdsc.drugs) == 286
    assert gdsc.lines.loc[["TT", "TDOTT", "KMH2", "KMHDASH2"], "tissue"].tolist() == [
        "thyroid",
        "esophagus",
        "lymphoid",
        "thyroid",
    ]
    bulk2 = shared / "data" / "bulk2"
    ctrp = sdr.datasets.screen(
        "ctrp2", folder=[bulk2 / "ctrpv2_auc.parquet", bulk2 / "ctrpv2_drugs.csv", shared / "data" / "bulk"]
    )
    assert ctrp.expression.shape[1] == 697
    assert ctrp.expression_kind == "log2tpm"
    assert ctrp.match("Velcade") == "bortezomib"
    assert ctrp.match("PLX4032") == "PLX-4032"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "nci60"}, "`name` must be one of"),
        ({"name": "gdsc2", "response": "ic50"}, "`response` must be one of"),
        ({"name": "gdsc2", "expression": "counts"}, "`expression` must be one of"),
        ({"name": "ctrp2", "response": "ln_ic50"}, "CTRPv2 publishes areas under the curve"),
        ({"name": "prism", "expression": "rma"}, "There is no 'rma' expression to fetch for 'prism'"),
    ],
)
def test_wrong_arguments_are_refused_first(arguments, message):
    with pytest.raises(ValueError, match=message):
        sdr.datasets.screen(**arguments)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`folder` names what does not exist: \['.*nothing'\]"):
        sdr.datasets.screen("gdsc2", folder=tmp_path / "nothing")


def test_identifiers_come_before_names():
    book = LineBook()
    first = book.add(pd.DataFrame({"name": ["X-1", "Y1"], "cosmic_id": [5.0, 6.0], "sanger_id": ["SIDM1", None]}))
    annotated = book.add(pd.DataFrame({"name": ["other", "X1", "Y-1"], "sanger_id": ["SIDM1", "SIDM2", None]}))
    assert annotated == [first[0], 2, first[1]]  # X1 of another number is another line
    assert book.add(pd.DataFrame({"cosmic_id": ["6", "7"]})) == [first[1], 3]
    assert book.keys() == ["X1", "Y1", "X1_SIDM2", "7"]


def test_a_later_text_says_which_blood_cancer():
    assert tissue_of(["Lymphoid", "Plasma Cell Myeloma"]) == "plasma cell"
    assert tissue_of(["haematopoietic_and_lymphoid_tissue", "acute_myeloid_leukaemia"]) == "myeloid"
    assert tissue_of(["haematopoietic_and_lymphoid_tissue", None]) == "blood"
    assert tissue_of(["Esophagus/Stomach", "", "STOMACH"]) == "stomach"
    assert tissue_of(["Lung", "Lymphoma"]) == "lung"
    assert tissue_of([None, ""]) is None
