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
    with pytest.raises(KeyError, match=r"`label_key`\) not found"):
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


# ---------------------------------------------------------------------------------------------------- drug rankings


def ranked_with(n_drugs: int, n_groups: int, *, silent: int = 2, seed: int = 0):
    """An object with a made-up ranking: long names with `$`, groups of two samples, some drugs without an answer."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    drugs = [f"drug{i:02d} of a $long_{{name}}$ (1:{i} mol/mol)" for i in range(n_drugs)]
    samples = ["T$1", "T$2_a"]
    groups = [f"{samples[i % 2]} | clone {i}" for i in range(n_groups)]
    rows = []
    for i, group in enumerate(groups):
        z = np.sort(rng.normal(-0.5, 0.4, n_drugs))
        z[len(z) - silent :] = np.nan
        for j, (drug, value) in enumerate(zip(drugs, z)):
            named = np.isfinite(value)
            rows.append(
                {
                    "drug": drug, "targets": "", "group": group, "rank": j + 1.0 if named else np.nan, "z": value,
                    "P": 0.3, "low": value - 1, "high": value + 1,
                    "call": ("sensitive", "uncertain", "resistant")[(i + j) % 3] if named else "uncertain",
                    "tissue_mean_z": 0.1, "gain_over_tissue": 0.1, "drug_r": 0.5, "screen_agreement": np.nan,
                    "abstain_reason": "" if named else "drug not predictable: r 0.1",
                }
            )  # fmt: skip
    table = pd.DataFrame(rows)
    n_cells = 10 * (1 + np.arange(n_groups))
    who = pd.DataFrame({"group": groups, "sample": [g.split(" | ")[0] for g in groups], "n_cells": n_cells})
    who = who.assign(stated_lineage="lung", markers="", treated=0.0, nearest_lineage="lung", abstain_reason="")
    merged = table.dropna(subset="z").merge(who[["group", "sample", "n_cells"]], on="group")
    merged["part"] = merged["z"] * merged["n_cells"]
    means = merged.groupby(["sample", "drug"])[["part", "n_cells"]].sum()
    means = (means["part"] / means["n_cells"]).rename("mean_z").reset_index()
    means = means.assign(worst_z=means["mean_z"] + 0.1, worst_group=groups[0], n_groups=n_groups // 2)
    means = means.assign(n_groups_left_out=0, n_cells=means["sample"].map(who.groupby("sample")["n_cells"].sum()))
    pairs = pd.DataFrame({"sample": samples, "drug_1": drugs[0], "drug_2": drugs[1], "mean_z": -1.0, "worst_z": -0.5})
    pairs = pairs.assign(gain_over_best_single=0.1, note="no synergy modelled")
    adata = sdr.datasets.toy(n_samples=2, cells_per_sample=5, n_genes=50)
    adata.uns["drug_ranking"] = {
        "table": table, "groups": who, "samples": means, "pairs": pairs, "statement": "weak", "drugs": np.array(drugs),
        "warnings": np.array([], dtype=str),
        "reference": {"name": "own", "median_r": 0.4, "n_drugs": n_drugs, "chemistry": "x", "aligned": True,
                      "genes_seen": 0.9},
    }  # fmt: skip
    return adata


def assert_apart(labels) -> None:
    """No two texts overlap."""
    boxes = [label.get_window_extent() for label in labels if label.get_text()]
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[i + 1 :])


@pytest.mark.parametrize("n", [5, 60])
def test_drug_ranking_shows_the_first_drugs_with_their_intervals(n) -> None:
    adata = ranked_with(n + 2, 2)
    group = "T$1 | clone 0"
    ax = sdr.pl.drug_ranking(adata, group, n=n)
    frame = sdr.get.drug_ranking_df(adata, group, n)
    assert ticks(ax) == frame["drug"].tolist()
    np.testing.assert_allclose(points(ax), frame["z"])
    drawn = np.array([segment[:, 0] for segment in ax.collections[0].get_segments()])
    np.testing.assert_allclose(drawn, frame[["low", "high"]])
    assert [to_hex(color) for color in ax.collections[1].get_facecolor()] == [COLORS[c].lower() for c in frame["call"]]
    assert f"{n} of {n} drugs with an answer; 2 without one" in ax.get_title()
    naive = [line for line in ax.lines if line.get_marker() == "|" and len(line.get_xdata()) == n]
    np.testing.assert_allclose(naive[0].get_xdata(), 0.1)
    ax.figure.canvas.draw()  # `$` is no formula
    assert_apart(ax.get_yticklabels())
    box = ax.figure.bbox
    assert all(box.x0 <= label.get_window_extent().x0 for label in ax.get_yticklabels())


def test_drug_ranking_of_a_sample_and_without_a_name() -> None:
    adata = ranked_with(8, 4)
    ax = sdr.pl.drug_ranking(adata, "T$2_a", level="sample")
    np.testing.assert_allclose(points(ax), sdr.get.drug_ranking_df(adata, "T$2_a", level="sample")["z"])
    assert "T$2_a" in ax.get_title()
    assert not ax.title.get_parse_math()
    assert "clone 3" in sdr.pl.drug_ranking(adata).get_title()  # the largest
    with pytest.raises(KeyError, match="No group 'none'"):
        sdr.pl.drug_ranking(adata, "none")


def test_drug_ranking_without_a_platform_has_no_interval() -> None:
    adata = ranked_with(5, 2)
    adata.uns["drug_ranking"]["table"][["low", "high", "P"]] = np.nan
    assert "no interval: the platform is not known" in sdr.pl.drug_ranking(adata).get_title()


def test_a_group_without_an_answer_is_an_error_that_says_why() -> None:
    adata = ranked_with(5, 2)
    stored = adata.uns["drug_ranking"]
    own = stored["table"]["group"] == "T$1 | clone 0"
    stored["table"].loc[own, ["z", "rank"]] = np.nan
    stored["groups"].loc[0, "abstain_reason"] = "lineage: looks like blood"
    with pytest.raises(ValueError, match=r"No drug has an answer in group .*looks like blood"):
        sdr.pl.drug_ranking(adata, "T$1 | clone 0")
    assert "clone 1" in sdr.pl.drug_ranking(adata).get_title()


@pytest.mark.parametrize(("n", "n_groups"), [(5, 4), (60, 20)])
def test_drug_heatmap_is_gray_where_there_is_no_answer(n, n_groups) -> None:
    adata = ranked_with(n + 2, n_groups)
    table = adata.uns["drug_ranking"]["table"]
    table.loc[table["group"] == "T$1 | clone 0", "z"] = np.nan
    ax = sdr.pl.drug_heatmap(adata, n)
    values = ax.images[0].get_array()
    assert values.shape == (n, n_groups)
    assert values.mask[:, 0].all()
    assert not values.mask[:, 1:].any()
    assert ax.get_legend().get_texts()[0].get_text() == f"no answer ({n})"
    colors = ax.images[0].get_cmap()
    assert to_hex(colors.get_bad()) not in {to_hex(colors(x)) for x in np.linspace(0, 1, 256)}
    assert to_hex(colors(0.0)) == COLORS["sensitive"].lower()
    wide = table.pivot(index="drug", columns="group", values="z")
    expected = wide.loc[ticks(ax), adata.uns["drug_ranking"]["groups"]["group"]]
    np.testing.assert_allclose(values.filled(np.nan), expected)
    ax.figure.canvas.draw()
    assert_apart(ax.get_yticklabels())
    assert_apart(ax.get_xticklabels())


def test_drug_heatmap_of_chosen_drugs() -> None:
    adata = ranked_with(6, 2)
    drugs = adata.uns["drug_ranking"]["drugs"].tolist()
    assert ticks(sdr.pl.drug_heatmap(adata, drugs=drugs[:-3:-1])) == drugs[:-3:-1]
    with pytest.raises(KeyError, match="No drug 'x'"):
        sdr.pl.drug_heatmap(adata, drugs=["x"])


def test_clone_coverage_adds_up_the_clones_that_are_reached() -> None:
    adata = ranked_with(8, 4)
    ax = sdr.pl.clone_coverage(adata, "T$1", n=3, below=-0.5)
    single = sdr.get.drug_ranking_df(adata, "T$1", 3, level="sample")["drug"].tolist()
    drugs = adata.uns["drug_ranking"]["drugs"]
    assert ticks(ax) == [*single, f"{drugs[0]}\n+ {drugs[1]}"]
    stored = adata.uns["drug_ranking"]
    cells_of = stored["groups"].query("sample == 'T$1'").set_index("group")["n_cells"]
    z = stored["table"].pivot(index="drug", columns="group", values="z")[cells_of.index]
    share = cells_of / cells_of.sum()
    expected = [(share * (z.loc[drug] < -0.5)).sum() for drug in single]
    expected.append((share * (z.loc[drugs[:2]].min() < -0.5)).sum())
    assert texts(ax) == [f"{value:.0%}" for value in expected]
    assert sum(patch.get_width() for patch in ax.patches) == pytest.approx(sum(expected))
    assert "no synergy modelled" in ax.get_title()
    ax.figure.canvas.draw()
    assert_apart(ax.get_yticklabels())


def test_clone_coverage_joins_small_clones() -> None:
    ax = sdr.pl.clone_coverage(ranked_with(8, 40), "T$1", below=5)
    shown = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(shown) == 6
    assert shown[-1].startswith("15 other clones (")
    assert set(texts(ax)) == {"100%"}


@pytest.mark.parametrize("name", ["drug_ranking", "drug_heatmap", "clone_coverage"])
def test_plots_of_rankings_need_one(name, predicted) -> None:
    with pytest.raises(KeyError, match=r"No drug ranking.*tl\.rank_drugs"):
        getattr(sdr.pl, name)(predicted)
    given = plt.subplots()[1]
    assert getattr(sdr.pl, name)(ranked_with(5, 4), ax=given) is given


def test_a_ranking_is_reported(tmp_path) -> None:
    adata = ranked_with(70, 6)
    with pytest.raises(ValueError, match="nothing to report"):
        sdr.report(sdr.datasets.toy(n_samples=2, cells_per_sample=5, n_genes=50), tmp_path / "r.html")
    adata.uns["mine"] = adata.uns.pop("drug_ranking")
    page = sdr.report(adata, tmp_path / "r.html", ranking_key="mine").read_text(encoding="utf-8")
    assert "Weak evidence: 6 of 6 groups and 68 of 70 drugs have an answer." in page
    assert "No synergy modelled" in page
    assert "2 (drug not predictable)" in page
    assert page.count("<img") == 5
