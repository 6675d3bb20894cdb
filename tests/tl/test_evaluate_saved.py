"""Trained models on cells that they were not trained on."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import sc_drugresp as sdr
from sc_drugresp._stats.folds import LeakError

QUICK = sdr.tl.EvaluationOptions(n_boot=50, n_permutations=200)


@pytest.fixture(scope="module")
def trained():
    adata = sdr.datasets.toy(n_samples=10, cells_per_sample=20, n_genes=120, signal=2.0)
    return adata, sdr.tl.train_response(adata, model="pca", group_key="sample")


@pytest.fixture
def elsewhere(trained):
    adata = sdr.datasets.toy(n_samples=8, cells_per_sample=20, n_genes=120, signal=2.0, rng=5)
    adata.obs["sample"] = adata.obs["patient"] = adata.obs["sample"].astype(str).radd("E").to_numpy()
    return adata


def value(adata, metric, level="cell", model=None, key="evaluation"):
    m = adata.uns[key]["metrics"]
    model = model or adata.uns[key]["params"]["models"][0]
    keep = (m["model"] == model) & (m["metric"] == metric) & (m["level"] == level) & (m["dataset"] == "macro")
    return m[keep].iloc[0]


def test_a_trained_model_is_scored_with_its_own_probabilities_and_calls(trained, elsewhere):
    _, model = trained
    predicted = elsewhere.copy()
    sdr.tl.predict_response(predicted, model)
    sdr.tl.evaluate(elsewhere, model=model, options=QUICK)
    result = elsewhere.uns["evaluation"]
    prob, call = predicted.obs["predicted_response_prob"], predicted.obs["predicted_response"]
    pd.testing.assert_series_equal(elsewhere.obs["evaluation_prob"], prob, check_names=False)
    assert elsewhere.obs["evaluation_call"].astype(str).tolist() == call.astype(str).tolist()
    y = (elsewhere.obs["response"] == "sensitive").to_numpy()
    assert value(elsewhere, "auroc")["value"] == pytest.approx(roc_auc_score(y, prob))
    assert value(elsewhere, "brier")["value"] == pytest.approx(float(np.mean((prob - y) ** 2)))
    called = (call != "uncertain").to_numpy()
    assert value(elsewhere, "called")["value"] == pytest.approx(called.mean())
    wrong = ((call == "sensitive").to_numpy() != y)[called]
    assert value(elsewhere, "called_wrong")["value"] == pytest.approx(
        wrong.mean() if len(wrong) else np.nan, nan_ok=True
    )
    assert set(result["metrics"]["protocol"]) == {"external"}
    assert set(result["metrics"]["model"]) == {"pca (trained)", "pca (trained), prevalence", "constant"}
    assert result["verdict"]["code"] in ("OK", "UNDERPOWERED")
    assert not any("training sample" in text for text in result["verdict"]["cautions"])
    assert value(elsewhere, "auroc")["p_value"] < 0.1


def test_folders_and_several_models(trained, elsewhere, tmp_path):
    _, model = trained
    model.save(tmp_path / "mine")
    other = sdr.tl.train_response(trained[0].copy(), model="hvg", group_key="sample")
    sdr.tl.evaluate(elsewhere, model=[str(tmp_path / "mine"), other], options=QUICK)
    assert list(elsewhere.uns["evaluation"]["params"]["models"]) == ["mine", "hvg (trained)"]
    again = elsewhere.copy()
    sdr.tl.evaluate(again, model=tmp_path / "mine", options=QUICK, key_added="second")
    assert (
        value(again, "auroc", model="mine", key="second")["value"] == value(elsewhere, "auroc", model="mine")["value"]
    )
    third = elsewhere.copy()
    eval(again.uns["second"]["command"], {"sdr": sdr, "adata": third})  # noqa: S307 (written above)
    assert value(third, "auroc", key="second")["value"] == value(elsewhere, "auroc", model="mine")["value"]
    # Two models, two p-values: Holm doubles the smaller one.
    p = elsewhere.uns["evaluation"]["metrics"].query("metric == 'auroc' and level == 'cell' and kind == 'model'")
    p = p[p["dataset"] == "macro"]
    assert p["p_adjusted"].min() == pytest.approx(min(1, 2 * p["p_value"].min()))


def test_cells_of_the_training_are_refused_and_names_of_the_training_are_said(trained, elsewhere):
    adata, model = trained
    own = adata.copy()
    before = list(own.uns)
    with pytest.raises(LeakError, match="trained on these very cells"):
        sdr.tl.evaluate(own, model=model, options=QUICK)
    assert list(own.uns) == before
    allowed = sdr.tl.EvaluationOptions(n_boot=0, n_permutations=0, allow_leaks=True)
    sdr.tl.evaluate(own, model=model, options=allowed)
    assert "training sample" in value(own, "auroc")["caution"]
    elsewhere.obs["sample"] = elsewhere.obs["sample"].str.replace("E", "")
    sdr.tl.evaluate(elsewhere, model=model, group_key="sample", options=QUICK)
    cautions = elsewhere.uns["evaluation"]["verdict"]["cautions"]
    assert any("8 of 8 samples have the name of a training sample" in text for text in cautions)


def test_design_of_the_external_cells_is_judged(trained, elsewhere):
    _, model = trained
    two = elsewhere[elsewhere.obs["sample"].isin(["ES01", "ES02"])].copy()
    assert two.obs["response"].nunique() == 2
    with pytest.warns(UserWarning, match="ALIASED"):
        sdr.tl.evaluate(two, model=model, options=QUICK)
    assert two.uns["evaluation"]["verdict"]["code"] == "ALIASED"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"use_rep": "X_pca"}, "two calls"),
        ({"model": "pca"}, "two calls"),
        ({"protocol": "pooled"}, "nothing to split"),
        ({"split": "sample"}, "nothing to split"),
    ],
)
def test_what_is_trained_stands_in_another_table(trained, elsewhere, arguments, text):
    models = [trained[1], *([arguments.pop("model")] if "model" in arguments else [])]
    with pytest.raises(ValueError, match=text):
        sdr.tl.evaluate(elsewhere, model=models, **arguments)
    assert "evaluation" not in elsewhere.uns


def test_a_folder_without_a_model_is_an_error(elsewhere, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no saved response model"):
        sdr.tl.evaluate(elsewhere, model=tmp_path)


def test_plots_report_and_files(trained, elsewhere, tmp_path):
    _, model = trained
    sdr.tl.evaluate(elsewhere, model=model, options=QUICK)
    elsewhere.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    assert sdr.pl.metrics(again).get_title() == "samples from elsewhere"
    assert sdr.pl.calibration(again).get_xlabel() == "predicted P(sensitive)"
    page = sdr.report(again, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "scored on samples from elsewhere" in page
    assert "random split of cells" not in page
