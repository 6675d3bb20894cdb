"""Build the reference model that comes with the package: `python scripts/build_default_reference.py FOLDER`.

`FOLDER` is the folder of the public data: `bulk/` with CCLE expression (697 genes) and the table of cell lines, `bulk2/` with
the responses of CTRPv2 and of CCLE 2012, and the single cells of known breast lines from which the shift of Drop-seq is
measured (GSE173634). Only the identity of those lines is used, never their response.
Writes `src/sc_drugresp/_reference/default/`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anndata as ad
import pandas as pd

from sc_drugresp._core.hashing import sha256
from sc_drugresp._reference.storage import write_reference
from sc_drugresp.models import build_reference, platform_shift
from sc_drugresp.names import line_key

TARGET = Path(__file__).resolve().parents[1] / "src" / "sc_drugresp" / "_reference" / "default"
FILES = {
    "expression": "bulk/ccle_expression_log2tpm_697genes.parquet",
    "lines": "bulk/cell_lines.csv",
    "response": "bulk2/ctrpv2_auc.parquet",
    "drugs": "bulk2/ctrpv2_drugs.csv",
    "second": "bulk2/ccle_drug_response.parquet",
    "dropseq": "GSE173634_breast21_lines_dropseq.h5ad",
}
CITATION = (
    "Ghandi et al. 2019, Nature 569:503 (CCLE expression); Seashore-Ludlow et al. 2015, Cancer Discov 5:1210, and Rees et al. "
    "2016, Nat Chem Biol 12:109 (CTRPv2); Barretina et al. 2012, Nature 483:603 (agreement between screens); Gambardella et "
    "al. 2022, Nat Commun 13:1714 (shift of Drop-seq)."
)


def main(folder: Path) -> None:
    """Read, fit, measure the shifts, write."""
    paths = {name: folder / file for name, file in FILES.items()}
    known = pd.read_csv(paths["lines"]).drop_duplicates("depmap_id").set_index("depmap_id")
    expression = pd.read_parquet(paths["expression"])
    expression = expression.loc[expression.index.isin(known.index)]
    expression.index = [line_key(known.loc[line, "ccle_id"]) for line in expression.index]
    response = pd.read_parquet(paths["response"]).rename(columns={"auc": "value"}).astype({"line": str, "drug": str})
    second = pd.read_parquet(paths["second"]).assign(value=lambda table: -table["act_area"])
    drugs = pd.read_csv(paths["drugs"]).drop_duplicates("drug").set_index("drug").rename(columns={"target": "targets"})
    tissue = dict(zip(map(line_key, known["ccle_id"]), known["site"]))
    reference = build_reference(
        "default",
        expression=expression,
        response=response,
        drugs=drugs,
        tissue=tissue,
        second_screen=second,
        info={
            "screen": "CTRPv2",
            "release": "CTRPv2.0 (2015); CCLE RNA-seq, 697 cancer genes",
            "licence": "CCLE: CC BY 4.0 (DepMap, Broad Institute); CTRPv2: NCI CTD2 Network, open access",
            "citation": CITATION,
            "sources": {path.name: sha256(path) for path in paths.values()},
        },
    )
    cells = ad.read_h5ad(paths["dropseq"])
    found = platform_shift(cells, "cell_line", chemistry="dropseq", expression=expression, reference=reference)
    reference = reference.with_shift(found)
    write_reference(vars(reference), TARGET, overwrite=True, compact=True)
    size = sum(path.stat().st_size for path in TARGET.iterdir())
    print(f"{reference}\n{TARGET}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
