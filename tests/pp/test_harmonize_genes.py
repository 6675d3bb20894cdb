"""Symbols and ids are written; nothing else changes."""

from __future__ import annotations

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sc_drugresp as sdr
from sc_drugresp._data import GeneVocab, read_counts

GENES = ["TP53", "ENSG00000146648.12", "SEPT9", "HLA.A", "GAPDH", "ACTB", "QARS", "not_a_gene"]


def make(genes=GENES, **var):
    rng = np.random.default_rng(0)
    mean = [1 if name in {"QARS", "not_a_gene", "row1", "Gm26407"} else 9 for name in genes]
    X = sparse.csr_matrix(rng.poisson(mean, (5, len(genes))).astype(np.float32))
    return ad.AnnData(X, pd.DataFrame(index=[f"c{i}" for i in range(5)]), pd.DataFrame(var, index=genes))


def test_what_is_written_and_what_is_not():
    adata = make()
    before = adata.copy()
    assert sdr.pp.harmonize_genes(adata) is None
    assert adata.var["symbol"].tolist() == ["TP53", "EGFR", "SEPTIN9", "HLA-A", "GAPDH", "ACTB", "", ""]
    assert adata.var["ensembl_id"].iloc[0] == "ENSG00000141510"
    assert set(adata.var) - set(before.var) == {"symbol", "ensembl_id"}
    assert adata.var_names.equals(before.var_names)
    assert (adata.X != before.X).nnz == 0
    report = adata.uns["harmonize_genes"]
    assert report["status"] == {"ensembl_version": 1, "symbol": 3, "case": 1, "alias": 1, "ambiguous": 1, "lost": 1}
    totals = np.asarray(before.X.sum(axis=0)).ravel()
    assert report["share_of_counts"] == pytest.approx(totals[:6].sum() / totals.sum())
    assert report["share_basis"] == "counts (X)"
    assert report["lost"].tolist() == ["not_a_gene"]
    assert report["ambiguous"].tolist() == ["QARS"]
    assert "not used" in report["sources"]["hgnc"]
    assert report["release"] == "Ensembl 110 (human)"


def test_survives_h5ad_and_a_second_call(tmp_path):
    adata = make()
    sdr.pp.harmonize_genes(adata)
    adata.write_h5ad(tmp_path / "x.h5ad")
    again = ad.read_h5ad(tmp_path / "x.h5ad")
    assert again.var["symbol"].tolist() == adata.var["symbol"].tolist()
    assert again.uns["harmonize_genes"]["status"] == adata.uns["harmonize_genes"]["status"]
    before = again.copy()
    sdr.pp.harmonize_genes(again)
    assert again.var["symbol"].tolist() == before.var["symbol"].tolist()
    assert again.var["ensembl_id"].tolist() == before.var["ensembl_id"].tolist()


def test_copy_view_and_mudata():
    adata = make()
    out = sdr.pp.harmonize_genes(adata, copy=True)
    assert "symbol" in out.var
    assert "symbol" not in adata.var
    view = adata[:3]
    sdr.pp.harmonize_genes(view)
    assert not view.is_view
    assert "symbol" not in adata.var
    mdata = mudata.MuData({"rna": make()})
    sdr.pp.harmonize_genes(mdata)
    assert mdata.mod["rna"].var["symbol"].iloc[0] == "TP53"


def test_backed_and_lazy_objects(tmp_path):
    make().write_h5ad(tmp_path / "x.h5ad")
    for adata in (ad.read_h5ad(tmp_path / "x.h5ad", backed="r"), ad.experimental.read_lazy(tmp_path / "x.h5ad")):
        sdr.pp.harmonize_genes(adata)
        assert np.asarray(adata.var["symbol"]).tolist()[:2] == ["TP53", "EGFR"]
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.raises(ValueError, match="needs a file of its own"):
        sdr.pp.harmonize_genes(backed[:2])
    with pytest.raises(ValueError, match="needs a file of its own"):
        sdr.pp.harmonize_genes(backed, copy=True)


def test_second_identifier_and_its_key():
    names = [f"row{i}" for i in range(3)]
    adata = make(names, gene_ids=["ENSG00000141510", None, "ENSG00000146648"], mine=["TP53", "KRAS", "EGFR"])
    sdr.pp.harmonize_genes(adata)
    assert adata.var["symbol"].tolist() == ["TP53", "", "EGFR"]
    sdr.pp.harmonize_genes(adata, gene_key="mine")
    assert adata.var["symbol"].tolist() == ["TP53", "KRAS", "EGFR"]
    with pytest.raises(KeyError, match="Available columns"):
        sdr.pp.harmonize_genes(adata, gene_key="nope")


def test_duplicates_are_counted_here_and_summed_by_the_reader():
    adata = make(["TP53", "ENSG00000141510", "EGFR"])
    sdr.pp.harmonize_genes(adata)
    report = adata.uns["harmonize_genes"]
    assert report["n_duplicated"] == 2
    assert report["duplicated"].tolist() == ["ENSG00000141510", "TP53"]
    aligned = read_counts(adata).align(GeneVocab(["EGFR", "TP53"]))
    block = next(iter(aligned.blocks()))
    summed = np.zeros((5, 2))
    summed[np.repeat(np.arange(5), np.diff(block.indptr)), block.gene_ids] = block.counts
    np.testing.assert_array_equal(summed[:, 1], adata.X.toarray()[:, :2].sum(axis=1))
    with pytest.raises(ValueError, match="2 columns are genes that other columns hold too"):
        sdr.pp.harmonize_genes(make(["TP53", "ENSG00000141510", "EGFR"]), duplicates="error")


def test_thresholds_use_counts_not_genes():
    genes = ["TP53", "EGFR", "odd1", "odd2"]
    adata = make(genes)
    adata.X = np.tile(np.array([[40, 40, 1, 1]], np.float32), (5, 1))
    sdr.pp.harmonize_genes(adata)  # half of the genes, 98 % of the counts: no warning
    adata.X = np.tile(np.array([[3, 3, 2, 1]], np.float32), (5, 1))
    with pytest.warns(UserWarning, match="Only 67% of the counts"):
        sdr.pp.harmonize_genes(adata)
    del adata.var["symbol"], adata.var["ensembl_id"], adata.uns["harmonize_genes"]
    adata.X = np.tile(np.array([[1, 1, 9, 9]], np.float32), (5, 1))
    with pytest.raises(ValueError, match="Only 10% of the counts"):
        sdr.pp.harmonize_genes(adata)
    assert "symbol" not in adata.var
    assert "harmonize_genes" not in adata.uns


def test_normalized_and_scaled_values():
    adata = make()
    adata.X = np.log1p(adata.X.toarray() * 0.9).astype(np.float32)
    sdr.pp.harmonize_genes(adata)
    assert adata.uns["harmonize_genes"]["share_basis"].startswith("counts")
    adata.X = adata.X - adata.X.mean(axis=0)
    with pytest.warns(UserWarning, match="75% of the genes"):
        sdr.pp.harmonize_genes(adata)
    assert adata.uns["harmonize_genes"]["share_basis"] == "genes"


@pytest.mark.parametrize("how", ["scaled", "logged"])
def test_counts_in_raw_decide_even_if_raw_has_more_genes(how):
    """Shares come from the counts, of the genes of `.var` alone."""
    full = make(["TP53", "EGFR", "KRAS", "odd1", "odd2", "MALAT1"])
    full.X = np.tile(np.array([[50, 40, 9, 1, 1, 500]], np.float32), (5, 1)) + np.arange(5, dtype=np.float32)[:, None]
    adata = full[:, ["odd1", "TP53", "EGFR"]].copy()
    adata.raw = full
    adata.X = np.log1p(adata.X * 0.37) if how == "logged" else (adata.X - adata.X.mean(axis=0)) / adata.X.std(axis=0)
    sdr.pp.harmonize_genes(adata)
    report = adata.uns["harmonize_genes"]
    counts = full.X[:, [3, 0, 1]].sum(axis=0)
    assert report["share_of_counts"] == pytest.approx(counts[1:].sum() / counts.sum())
    assert report["share_basis"] == "counts (raw)"


def test_raw_with_other_genes_is_no_evidence():
    adata = make()
    other = make(["X1", "X2"])
    adata.raw = other
    adata.X = np.log1p(adata.X.toarray() * 0.9).astype(np.float32)
    sdr.pp.harmonize_genes(adata)
    assert adata.uns["harmonize_genes"]["share_basis"] == "counts (X)"


def test_without_a_matrix_of_these_genes_genes_are_counted():
    full = make()
    adata = ad.AnnData(obs=full.obs, var=full.var)
    adata.raw = make(["X1", "X2"])
    with pytest.warns(UserWarning, match="Only 75% of the genes"):
        sdr.pp.harmonize_genes(adata)
    assert adata.uns["harmonize_genes"]["share_basis"] == "genes"
    assert adata.uns["harmonize_genes"]["share_of_counts"] == 6 / 8


@pytest.mark.parametrize("name", ["symbol", "ensembl_id"])
@pytest.mark.parametrize("genes", [GENES, ["TP53", "EGFR", "ACTB"]])
def test_index_named_like_our_columns(name, genes, tmp_path):
    adata = make(genes)
    adata.var.index.name = name
    sdr.pp.harmonize_genes(adata)
    adata.write_h5ad(tmp_path / "x.h5ad")
    again = ad.read_h5ad(tmp_path / "x.h5ad")
    assert again.var_names.tolist() == genes
    for column in ("symbol", "ensembl_id"):
        assert again.var[column].tolist() == adata.var[column].tolist()
    # Equal names stay, since files can hold them.
    assert adata.var_names.name == (name if name == "symbol" and len(genes) == 3 else None)


def test_mouse_needs_orthologs(tmp_path, shared):
    mouse = ["Trp53", "Egfr", "Actb", "Gapdh", "Gm26407"]
    adata = make(mouse)
    with pytest.raises(ConnectionError, match=r"(?s)one-to-one orthologs.*SC_DRUGRESP_DATA.*target='mouse'"):
        sdr.pp.harmonize_genes(adata)
    assert "symbol" not in adata.var
    sdr.pp.harmonize_genes(adata, target="mouse")
    assert adata.var["ensembl_id"].iloc[0] == "ENSMUSG00000059552"
    with sdr.settings.override(data_dir=shared / "data"):
        sdr.pp.harmonize_genes(adata)
        assert adata.var["symbol"].tolist() == ["TP53", "EGFR", "ACTB", "GAPDH", ""]
        assert adata.uns["harmonize_genes"]["status"] == {"ortholog": 4, "no_ortholog": 1}
        first = adata.var.copy()
        sdr.pp.harmonize_genes(adata)
        pd.testing.assert_frame_equal(adata.var, first)
        ids = (
            GeneVocab(["GAPDH", "TP53", "GM26407"])
            .align(adata.var_names.tolist(), adata.var["ensembl_id"].tolist())
            .ids
        )
        assert ids.tolist() == [1, -1, -1, 0, -1]


def test_xenograft_genes_are_set_aside():
    genes = ["GRCh38_TP53", "GRCh38_EGFR", "GRCh38_ACTB", "mm10___Trp53", "mm10___Egfr"]
    adata = make(genes)
    with pytest.warns(UserWarning, match="Genes of two species"):
        sdr.pp.harmonize_genes(adata)
    assert adata.var["symbol"].tolist() == ["TP53", "EGFR", "ACTB", "", ""]
    assert adata.uns["harmonize_genes"]["share_of_counts"] == 1


def test_wrong_arguments():
    with pytest.raises(ValueError, match="duplicates"):
        sdr.pp.harmonize_genes(make(), duplicates="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one cell"):
        sdr.pp.harmonize_genes(make()[:0].copy())
    with pytest.raises(ValueError, match="gene_key="):
        sdr.pp.harmonize_genes(make(["a1x", "b2x"]))


def test_real_files(shared):
    for name, least in (("GSE149214_PC9_erlotinib", 0.97), ("GSE118767_lung5_afatinib_celseq2", 0.83)):
        adata = ad.read_h5ad(shared / "data" / f"{name}.h5ad")
        published = adata.var["ensembl_id"].astype(str).to_numpy()
        del adata.var["ensembl_id"]
        sdr.pp.harmonize_genes(adata)
        assert adata.uns["harmonize_genes"]["share_of_counts"] > least
        found = adata.var["ensembl_id"].to_numpy()
        both = (found != "") & (pd.Series(published).str.startswith("ENSG").to_numpy())
        assert both.sum() > 10_000
        assert (found[both] == published[both]).mean() > 0.98
        with sdr.settings.override(data_dir=shared / "data"):
            sdr.pp.harmonize_genes(adata)
        assert adata.uns["harmonize_genes"]["share_of_counts"] > least + 0.01
