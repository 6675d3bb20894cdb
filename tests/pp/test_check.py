"""Findings: each planted fault is found, a clean object has none, and nothing is written."""

from __future__ import annotations

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import sc_drugresp as sdr
from sc_drugresp._data import GeneVocab


@pytest.fixture
def adata() -> ad.AnnData:
    return sdr.datasets.toy(n_samples=8, cells_per_sample=30, n_genes=200)


def codes(frame, severity=None) -> set[str]:
    return set(frame["code"] if severity is None else frame.loc[frame["severity"] == severity, "code"])


def test_clean_object(adata):
    frame = sdr.pp.check(adata, group_key="sample")
    assert list(frame.columns) == ["code", "severity", "subject", "message", "fix"]
    assert codes(frame, "error") == codes(frame, "warning") == set()
    assert {"raw-counts", "gene-coverage", "species", "labels", "groups", "depth-by-label"} <= codes(frame, "info")


def test_nothing_is_written(adata):
    before = adata.copy()
    sdr.pp.check(adata, models="pca")
    assert (adata.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    pd.testing.assert_frame_equal(adata.var, before.var)
    assert (list(adata.uns), list(adata.layers)) == (list(before.uns), list(before.layers))


def spoil(adata, what):
    X = adata.X.toarray()
    if what == "normalized":
        X = np.log1p(X * np.random.default_rng(0).uniform(0.5, 1.5, X.shape))
    elif what == "scaled":
        X = (X - X.mean(0)) / (X.std(0) + 1e-9)
    elif what == "NaN":
        X[3, 4] = np.nan
    elif what == "infinite":
        X[3, 4] = np.inf
    elif what == "one fraction":
        X[117, 4] = 0.5
    elif what == "binary":
        X = (X > 0).astype(float)
    elif what == "empty cells":
        X[:5] = 0
    adata.X = sparse.csr_matrix(X.astype(np.float32))


@pytest.mark.parametrize(
    ("what", "code", "severity"),
    [
        ("normalized", "raw-counts", "error"),
        ("scaled", "raw-counts", "error"),
        ("scaled", "negative", "warning"),
        ("NaN", "not-finite", "error"),
        ("infinite", "not-finite", "error"),
        ("one fraction", "raw-counts", "error"),
        ("binary", "binary", "warning"),
        ("empty cells", "empty-cells", "warning"),
    ],
)
def test_matrix(adata, what, code, severity):
    spoil(adata, what)
    frame = sdr.pp.check(adata, group_key="sample")
    row = frame[(frame["code"] == code) & (frame["severity"] == severity)]
    assert len(row) == 1
    assert row["fix"].item()


def test_counts_that_can_be_recovered(adata):
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    frame = sdr.pp.check(adata, models="scvi", group_key="sample")
    assert "counts-recovered" in codes(frame, "info")
    assert codes(frame, "error") == set()


def test_names(adata):
    adata.obs_names = ["same"] * adata.n_obs
    adata.var_names = ["1-Sep", "2-Mar", "TP53", "TP53", *adata.var_names[4:]]
    frame = sdr.pp.check(adata, group_key="sample")
    assert {"duplicated-cells", "duplicated-genes", "gene-dates"} <= codes(frame, "warning")


def test_unknown_genes_and_species(adata):
    del adata.var["ensembl_id"]
    adata.var_names = [f"feature{i}" for i in range(adata.n_vars)]
    frame = sdr.pp.check(adata, group_key="sample")
    assert {"gene-coverage", "species"} <= codes(frame, "error")
    mouse = sdr.datasets.toy(n_samples=4, cells_per_sample=20, n_genes=100, organism="mouse")
    assert "species" in codes(sdr.pp.check(mouse, group_key="sample"), "warning")
    mixed = sdr.datasets.toy(n_samples=4, cells_per_sample=20, n_genes=100)
    del mixed.var["ensembl_id"]
    half = mixed.n_vars // 2
    mixed.var_names = [*mixed.var_names[:half], *("mm10___" + mouse.var_names[half:])]
    assert "mixed-species" in codes(sdr.pp.check(mixed, group_key="sample"), "warning")


def test_labels(adata):
    def labeled(values, **kwargs):
        adata.obs["response"] = values
        return codes(sdr.pp.check(adata, group_key="sample", **kwargs))

    truth = adata.obs["response"].astype(str).to_numpy()
    assert "labels-one-class" in labeled(pd.Categorical(["sensitive"] * adata.n_obs))
    assert "labels-missing" in labeled(pd.Categorical([None] * adata.n_obs))
    assert "labels-wording" in labeled(np.where(truth == "sensitive", "Responder", "NR"))
    del adata.obs["response"]
    assert "labels-absent" in codes(sdr.pp.check(adata))
    with pytest.raises(KeyError, match="Available columns"):
        sdr.pp.check(adata, label_key="response")


def test_samples(adata):
    obs = adata.obs
    obs["side"] = np.where(obs["response"] == "sensitive", "A", "B")
    assert "labels-aliased" in codes(sdr.pp.check(adata, group_key="side"), "error")
    obs["one"] = "x"
    assert "groups-one" in codes(sdr.pp.check(adata, group_key="one"), "error")
    obs["gaps"] = np.where(np.arange(adata.n_obs) < 5, None, obs["sample"].astype(str))
    assert "groups-missing" in codes(sdr.pp.check(adata, group_key="gaps"), "error")
    sides = obs.groupby("response", observed=True)["sample"].unique()
    few = adata[obs["sample"].isin([*sides["sensitive"][:2], *sides["resistant"]])].copy()
    assert "few-samples" in codes(sdr.pp.check(few, group_key="sample"), "warning")
    small = adata[np.r_[0:5, 30 : adata.n_obs]].copy()
    assert "small-samples" in codes(sdr.pp.check(small, group_key="sample"), "warning")
    bare = ad.AnnData(adata.X, obs=obs[["response"]], var=adata.var)
    assert "groups-absent" in codes(sdr.pp.check(bare), "warning")


def test_label_tied_to_batch_or_platform(adata):
    frame = sdr.pp.check(
        sdr.datasets.toy(n_samples=8, cells_per_sample=30, n_genes=100, aliased=True), group_key="sample"
    )
    row = frame[frame["code"] == "labels-aliased"]
    assert row["subject"].tolist() == ["batch"]
    adata.obs["platform"] = np.where(adata.obs["response"] == "sensitive", "10x", "Smart-seq2")
    adata.obs["response_other"] = adata.obs["response"].astype(str)
    frame = sdr.pp.check(adata, group_key="sample")
    assert frame.loc[frame["code"] == "labels-aliased", "subject"].tolist() == ["platform"]


def test_depth_that_gives_the_label_away(adata):
    X = adata.X.toarray()
    X[(adata.obs["response"] == "sensitive").to_numpy()] *= 3
    adata.X = sparse.csr_matrix(X)
    frame = sdr.pp.check(adata, group_key="sample")
    row = frame[(frame["code"] == "depth-by-label") & (frame["subject"] == "counts per cell")]
    assert row["severity"].item() == "warning"
    assert "over 8 samples" in row["message"].item()
    y = (adata.obs["response"] == "sensitive").to_numpy()
    depth = X.sum(axis=1)
    pairs = depth[y][:, None] - depth[~y][None, :]
    auroc = (pairs > 0).mean() + 0.5 * (pairs == 0).mean()
    assert f"AUROC {auroc:.2f} over cells" in row["message"].item()


class Encoder:
    """Anything with a name and a vocabulary can be asked about."""

    name = "mine"

    def __init__(self, names):
        self.vocab = GeneVocab(names)


def test_models(adata):
    frame = sdr.pp.check(adata, models=["pca", Encoder(adata.var_names.tolist())], group_key="sample")
    row = frame[frame["code"] == "model-coverage"]
    assert (row["severity"].item(), row["subject"].item()) == ("info", "mine")
    assert "100.0%" in row["message"].item()
    frame = sdr.pp.check(adata, models=[Encoder(["TP53", "KRAS"])], group_key="sample")
    assert "model-coverage" in codes(frame, "error")
    spoil(adata, "scaled")
    assert codes(sdr.pp.check(adata, models=["scvi"]), "error") >= {"model-counts"}
    assert "model-counts" not in codes(sdr.pp.check(adata, models=["pca"]))
    with pytest.raises(ValueError, match="Unknown model"):
        sdr.pp.check(adata, models="nothing")


def test_genes_that_a_model_does_not_know_are_an_error_where_embedding_refuses_them(adata):
    from sc_drugresp._embed.coverage import LOW_COVERAGE, NO_COVERAGE

    totals = np.asarray(adata.X.sum(axis=0)).ravel()
    order = np.argsort(totals)
    for n in (0, 1, 60, 150):
        known = adata.var_names[order[:n]].tolist()
        share = totals[order[:n]].sum() / totals.sum()
        frame = sdr.pp.check(adata, models=[Encoder([*known, "NOGENE"])], group_key="sample")
        expected = "error" if share < NO_COVERAGE else "warning" if share < LOW_COVERAGE else "info"
        assert frame.loc[frame["code"] == "model-coverage", "severity"].item() == expected
        assert f"{share:.1%}" in frame.loc[frame["code"] == "model-coverage", "message"].item()


def test_columns_of_a_whole_mudata(adata):
    expected = sdr.pp.check(adata, group_key="sample")
    obs = adata.obs[["response", "sample"]].copy()
    bare = adata.copy()
    bare.obs = bare.obs.drop(columns=["response", "sample"])
    mdata = mudata.MuData({"rna": bare})
    mdata.obs[["response", "sample"]] = obs
    pd.testing.assert_frame_equal(sdr.pp.check(mdata, group_key="sample"), expected)
    prefixed = mudata.MuData({"rna": adata})
    frame = sdr.pp.check(prefixed, label_key="rna:response", group_key="rna:sample")
    assert codes(frame, "error") == codes(frame, "warning") == set()
    assert "labels" in codes(frame, "info")
    adata.obs["platform"] = np.where(adata.obs["response"] == "sensitive", "10x", "Smart-seq2")
    frame = sdr.pp.check(mudata.MuData({"rna": adata}), group_key="sample")
    assert frame.loc[frame["code"] == "labels-aliased", "subject"].tolist() == ["platform"]


def test_usual_names_of_samples(adata):
    adata.obs = adata.obs[["response", "sample"]].rename(columns={"sample": "orig.ident"})
    frame = sdr.pp.check(adata)
    assert frame.loc[frame["code"] == "groups", "subject"].item() == "orig.ident"


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (1, 5), (5, 1)])
def test_tiny_objects(shape):
    frame = sdr.pp.check(ad.AnnData(np.zeros(shape, np.float32)))
    assert ("empty" in codes(frame, "error")) == (0 in shape)
    assert len(frame) > 0


def test_object_without_a_matrix():
    bare = ad.AnnData(obs=pd.DataFrame(index=["a"]), var=pd.DataFrame(index=["x"]))
    assert "empty" in codes(sdr.pp.check(bare), "error")


def test_containers_agree(adata, tmp_path):
    expected = sdr.pp.check(adata, group_key="sample")
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    lazy = ad.experimental.read_lazy(tmp_path / "x.h5ad")
    wrapped = mudata.MuData({"rna": adata.copy()})
    with sdr.settings.override(block_cells=17):
        for other in (backed, lazy, wrapped, adata[:]):
            pd.testing.assert_frame_equal(sdr.pp.check(other, group_key="sample"), expected)


def test_real_files(shared):
    found = {}
    for path in sorted((shared / "data").glob("*.h5ad")):
        found[path.name.split("_")[0]] = sdr.pp.check(ad.read_h5ad(path, backed="r"), models=["pca", "scvi"])
    assert "labels-aliased" in codes(found["GSE149214"], "error")
    assert "raw-counts" in codes(found["GSE149214"], "info")
    assert codes(found["GSE118767"], "error") == set()
    assert codes(found["GSE120575"], "error") == {"raw-counts", "model-counts"}
    assert {"raw-counts", "labels-aliased"} <= codes(found["GSE108383"], "error")
    assert {"raw-counts", "groups-one"} <= codes(found["GSE157220"], "error")
