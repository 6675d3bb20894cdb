"""Calls that stand in `.obs` as rows of an evaluation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from llm_server import chat_server, cohort, good
from sklearn import metrics as skm

import sc_drugresp as sdr
from sc_drugresp._stats.folds import LeakError

OPTIONS = sdr.tl.EvaluationOptions(baselines=False, random_weights=False, n_boot=20, n_permutations=0, n_pairings=1)
CLASSES = ["sensitive", "resistant", "uncertain"]


def with_calls(calls):
    adata = cohort(8, 5)
    samples = adata.obs["sample"].cat.codes.map(dict(enumerate(calls)))
    adata.obs["mine"] = pd.Categorical(samples, categories=CLASSES)
    return adata


def evaluate(adata, calls=None, **how):
    how = {"model": "pca", "options": OPTIONS, "group_key": "sample"} | how
    sdr.tl.evaluate(adata, calls={"an LLM": "mine"} if calls is None else calls, **how)
    frame = sdr.get.metrics_df(adata)
    return frame[frame["model"] == "an LLM"]


def value(frame, metric, level="sample", protocol="leave_group_out"):
    return frame.set_index(["protocol", "level", "metric"])["value"][protocol, level, metric]


def test_missing_answers_are_wrong_in_one_column_and_left_out_in_another():
    adata = with_calls(
        ["sensitive", "resistant", "sensitive", None, "uncertain", "resistant", "sensitive", "resistant"]
    )
    frame = evaluate(adata)
    first = adata.obs.groupby("sample", observed=True).first()
    y = (first["response"] == "sensitive").to_numpy().astype(int)
    said = first["mine"].astype(object).to_numpy()
    known = np.isin(said, CLASSES[:2])
    call = (said == "sensitive").astype(int)
    whole = np.where(known, call, 1 - y)
    for level in ("sample", "cell"):  # samples have the same number of cells
        for metric, function in {
            "balanced_accuracy": skm.balanced_accuracy_score, "mcc": skm.matthews_corrcoef, "recall": skm.recall_score,
            "specificity": lambda a, b: skm.recall_score(a, b, pos_label=0), "accuracy": skm.accuracy_score,
        }.items():  # fmt: skip
            assert value(frame, metric, level) == pytest.approx(function(y, whole)), metric
            assert value(frame, f"{metric}_answered", level) == pytest.approx(function(y[known], call[known])), metric
        assert value(frame, "answered", level) == 7 / 8
        assert value(frame, "called", level) == 6 / 8
        assert value(frame, "called_wrong", level) == pytest.approx((call != y)[known].mean())
        assert np.isnan(value(frame, "auroc", level))
    assert {"brier", "auprc", "ece"}.isdisjoint(frame["metric"])
    assert (frame["kind"] == "model").all()
    assert adata.uns["evaluation"]["params"]["models"].tolist() == ["pca", "an LLM"]


def test_all_missing_is_all_wrong():
    frame = evaluate(with_calls([None] * 8))
    assert value(frame, "balanced_accuracy") == value(frame, "answered") == 0
    assert "balanced_accuracy_answered" not in set(frame["metric"])


def test_calls_leave_the_other_rows_alone_and_take_part_everywhere(tmp_path):
    adata = with_calls(["sensitive", None] * 4)
    sdr.tl.evaluate(adata, model="pca", options=OPTIONS, group_key="sample", key_added="without")
    evaluate(adata)
    both, alone = sdr.get.metrics_df(adata), sdr.get.metrics_df(adata, key_added="without")
    pd.testing.assert_frame_equal(both[both["model"] == "pca"].reset_index(drop=True), alone)
    drawn = [text.get_text() for text in sdr.pl.metrics(adata, "balanced_accuracy").get_yticklabels()]
    assert "an LLM" in drawn
    assert "not defined" in [text.get_text() for text in sdr.pl.metrics(adata).texts]
    sdr.report(adata, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "missing answers wrong / left out" in page
    card = sdr.get.evaluation_card(adata)
    row = next(row for row in card["scores"] if row["name"] == "an LLM")
    assert {"balanced_accuracy_sample", "balanced_accuracy_answered_sample", "answered_sample"} <= set(row)
    assert "calls={'an LLM': 'mine'}" in card["command"]


def test_calls_stand_beside_trained_models():
    adata = with_calls(["sensitive", "resistant"] * 4)
    other = sdr.datasets.toy(8, 5, 60, rng=1)
    sdr.tl.embed(other, "pca", n_comps=3)
    model = sdr.tl.train_response(other, use_rep="X_sdr_pca", group_key="sample")
    frame = evaluate(adata, model=model)
    assert set(frame["protocol"]) == {"external"}
    assert value(frame, "answered", protocol="external") == 1


def test_columns_that_are_no_calls_are_refused():
    adata = with_calls([None] * 8)
    adata.obs["words"] = "yes"
    for calls, error in (
        ({"a": "words"}, ValueError),
        ({"a": "response"}, LeakError),
        ({"a": "no"}, KeyError),
        ({"pca": "mine"}, ValueError),
    ):
        with pytest.raises(error, match="calls"):
            evaluate(adata, calls=calls)
    assert "evaluation" not in adata.uns


def test_examples_must_not_be_held_out_together_with_the_question(tmp_path):
    adata = cohort(10, 4)
    adata.obs["donor"] = (adata.obs["sample"].cat.codes // 2).astype(str)
    adata.obs["response"] = np.where(adata.obs["donor"].astype(int) % 2, "sensitive", "resistant")
    with sdr.settings.override(cache_dir=tmp_path), chat_server(good) as server:
        how = {"model": "m", "drug": "d", "base_url": server.url}
        sdr.tl.ask_llm(adata, group_key="sample", examples=6, key_added="by_sample", **how)
        sdr.tl.ask_llm(adata, group_key="donor", examples=2, key_added="by_donor", **how)
        sdr.tl.ask_llm(adata, group_key="sample", **how)
    with pytest.raises(LeakError, match=r"held\s+out together"):
        evaluate(adata, calls={"an LLM": "by_sample"}, group_key="donor")
    frame = evaluate(adata, calls={"an LLM": "by_donor"}, group_key="donor")
    assert set(frame["caution"]) == {"made with the labels of 2 other samples for each sample"}
    assert set(evaluate(adata, calls={"an LLM": "llm_response"}, group_key="donor")["caution"]) == {""}
