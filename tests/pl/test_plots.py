"""Plots draw what their frames hold; compared on the artists, not on pixels."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex

mpl.use("Agg")

import matplotlib.pyplot as plt

import sc_drugresp as sdr
from sc_drugresp._core.keys import COLORS

COMBINATION = "anti-CTLA-4 + anti-PD-1"
LONG = "carboplatin, paclitaxel and bevacizumab after six weeks"


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
    """Two data sets whose samples have the same names, two models, one drug with a long name."""
    adata = sdr.datasets.toy(n_samples=16, cells_per_sample=20, n_genes=150, signal=1.0)
    codes = adata.obs["sample"].cat.codes.to_numpy()
    adata.obs["dataset"] = np.where(codes % 2 == 0, "one", "two")
    adata.obs["drug"] = np.where(codes % 4 < 2, COMBINATION, LONG)
    adata.obs["sample"] = adata.obs["patient"] = np.char.add("S", (codes // 2).astype(str))
    sdr.tl.embed(adata, "pca", n_comps=5)
    sdr.tl.evaluate(
        adata,
        use_rep="X_sdr_pca",
        model="hvg",
        group_key="sample",
        options=sdr.tl.EvaluationOptions(n_boot=20, n_permutations=20),
    )
    return adata


@pytest.fixture(scope="module")
def single():
    adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100, signal=1.0)
    sdr.tl.evaluate(adata, model="pca", options=sdr.tl.EvaluationOptions(n_boot=20, n_permutations=0))
    return adata


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def ticks(ax) -> list[str]:
    return [tick.get_text() for tick in ax.get_yticklabels()]


def points(ax) -> np.ndarray:
    """Positions of the dots of a forest plot along x; the lines of the intervals come before them."""
    return np.asarray(ax.collections[1].get_offsets())[:, 0]


def cells(ax) -> list:
    return [cell for table in ax.tables for cell in table.get_celld().values()]


# ---------------------------------------------------------------------------------------------------- response


def test_response_draws_every_cell_in_the_fixed_colors(predicted) -> None:
    ax = sdr.pl.response(predicted, "X_sdr_pca")
    drawn = np.array([to_hex(color) for color in ax.collections[0].get_facecolor()])
    counts = predicted.obs["predicted_response"].value_counts()
    assert {name: int((drawn == color.lower()).sum()) for name, color in COLORS.items() if name in counts} == (
        counts.to_dict()
    )
    shown = {f"{name} ({n})" for name, n in counts.items() if n}
    assert {text.get_text() for text in ax.get_legend().get_texts()} == shown


def test_response_probability_panel_holds_the_probabilities(predicted) -> None:
    ax = sdr.pl.response(predicted, "X_sdr_pca", color="prob")
    values = np.sort(ax.collections[0].get_array())
    np.testing.assert_allclose(values, np.sort(predicted.obs["predicted_response_prob"]))


def test_response_panels_and_errors(predicted) -> None:
    assert len(sdr.pl.response(predicted, color=["call", "ood", "label"]).axes) == 3
    with pytest.raises(ValueError, match="`color` must be one of"):
        sdr.pl.response(predicted, color="drug")
    with pytest.raises(KeyError, match="Available"):
        sdr.pl.response(predicted, "X_none")
    with pytest.raises(KeyError, match="no label to color by"):
        sdr.pl.response(predicted, color="label", label_key="absent")
    with pytest.raises(KeyError, match="predict_response"):
        sdr.pl.response(sdr.datasets.toy(n_samples=2, cells_per_sample=5, n_genes=50))


def test_response_is_drawn_on_umap_or_on_what_the_prediction_used(predicted) -> None:
    adata = predicted.copy()
    sdr.tl.embed(adata, "hvg")
    adata.obsm["A_other"] = np.zeros((adata.n_obs, 2))
    assert sdr.pl.response(adata).get_xlabel() == "PC 1 of X_sdr_pca"
    adata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(adata.n_obs, 2))
    ax = sdr.pl.response(adata)
    assert ax.get_xlabel() == "dimension 1 of X_umap"
    np.testing.assert_allclose(
        np.sort(ax.collections[0].get_offsets()[:, 0]), np.sort(adata.obsm["X_umap"][:, 0]), rtol=1e-6
    )


def test_response_draws_principal_components_of_wide_embeddings(predicted) -> None:
    adata = predicted.copy()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    adata.obsm["X_turned"] = adata.obsm["X_sdr_pca"] @ turn  # the same cloud; its first columns mean nothing
    drawn = [np.asarray(sdr.pl.response(adata, key).collections[0].get_offsets()) for key in ("X_sdr_pca", "X_turned")]
    distances = [np.linalg.norm(xy[:, None] - xy[None], axis=2) for xy in drawn]
    np.testing.assert_allclose(distances[0], distances[1], atol=1e-3)


def test_response_says_what_to_do_when_no_embedding_was_kept(predicted) -> None:
    adata = predicted.copy()
    del adata.obsm["X_sdr_pca"]
    adata.obsm["X_one"] = np.zeros((adata.n_obs, 1))
    with pytest.raises(KeyError, match=r"(?s)to draw|no embedding.*tl\.embed"):
        sdr.pl.response(adata)


# ---------------------------------------------------------------------------------------------------- samples


def test_samples_are_ordered_and_at_their_means(predicted) -> None:
    ax = sdr.pl.samples(predicted)
    frame = sdr.get.samples_df(predicted).sort_values("mean", ascending=False)
    assert [t.split(" (")[0] for t in ticks(ax)] == frame.index.tolist()
    np.testing.assert_allclose(np.sort(points(ax)), np.sort(frame["mean"]))


def test_samples_know_mean_and_worst(predicted) -> None:
    frame = sdr.get.samples_df(predicted)
    np.testing.assert_allclose(np.sort(points(sdr.pl.samples(predicted, score="worst"))), np.sort(frame["worst"]))
    assert "calls by the mean" in sdr.pl.samples(predicted, score="worst").get_title()
    assert "calls by" not in sdr.pl.samples(predicted).get_title()
    with pytest.raises(ValueError, match=r"'mean', 'worst'.*worst_clone"):
        sdr.pl.samples(predicted, score="worst_clone")


def test_samples_df_carries_the_label(predicted) -> None:
    frame = sdr.get.samples_df(predicted)
    truth = predicted.obs.groupby("sample", observed=True)["response"].first().astype(str)
    assert (frame["label"] == truth.reindex(frame.index)).all()
    mixed = predicted.copy()
    mixed.obs["response"] = mixed.obs["response"].astype(object)
    mixed.obs.iloc[0, mixed.obs.columns.get_loc("response")] = (
        "resistant" if mixed.obs["response"].iloc[1] == "sensitive" else "sensitive"
    )
    assert sdr.get.samples_df(mixed)["label"].isna().sum() == 1


# ---------------------------------------------------------------------------------------------------- evaluations


def test_metrics_are_by_sample_and_at_their_values(evaluated) -> None:
    ax = sdr.pl.metrics(evaluated, "auroc")
    assert ax.get_xlabel() == "AUROC by sample"
    frame = sdr.get.metrics_df(evaluated, "auroc", protocol="leave_group_out", level="sample")
    np.testing.assert_allclose(np.sort(points(ax)), np.sort(frame["value"]))
    by_cell = sdr.get.metrics_df(evaluated, "auroc", protocol="leave_group_out", level="cell")
    np.testing.assert_allclose(np.sort(points(sdr.pl.metrics(evaluated, level="cell"))), np.sort(by_cell["value"]))
    with pytest.raises(ValueError, match="Available metrics"):
        sdr.pl.metrics(evaluated, "nothing")


def test_a_random_split_of_cells_is_scored_by_cell(evaluated) -> None:
    assert sdr.pl.metrics(evaluated, protocol="pooled").get_xlabel() == "AUROC by cell"


def test_rows_have_display_names(evaluated) -> None:
    names = ticks(sdr.pl.metrics(evaluated, level="cell"))
    for expected in ("PCA", "Highly variable genes", "Constant", "QC only", "Pseudobulk + ridge", "Permuted labels"):
        assert expected in names
    assert not [name for name in names if "sdr" in name or "_" in name]
    assert set(ticks(sdr.pl.leakage_gap(evaluated))) == set(names)
    assert set(ticks(sdr.pl.model_comparison(evaluated))) <= set(names)


def test_intervals_are_written_for_readers(single) -> None:
    adata = single.copy()
    metrics = adata.uns["evaluation"]["metrics"].copy()
    metrics.loc[metrics["model"] == "pca", ["low", "high"]] = 1.26e-15, 1.0
    adata.uns["evaluation"]["metrics"] = metrics
    shown = texts(sdr.pl.metrics(adata))
    shown += [text.get_text() for text in sdr.pl.roc(adata).get_legend().get_texts()]
    assert sum("0.00 to 1.00, uninformative" in text for text in shown) == 3
    assert not any("e-1" in text for text in shown)


@pytest.mark.parametrize("level", ["cell", "sample"])
def test_every_roc_curve_stands_beside_its_own_auroc(evaluated, level) -> None:
    ax = sdr.pl.roc(evaluated, level=level)
    curves = [line for line in ax.lines if ":" in str(line.get_label())]
    assert len(curves) == 2
    for line in curves:
        area = np.trapezoid(line.get_ydata(), line.get_xdata())
        stated = float(line.get_label().split(": ")[1].split(" ")[0])
        assert stated == pytest.approx(area, abs=0.005)


def test_roc_area_is_the_reported_auroc_in_each_data_set(evaluated, single) -> None:
    for adata in (evaluated, single):
        for level in ("cell", "sample"):
            frame = sdr.get.metrics_df(adata, "auroc", protocol="leave_group_out", level=level, macro=False)
            frame = frame[frame["model"] == adata.uns["evaluation"]["params"]["models"][0]].set_index("dataset")
            for dataset, curve in sdr.get.roc_df(adata, level=level).groupby("dataset"):
                area = np.trapezoid(curve["true_positive_rate"], curve["false_positive_rate"])
                assert area == pytest.approx(frame.loc[dataset, "value"], abs=1e-9)


def test_leakage_gap_joins_both_scores_in_rows_that_cannot_collide(evaluated) -> None:
    ax = sdr.pl.leakage_gap(evaluated)
    frame = sdr.get.leakage_gap_df(evaluated)
    joined = np.array([segment[:, 0] for segment in ax.collections[0].get_segments()])
    np.testing.assert_allclose(joined, frame[["leave_group_out", "pooled"]])
    np.testing.assert_allclose(frame["gap"], frame["pooled"] - frame["leave_group_out"])
    assert texts(ax) == [f"{gap:+.2f}" for gap in frame["gap"]]
    heights = [text.get_position()[1] for text in ax.texts]
    np.testing.assert_array_equal(np.diff(heights), -1)


def test_leakage_gap_of_one_class_per_sample_has_no_strict_score() -> None:
    adata = sdr.datasets.toy(n_samples=2, cells_per_sample=20, n_genes=60)
    with pytest.warns(UserWarning, match="ALIASED"):
        sdr.tl.evaluate(
            adata, model="pca", options=sdr.tl.EvaluationOptions(baselines=False, n_boot=20, n_permutations=0)
        )
    assert texts(sdr.pl.leakage_gap(adata)) == ["nothing held out"]
    assert sdr.pl.metrics(adata).get_xlabel() == "AUROC by cell"
    assert "patient\n(aliased)" in [cell.get_text().get_text() for cell in cells(sdr.pl.split_design(adata))]


def test_calibration_and_risk(evaluated) -> None:
    ax = sdr.pl.calibration(evaluated, n_bins=4)
    frame = sdr.get.calibration_df(evaluated, n_bins=4)
    np.testing.assert_allclose(np.asarray(ax.lines[1].get_xdata(), dtype=float), frame["predicted"])
    risk = sdr.get.risk_coverage_df(evaluated)
    np.testing.assert_allclose(
        np.asarray(sdr.pl.risk_coverage(evaluated).lines[0].get_ydata(), dtype=float), risk["risk"]
    )


def test_samples_of_two_data_sets_stay_apart(evaluated) -> None:
    """Both data sets have samples S0 to S7: sixteen samples, not eight."""
    assert sdr.get.calibration_df(evaluated, n_bins=1)["n_samples"].tolist() == [16]


def test_split_design_never_cuts_a_name(evaluated) -> None:
    table = sdr.pl.split_design(evaluated).tables[0].get_celld()
    assert max(row for row, _ in table) == len(sdr.get.split_design_df(evaluated)) == 16
    assert table[0, max(column for _, column in table)].get_text().get_text() == "label"
    shown = {cell.get_text().get_text().replace("\n", " ") for cell in table.values()}
    assert {COMBINATION, LONG} <= shown


@pytest.mark.parametrize("given", [False, True])
def test_split_design_text_stays_in_its_tile(evaluated, given) -> None:
    ax = sdr.pl.split_design(evaluated, ax=plt.subplots(figsize=(5, 4))[1] if given else None)
    ax.figure.canvas.draw()
    for cell in cells(ax):
        assert cell.get_window_extent().width >= cell.get_text().get_window_extent().width - 0.5


def test_model_comparison_is_ordered_by_rank(evaluated) -> None:
    ax = sdr.pl.model_comparison(evaluated)
    ranks = ax.lines[0].get_xdata()
    assert list(ranks) == sorted(ranks)
    n = len(evaluated.uns["evaluation"]["comparison"]["ranks"])
    assert sum(ranks) == pytest.approx(n * (n + 1) / 2)


PLOTS = ("metrics", "roc", "leakage_gap", "calibration", "split_design", "risk_coverage", "model_comparison")


@pytest.mark.parametrize("name", PLOTS)
def test_plots_need_an_evaluation(name, predicted) -> None:
    adata = sdr.datasets.toy(n_samples=2, cells_per_sample=5, n_genes=50)
    with pytest.raises(KeyError, match=r"No evaluation 'evaluation'.*tl\.evaluate"):
        getattr(sdr.pl, name)(adata)
    for other in ("a note of mine", {"metrics": 1}, np.arange(3)):
        adata.uns["evaluation"] = other
        with pytest.raises(KeyError, match=r"not written by tl\.evaluate.*tl\.evaluate"):
            getattr(sdr.pl, name)(adata)
    with pytest.raises(KeyError, match=r"not written by tl\.evaluate"):
        getattr(sdr.pl, name)(predicted, key_added="predicted_response")


def test_training_and_control_are_read_by_name() -> None:
    import pandas as pd

    adata = sdr.datasets.toy(n_samples=2, cells_per_sample=5, n_genes=50)
    history = pd.DataFrame(
        {"epoch": [1, 2], "loss": [0.7, 0.6], "held_out_loss": [0.7, 0.7], "held_out_auroc": [0.5, 0.6]}
    )
    adata.uns["mine"] = {"params": {}, "metrics": {}, "history": history}
    np.testing.assert_array_equal(sdr.pl.history(adata, key_added="mine").lines[0].get_ydata(), history["loss"])
    names = ["auroc", "erased", "pretreatment", "treated", "treated_erased"]
    table = pd.DataFrame({"value": 0.7, "low": 0.2, "high": 0.9, "n_samples": 4}, index=names)
    table.loc["pretreatment", ["value", "low", "high"]] = np.nan
    adata.uns["control"] = {"verdict": "state", "reason": "because", "table": table}
    assert texts(sdr.pl.state_control(adata, key_added="control"))[:3] == ["0.70 (0.20 to 0.90)"] * 2 + [
        "too few samples"
    ]
    adata.uns["train_response"] = adata.uns["state_control"] = "mine"
    with pytest.raises(KeyError, match=r"tl\.train_response"):
        sdr.pl.history(adata)
    with pytest.raises(KeyError, match=r"tl\.state_control"):
        sdr.pl.state_control(adata)
