"""Train, save, load, predict, aggregate: the chain of a user."""

from __future__ import annotations

import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sc_drugresp as sdr
from sc_drugresp._core.keys import CALL_CLASSES, PredictionKeys


@pytest.fixture(scope="module")
def labeled() -> ad.AnnData:
    return sdr.datasets.toy(n_samples=12, cells_per_sample=30, n_genes=300, signal=2.0)


@pytest.fixture(scope="module")
def trained(labeled):
    """A model and the object it predicted: most tests only look at them."""
    model = sdr.tl.train_response(labeled.copy(), model="pca", group_key="sample", n_comps=10)
    predicted = labeled.copy()
    sdr.tl.predict_response(predicted, group_key="sample")
    return model, predicted


@pytest.mark.filterwarnings("ignore:All calls are 'uncertain'")
@pytest.mark.parametrize("head", ["logistic", "mlp", "pseudobulk_lda", "mil"])
def test_saved_model_predicts_the_same_in_a_new_process(tmp_path, head) -> None:
    small = sdr.datasets.toy(n_samples=6, cells_per_sample=15, n_genes=100, signal=2.0)
    model = sdr.tl.train_response(small, model="pca", group_key="sample", head=head, n_comps=10)
    model.save(tmp_path / "model")
    assert {file.suffix for file in (tmp_path / "model").iterdir()} == {".json", ".safetensors"}
    fresh = sdr.datasets.toy(n_samples=6, cells_per_sample=15, n_genes=100, signal=2.0, rng=1)
    fresh.write_h5ad(tmp_path / "cells.h5ad")
    sdr.tl.predict_response(fresh, model)
    code = (
        "import warnings; warnings.simplefilter('ignore'); import sys, anndata as ad, numpy as np, sc_drugresp as sdr;"
        "a = ad.read_h5ad(sys.argv[1]); sdr.tl.predict_response(a, sys.argv[2]);"
        "np.save(sys.argv[3], a.obs['predicted_response_prob'].to_numpy())"
    )
    args = [str(tmp_path / name) for name in ("cells.h5ad", "model", "prob.npy")]
    subprocess.run([sys.executable, "-c", code, *args], check=True)
    np.testing.assert_allclose(np.load(args[2]), fresh.obs["predicted_response_prob"], atol=1e-6)


def test_balanced_weights_give_classes_and_samples_equal_mass() -> None:
    from sc_drugresp._stats.groups import balanced_weights

    y = np.array([1] * 90 + [1] * 10 + [0] * 30)
    groups = np.array(["a"] * 90 + ["b"] * 10 + ["c"] * 30)
    weights = balanced_weights(y, groups)
    mass = pd.Series(weights).groupby(groups).sum()
    assert mass["a"] == pytest.approx(mass["b"])
    assert mass["a"] + mass["b"] == pytest.approx(mass["c"])
    assert weights.mean() == pytest.approx(1)


def test_labeled_cells_are_never_scored_by_a_model_that_saw_their_sample() -> None:
    from sklearn.metrics import roc_auc_score

    adata = sdr.datasets.toy(n_samples=10, cells_per_sample=30, n_genes=200, noise_labels="sample", sample_effect=1.0)
    model = sdr.tl.train_response(adata, model="pca", group_key="sample")
    assert model.info["metrics"]["cell_auroc"] < 0.75
    embedded = model.embedder.transform(model.embedder.read(adata))
    seen = model.logit(embedded)  # the final model knows these samples: nothing but recognition
    assert roc_auc_score(adata.obs["response"] == "sensitive", seen) > model.info["metrics"]["cell_auroc"] + 0.15
    sdr.tl.predict_response(adata, group_key="sample")
    assert adata.obs["predicted_response_prob"].std() < 0.1  # no signal in held-out samples, no confident probability


def test_slots_types_and_round_trip(labeled, trained, tmp_path) -> None:
    adata, columns = trained[1].copy(), list(labeled.obs.columns)
    sdr.tl.aggregate(adata, "sample", clone_key="cell_type")
    keys = PredictionKeys()
    new = [keys.call, keys.prob, keys.low, keys.high, keys.ood, keys.ood_score]
    assert list(adata.obs.columns) == columns + new
    assert tuple(adata.obs[keys.call].cat.categories) == CALL_CLASSES
    assert adata.obs[keys.ood].dtype == bool
    inside = adata.obs[keys.prob].between(adata.obs[keys.low], adata.obs[keys.high])
    assert inside.all()
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(
        back.uns[keys.uns][keys.samples].astype({"call": str}),
        adata.uns[keys.uns][keys.samples].astype({"call": str}),
        check_index_type=False,
        check_names=False,
    )


@pytest.fixture(scope="module")
def many() -> tuple[ad.AnnData, ad.AnnData]:
    """Enough samples for calls, and others to be called."""
    adata = sdr.datasets.toy(n_samples=44, cells_per_sample=15, n_genes=200, signal=2.5)
    new = adata.obs["sample"].isin(adata.obs["sample"].cat.categories[-12:])
    return adata[~new].copy(), adata[new].copy()


@pytest.fixture(scope="module")
def strong(many) -> sdr.models.ResponseModel:
    return sdr.tl.train_response(many[0].copy(), model="pca", group_key="sample", n_comps=10)


def test_samples_are_called_where_there_are_enough_and_the_worth_of_calls_is_told(many, strong) -> None:
    adata = many[1].copy()
    sdr.tl.predict_response(adata, strong, prevalence=0.1)
    sdr.tl.aggregate(adata, "sample")
    table = sdr.get.samples_df(adata)
    called = table["call"] != "uncertain"
    assert called.mean() > 0.5
    assert (table["call"].astype(str) == table["label"].astype(str))[called].mean() >= 0.9
    worth = sdr.get.predictive_values_df(adata)
    sample = worth[(worth["unit"] == "sample") & (worth["call"] == "sensitive")].set_index("at")
    assert sample["made"].all()
    assert sample.loc["stated", "prevalence"] == 0.1
    assert sample.loc["stated", "predictive_value"] < sample.loc["training", "predictive_value"]
    assert "were called wrongly; expected error among calls" in adata.uns["predicted_response"]["statement"]
    # Where some cells count, their mean decides; the worst clone can only take sensitive calls back.
    adata.obs["malignant"] = np.arange(adata.n_obs) % 3 > 0
    sdr.tl.aggregate(adata, "sample", mask_obs="malignant")
    masked = sdr.get.samples_df(adata)["call"]
    assert (masked != "uncertain").any()
    assert not ((masked == "sensitive") & (table["label"] == "resistant")).any()
    sdr.tl.aggregate(adata, "sample", score="worst", clone_key="cell_type")
    worst = sdr.get.samples_df(adata)["call"]
    assert set(worst.index[worst == "sensitive"]) <= set(table.index[table["call"] == "sensitive"])


def test_few_samples_are_not_called_and_the_number_needed_is_told(labeled, trained) -> None:
    """Twelve samples cannot support an error of 10 %: today's resistant majority is no reason for a call."""
    adata = trained[1].copy()
    sdr.tl.aggregate(adata, "sample")
    assert (adata.obs["predicted_response"] == "uncertain").all()
    assert (sdr.get.samples_df(adata)["call"] == "uncertain").all()
    assert "at least 9 held-out samples of each class and 22 in all" in adata.uns["predicted_response"]["statement"]


def test_foreign_samples_are_not_called(many, strong) -> None:
    """Another program in every cell: all flagged, none called, by conformal prediction or by a threshold."""
    adata = many[1].copy()
    counts = adata.X.toarray()
    adata.X = counts[:, np.random.default_rng(0).permutation(adata.n_vars)]
    sdr.tl.predict_response(adata, strong)
    sdr.tl.aggregate(adata, "sample")
    assert adata.obs["predicted_response_ood"].mean() > 0.9
    called = sdr.get.samples_df(adata)
    assert (called.loc[called["fraction_ood"] > 0.5, "call"] == "uncertain").all()
    sdr.tl.predict_response(adata, strong, threshold=0.5)
    flagged = adata.obs["predicted_response_ood"]
    assert (adata.obs.loc[flagged, "predicted_response"] == "uncertain").all()


def test_half_the_depth_is_no_reason_for_a_flag(many, strong) -> None:
    plain, shallow = many[1].copy(), many[1].copy()
    shallow.X.data = np.random.default_rng(0).binomial(shallow.X.data.astype(int), 0.5).astype(np.float32)
    for adata in (plain, shallow):
        sdr.tl.predict_response(adata, strong)
    assert plain.obs["predicted_response_ood"].mean() < 0.08
    assert shallow.obs["predicted_response_ood"].mean() < 0.1


@pytest.fixture
def aliased() -> ad.AnnData:
    """Both classes stand on one batch each."""
    adata = sdr.datasets.toy(n_samples=12, cells_per_sample=20, n_genes=100, signal=2.0)
    adata.obs["batch"] = np.where(adata.obs["response"] == "sensitive", "b1", "b2")
    adata.obs["batch"] = adata.obs["batch"].astype("category")
    return adata


def test_aliased_training_data_give_no_calls_and_probabilities_only_on_request(aliased, tmp_path) -> None:
    with pytest.warns(UserWarning, match="ALIASED"):
        model = sdr.tl.train_response(aliased, model="pca", group_key="sample", n_comps=5)
    assert model.info["verdict"]["code"] == "ALIASED"
    model.save(tmp_path / "model")
    for given in (None, model, tmp_path / "model"):
        silent, asked = aliased.copy(), aliased.copy()
        with pytest.warns(UserWarning, match=r"ALIASED.*Nothing is called.*allow_aliased=True"):
            sdr.tl.predict_response(silent, given, group_key="sample", threshold=0.5)
        assert (silent.obs["predicted_response"] == "uncertain").all()
        assert silent.obs[["predicted_response_prob", "predicted_response_low"]].isna().all(axis=None)
        assert silent.uns["predicted_response"]["verdict"] == "ALIASED"
        assert "probabilities are not given" in silent.uns["predicted_response"]["statement"]
        with pytest.warns(UserWarning, match="ALIASED"):
            sdr.tl.predict_response(asked, given, group_key="sample", allow_aliased=True)
        assert asked.obs["predicted_response_prob"].notna().all()
        assert (asked.obs["predicted_response"] == "uncertain").all()
        sdr.tl.aggregate(asked, "sample")
        sdr.tl.aggregate(silent, "sample")
        assert (sdr.get.samples_df(asked)["call"] == "uncertain").all()
        silent.write_h5ad(tmp_path / "silent.h5ad")


@pytest.mark.filterwarnings("ignore:These data are CONFOUNDED", "ignore:The training data are CONFOUNDED")
def test_several_models_are_fused(labeled, trained) -> None:
    adata = labeled.copy()
    adata.obsm["X_mine"] = np.log1p(adata.X[:, :20].toarray())
    one, two = trained[0], sdr.tl.train_response(adata, use_rep="X_mine", group_key="sample")
    sdr.tl.predict_response(adata, [one, two])
    parts = []
    for model in (one, two):
        alone = adata.copy()
        sdr.tl.predict_response(alone, model)
        parts.append(alone.obs["predicted_response_prob"].to_numpy())
    logits = [np.log(p / (1 - p)) for p in parts]
    np.testing.assert_allclose(
        adata.obs["predicted_response_prob"], 1 / (1 + np.exp(-np.mean(logits, axis=0))), rtol=1e-4
    )
    np.testing.assert_allclose(adata.obs["predicted_response_disagreement"], np.std(parts, axis=0))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda a: a.obs.drop(columns="response", inplace=True), ValueError, "No model and no drug were given"),
        (lambda a: a.obs.__setitem__("response", None), ValueError, "has no labels"),
        (lambda a: a.obs.__setitem__("response", "sensitive"), ValueError, "no 'resistant' cell"),
        (lambda a: a.obs.__setitem__("response", "R"), ValueError, "harmonize_labels"),
        (lambda a: a.obs.drop(columns=["sample", "patient", "batch"], inplace=True), KeyError, "group_key"),
    ],
)
def test_wrong_labels_are_told_and_nothing_is_written(labeled, change, error, words) -> None:
    adata = labeled.copy()
    change(adata)
    columns, slots = list(adata.obs.columns), set(adata.uns)
    with pytest.raises(error, match=words):
        sdr.tl.predict_response(adata)
    assert list(adata.obs.columns) == columns
    assert set(adata.uns) == slots


def test_two_samples_cannot_be_calibrated_and_say_so() -> None:
    adata = sdr.datasets.toy(n_samples=2, cells_per_sample=30, n_genes=100)
    with pytest.warns(UserWarning, match="No sample could be left out|ALIASED"):
        sdr.tl.predict_response(adata, group_key="sample", allow_aliased=True)
    assert (adata.obs["predicted_response"] == "uncertain").all()
    assert adata.obs["predicted_response_prob"].notna().all()
    assert adata.obs["predicted_response_low"].isna().all()
    assert not adata.uns["predicted_response"]["calibrated"]


def test_threshold_calls_state_no_error_level(labeled, trained) -> None:
    adata = labeled.copy()
    sdr.tl.predict_response(adata, trained[0], threshold=0.5)
    expected = np.where(adata.obs["predicted_response_prob"] >= 0.5, "sensitive", "resistant")
    expected = np.where(adata.obs["predicted_response_ood"], "uncertain", expected)
    assert (adata.obs["predicted_response"].astype(str) == expected).all()
    assert "no error level" in adata.uns["predicted_response"]["statement"]


def test_prevalence_correction_is_reported(labeled, trained) -> None:
    model = trained[0]
    target = labeled[labeled.obs["response"] == "sensitive"].copy()
    plain = sdr.tl.predict_response(target, model, copy=True)
    sdr.tl.predict_response(target, model, correct_prevalence=True)
    assert target.uns["predicted_response"]["prevalence"]["prevalence"] > 0.6
    assert target.obs["predicted_response_prob"].mean() > plain.obs["predicted_response_prob"].mean()


def test_model_files_are_checked(trained, tmp_path) -> None:
    model = trained[0]
    model.save(tmp_path / "m")
    with pytest.raises(FileExistsError, match="overwrite"):
        model.save(tmp_path / "m")
    model.save(tmp_path / "m", overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"model\.json"):
        sdr.models.ResponseModel.load(tmp_path)
    head = tmp_path / "m" / "head.safetensors"
    head.write_bytes(head.read_bytes()[:40])
    with pytest.raises(ValueError, match="damaged"):
        sdr.models.ResponseModel.load(tmp_path / "m")


def test_interrupted_save_leaves_nothing(trained, tmp_path, monkeypatch) -> None:
    import safetensors.numpy

    model = trained[0]

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        model.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_embedding_of_another_width_is_refused(labeled) -> None:
    adata = labeled.copy()
    adata.obsm["X_mine"] = np.random.default_rng(0).normal(size=(adata.n_obs, 6))
    model = sdr.tl.train_response(adata, use_rep="X_mine", group_key="sample")
    adata.obsm["X_mine"] = adata.obsm["X_mine"][:, :5]
    with pytest.raises(ValueError, match="width 6"):
        sdr.tl.predict_response(adata, model)


@pytest.mark.filterwarnings("ignore:These data are CONFOUNDED", "ignore:The training data are CONFOUNDED")
def test_cells_without_an_embedding_are_uncertain(labeled) -> None:
    adata = labeled.copy()
    x = np.random.default_rng(0).normal(size=(adata.n_obs, 4))
    x[:, 0] += 3 * (adata.obs["response"] == "sensitive")
    x[5] = np.nan
    adata.obsm["X_mine"] = x
    model = sdr.tl.train_response(adata, use_rep="X_mine", group_key="sample")
    sdr.tl.predict_response(adata, model)
    assert adata.obs["predicted_response"].iloc[5] == "uncertain"
    assert np.isnan(adata.obs["predicted_response_prob"].iloc[5])
    assert adata.obs["predicted_response_ood"].iloc[5]
    assert adata.obs["predicted_response_prob"].drop(adata.obs_names[5]).notna().all()


def test_aggregate_needs_predictions(labeled) -> None:
    with pytest.raises(KeyError, match="predict_response"):
        sdr.tl.aggregate(labeled.copy(), "sample")


def test_real_partly_labeled_data_need_no_argument(shared, tmp_path) -> None:
    adata = ad.read_h5ad(shared / "data" / "GSE120575_melanoma_ICB_partA.h5ad")
    hidden = np.random.default_rng(0).random(adata.n_obs) < 0.3
    adata.obs["response"] = adata.obs["response"].astype(object).where(~hidden, None)
    sdr.tl.predict_response(adata)
    assert adata.obs["predicted_response_prob"].between(0, 1).all()
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_series_equal(back.obs["predicted_response_prob"], adata.obs["predicted_response_prob"])


def test_labels_and_calls_have_the_same_colors(labeled) -> None:
    adata = labeled.copy()
    adata.obs["response"] = adata.obs["response"].cat.set_categories(["resistant", "sensitive"])
    sdr.tl.predict_response(adata, group_key="sample")
    painted = [
        dict(zip(adata.obs[key].cat.categories, adata.uns[f"{key}_colors"]))
        for key in ("response", "predicted_response")
    ]
    assert {name: painted[1][name] for name in painted[0]} == painted[0]
    adata.uns["response_colors"] = ["#000000", "#FFFFFF"]
    sdr.tl.predict_response(adata, group_key="sample")
    assert adata.uns["response_colors"] == ["#000000", "#FFFFFF"]  # a user's choice stays


@pytest.mark.filterwarnings("ignore:These data are CONFOUNDED", "ignore:The training data are CONFOUNDED")
def test_the_embedding_to_train_on_can_be_named(labeled) -> None:
    adata = labeled.copy()
    adata.obsm["X_mine"] = np.log1p(adata.X[:, :20].toarray())
    sdr.tl.embed(adata, "pca", n_comps=5)
    sdr.tl.predict_response(adata, use_rep="X_mine", group_key="sample")
    assert adata.uns["predicted_response"]["models"]["0"]["use_rep"] == "X_mine"
    with pytest.raises(KeyError, match="X_other"):
        sdr.tl.predict_response(adata, use_rep="X_other", group_key="sample")


def test_a_model_and_a_slot_to_train_on_exclude_each_other(labeled, trained) -> None:
    with pytest.raises(ValueError, match="leave out use_rep"):
        sdr.tl.predict_response(labeled.copy(), trained[0], use_rep="X_mine")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"use_rep": "X_mine", "bogus_option": 3}, TypeError, "bogus_option"),
        ({"use_rep": "X_mine", "checkpoint": "folder"}, TypeError, "checkpoint"),
        ({"model": "pca", "bogus_option": 3}, TypeError, "Unknown option 'bogus_option'.*n_comps"),
        ({"bogus_option": 3}, TypeError, "Unknown option 'bogus_option'"),
        ({"model": "pca", "use_rep": "X_mine"}, ValueError, "either"),
        ({"use_rep": "X_mine", "error_level": 0.7}, ValueError, "error_level"),
        ({"use_rep": "X_mine", "head": "tree"}, ValueError, "`head` must be one of"),
    ],
)
def test_unknown_options_are_refused_before_any_work(labeled, arguments, error, words) -> None:
    adata = labeled.copy()
    adata.obsm["X_mine"] = np.zeros((adata.n_obs, 3))
    with pytest.raises(error, match=words):
        sdr.tl.train_response(adata, group_key="sample", **arguments)
    assert "train_response" not in adata.uns


def test_training_is_recorded_under_the_key_that_was_asked_for(labeled) -> None:
    adata = labeled.copy()
    sdr.tl.train_response(
        adata, model="pca", group_key="sample", n_comps=5, key_added="mine", rng=np.random.default_rng(1)
    )
    assert "train_response" not in adata.uns
    assert adata.uns["mine"]["params"]["error_level"] == 0.1


def test_every_member_of_an_ensemble_is_described(labeled, trained) -> None:
    """The reasons, calibration, statement and prevalence are not those of the first member alone."""
    adata = labeled.copy()
    few = adata[adata.obs["sample"].isin(["S01", "S02", "S03", "S04", "S05", "S06"])].copy()
    second = sdr.tl.train_response(few, model="hvg", group_key="sample", n_top_genes=20)
    sdr.tl.predict_response(adata, [trained[0], second])
    stored = adata.uns["predicted_response"]
    assert {"0", "1"} == set(stored["models"])
    assert stored["models"]["0"]["statement"] != stored["models"]["1"]["statement"]
    assert "Model 0: " in stored["statement"]
    assert stored["models"]["1"]["statement"] in stored["statement"]
    assert stored["models"]["1"]["calibration"] in stored["calibration"]


def test_an_object_that_cannot_be_written_is_refused_before_any_work(labeled, tmp_path, monkeypatch) -> None:
    labeled.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    monkeypatch.setattr("sc_drugresp._data.rows.Rows.read", lambda *_: pytest.fail("the matrix was read"))
    for verb in (sdr.tl.embed, sdr.tl.predict_response, sdr.tl.evaluate):
        arguments = ("pca",) if verb is sdr.tl.embed else ()
        with pytest.raises(ValueError, match="needs a file of its own"):
            verb(backed, *arguments, copy=True)


def test_worst_clones_decide_by_the_word_that_plots_use(trained) -> None:
    adata = trained[1].copy()
    sdr.tl.aggregate(adata, "sample", clone_key="cell_type", score="worst")
    table = sdr.get.samples_df(adata)
    assert (table["worst"] <= table["mean"] + 1e-12).all()
    with pytest.raises(ValueError, match=r"\('mean', 'worst'\)"):
        sdr.tl.aggregate(adata, "sample", score="worst_clone")
