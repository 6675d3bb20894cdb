"""Attacks through the public door: what goes with the label, and what leaks."""

from __future__ import annotations

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sc_drugresp as sdr
from sc_drugresp._stats.folds import LeakError

N = 16
LABEL = np.arange(N) % 2


def cohort(seed=0, *, n=N, cells=20, genes=150, batch=None, depth=None):
    """Counts of patients that differ at random, and by batch; labels say nothing."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(n), cells)
    level = rng.normal(0, 1.2, genes) + 0.3 * rng.normal(size=(n, genes))
    if batch is not None:
        level = level + 0.7 * rng.normal(size=(int(batch.max()) + 1, genes))[batch]
    share = np.exp(level)
    total = 500 * (np.ones(n) if depth is None else depth)
    counts = rng.poisson((share / share.sum(axis=1, keepdims=True))[unit] * total[unit][:, None])
    response = np.where(np.arange(n)[unit] % 2 == 1, "sensitive", "resistant")
    obs = pd.DataFrame({"patient": [f"P{i:02d}" for i in unit], "response": response})
    obs.index = [f"c{i}" for i in range(len(unit))]
    return ad.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(genes)])
    )


def evaluate(adata, baselines=False, model="pca", **options):
    call = {name: options.pop(name) for name in ("use_rep", "protocol") if name in options}
    settings = sdr.tl.EvaluationOptions(n_boot=0, n_permutations=100, baselines=baselines, **options)
    model = None if "use_rep" in call else model
    sdr.tl.evaluate(adata, model=model, options=settings, **call)
    data = adata.mod["rna"] if isinstance(adata, mudata.MuData) else adata
    return data.uns["evaluation"]


def strict(result, model):
    rows = result["metrics"].query("protocol == 'leave_group_out' and metric == 'auroc' and level == 'sample'")
    return float(rows.loc[(rows["model"] == model) & (rows["dataset"] == "macro"), "value"].iloc[0])


def test_almost_a_batch():
    batch = LABEL.copy()
    batch[0] = 1
    adata = cohort(batch=batch)
    adata.obs["batch"] = np.char.add("B", np.repeat(batch, 20).astype(str))
    result = evaluate(adata, baselines=True)
    verdict = result["verdict"]
    assert verdict["code"] == "CONFOUNDED"
    assert "batch (tells the label of 15 of 16" in verdict["reason"]
    assert "Inside its strata the strict score has AUROC" in verdict["reason"]
    assert (verdict["strongest"], verdict["pairs_within"]) == ("batch", 8)
    assert verdict["association"] > 0.8
    assert verdict["p_within"] > 0.05  # nothing is left
    assert strict(result, "pca") > 0.75
    assert strict(result, "design_only") > 0.75
    frame = sdr.pp.check(adata)
    assert frame.loc[frame["code"] == "labels-confounded", "subject"].tolist() == ["batch"]
    assert "batch (" not in evaluate(adata, ignore_obs=["batch"])["verdict"]["reason"]


def test_same_thing_as_the_label_has_no_strict_score_and_other_names_of_it_may_be_left_out(tmp_path):
    adata = cohort(batch=LABEL)
    adata.obs["platform"] = np.repeat(np.where(LABEL == 1, "a", "b"), 20)
    with pytest.warns(UserWarning, match="ALIASED.*platform"):
        result = evaluate(adata)
    assert set(result["metrics"]["protocol"]) == {"pooled"}
    adata.obs = adata.obs.rename(columns={"platform": "outcome"})
    result = evaluate(adata)
    assert result["verdict"]["code"] == "CONFOUNDED"
    assert "nothing can be compared inside its strata" in result["verdict"]["reason"]
    assert np.isnan(result["verdict"]["score_within"])
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad").uns["evaluation"]["verdict"]
    assert again["strongest"] == "outcome"
    assert "outcome (" not in evaluate(adata, ignore_obs=["outcome"])["verdict"]["reason"]


def test_depth_that_no_column_tells():
    adata = cohort(depth=np.where(LABEL == 1, 0.5, 1.0))
    verdict = evaluate(adata)["verdict"]
    assert verdict["code"] == "CONFOUNDED"
    assert "counts per cell" in verdict["reason"] or "detected genes" in verdict["reason"]
    assert "labels-confounded" in set(sdr.pp.check(adata)["code"])


def test_columns_of_a_mudata_are_judged():
    adata = cohort(batch=LABEL)
    data = mudata.MuData({"rna": adata})
    data.obs["seq_run"] = pd.Series(np.repeat(np.where(LABEL == 1, "a", "b"), 20), index=adata.obs_names)
    with pytest.warns(UserWarning, match="ALIASED.*seq_run"):
        assert evaluate(data)["verdict"]["code"] == "ALIASED"


def test_design_only_reads_no_expression():
    adata = cohort()
    rng = np.random.default_rng(0)
    adata.obs["site"] = np.repeat(rng.integers(0, 2, N), 20).astype(str)
    first = strict(evaluate(adata, baselines=True), "design_only")
    adata.X = adata.X[:, rng.permutation(adata.n_vars)]  # sums and detected genes stay
    assert strict(evaluate(adata, baselines=True), "design_only") == pytest.approx(first)


def test_a_label_in_obsm_lowers_the_verdict():
    adata = cohort()
    rng = np.random.default_rng(0)
    adata.obsm["X_else"] = rng.normal(size=(adata.n_obs, 10))
    clean = evaluate(adata, use_rep="X_else")["verdict"]
    assert clean["code"] == "OK"
    assert any("X_else: made elsewhere" in text for text in clean["cautions"])
    adata.obsm["X_else"][:, 3] += 2 * np.repeat(LABEL, 20)
    found = evaluate(adata, use_rep="X_else")["verdict"]
    assert found["code"] == "CONFOUNDED"
    assert "labels of the test cells" in found["reason"]
    assert any("model=" in text for text in found["suggestions"])


def test_a_proxy_of_the_label_is_refused():
    adata = cohort()
    rng = np.random.default_rng(0)
    adata.obs["proxy"] = 2.0 * np.repeat(LABEL, 20) + rng.normal(size=adata.n_obs)
    adata.obs["age"] = np.repeat(rng.integers(30, 80, N), 20)
    with pytest.raises(LeakError, match="proxy"):
        evaluate(adata, obs_features=["proxy"], model=None)
    assert evaluate(adata, obs_features=["age"], model=None)["verdict"]["code"] in ("OK", "CONFOUNDED")


def test_names_of_one_patient_are_held_out_together():
    adata = cohort(n=8, cells=80)
    other = np.arange(adata.n_obs) % 2 == 1
    adata.obs["patient"] = np.where(other, "X" + adata.obs["patient"].astype(str), adata.obs["patient"])
    result = evaluate(adata)
    assert result["data"]["n_units"] <= 9
    assert any("held out together" in text and "told apart" in text for text in result["verdict"]["cautions"])


def two_data_sets(shared):
    adata = cohort(n=12, cells=40)
    number = np.repeat(np.arange(12), 40)
    second = np.where(np.isin(number, shared), np.arange(adata.n_obs) % 2 == 1, number >= 6)
    adata.obs["dataset"] = np.where(second, "two", "one")
    return adata


def test_data_sets_that_share_patients():
    adata = two_data_sets([4, 5])
    result = evaluate(adata, protocol="cross_dataset", few_shot=())
    folds = result["folds"].query("protocol == 'cross_dataset'").set_index("fold")
    assert (folds["shared_units"] == 0).all()
    assert any("share patients or cell lines ('P04', 'P05')" in text for text in result["verdict"]["cautions"])
    assert result["params"]["level"] == "patient"  # leaving out a data set would leave its patients in training
    with pytest.raises(LeakError, match="share patients"):
        evaluate(two_data_sets(range(12)), protocol="cross_dataset", few_shot=())
    leaky = evaluate(two_data_sets(range(12)), protocol="cross_dataset", few_shot=(), allow_leaks=True)
    assert (leaky["folds"].query("protocol == 'cross_dataset'")["shared_units"] == 12).all()


def test_chosen_genes_carry_a_caution():
    adata = cohort()
    assert any("150 genes only" in text for text in evaluate(adata)["verdict"]["cautions"])
    many = cohort(genes=1200)
    assert not any("genes" in text for text in evaluate(many)["verdict"]["cautions"])
    many.uns["hvg"] = {"flavor": "seurat"}
    assert any(".uns['hvg']" in text for text in evaluate(many)["verdict"]["cautions"])


def test_genes_that_were_chosen_with_the_labels_lower_the_verdict():
    from scipy.stats import mannwhitneyu

    adata = cohort(genes=3000, cells=40)
    means = adata.X.toarray().reshape(N, 40, -1).mean(axis=1)
    p_values = mannwhitneyu(means[LABEL == 1], means[LABEL == 0]).pvalue
    chosen = adata[:, np.argsort(p_values)[:50]].copy()
    verdict = evaluate(chosen)["verdict"]
    assert verdict["code"] == "CONFOUNDED"
    assert "chosen with the labels" in verdict["reason"]


def two_names_each(n: int = 8) -> ad.AnnData:
    """Every patient under two names."""
    adata = cohort(n=n, cells=60)
    half = np.arange(adata.n_obs) % 2 == 1
    adata.obs["patient"] = np.where(half, "X" + adata.obs["patient"], adata.obs["patient"])
    return adata


def test_names_of_one_patient_count_once_in_training_too():
    adata = two_names_each()
    with pytest.warns(UserWarning, match="held out together and count once"):
        model = sdr.tl.train_response(adata, model="pca", group_key="patient")
    assert (model.info["n_groups"], model.info["n_held_out_groups"]) == (8, 8)
    assert len(model.info["groups_sensitive"] + model.info["groups_resistant"]) == 16  # names as the object has them
    assert any("one patient" in text for text in model.info["verdict"]["cautions"])
    assert model.info["metrics"]["sample_auroc"] < 0.9
    with pytest.warns(UserWarning, match="count once"):
        sdr.tl.predict_response(adata, group_key="patient")
    assert set(adata.obs["predicted_response"]) == {"uncertain"}


def test_copies_are_not_learned_from_where_the_other_one_is_tested():
    """A model of the nearest cell would know the label of every copied cell."""
    adata = cohort(cells=30)
    copies = adata[::3].copy()
    number = copies.obs["patient"].str[1:].astype(int)
    copies.obs["patient"] = [f"P{(i + 2) % N:02d}" for i in number]
    both = ad.concat([adata, copies], index_unique="-")
    with pytest.warns(UserWarning, match="copies, or all but copies"):
        model = sdr.tl.train_response(both, model="pca", group_key="patient")
    clean = sdr.tl.train_response(adata, model="pca", group_key="patient")
    assert model.info["n_groups"] == clean.info["n_groups"] == N
    assert model.info["metrics"]["cell_auroc"] < clean.info["metrics"]["cell_auroc"] + 0.2


def test_what_training_is_told_against_an_embedding_and_genes():
    adata = cohort()
    values = np.random.default_rng(0).normal(size=(adata.n_obs, 10))
    values[:, 3] += 3 * (adata.obs["response"] == "sensitive")
    adata.obsm["X_external"] = values
    with pytest.warns(UserWarning, match="CONFOUNDED: X_external: a dimension of it"):
        model = sdr.tl.train_response(adata, use_rep="X_external", group_key="patient")
    cautions = model.info["verdict"]["cautions"]
    assert any("made elsewhere" in text for text in cautions)
    assert any("150 genes only" in text for text in cautions)


@pytest.mark.parametrize("n", [16, 24])
def test_labels_dealt_at_random_are_not_called(n):
    """From counts to calls of new patients, with labels that say nothing."""
    called = 0
    for seed in range(3):
        adata, new = cohort(seed, n=n), cohort(100 + seed, n=8)
        model = sdr.tl.train_response(adata, model="pca", group_key="patient")
        sdr.tl.predict_response(new, model, group_key="patient")
        sdr.tl.aggregate(new, group_key="patient")
        called += int((new.obs["predicted_response"] != "uncertain").sum())
        called += int((new.uns["predicted_response"]["samples"]["call"] != "uncertain").sum())
    assert called == 0
