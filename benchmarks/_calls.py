"""Simulated cohorts, and what becomes of calls, flags and prevalences in them; run by `coverage.py`."""

from __future__ import annotations

import logging

import numpy as np
from benchmarks._simulation import Table, rate, scores, seeds

from sc_drugresp._response.cells import strict_folds
from sc_drugresp._response.crossfit import cross_validate
from sc_drugresp._response.features import FixedFeatures
from sc_drugresp._response.fitters import fit_setting
from sc_drugresp._response.predict import predict
from sc_drugresp._response.trust import Trust, sample_labels
from sc_drugresp._stats.calibration import fit_calibration
from sc_drugresp._stats.conformal import fit_conformal, fit_sample_calls
from sc_drugresp._stats.ood_fit import fit_ood
from sc_drugresp._stats.prior_shift import ClassScores, correct_prior


def cohort(
    n_sensitive: int,
    n_resistant: int,
    rng: np.random.Generator,
    *,
    gap: float,
    heavy: bool = False,
    unequal: bool = False,
    noise: float = 0.0,
    batch: float = 0.0,
):
    """Cells of samples that differ in 16 dimensions and by `gap` in one: features, true label of each sample, given labels, names.

    `heavy`: differences between samples have Student's t distribution with 2.5 degrees of freedom; `unequal`: numbers of cells
    vary by a log SD of 1; `noise`: share of samples with a wrong label; `batch`: all samples are moved by this, in one random
    direction (the SD between samples is 0.6 in each).
    """
    label = np.repeat([1, 0], [n_sensitive, n_resistant])
    n = len(label)
    size = np.maximum(rng.lognormal(np.log(20), 1.0, n).astype(int), 5) if unequal else np.full(n, 20)
    groups = np.repeat(np.arange(n), size)
    center = 0.6 * (rng.standard_t(2.5, (n, 16)) if heavy else rng.normal(size=(n, 16)))
    center[:, 0] += gap * (label - 0.5)
    direction = rng.normal(size=16)
    center += batch * direction / np.linalg.norm(direction)
    given = np.where(rng.random(n) < noise, 1 - label, label)
    return center[groups] + rng.normal(size=(len(groups), 16)), label, given[groups], groups


def trusted(X: np.ndarray, y: np.ndarray, groups: np.ndarray) -> tuple[object, Trust]:
    """A head and what the package says of it, without the parts that calls do not need."""
    out = cross_validate(FixedFeatures("x", X), y, groups, strict_folds(y, groups, rng=0), C=0.01)
    held = np.isfinite(out.logit)
    calibration = fit_calibration(out.logit[held], y[held], groups[held], n_boot=2)
    labels = sample_labels(y, groups)[1]
    ready = np.isfinite(out.sample_logit)
    cells = fit_conformal(out.logit[held], y[held], groups[held], informative=calibration.informative)
    samples = fit_sample_calls(out.sample_logit[ready], labels[ready], informative=calibration.informative)
    prob = calibration.probability(out.logit[held])
    classes = ClassScores.of(prob, y[held], groups[held])
    trust = Trust(calibration, cells, samples, samples, classes, fit_ood(X, groups, y=y, rng=0))
    return fit_setting(out.setting, X, y, groups, rng=0), trust


SETTINGS: dict[str, tuple[int, int, dict[str, float]]] = {
    "8 samples": (4, 4, {}),
    "16 samples": (8, 8, {}),
    "24 samples": (12, 12, {}),
    "40 samples": (20, 20, {}),
    "4 sensitive of 16": (4, 12, {}),
    "10 sensitive of 40": (10, 30, {}),
    "40, heavy tails": (20, 20, {"heavy": True}),
    "40, unequal numbers of cells": (20, 20, {"unequal": True}),
    "40, a tenth of labels wrong": (20, 20, {"noise": 0.1}),
    "40, new batch (1.5)": (20, 20, {"batch": 1.5}),
    "40, new batch (3)": (20, 20, {"batch": 3.0}),
}


def error_among_calls(n: int) -> Table:
    """Training cohort, head, calls, and 40 new samples with the same share of sensitive ones."""
    rows: Table = []
    for strength, gap in (("none", 0.0), ("moderate", 1.6), ("strong", 3.0), ("very strong", 6.0)):
        for number, (name, (n_s, n_r, options)) in enumerate(SETTINGS.items()):
            if gap == 0 and options:
                continue
            tally = []
            here = {key: value for key, value in options.items() if key != "batch"}
            new = {key: value for key, value in options.items() if key != "noise"}
            for rng in seeds(n, 800 + number + int(100 * gap)):
                X, _, y, groups = cohort(n_s, n_r, rng, gap=gap, **here)
                Z, label, _, names = cohort(
                    round(40 * n_s / (n_s + n_r)), round(40 * n_r / (n_s + n_r)), rng, gap=gap, **new
                )
                head, trust = trusted(X, y, groups)
                said = predict(
                    trust, Z, head.logit(Z), groups=names, depth=None, sample_scores=head.sample_logit(Z, names)
                )
                share = 1 / np.bincount(names)[names]
                wrong = np.where(label[names] == 1, said.called[:, 1], said.called[:, 0])
                s_wrong = np.where(label == 1, said.samples.called[:, 1], said.samples.called[:, 0])
                missed = s_wrong[label == 1].mean()
                tally.append(
                    (wrong @ share, said.called.any(axis=1) @ share, s_wrong.sum(), said.samples.called.sum(), missed)
                )
            parts = np.array(tally, dtype=float).T
            rows.append(
                {
                    "signal": strength,
                    "training": name,
                    "cells called": f"{parts[1].mean() / 40:.2f}",
                    "wrong among called cells": ratio(parts[0], parts[1]),
                    "samples called": f"{parts[3].mean() / 40:.2f}",
                    "cohorts with calls": f"{(parts[3] > 0).mean():.2f}",
                    "wrong among called samples": ratio(parts[2], parts[3]),
                    "the same, mean over cohorts": rate(parts[2] / np.maximum(parts[3], 1)),
                    "sensitive called resistant": f"{parts[4].mean():.3f}",
                }
            )
    return rows


def ratio(wrong: np.ndarray, called: np.ndarray) -> str:
    """Wrong among called over all runs, with the standard error of a ratio whose unit is the run."""
    if called.sum() == 0:
        return "-"
    value = wrong.sum() / called.sum()
    return f"{value:.3f} ± {np.sqrt(np.square(wrong - value * called).sum()) / called.sum():.3f}"


def depth_flags(n: int) -> Table:
    """Toy cohorts: some samples train a model with principal components, twelve others are predicted at less and less depth."""
    import sc_drugresp as sdr

    logging.getLogger("sc_drugresp").setLevel(logging.ERROR)
    rows: Table = []
    for n_train in (6, 8, 12, 24):
        found: dict[float, list[float]] = {1.0: [], 0.5: [], 0.25: []}
        for seed in range(n):
            adata = sdr.datasets.toy(n_train + 12, 30, 300, rng=seed)
            by_class = adata.obs.groupby("response", observed=True)["sample"].unique()
            new = ~adata.obs["sample"].isin([name for names in by_class for name in names[: n_train // 2]])
            model = sdr.tl.train_response(adata[~new].copy(), model="pca", group_key="sample")
            for share, flags in found.items():
                cells = adata[new].copy()
                cells.X.data = np.random.default_rng(seed).binomial(cells.X.data.astype(int), share).astype(np.float32)
                sdr.tl.predict_response(cells, model)
                flags.append(float(cells.obs["predicted_response_ood"].mean()))
        rows.append(
            {"training samples": n_train}
            | {f"cells flagged at {share:g} of the depth": rate(flags) for share, flags in found.items()}
        )
    return rows


def prevalence_intervals(n: int) -> Table:
    """Samples of one class each, a quarter of the new ones sensitive; class means and calibration are estimates themselves."""
    rows: Table = []
    for strength, gap in (("none", 0.0), ("weak", 1.0), ("strong", 2.0)):
        for n_samples in (8, 16, 40):
            inside, values, width = [], [], []
            for rng in seeds(n, 700 + n_samples + int(10 * gap)):
                z, y, groups = scores(n_samples, rng, between=0.7, gap=gap, cells=20)
                fitted = fit_calibration(z, y, groups, n_boot=2)
                label = (rng.random(20) < 0.25).astype(int)
                names = np.repeat(np.arange(20), 20)
                new = rng.normal(rng.normal((label - 0.5) * gap, 0.7)[names])
                classes = ClassScores.of(fitted.probability(z), y, groups)
                found = correct_prior(fitted.probability(new), names, train_prevalence=0.5, classes=classes)
                if not found.refused:
                    inside.append(found.low <= 0.25 <= found.high)
                    values.append(found.prevalence)
                    width.append(found.high - found.low)
            rows.append(
                {
                    "signal": strength,
                    "training samples": n_samples,
                    "refused": f"{1 - len(inside) / n:.2f}",
                    "mean estimate (true 0.25)": f"{np.mean(values):.2f}" if values else "-",
                    "width": f"{np.mean(width):.2f}" if values else "-",
                    "coverage of the 0.90 interval": rate(inside) if len(inside) > 1 else "-",
                }
            )
    return rows
