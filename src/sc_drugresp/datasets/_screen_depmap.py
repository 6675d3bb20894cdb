"""Files of DepMap: PRISM Repurposing (secondary screen), RNA-seq of CCLE, and the tables of models."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ._screen_parts import Expression, Response, coded, drug_table, line_ids, only

if TYPE_CHECKING:
    import pandas as pd

    from ._screen_files import Table, Tables

_CURVES = ("broad_id", "depmap_id", "screen_id", "auc", "name")
_ALL_CURVES = [*_CURVES, "ic50", "ccle_name", "moa", "target", "passed_str_profiling"]
# Compounds that were screened again are taken from the newest run, as in the publisher's own matrix.
_RUNS = ("MTS010", "MTS006", "MTS005", "HTS002")
_GENE = re.compile(r"(.+?) \((\w*)\)")
_MOST_LOG2_TPM = 25.0
_MODEL = ["ModelID", "CellLineName", "StrippedCellLineName", "CCLEName", "PatientID", "OncotreeLineage",
          "OncotreePrimaryDisease", "OncotreeSubtype", "COSMICID", "SangerModelID"]  # fmt: skip
_SAMPLE = ["DepMap_ID", "cell_line_name", "stripped_cell_line_name", "CCLE_Name", "patient_id", "lineage",
           "primary_disease", "Subtype", "COSMICID", "Sanger_Model_ID"]  # fmt: skip


def prism_response(tables: Tables, kind: str) -> Response | None:
    """PRISM Repurposing secondary screen: `secondary-screen-dose-response-curve-parameters.csv`.

    Lines that failed the comparison of short tandem repeats are left out. A drug that was screened in several runs is taken
    from one of them, `MTS010` before `MTS006`, `MTS005` and `HTS002`, so that runs are not mixed within a drug.

    Parameters
    ----------
    tables
        Where to look.
    kind
        `'auc'` or `'ln_ic50'`; the IC50 is missing for curves that do not reach it.
    """
    import numpy as np

    table = only(tables.like(lambda table: table.has(*_CURVES)), "the curves of PRISM")
    if table is None:
        return None
    frame = table.read(_ALL_CURVES).reindex(columns=_ALL_CURVES)
    if "passed_str_profiling" in {column.lower() for column in table.columns}:
        frame = frame[frame["passed_str_profiling"].astype(str).str.lower().isin({"true", "1", "1.0"})]
    frame = frame[frame["name"].notna() & frame["depmap_id"].notna()]
    rank = frame["screen_id"].map({run: place for place, run in enumerate(_RUNS)}).fillna(len(_RUNS))
    frame = frame[rank == rank.groupby(frame["name"]).transform("min")]
    codes, lines = coded(frame, ["depmap_id", "ccle_name"])
    lines["site"] = [text.partition("_")[2] if isinstance(text, str) else "" for text in lines["ccle_name"]]
    ic50 = frame["ic50"].where(frame["ic50"] > 0).astype("float64")
    drugs = frame[["name", "target", "moa", "broad_id"]].drop_duplicates()
    return Response(
        ids=line_ids(lines, ["site"], depmap_id="depmap_id", name="ccle_name"),
        pairs=frame.assign(line=codes, drug=frame["name"], value=frame["auc"] if kind == "auc" else np.log(ic50)),
        kind=kind,
        drugs=drug_table(
            drugs["name"],
            targets=drugs["target"].to_numpy(),
            pathway=drugs["moa"].to_numpy(),
            synonyms=drugs["broad_id"].to_numpy(),
        ),
        tables=(table,),
    )


def is_depmap_matrix(table: Table) -> bool:
    """Whether a table is log2(TPM + 1) per gene, told from other matrices of DepMap by its columns and first row."""
    if table.path.suffix.lower() in {".xlsx", ".parquet"}:
        return False
    cells = [cell for column, cell in zip(table.columns, table.first) if _GENE.fullmatch(column)]
    if not cells or len(cells) < len(table.columns) - 8:
        return False
    try:
        values = [float(cell) for cell in cells if cell]
    except ValueError:
        return False
    return bool(values) and min(values) >= 0 and 6 < max(values) < _MOST_LOG2_TPM


def depmap_expression(tables: Tables) -> Expression | None:
    """RNA-seq of cell lines: `OmicsExpressionProteinCodingGenesTPMLogp1.csv` and its older and newer names.

    Columns are genes (`TP53 (7157)`), rows models (`ACH-000001`). Newer releases have several rows per model: that with
    `IsDefaultEntryForModel` is taken.
    """
    table = only(tables.like(is_depmap_matrix), "log2(TPM + 1) of DepMap")
    if table is None:
        return None
    names = {column: match.group(1) for column in table.columns if (match := _GENE.fullmatch(column))}
    frame = table.read(dtype=dict.fromkeys(names, "float32"))
    if "IsDefaultEntryForModel" in frame:
        frame = frame[frame["IsDefaultEntryForModel"].astype(str).str.lower().isin({"yes", "true", "1"})]
    models = frame["ModelID"] if "ModelID" in frame else frame.iloc[:, 0]
    frame = frame[~models.duplicated()]
    genes = [column for column in frame.columns if _GENE.fullmatch(column)]
    values = frame[genes].set_axis([names.get(gene, gene) for gene in genes], axis=1)
    ids = models[~models.duplicated()].astype(str).to_frame("depmap_id").reset_index(drop=True)
    return Expression(ids=ids, values=values, kind="log2tpm", tables=(table,))


def depmap_lines(tables: Tables) -> list[tuple[pd.DataFrame, Table]]:
    """Cell lines in `Model.csv`, or in `sample_info.csv` of older releases."""
    for columns in (_MODEL, _SAMPLE):
        number, name, stripped, ccle, patient, lineage, disease, subtype, cosmic, sanger = columns
        found = [table for table in tables.found if table.has(number, stripped)]
        table = only(found, "the models of DepMap")
        if table is None:
            continue
        frame = table.read(columns).reindex(columns=columns)
        frame[name] = frame[name].where(frame[name].notna(), frame[stripped])
        frame["site"] = [text.partition("_")[2] if isinstance(text, str) else "" for text in frame[ccle]]
        ids = line_ids(
            frame, [lineage, disease, subtype, "site"], name=name, depmap_id=number, depmap_patient=patient,
            disease=disease, cosmic_id=cosmic, sanger_id=sanger,
        )  # fmt: skip
        return [(ids, table)]
    return []
