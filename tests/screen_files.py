"""Small files in the layouts that GDSC, the Cell Model Passports, DepMap and CTD2 publish, with their quirks."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np

LINES = ["A549", "MCF7", "T-T", "TT", "KM-H2", "NCI-H1975", "786-0", "5637"]
COSMIC = [905949, 905946, 1299064, 930299, 907057, 924244, 905947, 687452]
SIDM = ["SIDM00903", "SIDM00148", "SIDM00322", "SIDM00484", "SIDM00602", "SIDM00759", "SIDM00125", "SIDM00807"]
ACH = ["ACH-000681", "ACH-000019", "ACH-000561", "ACH-001321", "ACH-000815", "ACH-000587", "ACH-000649", "ACH-000905"]
TCGA = ["LUAD", "BRCA", "ESCA", "THCA", "DLBC", "LUAD", "KIRC", "BLCA"]
CCLE = ["A549_LUNG", "MCF7_BREAST", "TT_OESOPHAGUS", "TT_THYROID", "KMH2_HAEMATOPOIETIC_AND_LYMPHOID_TISSUE",
        "NCIH1975_LUNG", "786O_KIDNEY", "5637_URINARY_TRACT"]  # fmt: skip
GENES = ["TP53", "EGFR", "VIM", "CDH1", "KRT8", "ERBB2", "SOX2", "MYC"]
LEVELS = np.round(np.random.default_rng(0).uniform(0.5, 9.5, (len(LINES), len(GENES))), 4)
DRUGS = {1: ("Erlotinib", "EGFR", "EGFR signaling"), 1168: ("Erlotinib", "EGFR", "EGFR signaling"),
         1032: ("Afatinib", "ERBB2, EGFR", "EGFR signaling"), 1003: ("Camptothecin", "TOP1", "DNA replication"),
         1824: ("123138", "", "Unclassified")}  # fmt: skip


def write_csv(path: Path, header: list, rows: list, *, sep: str = ",", bom: bool = False) -> Path:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=sep, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + buffer.getvalue().encode())
    return path


def gdsc_rows(dataset: str = "GDSC2") -> tuple[list, list]:
    header = ["DATASET", "NLME_RESULT_ID", "NLME_CURVE_ID", "COSMIC_ID", "CELL_LINE_NAME", "SANGER_MODEL_ID", "TCGA_DESC",
              "DRUG_ID", "DRUG_NAME", "PUTATIVE_TARGET", "PATHWAY_NAME", "COMPANY_ID", "WEBRELEASE", "MIN_CONC", "MAX_CONC",
              "LN_IC50", "AUC", "RMSE", "Z_SCORE"]  # fmt: skip
    rows = []
    for i in range(len(LINES)):
        for number, (drug, target, pathway) in DRUGS.items():
            auc = round(0.5 + 0.05 * i + 0.0001 * number / 10, 6)
            rows.append([dataset, 343, 15946310 + i, COSMIC[i], LINES[i], SIDM[i], TCGA[i], number, drug, target, pathway,
                         1046, "Y", 0.0001, 0.1, round(np.log(auc) * 10, 6), auc, 0.0891, 0.43])  # fmt: skip
    return header, rows


def gdsc_response(folder: Path, dataset: str = "GDSC2", name: str | None = None, *, bom: bool = False) -> Path:
    return write_csv(folder / (name or f"{dataset}_fitted_dose_response_27Oct23.csv"), *gdsc_rows(dataset), bom=bom)


def gdsc_compounds(folder: Path) -> Path:
    rows = [
        [1, "MGH", "Erlotinib", "Tarceva, RG-1415, CP-358774, OSI-774, Ro-508231, R-1415", "EGFR", "EGFR signaling"],
        [1168, "SANGER", "Erlotinib", "Tarceva, RG-1415, CP-358774", "EGFR", "EGFR signaling"],
        [1032, "SANGER", "Afatinib", "BIBW2992, Tovok, Gilotrif", "ERBB2, EGFR", "EGFR signaling"],
        [1003, "SANGER", "Camptothecin", "7-Ethyl-10-Hydroxy-Camptothecin, SN-38 precursor", "TOP1", "DNA replication"],
    ]
    header = ["DRUG_ID", "SCREENING_SITE", "DRUG_NAME", "SYNONYMS", "TARGET", "TARGET_PATHWAY"]
    return write_csv(folder / "screened_compounds_rel_8.5.csv", header, rows)


def rma_text() -> bytes:
    """Genes x samples; one sample twice, a gene twice, a probe without a symbol."""
    columns = ["GENE_SYMBOLS", "GENE_title", *(f"DATA.{number}" for number in COSMIC), "DATA.905949.1", "DATA.1"]
    extra = LEVELS[0] + 1.0
    rows = [
        [gene, f"{gene}, a title [Source:HGNC]", *LEVELS[:, j], round(extra[j], 4), 3.0] for j, gene in enumerate(GENES)
    ]
    rows.append(["TP53", "again", *(LEVELS[:, 0] + 2.0).round(4), round(extra[0] + 2.0, 4), 3.0])
    rows.append(["", "", *([1.0] * (len(LINES) + 2))])
    return "\n".join("\t".join(map(str, row)) for row in [columns, *rows]).encode()


def gdsc_arrays(folder: Path) -> Path:
    path = folder / "Cell_line_RMA_proc_basalExp.txt.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Cell_line_RMA_proc_basalExp.txt", rma_text())
        archive.writestr("__MACOSX/._Cell_line_RMA_proc_basalExp.txt", b"\x00\x05")
    return path


def sanger_models(folder: Path) -> Path:
    header = ["model_id", "sample_id", "patient_id", "parent_id", "species", "synonyms", "tissue", "cancer_type",
              "model_name", "COSMIC_ID", "BROAD_ID", "CCLE_ID"]  # fmt: skip
    tissue = ["Lung", "Breast", "Esophagus", "Thyroid", "Haematopoietic and Lymphoid", "Lung", "Kidney", "Bladder"]
    cancer = ["Non-Small Cell Lung Carcinoma", "Breast Carcinoma", "Esophageal Squamous Cell Carcinoma",
              "Thyroid Gland Medullary Carcinoma", "Hodgkin's Lymphoma", "Non-Small Cell Lung Carcinoma",
              "Kidney Carcinoma", "Bladder Carcinoma"]  # fmt: skip
    rows = [
        [SIDM[i], f"SIDS{i}", f"SIDP0000{i}", "", "Homo Sapiens", f"{LINES[i]};x, y", tissue[i], cancer[i], LINES[i],
         COSMIC[i], f"{ACH[i]};ACH-999999" if i == 0 else ACH[i], CCLE[i]]
        for i in range(len(LINES))
    ]  # fmt: skip
    rows.append(["SIDM99999", "", "", "", "", "", "Skin", "Melanoma", "OTHER-1", "", "", ""])
    return write_csv(folder / "model_list_20241120.csv", header, rows)


def depmap_models(folder: Path) -> Path:
    header = ["ModelID", "PatientID", "CellLineName", "StrippedCellLineName", "DepmapModelType", "OncotreeLineage",
              "OncotreePrimaryDisease", "OncotreeSubtype", "CCLEName", "COSMICID", "SangerModelID"]  # fmt: skip
    lineage = ["Lung", "Breast", "Esophagus/Stomach", "Thyroid", "Lymphoid", "Lung", "Kidney", "Bladder/Urinary Tract"]
    disease = ["Non-Small Cell Lung Cancer", "Invasive Breast Carcinoma", "Esophageal Squamous Cell Carcinoma",
               "Medullary Thyroid Cancer", "Hodgkin Lymphoma", "Non-Small Cell Lung Cancer", "Renal Cell Carcinoma",
               "Bladder Urothelial Carcinoma"]  # fmt: skip
    spelled = ["A549", "MCF7", "T.T", "TT", "KM-H2", "NCI-H1975", "786-O", "5637"]
    stripped = ["A549", "MCF7", "TDOTT", "TT", "KMH2", "NCIH1975", "786O", "5637"]
    rows = [
        [ACH[i], f"PT-{i}", spelled[i], stripped[i], "X", lineage[i], disease[i], disease[i], CCLE[i], f"{COSMIC[i]}.0",
         SIDM[i] if i else ""]
        for i in range(len(LINES))
    ]  # fmt: skip
    rows.append(["ACH-000002", "PT-0", "A549 daughter, resistant", "A549R", "X", "Lung", "", "", "", "", ""])
    return write_csv(folder / "Model.csv", header, rows)


def depmap_expression(folder: Path, *, new: bool = False) -> Path:
    genes = [f"{gene} ({7157 + j})" for j, gene in enumerate(GENES)]
    if not new:
        rows = [[ACH[i], *LEVELS[i]] for i in range(len(LINES))]
        return write_csv(folder / "OmicsExpressionProteinCodingGenesTPMLogp1.csv", ["", *genes], rows)
    header = [
        "",
        "SequencingID",
        "ModelID",
        "IsDefaultEntryForModel",
        "ModelConditionID",
        "IsDefaultEntryForMC",
        *genes,
    ]
    rows = []
    for i in range(len(LINES)):
        rows.append([2 * i, f"CDS-{i}", ACH[i], "No", "MC-1", "Yes", *(LEVELS[i] + 1).round(4)])
        rows.append([2 * i + 1, f"CDS-{i}b", ACH[i], "Yes", "MC-1", "Yes", *LEVELS[i]])
    return write_csv(folder / "OmicsExpressionTPMLogp1HumanProteinCodingGenes.csv", header, rows)


def prism_curves(folder: Path) -> Path:
    header = ["broad_id", "depmap_id", "ccle_name", "screen_id", "upper_limit", "lower_limit", "slope", "r2", "auc", "ec50",
              "ic50", "name", "moa", "target", "disease.area", "indication", "smiles", "phase", "passed_str_profiling",
              "row_name"]  # fmt: skip

    def row(broad, i, run, auc, ic50, name, passed="TRUE"):
        return [broad, ACH[i], CCLE[i], run, 1, 0.1, -1.2, 0.9, auc, 0.5, ic50, name, "EGFR inhibitor", "EGFR, ERBB2",
                "oncology", "non-small cell lung cancer (NSCLC), pancreas", "C#Cc1cccc(Nc2ncnc3)c1", "Launched", passed,
                ACH[i]]  # fmt: skip

    rows = []
    for i in range(len(LINES)):
        rows.append(row("BRD-K70401845-001", i, "HTS002", 0.2, 0.2, "erlotinib"))
        rows.append(row("BRD-K70401845-001", i, "MTS010", 0.8 + 0.01 * i, np.e if i else "", "erlotinib"))
        rows.append(row("BRD-K70401845-003", i, "MTS010", 0.9 + 0.01 * i, np.e, "erlotinib"))
        rows.append(row("BRD-K66175015", i, "HTS002", 0.6, 1.0, "afatinib", "FALSE" if i == 1 else "TRUE"))
    rows.append(row("BRD-K66175015", 0, "MTS006", 0.5, 1.0, "gefitinib"))
    rows.append(row("BRD-K66175015", 0, "HTS002", 0.1, 1.0, "gefitinib"))
    return write_csv(folder / "secondary-screen-dose-response-curve-parameters.csv", header, rows)


def ctrp_archive(folder: Path) -> Path:
    def table(header, rows):
        return "\n".join("\t".join(map(str, row)) for row in [header, *rows]) + "\n"

    site = [
        "lung",
        "breast",
        "oesophagus",
        "thyroid",
        "haematopoietic_and_lymphoid_tissue",
        "lung",
        "kidney",
        "urinary_tract",
    ]
    subtype = ["NS", "ductal_carcinoma", "squamous_cell_carcinoma", "medullary_carcinoma", "Hodgkin_lymphoma",
               "adenocarcinoma", "clear_cell_renal_cell_carcinoma", "NS"]  # fmt: skip
    name = ["A549", "MCF7", "T.T", "TT", "KMH2", "NCIH1975", "786O", "5637"]
    lines = [[10 + i, name[i], "CCLE; public", site[i], "carcinoma", subtype[i]] for i in range(len(LINES))]
    experiments = [
        [100 + i, 1, "20120501", "RPMI001", 0, 500, "adherent", "SNP-matched-reference", 10 + i] for i in range(8)
    ]
    experiments += [[100, 2, "20120502", "RPMI001", 0, 500, "adherent", "SNP-matched-reference", 10]]
    experiments += [[200, 3, "20120601", "DMEM001", 0, 500, "adherent", "SNP-matched-reference", 10]]
    curves = [[100 + i, 16, 3, 0.4, 8.0 + i + 0.5 * d, drug] for i in range(8) for d, drug in enumerate([1788, 52926])]
    curves += [[200, 16, 3, 0.4, 10.0, 1788], [999, 16, 3, 0.4, 1.0, 1788]]
    compounds = [
        [1788, "erlotinib", "BRD-K70401845", 33, "FDA", "pilot-set", "EGFR;ERBB2", "inhibitor of EGFR and HER2", "C#C"],
        [52926, "selumetinib:PLX-4032 (8:1 mol/mol)", "", 33, "", "", "MAP2K1;BRAF", "inhibitor of MEK1, MEK2", "CC"],
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "CTRPv2.0_2015_ctd2_ExpandedDataset.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "v20.data.curves_post_qc.txt",
            table(
                [
                    "experiment_id",
                    "conc_pts_fit",
                    "fit_num_param",
                    "apparent_ec50_umol",
                    "area_under_curve",
                    "master_cpd_id",
                ],
                curves,
            ),
        )
        archive.writestr(
            "v20.meta.per_compound.txt",
            table(["master_cpd_id", "cpd_name", "broad_cpd_id", "top_test_conc_umol", "cpd_status", "inclusion_rationale",
                   "gene_symbol_of_protein_target", "target_or_activity_of_compound", "cpd_smiles"], compounds),
        )  # fmt: skip
        archive.writestr(
            "v20.meta.per_cell_line.txt",
            table(["master_ccl_id", "ccl_name", "ccl_availability", "ccle_primary_site", "ccle_primary_hist",
                   "ccle_hist_subtype_1"], lines),
        )  # fmt: skip
        archive.writestr(
            "v20.meta.per_experiment.txt",
            table(["experiment_id", "run_id", "experiment_date", "culture_media", "baseline_signal", "cells_per_well",
                   "growth_mode", "snp_fp_status", "master_ccl_id"], experiments),
        )  # fmt: skip
        archive.writestr("CTRPv2.0._README.docx", b"not a table")
        archive.writestr("v20._COLUMNS.txt", "file\tcolumn\tdescription\n")
    return path
