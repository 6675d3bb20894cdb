"""Plots draw what their frames hold; compared on the artists, not on pixels."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex

mpl.use("Agg")

import matplotlib.pyplot as plt

import sc_drugresp as sdr
from sc_drugresp.pl._style import COLORS


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def predicted():
    adata = sdr.datasets.toy(n_samples=12, cells_per_sample=20, n_genes=200, signal=2.0)
    sdr.tl.embed(adata, "pca", n_comps=5)
    sdr.tl.predict_response(adata, group_key="sample")
    sdr.tl.aggregate(adata, "sample")
    return adata


@pytest.fixture(scope="module")
def evaluated():
    adata = sdr.datasets.toy(n_samples=8, cells_per_sample=20, n_genes=150, signal=2.0)
    adata.obs["dataset"] = adata.obs["sample"].cat.codes.mod(2).map({0: "one", 1: "two"})
    options = {"baselines": False, "n_boot": 20, "n_permutations": 20, "split": "group", "group_key": "sample"}
    sdr.tl.evaluate(adata, model=["pca", "hvg"], **options)
    return adata


def test_response_draws_every_cell_in_the_fixed_colors(predicted) -> None:
    ax = sdr.pl.response(predicted, "X_sdr_pca")
    drawn = {c.get_label().split(" (")[0]: len(c.get_offsets()) for c in ax.collections}
    assert drawn == predicted.obs["predicted_response"].value_counts().loc[lambda n: n > 0].to_dict()
    for points in ax.collections:
        assert to_hex(points.get_facecolor()[0]).lower() == COLORS[points.get_label().split(" (")[0]].lower()


def test_response_probability_panel_holds_the_probabilities(predicted) -> None:
    ax = sdr.pl.response(predicted, "X_sdr_pca", color="prob")
    values = np.sort(ax.collections[0].get_array())
    np.testing.assert_allclose(values, np.sort(predicted.obs["predicted_response_prob"]))


def test_response_panels_and_errors(predicted) -> None:
    assert len(sdr.pl.response(predicted, color=["call", "ood", "label"]).axes) == 3
    with pytest.raises(ValueError, match="must be one or several"):
        sdr.pl.response(predicted, color="drug")
    with pytest.raises(KeyError, match="Available"):
        sdr.pl.response(predicted, "X_none")
    with pytest.raises(KeyError, match="predict_response"):
        sdr.pl.response(sdr.datasets.toy(n_samples=2, cells_per_sample=5, n_genes=50))


def test_samples_are_ordered_and_at_their_means(predicted) -> None:
    ax = sdr.pl.samples(predicted)
    frame = sdr.get.samples_df(predicted).sort_values("mean")
    assert [t.get_text().split(" (")[0] for t in ax.get_yticklabels()] == frame.index.tolist()
    drawn = np.sort(np.concatenate([c.lines[0].get_xdata() for c in ax.containers]))
    np.testing.assert_allclose(drawn, np.sort(frame["mean"]))


def test_samples_df_carries_the_label(predicted) -> None:
    frame = sdr.get.samples_df(predicted)
    truth = predicted.obs.groupby("sample", observed=True)["response"].first().astype(str)
    assert (frame["label"] == truth.reindex(frame.index)).all()


def test_metrics_at_their_values(evaluated) -> None:
    ax = sdr.pl.metrics(evaluated, "auroc")
    frame = sdr.get.metrics_df(evaluated, "auroc", protocol="leave_group_out", level="cell")
    drawn = np.sort(np.concatenate([c.lines[0].get_xdata() for c in ax.containers]))
    np.testing.assert_allclose(drawn, np.sort(frame["value"]))
    with pytest.raises(ValueError, match="Available metrics"):
        sdr.pl.metrics(evaluated, "nothing")


def test_roc_area_is_the_reported_auroc_of_one_data_set() -> None:
    adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100, signal=2.0)
    sdr.tl.evaluate(adata, model="pca", baselines=False, n_boot=20, n_permutations=0)
    curve = sdr.get.roc_df(adata)
    area = np.trapezoid(curve["true_positive_rate"], curve["false_positive_rate"])
    frame = sdr.get.metrics_df(adata, "auroc", protocol="leave_group_out", level="cell")
    assert area == pytest.approx(frame["value"].iloc[0], abs=1e-9)


def test_leakage_gap_joins_both_scores(evaluated) -> None:
    ax = sdr.pl.leakage_gap(evaluated)
    frame = sdr.get.leakage_gap_df(evaluated)
    lines = [line.get_ydata() for line in ax.lines if len(line.get_ydata()) == 2 and list(line.get_xdata()) == [0, 1]]
    expected = frame[["pooled", "leave_group_out"]].to_numpy()
    assert any(np.allclose(line, expected[0]) for line in lines)
    np.testing.assert_allclose(frame["gap"], frame["pooled"] - frame["leave_group_out"])


def test_calibration_and_risk(evaluated) -> None:
    ax = sdr.pl.calibration(evaluated, n_bins=4)
    frame = sdr.get.calibration_df(evaluated, n_bins=4)
    np.testing.assert_allclose(np.asarray(ax.containers[0].lines[0].get_xdata(), dtype=float), frame["predicted"])
    risk = sdr.get.risk_coverage_df(evaluated)
    np.testing.assert_allclose(
        np.asarray(sdr.pl.risk_coverage(evaluated).lines[0].get_ydata(), dtype=float), risk["risk"]
    )


def test_split_design_has_a_row_per_sample(evaluated) -> None:
    ax = sdr.pl.split_design(evaluated)
    assert ax.get_ylim()[0] == len(sdr.get.split_design_df(evaluated)) == 8
    assert ax.get_xticklabels()[-1].get_text() == "label"


def test_model_comparison_is_ordered_by_rank(evaluated) -> None:
    ranks = sdr.pl.model_comparison(evaluated).lines[0].get_xdata()
    assert list(ranks) == sorted(ranks)
    assert sum(ranks) == pytest.approx(3)


def test_plots_need_an_evaluation() -> None:
    adata = sdr.datasets.toy(n_samples=2, cells_per_sample=5, n_genes=50)
    for plot in (sdr.pl.metrics, sdr.pl.roc, sdr.pl.leakage_gap, sdr.pl.calibration, sdr.pl.split_design):
        with pytest.raises(KeyError, match=r"tl\.evaluate"):
            plot(adata)
