"""Do the stated error levels hold? Simulations in which the truth is known; writes docs/benchmarks/coverage.md.

python benchmarks/coverage.py            # all seeds
python benchmarks/coverage.py --quick    # a tenth of them, to see that it runs
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path

# A neighbor of this file, coverage.py, must not be taken for the package of that name; others are found from the folder above.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
sys.path.append(str(Path(__file__).resolve().parents[1]))

import numpy as np
from benchmarks._calls import depth_flags, error_among_calls, prevalence_intervals
from benchmarks._page import publish, tables_in
from benchmarks._simulation import Table, earlier, embeddings, markdown, rate, scores, seeds
from scipy.special import expit
from scipy.stats import kstest, norm

from sc_drugresp._design.split import choose_split
from sc_drugresp._evaluate.state import state_control
from sc_drugresp._response.cells import strict_folds
from sc_drugresp._response.crossfit import cross_validate, mean_of
from sc_drugresp._response.features import FixedFeatures
from sc_drugresp._response.fitters import HeadSetting, fit_setting
from sc_drugresp._stats.auroc import clustered_auroc, hanley_mcneil
from sc_drugresp._stats.calibration import fit_calibration
from sc_drugresp._stats.conformal import fit_conformal
from sc_drugresp._stats.folds import Fold, leave_group_out, repeated
from sc_drugresp._stats.groups import equal_weights, weighted_quantile
from sc_drugresp._stats.metrics import GroupSums
from sc_drugresp._stats.permutation import permutation_test

OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "coverage.md"


def guaranteed(z: np.ndarray, y: np.ndarray, groups: np.ndarray, alpha: float = 0.1) -> np.ndarray | None:
    """Thresholds with a finite-sample guarantee over groups (Lee, Barber & Willett, arXiv:2306.06342).

    Every group has mass one, and one more, that of the unseen group, lies at infinity. `None` where that alone exceeds
    `alpha`. With one cell per group it is the usual split conformal prediction.
    """
    limits = []
    for sign, kind in ((-1, 1), (1, 0)):
        scores, codes = sign * z[y == kind], np.unique(groups[y == kind], return_inverse=True)[1]
        if (codes.max() + 2) * alpha < 1 - 1e-9:
            return None
        mass = np.append(equal_weights(codes), 1.0)
        limits.append(sign * weighted_quantile(np.append(scores, np.inf), mass, 1 - alpha))
    return np.array(limits)


def sets_of(limits: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.column_stack([z >= limits[0], z <= limits[1]])


def pooled(z: np.ndarray, y: np.ndarray, groups: np.ndarray) -> np.ndarray | None:
    """The thresholds of the package at the stated level; `None` where a class has too few samples."""
    fitted = fit_conformal(z, y, groups, informative=False)  # without calls, at the level itself
    return fitted.thresholds if np.isfinite(fitted.thresholds).all() else None


def conformal_scores(n: int) -> Table:
    """Coverage is exact for each draw: the normal distribution function at the thresholds."""
    rows: Table = []
    for between in (0.5, 1.0):
        for n_samples in (8, 16, 32, 64):
            found: dict[bool, list[float]] = {False: [], True: []}
            for rng in seeds(n, n_samples):
                data = scores(n_samples, rng, between=between)
                for guarantee in found:
                    limits = guaranteed(*data) if guarantee else pooled(*data)
                    if limits is not None:
                        (low, high), sd = limits, np.sqrt(1 + between**2)
                        found[guarantee].append((norm.sf(low, 1, sd) + norm.cdf(high, -1, sd)) / 2)
            row: dict[str, object] = {"spread between samples": between, "samples": n_samples}
            for guarantee, name in ((False, "pooled"), (True, "guarantee")):
                values = found[guarantee]
                row[name] = rate(values) if values else "refused"
                row[f"{name}, worst tenth of runs"] = f"{np.quantile(values, 0.1):.3f}" if values else "-"
            rows.append(row)
    return rows


def conformal_pipeline(n: int) -> Table:
    """The whole way: cross-fitted head, thresholds, final head, cells of 100 new samples."""
    rows: Table = []
    for n_samples in (16, 32, 64):
        found: dict[str, list[tuple[float, float, float]]] = {"pooled": [], "guarantee": [], "cells": []}
        for rng in seeds(n, 100 + n_samples):
            X, y, groups = embeddings(n_samples, rng)
            X_new, y_new, _ = embeddings(100, rng, cells=20)
            out = cross_validate(FixedFeatures("x", X), y, groups, strict_folds(y, groups, rng=0), tune=False)
            held = np.isfinite(out.logit)
            final = fit_setting(out.setting, X, y, groups, rng=0)
            data = out.logit[held], y[held], groups[held]
            for name, limits in (("pooled", pooled(*data)), ("guarantee", guaranteed(*data))):
                if limits is not None:
                    found[name].append(check(sets_of(limits, final.logit(X_new)), y_new))
            # What is usually done: thresholds from held-back cells of the samples that the head was fitted on.
            kept = rng.random(len(y)) < 0.7
            naive = fit_setting(out.setting, X[kept], y[kept], groups[kept], rng=0)
            limits = guaranteed(naive.logit(X[~kept]), y[~kept], np.arange(int((~kept).sum())))
            found["cells"].append(check(sets_of(limits, naive.logit(X_new)), y_new))
        for name, values in found.items():
            parts = np.array(values).T if values else None
            rows.append(
                {
                    "samples": n_samples,
                    "mode": name,
                    "coverage of new samples": rate(parts[0]) if parts is not None else "refused",
                    "cells called": f"{parts[1].mean():.2f}" if parts is not None else "-",
                    "error among called": f"{np.nanmean(parts[2]):.2f}" if parts is not None else "-",
                }
            )
    return rows


def check(sets: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    true = sets[np.arange(len(y)), 1 - y]
    single = sets.sum(axis=1) == 1
    return true.mean(), single.mean(), (single & ~true).sum() / single.sum() if single.any() else np.nan


def probability_limits(n: int) -> Table:
    rows: Table = []
    for n_samples in (8, 16, 32):
        inside, error = [], []
        at = np.array([-2.0, 0.0, 2.0])
        truth = expit(2.0 / (1 + 0.7**2) * at)
        for rng in seeds(n, 200 + n_samples):
            fitted = fit_calibration(*scores(n_samples, rng, between=0.7), n_boot=50, rng=rng)
            low, high = fitted.interval(at)
            inside.append((low <= truth) & (truth <= high))
            error.append(np.abs(fitted.probability(at) - truth))
        row: dict[str, object] = {"samples": n_samples}
        for i, z in enumerate(at):
            row[f"coverage at logit {z:g}"] = rate(np.array(inside)[:, i])
        rows.append(row | {"mean error of P": f"{np.mean(error):.3f}"})
    return rows


def auroc_intervals(n: int) -> Table:
    rows: Table = []
    for gap in (0.0, 1.5):
        for n_samples in (8, 16, 32):
            by_sample, by_cell, width = [], [], []
            truth = norm.cdf(gap / np.sqrt(2 * (1 + 0.7**2)))
            for rng in seeds(n, 300 + n_samples):
                z, y, groups = scores(n_samples, rng, between=0.7, gap=gap)
                interval = clustered_auroc(GroupSums(y, expit(z), groups)).interval()
                by_sample.append(truth in interval)
                width.append(interval.high - interval.low)
                half = 1.96 * np.sqrt(hanley_mcneil(interval.value, int(y.sum()), int((1 - y).sum())))
                by_cell.append(abs(interval.value - truth) <= half)
            rows.append(
                {
                    "true AUROC": f"{truth:.2f}",
                    "samples": n_samples,
                    "coverage": rate(by_sample),
                    "width": f"{np.mean(width):.2f}",
                    "coverage if cells were independent": rate(by_cell),
                }
            )
    return rows


def cross_validated_intervals(n: int) -> Table:
    """The truth is exact: the AUROC of a linear head between two normal classes."""
    rows: Table = []
    dim, between, pairings = 16, 0.6, 5
    for gap in (0.8, 1.6):
        for n_samples in (8, 16, 24, 40):
            aurocs, finals = [], []
            for rng in seeds(n, 800 + n_samples):
                X, y, groups = embeddings(n_samples, rng, dim=dim, between=between, gap=gap)
                make = partial(leave_group_out, y, groups)
                outs = [
                    cross_validate(FixedFeatures("x", X), y, groups, folds, tune=False)
                    for folds in repeated(make, pairings)
                ]
                aurocs.append(clustered_auroc(GroupSums(y, mean_of(outs).prob, groups)))
                head = fit_setting(HeadSetting(), X, y, groups)
                w = head.coef / head.scale
                finals.append(norm.cdf(w[0] * gap / np.linalg.norm(w) / np.sqrt(2 * (1 + between**2))))
            row: dict[str, object] = {"mean AUROC of final models": f"{np.mean(finals):.2f}", "samples": n_samples}
            row["mean estimate"] = f"{np.mean([auroc.value for auroc in aurocs]):.2f}"
            for name, learned in (("as it is", True), ("samples alone", False)):
                found = [auroc.interval(cross_validated=learned) for auroc in aurocs]
                row[f"{name}: covers the mean of final models"] = rate([float(np.mean(finals)) in i for i in found])
                row[f"{name}: covers the own final model"] = rate([f in i for f, i in zip(finals, found)])
            rows.append(row)
    return rows


def null_p_values(n: int) -> Table:
    rows: Table = []
    for n_samples in (8, 16, 32):
        found = []
        for rng in seeds(n, 400 + n_samples):
            z, y, groups = scores(n_samples, rng, between=0.7, gap=0.0, cells=20)
            test = permutation_test(y, z, groups, n_permutations=199, rng=rng)
            steps = len(test.null) if test.exact else len(test.null) + 1
            # A p-value has steps; spreading each over its step makes the null distribution exactly uniform.
            found.append((test.p_value, test.p_value - rng.random() / steps))
        p, spread = np.array(found).T
        ks = kstest(spread, "uniform")
        rows.append(
            {
                "samples": n_samples,
                "p at most 0.05": rate(p <= 0.05),
                "p at most 0.2": rate(p <= 0.2),
                "Kolmogorov-Smirnov distance": f"{ks.statistic:.3f}",
                "its p-value": f"{ks.pvalue:.2f}",
            }
        )
    return rows


def verdicts(n: int) -> Table:
    """Random designs in which one class stands on a single level of a role, and designs in which neither does."""
    rows: Table = []
    for role in ("sample", "patient", "batch", "dataset", "timepoint", "drug"):
        missed = false = 0
        for rng in seeds(n, 500 + len(role)):
            for aliased in (True, False):
                n_minor = 1 if aliased else int(rng.integers(2, 8))
                n_major = int(rng.integers(1, 8)) if aliased else int(rng.integers(2, 8))
                label = rng.permutation(np.repeat([0, 1] if rng.random() < 0.5 else [1, 0], [n_minor, n_major]))
                levels = np.repeat(np.arange(len(label)), rng.integers(5, 40, len(label)))
                y = label[levels]
                columns = {role: np.char.add("u", levels.astype(str))}
                if role in ("timepoint", "drug"):
                    # The samples below are plenty and innocent; the role alone is the label.
                    columns["sample"] = np.char.add("s", (levels * 5 + rng.integers(0, 5, len(levels))).astype(str))
                plan = choose_split(np.where(rng.random(len(y)) < 0.1, -1, y), columns)
                missed += aliased and plan.verdict.code != "ALIASED"
                false += (not aliased) and plan.verdict.code == "ALIASED"
        rows.append({"label is a function of": role, "designs": n, "ALIASED missed": missed, "falsely ALIASED": false})
    return rows


def state_verdicts(n: int) -> Table:
    rows: Table = []
    truths = {
        "what the drug did": (0.0, 3.0, 5 / 6),
        "pre-treatment difference": (2.0, 1.0, 0.5),
        "both": (0.8, 3.0, 5 / 6),
    }
    for name, (signal, state, agree) in truths.items():
        found = []
        for rng in seeds(n, 600):
            half, label = 18, np.repeat([1, 0], 18)
            early = round(agree * half)
            treated = np.concatenate([np.arange(half) >= early, np.arange(half) < early]).astype(float)
            groups = np.repeat(np.arange(2 * half), 20)
            X = rng.normal(size=(len(groups), 10)) + rng.normal(0, 0.3, (2 * half, 10))[groups]
            X[:, 0] += signal * (label[groups] - 0.5)
            X[:, 1] += state * treated[groups]
            folds = [Fold(str(k), np.flatnonzero(groups % 6 != k), np.flatnonzero(groups % 6 == k)) for k in range(6)]
            features = FixedFeatures("x", X)
            found.append(state_control(features, label[groups], treated[groups], groups, folds).verdict)
        rows.append(
            {"truth": name} | {v: found.count(v) for v in ("state", "mixed", "pre-treatment signal", "unknown")}
        )
    return rows


SECTIONS = (
    (
        "Error among calls (stated 0.10)",
        (
            "What a reader of a call wants to know: of the cells and samples that are called, how many are called wrongly? Logistic "
            "head on 16 dimensions, 40 new samples, 200 cohorts of each kind. No signal means labels dealt at random to samples. "
            "*Wrong among called samples* counts all calls of all cohorts together; it is that of the few cohorts that call at all where "
            "the signal is too weak, and these were lucky. In the mean over cohorts, one that calls nothing makes no wrong call: "
            "this is what the stated level bounds."
        ),
        lambda f: error_among_calls(max(int(200 * f), 4)),
    ),
    (
        "Flags at less sequencing depth",
        "New samples like those in training, their counts thinned at random. Half the depth must not look foreign.",
        lambda f: depth_flags(max(int(20 * f), 2)),
    ),
    (
        "Conformal sets, given scores of held-out samples (nominal 0.90)",
        (
            "Mean over runs of the exact coverage of cells of new samples. `pooled` is the default and aims at 0.90; `guarantee` "
            "promises at least 0.90 for samples that are drawn whole; below 9 samples of each class neither excludes a class. The worst tenth shows how much a single "
            "cohort may deviate: a promise on average is not one for every cohort."
        ),
        lambda f: conformal_scores(int(1000 * f)),
    ),
    (
        "Conformal sets, the whole way from an embedding (nominal 0.90)",
        (
            "Logistic head on 16 dimensions, cross-fitted over samples, thresholds, final head, 100 new samples. `cells` takes "
            "thresholds from held-back cells of the training samples, as is usually done: it misses its level. A call for every "
            "set with one class in it would be wrong far more often than the level of the sets says, hence the next table."
        ),
        lambda f: conformal_pipeline(int(40 * f)),
    ),
    (
        "Limits of the calibrated probability (nominal 0.90)",
        "Share of runs in which the true P(sensitive | score) lies within the limits.",
        lambda f: probability_limits(int(200 * f)),
    ),
    (
        "Intervals of AUROC over cells (nominal 0.95)",
        "Samples as units, beside the interval that treats cells as independent.",
        lambda f: auroc_intervals(int(1000 * f)),
    ),
    (
        "Intervals of cross-validated AUROC: what they cover (nominal 0.95)",
        (
            "Heads are learned and cross-validated over samples in five pairings. The interval of `tl.evaluate` allows for the "
            "heads that other samples would have taught (`as it is`): it covers the AUROC, among cells of new samples, of the "
            "model learned from all samples, and the mean of such models over cohorts of this size. `samples alone` takes the "
            "scores as given."
        ),
        lambda f: cross_validated_intervals(int(200 * f)),
    ),
    (
        "Permutation p-values without signal",
        "Labels of whole samples are permuted; p-values must be uniform.",
        lambda f: null_p_values(int(1000 * f)),
    ),
    (
        "Verdict ALIASED",
        "Random designs; in one half a class stands on a single level of the role.",
        lambda f: verdicts(int(1000 * f)),
    ),
    (
        "State or sensitivity",
        "Verdicts over runs with 36 samples; columns count runs.",
        lambda f: state_verdicts(int(40 * f)),
    ),
    (
        "Prevalence after a shift (nominal 0.90)",
        (
            "Trained at 0.50; 20 new samples, each sensitive with probability 0.25. `refused`: share of runs in which nothing is "
            "estimated. Without signal hardly anything is, and then by mistake."
        ),
        lambda f: prevalence_intervals(int(300 * f)),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the seeds; prints and writes nothing")
    parser.add_argument(
        "--only", default="", help="run sections whose title holds this text, keep the others of the page"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()
    kept = earlier(args.output)
    parts = [
        "# Do the stated levels hold?",
        (
            "Simulations in which the truth is known, over many seeds; ± is the Monte Carlo standard error. "
            "Samples (patients, cell lines) differ from each other, and the cells of a sample share that difference."
        ),
        "```console\n$ python benchmarks/coverage.py\n```",
    ]
    for title, text, run in SECTIONS:
        if args.only.lower() not in title.lower():
            parts += [kept[title]] if title in kept else []
            continue
        start = time.perf_counter()
        part = f"## {title}\n\n{text}\n\n{markdown(run(0.1 if args.quick else 1.0))}"
        print(f"{part}\n\n({time.perf_counter() - start:.0f} s)\n", flush=True)
        parts.append(part)
    if not args.quick:
        text = "\n\n".join(parts) + "\n"
        publish(args.output, text, tables_in(text))


if __name__ == "__main__":
    main()
