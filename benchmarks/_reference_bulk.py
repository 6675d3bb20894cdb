"""Tables and scores of benchmarks/reference.py, and its first part: lines held out within the screens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import rankdata

from sc_drugresp._reference.build import PENALTY
from sc_drugresp._reference.card import reliability
from sc_drugresp._reference.expression import line_expression
from sc_drugresp._reference.relatives import families
from sc_drugresp._reference.ridge import fit_drugs
from sc_drugresp._reference.tables import response_table, tidy_expression
from sc_drugresp.names import line_key, lineage_of

if TYPE_CHECKING:
    from pathlib import Path

FOLDS, SEEDS, MIN_LINES = 5, 3, 100


@dataclass
class Data:
    """The public tables, as `build_reference` takes them."""

    folder: Path

    def __post_init__(self):
        self.array = tidy_expression(
            pd.read_parquet(self.folder / "bulk2/gdsc_expression_rowz_x100_6163genes.parquet").astype(np.float32) / 100
        )
        known = pd.read_csv(self.folder / "bulk/cell_lines.csv").drop_duplicates("depmap_id").set_index("depmap_id")
        rna = pd.read_parquet(self.folder / "bulk/ccle_expression_log2tpm_697genes.parquet")
        rna.index = [line_key(known["ccle_id"].get(line)) for line in rna.index]
        self.rna = rna.loc[rna.index != ""]
        gdsc = pd.read_parquet(self.folder / "bulk2/gdsc12_response.parquet").rename(columns={"auc": "value"})
        ctrp = pd.read_parquet(self.folder / "bulk2/ctrpv2_auc.parquet").rename(columns={"auc": "value"})
        self.tissue = dict(zip(ctrp["line"].astype(str), ctrp["cancer_type"].astype(str)))
        older = pd.read_parquet(self.folder / "bulk/gdsc2_response.parquet").drop_duplicates("cell_line")
        self.tissue |= {line_key(name): kind for name, kind in zip(older["cell_line"], older["tcga_type"])}
        self.tissue |= dict(zip(map(line_key, known["ccle_id"]), known["site"]))
        columns = ["line", "drug", "value"]
        self.screens = {
            name: gdsc.loc[gdsc["screen"] == name, columns].astype({"line": str, "drug": str})
            for name in ("GDSC2", "GDSC1")
        }
        self.screens["CTRPv2"] = ctrp[columns].astype({"line": str, "drug": str})

    def cells(self, name: str) -> ad.AnnData:
        return ad.read_h5ad(next(self.folder.glob(f"{name}*.h5ad")))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 3 or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
        return np.nan
    return float(np.corrcoef(rankdata(a[both]), rankdata(b[both]))[0, 1])


def rows_mean(a: np.ndarray, b: np.ndarray, least: int = 20) -> np.ndarray:
    """Spearman correlation in each row that has enough values."""
    enough = (np.isfinite(a) & np.isfinite(b)).sum(axis=1) >= least
    return np.array([spearman(x, y) for x, y in zip(a[enough], b[enough])])


def span(values: np.ndarray) -> str:
    """Mean with a 95 % interval over resampled rows."""
    values = values[np.isfinite(values)]
    draws = np.random.default_rng(0).choice(values, (2000, len(values))).mean(axis=1)
    return f"{values.mean():.3f} [{np.quantile(draws, 0.025):.3f}, {np.quantile(draws, 0.975):.3f}]"


def bulk_rows(data: Data) -> list[dict]:
    """Five folds of families, three times; truth and prediction after the mean of the drug over the training lines."""
    out = []
    for name, long in data.screens.items():
        table = response_table(long)
        lines = [line for line in data.array.index if line in table.index]
        table = table.loc[lines]
        table = table.loc[:, table.notna().sum() >= MIN_LINES]
        prepared, Y = line_expression(data.array.loc[lines]), table.to_numpy()
        tissue = np.array([lineage_of(data.tissue.get(line)) or "" for line in lines], dtype=object)
        family, known = families(lines, Z=prepared.Z), tissue != ""
        runs = []
        for seed in range(SEEDS):
            fold = np.random.default_rng(seed).integers(0, FOLDS, family.max() + 1)[family]
            fit = fit_drugs(prepared.Z, Y, fold, PENALTY)
            card = reliability(Y, fit, tissue, list(table.columns))
            spread = np.nanstd(Y, axis=0)
            truth = (Y - fit.held_out_mean) / spread
            said = (fit.held_out - fit.held_out_mean) / spread
            tissues = (tissue_predictions(Y, fold, tissue) - fit.held_out_mean) / spread
            n = np.isfinite(truth).sum(axis=1, keepdims=True)
            others = (np.nansum(truth, axis=1, keepdims=True) - truth) / np.maximum(n - 1, 1)
            runs.append(
                {
                    "r": card["r"].median(),
                    "r within tissue": card["r_within_tissue"].median(),
                    "drugs with r > 0.3": (card["r"] > 0.3).mean(),
                    "within line": rows_mean(said, truth).mean(),
                    "r, known tissue": median_r(said[known], truth[known]),
                    "tissue mean: r": median_r(tissues[known], truth[known]),
                    "within line, known tissue": rows_mean(said[known], truth[known]).mean(),
                    "tissue mean: within line": np.nanmean(rows_mean(tissues[known], truth[known])),
                    "line effect: r": median_r(others, truth),
                }
            )
        found = pd.DataFrame(runs)
        row = {"screen": name, "drugs": Y.shape[1], "lines": len(lines), "of known tissue": int(known.sum())}
        out.append(row | {key: f"{found[key].mean():.3f} ± {found[key].std():.3f}" for key in found})
    return out


def tissue_predictions(Y: np.ndarray, fold: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """Mean of the lineage over the lines of the other folds; the mean of all other lines where there are too few."""
    out = np.full(Y.shape, np.nan)
    for k in range(FOLDS):
        train, test = fold != k, np.flatnonzero(fold == k)
        general = np.nanmean(Y[train], axis=0)
        for name in set(tissue[test]):
            rows, here = test[tissue[test] == name], train & (tissue == name)
            part = Y[here]
            n = np.isfinite(part).sum(axis=0)
            mean = np.nansum(part, axis=0) / np.maximum(n, 1)
            out[rows] = np.where((n >= 3) & (name != ""), mean, general)
    return np.where(np.isfinite(Y), out, np.nan)


def median_r(said: np.ndarray, truth: np.ndarray) -> float:
    found = []
    for a, b in zip(said.T, truth.T):
        both = np.isfinite(a) & np.isfinite(b)
        if np.std(a[both]) > 0:
            found.append(np.corrcoef(a[both], b[both])[0, 1])
    return float(np.median(found))


def markdown(rows: list[dict]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    return "\n".join(lines + ["| " + " | ".join(str(row.get(c, "-")) for c in columns) + " |" for row in rows])
