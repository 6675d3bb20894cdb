"""Which head for which signal? Simulated patients, and two labeled studies; writes docs/benchmarks/heads.md.

    python benchmarks/heads.py [DIRECTORY]    # all repeats; the studies where their folder is named
    python benchmarks/heads.py --quick        # a few repeats, to see that it runs

Without DIRECTORY, `SC_DRUGRESP_DATA` is read; without either, the studies are left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

# A neighbor of this file, coverage.py, must not be taken for the package of that name.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
sys.path.append(str(Path(__file__).resolve().parents[1]))

import anndata as ad
import numpy as np
from benchmarks._page import publish, tables_in
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from sc_drugresp._data.obs import read_groups, read_labels
from sc_drugresp._response import fit
from sc_drugresp._response.cells import strict_folds
from sc_drugresp._response.choose import Matrices, choose_features
from sc_drugresp._response.crossfit import cross_validate
from sc_drugresp._response.features import FixedFeatures
from sc_drugresp._response.fitters import fit_setting
from sc_drugresp._response.recipe import Recipe
from sc_drugresp._response.selection import concordance

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "heads.md"
HEADS = ("logistic", "pseudobulk_lda", "mil", "auto")
STUDIES = ("GSE120575_melanoma_ICB_partA", "GSE118767_lung5_afatinib_celseq2")
GENES, FACTORS, CELLS, N_NEW, DIM = 300, 8, 40, 60, 50
SIGNALS = {
    "all cells": {"share": 1.0, "effect": 0.35},
    "20 % of cells, in sensitive patients": {"share": 0.2, "effect": 1.2},
    "20 % of cells, in resistant patients": {"share": 0.2, "effect": 1.2, "sign": -1},
    "none": {"effect": 0.0},
}
Rows = list[dict[str, object]]


class World:
    """Genes that cells, patients and the response move together; the same for the patients of a study and new ones."""

    def __init__(self, rng: np.random.Generator, *, few_directions: bool) -> None:
        self.programs = 0.5 * rng.normal(size=(FACTORS, GENES))
        self.shared = 0.5 * rng.normal(size=(6, GENES)) if few_directions else np.zeros((1, GENES))
        self.own = 0.12 if few_directions else 0.3
        self.response = np.zeros(GENES)
        self.response[rng.choice(GENES, 30, replace=False)] = rng.choice([-1, 1], 30)

    def patients(
        self, n: int, rng: np.random.Generator, *, effect: float, share: float = 1.0, sign: int = 1
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log expression, label and patient of the cells of `n` patients, half of them sensitive."""
        label = np.arange(n) % 2
        groups = np.repeat(np.arange(n), rng.integers(CELLS // 2, CELLS * 3 // 2, n))
        center = rng.normal(size=(n, len(self.shared))) @ self.shared + self.own * rng.normal(size=(n, GENES))
        usage = rng.normal(size=(len(groups), FACTORS)) + 0.5 * rng.normal(size=(n, FACTORS))[groups]
        x = usage @ self.programs + center[groups] + rng.normal(size=(len(groups), GENES))
        moved = (label[groups] == (sign > 0)) & (rng.random(len(groups)) < share)
        return x + effect * np.outer(moved, self.response), label[groups], groups


def seeds(n: int, *label: int) -> Iterator[np.random.Generator]:
    for child in np.random.SeedSequence([2026, *label]).spawn(n):
        yield np.random.default_rng(child)


def shown(values: Sequence[float]) -> str:
    """Mean with its standard error, and the SD over repeats."""
    v = np.asarray(values, dtype=float)
    return f"{v.mean():.2f} ± {v.std(ddof=1) / np.sqrt(len(v)):.2f} (SD {v.std(ddof=1):.2f})"


def simulate(
    n: int, rng: np.random.Generator, signal: str, *, few_directions: bool, heads: Sequence[str], nested: bool = False
) -> tuple[dict[str, float], dict[str, object]]:
    """AUROC over 60 new patients of each head that was trained on `n`, and how `auto` chose if it is `nested`."""
    world = World(rng, few_directions=few_directions)
    x, y, groups = world.patients(n, rng, **SIGNALS[signal])
    x_new, _, groups_new = world.patients(N_NEW, rng, **SIGNALS[signal])
    pca = PCA(DIM, random_state=0).fit(x)
    values, new = pca.transform(x), pca.transform(x_new)
    truth = np.arange(N_NEW) % 2
    found, selection = {}, {}
    for head in heads:
        if nested and head == "auto":
            out = cross_validate(FixedFeatures("pca", values), y, groups, strict_folds(y, groups, rng=0), head=head)
            model, selection = fit_setting(out.setting, values, y, groups), out.selection
        else:
            model = fit.fit_head(head, values, y, groups)
        found[head] = roc_auc_score(truth, model.sample_logit(new, groups_new)[1])
    return found, selection


def heads_table(n: int) -> Rows:
    rows: Rows = []
    for few, signal in (*((True, signal) for signal in SIGNALS), (False, "all cells"), (False, "none")):
        label = (list(SIGNALS).index(signal), int(few))
        runs = [
            # The nested choice costs eight times as much as the choice.
            simulate(16, rng, signal, few_directions=few, heads=HEADS, nested=4 * k < n)
            for k, rng in enumerate(seeds(n, *label))
        ]
        row: dict[str, object] = {"patients differ": "along 6 directions" if few else "in every gene", "signal": signal}
        row |= {head: shown([found[head] for found, _ in runs]) for head in HEADS}
        nested = [chosen for _, chosen in runs if chosen]
        kinds = [str(chosen["head"]) for chosen in nested]
        row["nested choices of `auto`"] = ", ".join(f"{kind} {kinds.count(kind)}" for kind in HEADS if kind in kinds)
        rows.append(row | {"their optimism": shown([float(chosen["optimism"]) for chosen in nested])})
        print(rows[-1], flush=True)
    return rows


def threshold_table(n: int) -> Rows:
    """What choosing gains over logistic regression, by number of patients, where nothing stops it from choosing."""
    rows: Rows = []
    with patch.object(fit, "MIN_FOR_AUTO", 3):
        for n_patients in (8, 12, 16, 24):
            row: dict[str, object] = {"patients": n_patients}
            for i, signal in enumerate(SIGNALS):
                runs = [
                    simulate(n_patients, rng, signal, few_directions=bool(k % 2), heads=("logistic", "auto"))[0]
                    for k, rng in enumerate(seeds(n, 100, i, n_patients))
                ]
                row[signal] = shown([found["auto"] - found["logistic"] for found in runs])
            rows.append(row)
            print(row, flush=True)
    return rows


def penalty_table(n: int) -> Rows:
    """AUROC of held-out patients when scores of all folds are ranked together, and when only within each fold."""
    rows: Rows = []
    for i, signal in enumerate(("all cells", "none")):
        found: dict[str, list[float]] = {"apart": [], "once": [], "within folds": []}
        for rng in seeds(n, 200, i):
            x, y, groups = World(rng, few_directions=True).patients(16, rng, **SIGNALS[signal])
            features = FixedFeatures("pca", PCA(DIM, random_state=0).fit_transform(x))
            folds = strict_folds(y, groups, rng=0)
            once = cross_validate(features, y, groups, folds)
            parts = [cross_validate(features, y, groups, [fold]) for fold in folds]
            scores = [(np.flatnonzero(np.isfinite(p.sample_logit)), p.sample_logit) for p in parts]
            apart = np.nanmean([p.sample_logit for p in parts], axis=0)
            truth = np.arange(16) % 2
            found["apart"].append(roc_auc_score(truth, apart))
            found["once"].append(roc_auc_score(truth, once.sample_logit))
            found["within folds"].append(concordance([(where, s[where]) for where, s in scores], truth))
        names = {
            "apart": "penalty of each fold, ranked together",
            "once": "one penalty, ranked together",
            "within folds": "penalty of each fold, ranked within folds",
        }
        rows.append({"signal": signal} | {names[key]: shown(values) for key, values in found.items()})
        print(rows[-1], flush=True)
    return rows


def study_table(directory: Path, n: int) -> Rows:
    """AUROC of held-out samples of two studies, over pairings."""
    rows: Rows = []
    for name in STUDIES:
        adata = ad.read_h5ad(directory / f"{name}.h5ad")
        y = read_labels(adata.obs, "response")
        kept = np.flatnonzero(y >= 0)
        y, groups = y[kept].astype(np.int64), read_groups(adata.obs, None)[1][kept]
        features = choose_features(adata, Matrices(adata, kept), use_rep=None, recipe=Recipe("pca"))
        codes = np.unique(groups, return_inverse=True)[1]
        share = np.bincount(codes, y) / np.bincount(codes)
        pure = (share == 0) | (share == 1)
        for head in HEADS:
            found, kinds = [], []
            for rng in range(n):
                out = cross_validate(features, y, groups, strict_folds(y, groups, rng=rng), head=head, rng=rng)
                usable = pure & np.isfinite(out.sample_logit)
                found.append(roc_auc_score(share[usable] == 1, out.sample_logit[usable]))
                kinds.append(out.selection["head"])
            v = np.array(found)
            rows.append(
                {
                    "study": name.split("_")[0],
                    "samples": f"{int((share[pure] == 1).sum())} sensitive, {int((share[pure] == 0).sum())} resistant",
                    "head": head,
                    "AUROC by sample": f"{v.mean():.2f} (SD {v.std(ddof=1):.2f}, {v.min():.2f} to {v.max():.2f})",
                    "chosen": ", ".join(f"{kind} {kinds.count(kind)}" for kind in dict.fromkeys(kinds)),
                }
            )
            print(rows[-1], flush=True)
    return rows


def markdown(rows: Rows) -> str:
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return "\n".join([*lines, *(f"| {' | '.join(str(row[name]) for name in names)} |" for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=os.environ.get("SC_DRUGRESP_DATA"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    n, half = (8, 4) if arguments.quick else (50, 24)
    start = time.perf_counter()
    warnings.simplefilter("ignore", UserWarning)
    tables = {
        "heads": markdown(heads_table(n)),
        "threshold": markdown(threshold_table(half)),
        "penalty": markdown(penalty_table(n)),
    }
    pairings = 2 if arguments.quick else 3
    studies = study_table(Path(arguments.directory), pairings) if arguments.directory else []
    print(f"{time.perf_counter() - start:.0f} s")
    text = PAGE.format(
        n=n, half=half, pairings=pairings, **tables, studies=markdown(studies) if studies else "Not run."
    )
    publish(arguments.out, text, tables_in(text))


PAGE = """# Heads

`python benchmarks/heads.py DIRECTORY` writes this page.

## New patients, simulated

16 patients, 8 of them sensitive, 20 to 60 cells each, 300 genes, 50 principal components; AUROC over 60 new patients,
mean ± standard error over {n} repeats. Cells share 8 programs; patients differ either along six strong directions, as by
sex, tissue or batch, or a little in every gene. `auto` chooses by cross-validation over patients. In a quarter of the repeats
the choice is nested: its optimism is the AUROC that it had inside the training samples minus that of the nested choices on
held-out patients.

{heads}

The heads see different things. Where patients differ along a few strong directions and the signal is in all cells,
`pseudobulk_lda` learns these directions from the patients and looks past them; where patients differ in every gene, 16
patients do not tell it what to look past, and logistic regression is better. Where a fifth of the cells carries the signal,
`mil` finds it, on either side. No head finds anything where there is nothing.

## Is there enough to choose?

AUROC on new patients of `auto` minus that of `logistic`, where `auto` may choose with any number of patients ({half} repeats,
half with each kind of difference between patients).

{threshold}

With 4 patients of each class choosing gains as much as it loses, with 6 it pays. So below 6 of each class `auto` does not
choose and is `logistic`, with a warning.

## One penalty

AUROC of held-out patients, 16 patients that differ along six directions, {n} repeats. A penalty of its own for each fold
gives each fold a scale of its own; ranked together, the scores are worth less than the heads are. Without signal, choosing
one penalty for all folds, to which each patient contributes through the other folds, does not raise the score.

{penalty}

## Studies

AUROC of held-out samples, mean over {pairings} pairings of sensitive and resistant samples (SD and range of the pairings, not of
patients).

{studies}

This is weak evidence. With 13 patients (those with one label) the standard error of one AUROC is about 0.12, larger than the
differences between heads; another evaluation, of all 19 patients, found 0.81 and 0.64 to 0.78 for the two new heads against
0.72 for logistic regression. The lung study has five cell lines: folds learn from three of them, and there is nothing to be
learned about how lines differ. Neither study can tell which head is best.
"""


if __name__ == "__main__":
    main()
