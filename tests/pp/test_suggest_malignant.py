"""`pp.suggest_malignant`, and what `pp.check` says of cells that are not of the tumor or were treated."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sc_drugresp as sdr
from sc_drugresp._data.compartments import compartments
from sc_drugresp._data.treatment import treated_cells

GENES = sorted({gene for item in compartments() for gene in item.genes}) + [f"GENE{i}" for i in range(200)]


def cells_of(*names: str, depth: int = 2_000, rng: int = 0) -> ad.AnnData:
    """Counts of cells that express the markers of a compartment, as cells do: some of them, at low counts."""
    generator = np.random.default_rng(rng)
    marked = {item.name: [GENES.index(gene) for gene in item.genes] for item in compartments()}
    rate = np.full((len(names), len(GENES)), 0.02)
    rate[:, -200:] = depth / 200
    for i, name in enumerate(names):
        rate[i, marked.get(name, [])] = 1.5
    counts = sparse.csr_matrix(generator.poisson(rate).astype(np.float32))
    return ad.AnnData(
        counts,
        obs=pd.DataFrame({"truth": names}, index=[f"c{i}" for i in range(len(names))]),
        var=pd.DataFrame(index=GENES),
    )


@pytest.mark.parametrize("name", [item.name for item in compartments()])
def test_every_compartment_is_found_by_its_markers(name):
    adata = cells_of(*[name] * 50)
    sdr.pp.suggest_malignant(adata)
    assert (adata.obs["suggested_malignant_compartment"] == name).mean() > 0.8


def test_what_is_neither_blood_nor_stroma_is_suggested_and_nothing_is_removed():
    adata = cells_of(*["T cell"] * 30, *["fibroblast"] * 30, *["epithelial cell"] * 30, *["nothing"] * 30)
    before = adata.X.copy()
    sdr.pp.suggest_malignant(adata)
    suggested = adata.obs.groupby("truth", sort=False)["suggested_malignant"].mean()
    assert suggested[["T cell", "fibroblast"]].max() < 0.1
    assert suggested[["epithelial cell", "nothing"]].min() > 0.9
    assert adata.n_obs == 120
    assert (before != adata.X).nnz == 0


def test_a_cluster_decides_for_its_cells():
    adata = cells_of(*["T cell"] * 30, *["nothing"] * 10)
    adata.obs["cluster"] = "one"
    sdr.pp.suggest_malignant(adata, groupby="cluster", key_added="m")
    assert not adata.obs["m"].any()
    assert set(adata.obs["m_compartment"]) == {"T cell"}
    assert adata.uns["m"]["markers"]["T cell"] == 12


def test_mouse_genes_and_log_values_are_read_too():
    adata = cells_of(*["myeloid cell"] * 30)
    adata.var_names = [name.capitalize() for name in adata.var_names]
    adata.X.data = np.log1p(adata.X.data / 2 + 0.25)
    sdr.pp.suggest_malignant(adata)
    assert (adata.obs["suggested_malignant_compartment"] == "myeloid cell").mean() > 0.9


def test_too_few_markers_and_scaled_values_are_refused():
    adata = cells_of("T cell")[:, -200:].copy()
    with pytest.raises(ValueError, match="marker genes are in these data"):
        sdr.pp.suggest_malignant(adata)
    adata = cells_of(*["T cell"] * 5)
    adata.X = adata.X.toarray() - 1.5
    with pytest.raises(ValueError, match="scaled"):
        sdr.pp.suggest_malignant(adata)
    assert "suggested_malignant" not in adata.obs


def test_check_tells_of_t_cells_and_of_treated_cells():
    adata = cells_of(*["T cell"] * 60, *["epithelial cell"] * 40)
    adata.obs["condition"] = ["erlotinib, day 11"] * 50 + ["vehicle, day 11"] * 50
    found = sdr.pp.check(adata).set_index("code")
    assert found.loc["cell-types", "severity"] == "warning"
    assert "60% T cell" in found.loc["cell-types", "message"]
    assert "50 of 100 cells" in found.loc["treated-cells", "message"]
    calm = cells_of(*["epithelial cell"] * 40)
    calm.obs["condition"] = "untreated"
    found = sdr.pp.check(calm).set_index("code")
    assert found.loc["cell-types", "severity"] == "info"
    assert "treated-cells" not in found.index


@pytest.mark.parametrize(
    "value", ["post", "Post_P12", "on-treatment", "D7", "24h", "week 2", "residual disease", "C1D8"]
)
def test_words_of_treatment(value):
    assert treated_cells(pd.DataFrame({"timepoint": [value]}))[0].all()


@pytest.mark.parametrize(
    "value", ["pre", "Pre_P6", "baseline", "untreated", "DMSO 24h", "day 0", "D0", "p3", "sc_p1", "tumor 7"]
)
def test_words_without_treatment(value):
    assert not treated_cells(pd.DataFrame({"timepoint": [value]}))[0].any()


def test_another_column_that_says_untreated_decides():
    obs = pd.DataFrame({"sample": ["D7"], "condition": ["vehicle"]})
    assert not treated_cells(obs)[0].any()


def test_real_tumors_and_lines(shared):
    lines = ad.read_h5ad(shared / "data" / "GSE173634_breast21_lines_dropseq.h5ad")
    sdr.pp.suggest_malignant(lines)
    assert lines.obs["suggested_malignant"].mean() > 0.95
    t_cells = ad.read_h5ad(shared / "data" / "GSE120575_melanoma_ICB_partA.h5ad")
    sdr.pp.suggest_malignant(t_cells)
    assert t_cells.obs["suggested_malignant"].mean() < 0.05
