"""One reader for every container: the same rows, the object untouched, clear errors."""

from __future__ import annotations

import warnings

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sc_drugresp as sdr
from sc_drugresp._data import read_counts
from sc_drugresp._data import rows as rows_module
from sc_drugresp._data.matrices import gene_columns

N, G = 83, 61


@pytest.fixture
def counts() -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.negative_binomial(0.5, 0.2, (N, G)).astype(np.float32)
    values[5] = 0  # a cell without counts
    return values


def make(X, **kwargs) -> ad.AnnData:
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(X.shape[0])])
    var = pd.DataFrame(index=[f"gene{i}" for i in range(X.shape[1])])
    return ad.AnnData(X, obs=obs, var=var, **kwargs)


def dense(source, size=10, rows=None) -> np.ndarray:
    blocks = list(source.blocks(size, rows))
    n = 0
    for start, block in blocks:
        assert start == n
        assert block.format == "csr"
        assert block.dtype == np.float32
        assert block.has_sorted_indices
        assert block.data.all()
        n += block.shape[0]
    return np.vstack([block.toarray() for _, block in blocks])


def messy_csr(counts):
    """Valid CSR with unsorted indices, a stored zero and an entry in two parts."""
    coo = sparse.coo_matrix(counts)
    row = np.concatenate([coo.row, [0, coo.row[0]]])
    col = np.concatenate([coo.col, [0, coo.col[0]]])
    data = np.concatenate([coo.data, [0, 1]]).astype(np.float32)
    data[0] -= 1
    order = np.lexsort((-col, row))
    indptr = np.zeros(N + 1, dtype=np.int32)
    np.cumsum(np.bincount(row, minlength=N), out=indptr[1:])
    return sparse.csr_matrix((data[order], col[order], indptr), shape=counts.shape)


IN_MEMORY = {
    "ndarray": lambda c: c,
    "fortran": np.asfortranarray,
    "int64": lambda c: c.astype(np.int64),
    "uint8": lambda c: c.astype(np.uint8),
    "float64": lambda c: c.astype(np.float64),
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "csc_array": sparse.csc_array,
    "messy_csr": messy_csr,
}


def write_zarr(adata, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about formats that anndata will write in the future
        adata.write_zarr(path)


def on_disk(kind, counts, path):
    if kind.startswith("h5ad"):
        form = {"h5ad_csr": sparse.csr_matrix, "h5ad_csc": sparse.csc_matrix, "h5ad_dense": np.asarray}[kind]
        make(form(counts)).write_h5ad(path / "x.h5ad")
        return ad.read_h5ad(path / "x.h5ad", backed="r")
    if kind.startswith("lazy"):
        form = {"lazy_csr": sparse.csr_matrix, "lazy_csc": sparse.csc_matrix, "lazy_dense": np.asarray}[kind]
        write_zarr(make(form(counts)), path / "x.zarr")
        return ad.experimental.read_lazy(path / "x.zarr")
    if kind.startswith("zarr"):
        import zarr

        form = {"zarr_csr": sparse.csr_matrix, "zarr_csc": sparse.csc_matrix, "zarr_dense": np.asarray}[kind]
        write_zarr(make(form(counts)), path / "x.zarr")
        stored = zarr.open_group(path / "x.zarr", mode="r")["X"]
        return make(stored if kind == "zarr_dense" else ad.io.sparse_dataset(stored))
    import dask.array as da

    if kind == "dask":
        return make(da.from_array(counts, chunks=(20, 15)))
    width = 25 if kind == "dask_csr_tiles" else G
    return make(da.from_array(counts, chunks=(20, width)).map_blocks(sparse.csr_matrix))


ON_DISK = [
    *("h5ad_csr", "h5ad_csc", "h5ad_dense", "zarr_csr", "zarr_csc", "zarr_dense"),
    *("lazy_csr", "lazy_csc", "lazy_dense", "dask", "dask_csr", "dask_csr_tiles"),
]


@pytest.mark.parametrize("kind", [*IN_MEMORY, *ON_DISK])
def test_every_container_gives_the_same_rows(kind, counts, tmp_path):
    adata = make(IN_MEMORY[kind](counts)) if kind in IN_MEMORY else on_disk(kind, counts, tmp_path)
    source = read_counts(adata)
    assert (source.origin, source.kind, source.n_obs, source.n_vars) == ("X", "counts", N, G)
    np.testing.assert_array_equal(dense(source), counts)
    rows = np.array([70, 3, 3, 5, 12, 0])
    np.testing.assert_array_equal(dense(source, 4, rows), counts[rows])


@pytest.mark.parametrize("kind", [*IN_MEMORY, *ON_DISK])
def test_views_of_every_container(kind, counts, tmp_path):
    adata = make(IN_MEMORY[kind](counts)) if kind in IN_MEMORY else on_disk(kind, counts, tmp_path)
    obs, var = np.array([40, 2, 5, 81, 17]), np.array([9, 3, 50])
    view = adata[obs, var]
    np.testing.assert_array_equal(dense(read_counts(view), 2), counts[np.ix_(obs, var)])
    np.testing.assert_array_equal(dense(read_counts(adata[10:20])), counts[10:20])
    mask = np.arange(N) % 3 == 0
    np.testing.assert_array_equal(dense(read_counts(adata[mask])), counts[mask])
    assert adata[obs, var].is_view


@pytest.mark.parametrize("kind", list(IN_MEMORY))
def test_the_matrix_is_left_as_it_is(kind, counts):
    adata = make(IN_MEMORY[kind](counts))
    before = adata.X.copy()
    dense(read_counts(adata))
    if sparse.issparse(before):
        for name in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(adata.X, name), getattr(before, name))
    else:
        np.testing.assert_array_equal(adata.X, before)
    assert list(adata.layers) == []


def test_where_counts_are_looked_for(counts):
    logged = np.log1p(counts * 1.37)
    adata = make(logged)
    adata.raw = make(counts)
    assert read_counts(adata).origin == "raw"
    adata.layers["counts"] = counts + 1
    source = read_counts(adata)
    assert source.origin == "layers['counts']"
    np.testing.assert_array_equal(dense(source), counts + 1)
    assert read_counts(adata, layer="raw").origin == "raw"
    np.testing.assert_array_equal(dense(read_counts(adata[5:9], layer="raw")), counts[5:9])
    adata.layers["umi"] = counts
    assert read_counts(adata, layer="umi").origin == "layers['umi']"
    with pytest.raises(KeyError, match=r"Available layers: \['counts', 'umi'\]"):
        read_counts(adata, layer="nope")
    with pytest.raises(KeyError, match=r"`\.raw` is empty"):
        read_counts(make(counts), layer="raw")


def test_raw_with_more_genes_brings_its_own_names(counts):
    full = make(counts)
    adata = full[:, :10].copy()
    adata.X = np.log1p(adata.X * 0.7).astype(np.float32)
    adata.raw = full
    source = read_counts(adata)
    assert source.n_vars == G
    assert source.names[-1] == f"gene{G - 1}"


def test_x_may_be_missing(counts):
    adata = ad.AnnData(obs=pd.DataFrame(index=list("ab")), var=pd.DataFrame(index=list("xyz")))
    with pytest.raises(ValueError, match="holds no matrix"):
        read_counts(adata)
    with pytest.raises(KeyError, match=r"`\.X` is empty"):
        read_counts(adata, layer="X")
    adata.layers["counts"] = counts[:2, :3]
    assert read_counts(adata).origin == "layers['counts']"
    assert read_counts(adata, expect="any").origin == "layers['counts']"


def test_mudata(counts):
    protein = make(counts[:, :4])
    protein.var_names = list("abcd")
    mdata = mudata.MuData({"rna": make(counts), "prot": protein})
    np.testing.assert_array_equal(dense(read_counts(mdata)), counts)
    assert read_counts(mdata, modality="prot").n_vars == 4
    with pytest.raises(KeyError, match="Available modalities"):
        read_counts(mdata, modality="atac")
    with pytest.raises(TypeError, match="AnnData or MuData"):
        read_counts(counts)


def test_column_blocks_need_several_passes_within_the_memory_given(counts, tmp_path, monkeypatch):
    adata = on_disk("h5ad_csc", counts, tmp_path)
    monkeypatch.setattr(rows_module, "_SLAB_BYTES", 10_000)
    monkeypatch.setattr(rows_module, "_CHUNK", 97)
    reads = []
    original = rows_module.ColumnwiseRows.read
    monkeypatch.setattr(
        rows_module.ColumnwiseRows, "read", lambda self, index: reads.append(index) or original(self, index)
    )
    np.testing.assert_array_equal(dense(read_counts(adata), 7), counts)
    assert 3 < len(reads) < N / 7 + 3


AWKWARD = {
    "no cells": (np.zeros((0, 3), np.float32), "at least one cell and one gene"),
    "no genes": (np.zeros((3, 0), np.float32), "at least one cell and one gene"),
    "negative": (np.array([[1, -2.0], [0, 3]], np.float32), "negative values"),
    "NaN": (np.array([[1, np.nan], [0, 3]], np.float32), "NaN"),
    "infinite": (np.array([[1, np.inf], [0, 3]], np.float32), "infinite"),
    "fractions": (np.array([[1, 2.5], [0, 300]], np.float32), "not integers"),
    "log": (np.log1p(np.arange(6).reshape(2, 3) * 0.73).astype(np.float32), "look log-normalized"),
}


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_awkward_values_are_refused_with_the_fix(name, form):
    X, message = AWKWARD[name]
    adata = make(form(X))
    before = adata.copy()
    with pytest.raises(ValueError, match=message) as error:
        read_counts(adata)
    assert 0 in X.shape or "layers['counts']" in str(error.value)
    np.testing.assert_array_equal(dense_of(adata.X), dense_of(before.X))


def dense_of(X):
    return X.toarray() if sparse.issparse(X) else np.asarray(X)


@pytest.mark.parametrize(
    "X", [np.zeros((1, 1)), np.ones((1, 4)), np.ones((4, 1)), np.zeros((5, 5)), np.eye(3, dtype=bool)]
)
def test_small_and_empty_matrices_are_counts(X):
    source = read_counts(make(X))
    np.testing.assert_array_equal(dense(source), X)


def test_other_numbers_are_read_as_they_are_when_allowed(counts):
    scaled = counts - counts.mean(axis=0)
    source = read_counts(make(scaled), expect="any")
    assert (source.kind, source.origin) == ("scaled", "X")
    np.testing.assert_array_equal(dense(source), scaled)
    with pytest.raises(ValueError, match="NaN"):
        read_counts(make(np.where(counts == 1, np.nan, counts)), expect="any")


def test_text_is_no_matrix(counts):
    adata = make(counts)
    adata.layers["counts"] = counts.astype(str).astype(object)
    with pytest.raises(ValueError, match="Expected numbers"):
        read_counts(adata)


def test_a_layer_with_another_name_is_hinted_at(counts):
    adata = make((counts - counts.mean(axis=0)).astype(np.float32))
    adata.layers["umis"] = counts
    with pytest.raises(ValueError, match=r"layers\['umis'\] may hold them"):
        read_counts(adata)


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan])
def test_rows_that_were_not_probed_are_checked_when_read(value):
    X = np.ones((3000, 2), np.float32)
    X[1311, 1] = value
    source = read_counts(make(X))
    with pytest.raises(ValueError, match="in row 1311"):
        dense(source, 100)
    order = np.array([5, 1311, 2])
    with pytest.raises(ValueError, match="in row 1311"):
        dense(source, 100, order)
    assert dense(source, 100, order[:1]).tolist() == [[1, 1]]


def test_duplicated_names_are_kept_apart_here(counts):
    adata = make(counts)
    adata.var_names = ["same"] * G
    adata.obs_names = ["cell"] * N
    np.testing.assert_array_equal(dense(read_counts(adata)), counts)


def test_read_only_file(counts, tmp_path):
    path = tmp_path / "x.h5ad"
    make(sparse.csr_matrix(counts)).write_h5ad(path)
    path.chmod(0o444)
    before = path.read_bytes()
    np.testing.assert_array_equal(dense(read_counts(ad.read_h5ad(path, backed="r"))), counts)
    assert path.read_bytes() == before


def test_second_identifier():
    var = pd.DataFrame({"gene_ids": ["E1", None], "n": [1, 2]}, index=["a", "b"])
    names, other = gene_columns(var)
    assert names.tolist() == ["a", "b"]
    assert other is not None
    assert other.tolist() == ["E1", ""]
    assert gene_columns(var[["n"]])[1] is None
    assert gene_columns(pd.DataFrame({"symbol": ["a", "b"]}, index=["a", "b"]))[1] is None
    with pytest.raises(KeyError, match="Available columns"):
        gene_columns(var, "nope")
    categories = pd.DataFrame({"feature_name": pd.Categorical(["X", "Y"])}, index=["a", "b"])
    assert gene_columns(categories)[1].tolist() == ["X", "Y"]  # type: ignore[union-attr]


def test_real_files(shared):
    kinds = {}
    for path in sorted((shared / "data").glob("*.h5ad")):
        adata = ad.read_h5ad(path, backed="r")
        try:
            source = read_counts(adata)
            kinds[path.name.split("_")[0]] = source.kind
            total = sum(float(block.sum()) for _, block in source.blocks(500))
            assert total == float(ad.read_h5ad(path).X.sum(dtype=np.float64))
        except ValueError as error:
            kinds[path.name.split("_")[0]] = str(error)
            assert read_counts(adata, expect="any").kind in {"scaled", "log_normalized"}
        adata.file.close()
    assert kinds["GSE149214"] == kinds["GSE118767"] == "counts"
    assert "look log-normalized" in kinds["GSE120575"]
    assert "does not give integers" in kinds["GSE120575"]
    for name in ("GSE108383", "GSE157220"):
        assert "negative values" in kinds[name]


def test_block_size_of_the_settings(counts):
    with sdr.settings.override(block_cells=40):
        assert [start for start, _ in read_counts(make(counts)).blocks()] == [0, 40, 80]
