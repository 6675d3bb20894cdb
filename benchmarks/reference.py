"""What do reference models know about lines that they have not seen? Writes docs/benchmarks/reference.md.

    python benchmarks/reference.py DIRECTORY [--out docs/benchmarks/reference.md]

DIRECTORY holds the public data: `bulk/`, `bulk2/` and the labeled sets. Without it, `SC_DRUGRESP_DATA` is read.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

# A neighbor of this file, coverage.py, must not be taken for the package of that name.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
sys.path.append(str(Path(__file__).resolve().parents[1]))

import anndata as ad
import numpy as np
import pandas as pd
from benchmarks._page import publish, tables_in

import sc_drugresp as sdr
from sc_drugresp._data.counts import read_counts
from sc_drugresp._reference.chance import below, interval, probability
from sc_drugresp._reference.clones import combine_clones, rank_pairs
from sc_drugresp._reference.expression import within
from sc_drugresp._reference.pseudobulk import pseudobulk
from sc_drugresp._reference.rank import answer_groups, ranking_table
from sc_drugresp._reference.tables import response_table
from sc_drugresp.names import line_key, lineage_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def neighbor(name: str) -> ModuleType:
    """Another file of this folder, which must not be on the path of modules."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = neighbor("_reference_bulk")
markdown, rows_mean, span, spearman = tables.markdown, tables.rows_mean, tables.span, tables.spearman
PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "reference.md"
MIXTURES = 150
SHIFTED = "reference, shift without the line"


# --------------------------------------------------------------------------------------- (b) single cells of known lines


@dataclass
class Lines:
    """Predictions for lines of known response by a reference that has seen none of them nor their relatives."""

    reference: sdr.models.Reference
    names: list[str]
    truth: np.ndarray
    response: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    """Quantiles of errors by prediction, shape `(n_lines or 1, n_drugs, 101)`."""

    @property
    def z_truth(self) -> np.ndarray:
        return self.reference.z(self.truth)

    @property
    def sensitive(self) -> np.ndarray:
        """1 or 0, NaN where nothing was measured."""
        limit = self.reference.drugs["sensitive_below"].to_numpy()
        return np.where(np.isfinite(self.truth), self.truth < limit, np.nan)

    def each(self, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Response and errors of every line."""
        errors = np.broadcast_to(self.errors[name], (len(self.names), *self.errors[name].shape[1:]))
        return list(zip(self.response[name], errors))

    def share(self, name: str) -> np.ndarray:
        """Share of errors that would make the line sensitive."""
        limit = self.reference.drugs["sensitive_below"].to_numpy()
        found = np.vstack([below(np.nan_to_num(row)[None], errors, limit) for row, errors in self.each(name)])
        return np.where(np.isfinite(self.response[name]), found, np.nan)

    def prob(self, name: str) -> np.ndarray:
        return probability(self.share(name), self.reference.recalibration)

    def covered(self, name: str) -> np.ndarray:
        """Whether the 90 % interval holds the truth, NaN where there is none."""
        limits = [interval(row[None], errors) for row, errors in self.each(name)]
        low, high = (np.vstack(side) for side in zip(*limits))
        there = np.isfinite(self.truth) & np.isfinite(self.response[name])
        return np.where(there, (self.truth >= low) & (self.truth <= high), np.nan)


def known_lines(
    data: tables.Data, cells: ad.AnnData, screen: str, expression: pd.DataFrame, lineage: str, others=None
) -> Lines:
    names = sorted(cells.obs["cell_line"].astype(str).unique())
    reference = sdr.models.build_reference(
        screen, expression=expression, response=data.screens[screen], tissue=data.tissue, exclude_lines=names
    )
    codes = np.array([names.index(name) for name in cells.obs["cell_line"].astype(str)])
    bulk = pseudobulk(read_counts(cells, expect="any"), reference.genes, codes, len(names))
    table = response_table(data.screens[screen]).reindex(
        index=[line_key(name) for name in names], columns=reference.drugs.index
    )

    def said(model, chemistry=None):
        return answer_groups(model, bulk, names, chemistry=chemistry).z * spread + mean

    spread, mean = reference.drugs["spread"].to_numpy(), reference.drugs["mean"].to_numpy()
    response = {"no alignment": said(reference)}
    rows, errors = [], []
    for i, name in enumerate(names):
        shift = sdr.models.platform_shift(
            cells if others is None else others,
            "cell_line",
            chemistry="own",
            expression=expression,
            reference=reference,
            exclude_lines=[name],
        )
        rows.append(said(reference.with_shift(shift), "own")[i])
        errors.append(reference.errors_on(shift))
    response = {SHIFTED: np.array(rows)} | response
    values = np.log2(bulk.counts / bulk.totals[:, None] * 1e6 + 1)
    centered = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-9)
    response["cohort centered on itself"] = reference.predict(centered)
    column = reference.lineages.index(lineage)
    response["tissue mean"] = np.tile(reference.tissue_means[:, column], (len(names), 1)).astype(float)
    present = [line_key(name) in expression.index for name in names]
    profiles = within(
        expression.loc[[line_key(n) for n, there in zip(names, present) if there], reference.genes].to_numpy(float)
    )
    response["bulk profile of the line itself"] = np.full(table.shape, np.nan)
    response["bulk profile of the line itself"][present] = reference.predict(
        (profiles - reference.mean) / reference.spread
    )
    plain = dict.fromkeys(response, reference.errors[None])
    return Lines(reference, names, table.to_numpy(), response, plain | {SHIFTED: np.array(errors)})


def line_rows(lines: Lines) -> list[dict]:
    reference, truth, z, sensitive = lines.reference, lines.truth, lines.z_truth, lines.sensitive
    good = reference.drugs["r"].to_numpy() >= 0.3
    out = []
    for name, response in lines.response.items():
        said, share, covered = reference.z(response), lines.prob(name), lines.covered(name)
        across = np.array([spearman(a, b) for a, b in zip(response.T, truth.T)])
        out.append(
            {
                "prediction": name,
                "within line": span(rows_mean(said, z)),
                "within line, drugs with r >= 0.3": span(rows_mean(said[:, good], z[:, good])),
                "across lines, r >= 0.3": f"{np.nanmedian(across[good]):.3f}" if np.isfinite(across).any() else "0",
                "ECE": over_lines(lambda rows, share=share: ece(share[rows], sensitive[rows]), len(truth)),
                "Brier": f"{np.nanmean(np.square(share - sensitive)):.3f}",
                "coverage of the 90 % interval": over_lines(lambda rows, c=covered: np.nanmean(c[rows]), len(truth)),
            }
        )
    gains = [
        [rows_mean(reference.z(lines.response[n])[:, k], z[:, k]) for n in (SHIFTED, "tissue mean")]
        for k in (slice(None), good)
    ]
    columns = ("within line", "within line, drugs with r >= 0.3")
    out.append({"prediction": "gain over the tissue mean"} | {c: span(a - b) for c, (a, b) in zip(columns, gains)})
    return out


def over_lines(score: Callable[[np.ndarray], float], n: int) -> str:
    """A score over all pairs, with a 95 % interval over resampled lines: errors of one line go together."""
    draws = np.random.default_rng(0).integers(0, n, (500, n))
    found = np.array([score(rows) for rows in draws])
    return f"{score(np.arange(n)):.3f} [{np.nanquantile(found, 0.025):.3f}, {np.nanquantile(found, 0.975):.3f}]"


def ece(share: np.ndarray, seen: np.ndarray, n_bins: int = 10) -> float:
    both = np.isfinite(share) & np.isfinite(seen)
    share, seen = share[both], seen[both]
    bins = np.minimum((share * n_bins).astype(int), n_bins - 1)
    return sum((bins == k).mean() * abs(share[bins == k].mean() - seen[bins == k].mean()) for k in set(bins))


def calibration_rows(lines: Lines) -> list[dict]:
    seen, n = lines.sensitive, len(lines.names)
    out = []
    for low, high in ((0, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 1.01)):
        row = {"said": f"{low}-{min(high, 1)}"}
        for name, share in (("share of errors", lines.share(SHIFTED)), ("P(sensitive)", lines.prob(SHIFTED))):
            here = (share >= low) & (share < high) & np.isfinite(seen)
            hit = np.where(here, seen, np.nan)
            row |= {
                f"{name}: pairs": int(here.sum()),
                f"{name}: lines": int(here.any(axis=1).sum()),
                f"{name}: mean": f"{share[here].mean():.2f}" if here.any() else "-",
                f"{name}: sensitive": over_lines(lambda rows, hit=hit: mean_of(hit[rows]), n) if here.any() else "-",
            }
        out.append(row)
    return out


def mean_of(values: np.ndarray) -> float:
    """NaN for no value."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else np.nan


# ------------------------------------------------------------------------------------------------- (c) the labeled sets


def labeled_rows(data: tables.Data, reference: sdr.models.Reference) -> list[dict]:
    out = []
    for name, key, cancer in (
        ("GSE118767", "cell_line", "lung"),
        ("GSE149214", "sample", "lung"),
        ("GSE120575", "patient", "skin"),
        ("GSE173634", "cell_line", "breast"),
    ):
        cells = data.cells(name)
        codes, groups = pd.factorize(cells.obs[key].astype(str), sort=True)
        bulk = pseudobulk(read_counts(cells, expect="any"), reference.genes, codes, len(groups))
        answers = answer_groups(reference, bulk, list(groups), chemistry="dropseq", lineages=[cancer] * len(groups))
        reasons = [reason for reason in answers.reasons if reason]
        row = {"data": name, "groups": len(groups), "stated": cancer, "genes of the model": f"{bulk.seen.mean():.0%}"}
        row |= {"abstentions": len(reasons), "for the lineage": sum("lineage" in reason for reason in reasons)}
        row["treated programs"] = sum(text != "" for text in answers.programs)
        row["first reason"] = reasons[0] if reasons else "-"
        out.append(row)
    return out


def lung_rows(data: tables.Data, shifts_from: ad.AnnData) -> list[dict]:
    cells = data.cells("GSE118767")
    names = sorted(cells.obs["cell_line"].astype(str).unique())
    reference = sdr.models.build_reference(
        "GDSC2", expression=data.array, response=data.screens["GDSC2"], tissue=data.tissue, exclude_lines=names
    )
    reference = reference.with_shift(
        sdr.models.platform_shift(
            shifts_from, "cell_line", chemistry="dropseq", expression=data.array, reference=reference
        )
    )
    codes = np.array([names.index(name) for name in cells.obs["cell_line"].astype(str)])
    bulk = pseudobulk(read_counts(cells), reference.genes, codes, len(names))
    table = ranking_table(
        reference, answer_groups(reference, bulk, names, chemistry="dropseq", lineages=["lung"] * len(names))
    )
    table = table[table["drug"] == reference.match("afatinib")].set_index("group")
    label = cells.obs.groupby("cell_line", observed=True)["response"].first().astype(str)
    return [
        {"line": line, "label": label[line]}
        | {c: f"{table.loc[line, c]:.2f}" for c in ("z", "P", "low", "high", "tissue_mean_z")}
        for line in table["z"].sort_values().index
    ]


# ------------------------------------------------------------------------------------------- (d) simulated clone mixtures


def mixture_rows(lines: Lines) -> tuple[list[dict], list[dict]]:
    z, truth = lines.reference.z(lines.response[SHIFTED]), lines.z_truth
    measured = np.flatnonzero(np.isfinite(truth).sum(axis=1) >= 100)
    rng, singles, pairs = np.random.default_rng(0), [], []
    for _ in range(MIXTURES):
        chosen = rng.choice(measured, 3, replace=False)
        n_cells = np.maximum(rng.multinomial(300, rng.dirichlet(np.ones(3) * 2)), 15)
        drugs = np.flatnonzero(np.isfinite(truth[chosen]).all(axis=0) & (lines.reference.drugs["r"].to_numpy() >= 0.3))
        said, real = z[np.ix_(chosen, drugs)], truth[np.ix_(chosen, drugs)]
        mean, shrunk, _ = combine_clones(said, n_cells)
        true_mean, true_worst = n_cells / n_cells.sum() @ real, real.max(axis=0)
        worst = said.max(axis=0)
        singles.append(
            {
                (score, target): spearman(value, goal)
                for score, value in (("mean", mean), ("worst clone", worst), ("worst clone, shrunk", shrunk))
                for target, goal in (("true mean", true_mean), ("true worst clone", true_worst))
            }
            | {
                ("bias of the worst clone", ""): (worst - true_worst).mean(),
                ("of the shrunk one", ""): (shrunk - true_worst).mean(),
            }
        )
        best = rank_pairs(said, n_cells, list(range(len(drugs))), n_pairs=1).iloc[0]
        top = np.argsort(mean)[:2]
        random = rng.choice(len(drugs), 2, replace=False)
        for kind, pair in (
            ("pair by clone coverage", [best["drug_1"], best["drug_2"]]),
            ("two best singles", top),
            ("two drugs at random", random),
        ):
            covered = real[:, pair].min(axis=1)
            pairs.append({"choice": kind, "worst clone": covered.max(), "mean": n_cells / n_cells.sum() @ covered})
    table = pd.DataFrame(singles).mean()
    rows = [
        {
            "score": score,
            "rank correlation with the true mean": f"{table[score, 'true mean']:.3f}",
            "with the true worst clone": f"{table[score, 'true worst clone']:.3f}",
        }
        for score in ("mean", "worst clone", "worst clone, shrunk")
    ]
    rows[1]["bias against the true worst clone (z)"] = f"{table['bias of the worst clone', '']:.2f}"
    rows[2]["bias against the true worst clone (z)"] = f"{table['of the shrunk one', '']:.2f}"
    found = pd.DataFrame(pairs).groupby("choice", sort=False).mean()
    return rows, [
        {"choice": kind} | {f"true z, {c}": f"{v:.2f}" for c, v in row.items()} for kind, row in found.iterrows()
    ]


# ---------------------------------------------------------------------------------------------------------------- costs


def cost_rows(data: tables.Data) -> tuple[list[dict], sdr.models.Reference]:
    start = time.process_time()
    reference = sdr.models.build_reference(
        "GDSC2", expression=data.array, response=data.screens["GDSC2"], tissue=data.tissue
    )
    build, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    reference = reference.with_shift(
        sdr.models.platform_shift(
            data.cells("GSE173634"), "cell_line", chemistry="dropseq", expression=data.array, reference=reference
        )
    )
    cells = data.cells("GSE173634")
    many = ad.concat([cells] * (50_000 // cells.n_obs + 1), index_unique="-")[:50_000].copy()
    start = time.process_time()
    bulk = pseudobulk(read_counts(many), reference.genes, np.arange(50_000) % 20, 20)
    answers = answer_groups(reference, bulk, [str(i) for i in range(20)], chemistry="dropseq", lineages=["breast"] * 20)
    ranking_table(reference, answers)
    rank = time.process_time() - start
    shape = f"{len(reference.lines)} lines, {len(reference.genes):,} genes, {len(reference.drugs)} drugs"
    return [
        {
            "step": f"build GDSC2 ({shape}) with held-out errors",
            "CPU seconds": f"{build:.1f}",
            "peak memory, GB": f"{peak:.1f}",
        },
        {"step": "rank all drugs for 20 clusters of 50,000 cells, from counts", "CPU seconds": f"{rank:.1f}"},
    ], reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=os.environ.get("SC_DRUGRESP_DATA"))
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument(
        "--lines", type=Path, help="cells of other lines (`.obs['cell_line']`): print their tables alone"
    )
    parser.add_argument("--cancer", default="breast", help="tissue of those lines")
    parser.add_argument(
        "--chemistry", choices=("dropseq",), help="measure the shift in GSE173634, not in their own lines"
    )
    arguments = parser.parse_args()
    data = tables.Data(Path(arguments.folder))
    breast = data.cells("GSE173634")
    if arguments.lines is not None:
        others = breast if arguments.chemistry else None
        found = known_lines(
            data, ad.read_h5ad(arguments.lines), "GDSC2", data.array, lineage_of(arguments.cancer), others
        )
        print(markdown(line_rows(found)), markdown(calibration_rows(found)), sep="\n\n")
        return
    costs, whole = cost_rows(data)
    lines = known_lines(data, breast, "GDSC2", data.array, "breast")
    small = known_lines(data, breast, "CTRPv2", data.rna, "breast")
    mixtures, pairs = mixture_rows(lines)
    found = {
        "bulk": tables.bulk_rows(data),
        "breast": line_rows(lines),
        "calibration": calibration_rows(lines),
        "default": line_rows(small),
        "labeled": labeled_rows(data, whole),
        "lung": lung_rows(data, breast),
        "mixtures": mixtures,
        "pairs": pairs,
        "costs": costs,
    }
    text = (Path(__file__).parent / "_reference_page.md").read_text(encoding="utf-8")
    for name, rows in found.items():
        text = text.replace(f"{{{name}}}", markdown(rows))
    publish(arguments.out, text, tables_in(text))
    print(text)


if __name__ == "__main__":
    main()
