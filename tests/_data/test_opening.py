"""Files that a verb opens: matrices stay on disk, the file stays as it is, and the numbers are those of the object."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pytest
from mudata import MuData
from scipy import sparse

import sc_drugresp as sdr
from sc_drugresp._data.opening import open_cells

CALL = {"model": "pca", "n_comps": 5}


@pytest.fixture
def cells():
    adata = sdr.datasets.toy(4, 20)
    adata.layers["counts"] = adata.X.copy()
    adata.raw = adata
    adata.obsp["near"] = sparse.csr_matrix(adata.X @ adata.X.T)
    return adata


def write(adata, folder, suffix):
    path = folder / f"cells{suffix}"
    if suffix == ".zarr":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats to come
            adata.write_zarr(path)
    elif suffix == ".h5mu":
        MuData({"rna": adata}).write(path)
    else:
        adata.write_h5ad(path)
    return path


def content(path):
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file): file.read_bytes() for file in files}


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_matrices_stay_on_disk_and_everything_is_there(cells, tmp_path, suffix):
    opened = open_cells(write(cells, tmp_path, suffix))
    assert opened.obs.equals(cells.obs)
    assert opened.var.equals(cells.var)
    for matrix in (opened.X, opened.layers["counts"], opened.obsp["near"], opened.raw.X):
        assert not isinstance(matrix, np.ndarray)
        assert not sparse.issparse(matrix)
    assert (opened.to_memory().X != cells.X).nnz == 0
    assert opened.uns.keys() == cells.uns.keys()


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr", ".h5mu"])
def test_embed_takes_a_path_and_leaves_the_file_alone(cells, tmp_path, suffix):
    path = write(cells, tmp_path, suffix)
    before = content(path)
    opened = sdr.tl.embed(str(path), **CALL)
    sdr.tl.embed(cells, **CALL)
    got = opened.mod["rna"] if suffix == ".h5mu" else opened
    assert np.array_equal(got.obsm["X_sdr_pca"], cells.obsm["X_sdr_pca"])
    assert content(path) == before


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_an_object_without_raw(cells, tmp_path, suffix):
    del cells.raw
    assert open_cells(write(cells, tmp_path, suffix)).raw is None


def test_dense_matrices_and_views_of_opened_cells(cells, tmp_path):
    cells.X = cells.X.toarray()
    del cells.layers["counts"]
    opened = sdr.tl.embed(write(cells, tmp_path, ".h5ad"), **CALL)
    assert opened.obsm["X_sdr_pca"].shape == (80, 5)
    assert np.array_equal(opened[::7].to_memory().X, cells.X[::7])


def test_columns_of_a_mudata_file_are_kept(cells, tmp_path):
    data = MuData({"rna": cells, "prot": anndata.AnnData(np.eye(cells.n_obs), obs=cells.obs[[]])})
    data.obs["tumor"] = np.arange(cells.n_obs)
    data.write(tmp_path / "cells.h5mu")
    opened = open_cells(tmp_path / "cells.h5mu")
    assert list(opened.mod) == ["rna", "prot"]
    assert opened.obs["tumor"].tolist() == list(range(cells.n_obs))


@pytest.mark.parametrize(
    ("name", "content", "error", "match"),
    [
        ("cells.loom", b"", ValueError, "Expected a file .h5ad"),
        ("absent.h5ad", None, FileNotFoundError, "There is no file"),
        ("cells.h5ad", b"no HDF5 at all", ValueError, "cannot be opened"),
    ],
)
def test_what_is_no_file_with_cells_is_refused(tmp_path, name, content, error, match):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=match):
        sdr.tl.embed(tmp_path / name, **CALL)


def test_a_file_with_something_else_is_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "cells.h5ad", "w") as file:
        file["numbers"] = [1, 2]
    with pytest.raises(ValueError, match="holds no annotated data"):
        open_cells(tmp_path / "cells.h5ad")


def test_a_folder_that_is_no_zarr_group_is_refused(tmp_path):
    (tmp_path / "cells.zarr").mkdir()
    with pytest.raises(ValueError, match=r"cannot be opened as \.zarr"):
        open_cells(tmp_path / "cells.zarr")


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_rows_of_a_sparse_file_in_any_order_and_at_any_distance(tmp_path, monkeypatch, suffix):
    """Neighbors come out of one piece, distant ones out of several, and large pieces are cut."""
    from sc_drugresp._data import rows as reading

    rng = np.random.default_rng(0)
    dense = (rng.random((300, 40)) < 0.2) * rng.integers(1, 9, (300, 40))
    dense[[7, 100, 299]] = 0  # rows without entries
    adata = anndata.AnnData(sparse.csr_matrix(dense.astype(np.float32)))
    reader = reading.open_rows(open_cells(write(adata, tmp_path, suffix)).X)
    for piece in (4_000_000, 30):
        monkeypatch.setattr(reading, "_PIECE", piece)
        for index in (
            [5],
            [7],
            [9, 7, 7, 8],
            np.arange(300),
            np.arange(0, 300, 3),
            np.arange(0, 300, 60),
            rng.integers(0, 300, 90),
            np.r_[np.arange(20), np.arange(280, 300)],
        ):
            found = reader.read(np.asarray(index))
            np.testing.assert_array_equal(found.toarray(), dense[np.asarray(index)])
