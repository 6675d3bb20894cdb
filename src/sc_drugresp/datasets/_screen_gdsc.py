"""Files of GDSC (releases 8.x) and of the Cell Model Passports, as their publishers lay them out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ._screen_parts import Expression, Response, coded, drug_table, line_ids, only

if TYPE_CHECKING:
    import pandas as pd

    from ._screen_files import Table, Tables

_RESPONSE = ("CELL_LINE_NAME", "DRUG_NAME", "AUC", "LN_IC50")
_IDS = ["CELL_LINE_NAME", "COSMIC_ID", "SANGER_MODEL_ID", "TCGA_DESC"]
_DRUG = ["DRUG_ID", "DRUG_NAME", "PUTATIVE_TARGET", "PATHWAY_NAME"]
_COMPOUND = ("DRUG_ID", "DRUG_NAME", "SYNONYMS")
_MODEL = ("model_id", "model_name", "tissue", "cancer_type")
_DETAILS = ("Sample Name", "COSMIC identifier", "GDSC Tissue descriptor 1", "GDSC Tissue descriptor 2")
_SAMPLE = re.compile(r"DATA\.(\d+)(?:\.\d+)?")


def gdsc_response(tables: Tables, dataset: str, kind: str) -> Response | None:
    """Fitted dose response of GDSC1 or GDSC2: `GDSC2_fitted_dose_response_*.csv` or `.xlsx`.

    Parameters
    ----------
    tables
        Where to look.
    dataset
        `'GDSC1'` or `'GDSC2'`, as in the column `DATASET`.
    kind
        `'auc'` or `'ln_ic50'`.
    """
    found = tables.like(lambda table: table.has(*_RESPONSE))
    named = [table for table in found if table.cell("DATASET").upper() in {"", dataset}]
    table = only(named or found, f"the response of {dataset}")
    if table is None:
        return None
    frame = table.read(["DATASET", "AUC", "LN_IC50", *_IDS, *_DRUG])
    if "DATASET" in frame:
        frame = frame[frame["DATASET"].astype(str).str.upper() == dataset]
    if frame.empty:
        return None
    frame = frame.reindex(columns=["AUC", "LN_IC50", *_IDS, *_DRUG]).astype({"DRUG_NAME": str, "CELL_LINE_NAME": str})
    codes, lines = coded(frame, _IDS)
    synonyms, compounds = _synonyms(tables)
    drugs = frame[_DRUG].drop_duplicates()
    return Response(
        ids=line_ids(lines, ["TCGA_DESC"], name="CELL_LINE_NAME", cosmic_id="COSMIC_ID", sanger_id="SANGER_MODEL_ID"),
        pairs=frame.assign(line=codes, drug=frame["DRUG_NAME"].str.strip(), value=frame[kind.upper()]),
        kind=kind,
        drugs=drug_table(
            drugs["DRUG_NAME"],
            targets=drugs["PUTATIVE_TARGET"].to_numpy(),
            pathway=drugs["PATHWAY_NAME"].to_numpy(),
            synonyms=[synonyms.get(str(number), "") for number in drugs["DRUG_ID"]],
        ),
        tables=(table, *compounds),
    )


def _synonyms(tables: Tables) -> tuple[dict[str, str], tuple[Table, ...]]:
    """Other names of the drug of each id, from `screened_compounds_rel_8.x.csv`."""
    table = only(tables.like(lambda table: table.has(*_COMPOUND)), "the screened compounds of GDSC")
    if table is None:
        return {}, ()
    names: dict[str, str] = {}
    for number, name, others in table.read(_COMPOUND).astype(str).itertuples(index=False):
        listed = [name, *re.split(r",\s+|;", others)]
        names[number] = "|".join(
            dict.fromkeys(text.strip() for text in listed if len(text.strip()) > 2 and text != "nan")
        )
    return names, (table,)


def gdsc_arrays(tables: Tables) -> Expression | None:
    """Basal expression by microarray, log2 RMA: `Cell_line_RMA_proc_basalExp.txt`, alone or in its archive.

    Columns are samples (`DATA.905938`), rows genes; a sample that was measured twice (`DATA.1503362.1`) counts as one line.
    """
    import pandas as pd

    found = tables.like(lambda table: table.has("GENE_SYMBOLS") and any(map(_SAMPLE.fullmatch, table.columns)))
    table = only(found, "the microarrays of GDSC")
    if table is None:
        return None
    samples = [column for column in table.columns if _SAMPLE.fullmatch(column)]
    frame = table.read(dtype=dict.fromkeys(samples, "float32"))
    genes = frame["GENE_SYMBOLS"].fillna("").astype(str).str.strip()
    samples = [column for column in frame.columns if _SAMPLE.fullmatch(column)]
    values = frame[samples].set_axis(genes, axis=0).T
    cosmic = [match.group(1) for match in map(_SAMPLE.fullmatch, samples) if match is not None]
    return Expression(ids=pd.DataFrame({"cosmic_id": cosmic}), values=values, kind="rma", tables=(table,))


def sanger_lines(tables: Tables) -> list[tuple[pd.DataFrame, Table]]:
    """Cell lines in the list of models of the Cell Model Passports, and in `Cell_Lines_Details.xlsx` of GDSC."""
    found = []
    if (table := only(tables.like(lambda table: table.has(*_MODEL)), "the list of models")) is not None:
        frame = table.read([*_MODEL, "COSMIC_ID", "BROAD_ID", "patient_id"])
        frame = frame.reindex(columns=[*_MODEL, "COSMIC_ID", "BROAD_ID", "patient_id"])
        frame["BROAD_ID"] = frame["BROAD_ID"].astype(str).str.extract(r"(ACH-\d+)", expand=False)
        ids = line_ids(
            frame, ["cancer_type", "tissue"], name="model_name", sanger_id="model_id", cosmic_id="COSMIC_ID",
            depmap_id="BROAD_ID", sanger_patient="patient_id", disease="cancer_type",
        )  # fmt: skip
        found.append((ids, table))
    if (table := only(tables.like(lambda table: table.has(*_DETAILS)), "the details of the lines")) is not None:
        label = "Cancer Type (matching TCGA label)"
        frame = table.read([*_DETAILS, label]).reindex(columns=[*_DETAILS, label])
        frame = frame[frame["COSMIC identifier"].notna()]
        texts = [label, "GDSC Tissue descriptor 2", "GDSC Tissue descriptor 1"]
        found.append((line_ids(frame, texts, name="Sample Name", cosmic_id="COSMIC identifier", disease=label), table))
    return found
