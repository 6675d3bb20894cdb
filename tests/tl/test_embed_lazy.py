"""`tl.embed(lazy=True)`: a dask array in, a dask array out, with the bits of a run in memory."""

from __future__ import annotations

import pickle
import pickletools
import shutil
import sys
from pathlib import Path

import anndata as ad
import dask
import dask.array as da
import numpy as np
import pytest
import torch
from helpers import cell_lines, golden, resave
from scipy.sparse import csc_matrix, csr_array, csr_matrix

import sc_drugresp as sdr
from sc_drugresp._data.content import probe_rows
from sc_drugresp._embed import lazily

pytestmark = [  # cells that the tiny checkpoints hardly know, one of them empty
    pytest.mark.filterwarnings(f"ignore:{text}:UserWarning")
    for text in ("Only .* of the counts lie in genes", ".* cells? .* no gene", "Embeddings of .* are nearly parallel")
]
MODELS = ["geneformer", "scgpt", "tgpt", "uce"]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Blocks of 8 cells, and no model of another test."""
    monkeypatch.setattr(lazily, "_loaded", {})
    with sdr.settings.override(block_cells=8):
        yield


def cells(cells: int = 5) -> ad.AnnData:
    """Made-up counts; one cell is empty."""
    adata = cell_lines(cells)
    keep = np.ones(adata.n_obs, dtype=np.float32)
    keep[7] = 0
    adata.X = csr_matrix(adata.X.multiply(keep[:, None]))
    return adata


def chunked(adata: ad.AnnData, chunks: tuple[int, int] = (13, -1), form=csr_matrix) -> ad.AnnData:
    """The same cells with a dask array of `form` chunks."""
    x = da.from_array(adata.X.toarray(), chunks=chunks)
    return ad.AnnData(x if form is None else x.map_blocks(form), obs=adata.obs, var=adata.var)


def in_memory(adata: ad.AnnData, model: str, **options) -> np.ndarray:
    return sdr.tl.embed(adata, model, checkpoint=golden(model).weights, key_added="x", copy=True, **options).obsm["x"]


def lazy(adata: ad.AnnData, model: str, checkpoint: Path | None = None, **options) -> da.Array:
    sdr.tl.embed(adata, model, checkpoint=checkpoint or golden(model).weights, key_added="lazy", lazy=True, **options)
    assert isinstance(adata.obsm["lazy"], da.Array)
    return adata.obsm["lazy"]


@pytest.mark.parametrize("genes", ["auto", "exact"])
@pytest.mark.parametrize("model", MODELS)
def test_same_bits_as_in_memory(model, genes):
    adata = cells()
    expected = in_memory(adata, model, genes=genes)
    found = lazy(chunked(adata), model, genes=genes)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert found.chunks[0] == (8, 8, 8, 1)
    assert np.isnan(expected[7]).all() == (model != "scgpt")
    for scheduler in ("synchronous", "threads"):
        np.testing.assert_array_equal(found.compute(scheduler=scheduler), expected)


@pytest.mark.parametrize("form", [None, csr_array, csc_matrix])
@pytest.mark.parametrize("chunks", [(3, -1), (13, 500), (100, -1)])
def test_chunks_do_not_matter(form, chunks):
    adata = cells()
    found = lazy(chunked(adata, chunks, form), "geneformer")
    np.testing.assert_array_equal(found.compute(scheduler="synchronous"), in_memory(adata, "geneformer"))


def test_views_layers_and_recovered_counts():
    adata = cells()
    rows, columns = np.array([20, 3, 7, 8, 1, 15, 16, 17, 2, 4]), np.arange(adata.n_vars)[::-2]
    expected = in_memory(adata[rows, columns].copy(), "geneformer")
    found = lazy(chunked(adata)[rows, columns], "geneformer")
    np.testing.assert_array_equal(found.compute(scheduler="synchronous"), expected)

    dask_cells = chunked(adata)
    dask_cells.layers["umi"] = dask_cells.X
    dask_cells.X = dask_cells.X.map_blocks(np.log1p)
    for options in ({"layer": "umi"}, {"layer": "X"}):
        found = lazy(dask_cells, "geneformer", **options)
        np.testing.assert_array_equal(found.compute(scheduler="synchronous"), in_memory(adata, "geneformer"))
    assert dask_cells.uns["lazy"]["params"]["layer"] == "X (counts recovered)"


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_lazy_objects(tmp_path, suffix):
    adata = cells()
    getattr(adata, f"write_{suffix}")(tmp_path / f"cells.{suffix}")
    opened = ad.experimental.read_lazy(tmp_path / f"cells.{suffix}")
    found = lazy(opened, "geneformer")
    np.testing.assert_array_equal(found.compute(scheduler="synchronous"), in_memory(adata, "geneformer"))


def test_what_is_written_and_read_back(tmp_path):
    adata = cells()
    found = chunked(adata)
    sdr.tl.embed(found, "geneformer", checkpoint=golden("geneformer").weights, lazy=True)
    note = found.uns["geneformer"]
    assert note["cells"] == {"n": 25}
    assert "counts_covered" not in note["genes"]
    assert note["genes"]["n_matched"] > 100
    assert note["checkpoint"]["sha256"]
    found.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(back.obsm["X_geneformer"], in_memory(adata, "geneformer"))
    sdr.tl.predict_response(found, use_rep="X_geneformer", label_key="response", group_key="cell_line")
    assert "predicted_response" in found.obs


def work_of(array: da.Array) -> lazily.BlockWork:
    (key,) = [key for key in array.dask if str(key).startswith("embedder-")]
    task = array.dask[key]
    return getattr(task, "value", task)


def test_tasks_carry_a_description_and_no_network():
    work = work_of(lazy(chunked(cells()), "geneformer"))
    assert isinstance(work, lazily.BlockWork)
    sent = pickle.dumps(work)
    assert not [text for _, text, _ in pickletools.genops(sent) if isinstance(text, str) and text.startswith("torch.")]
    again = pickle.loads(sent)
    assert again.settings["offline"]
    assert again.embed(cells().X[:8], first=0).shape == (8, 48)


def test_a_process_loads_a_model_once_and_keeps_few(monkeypatch):
    loads, load = [], lazily.BlockWork._load
    monkeypatch.setattr(lazily.BlockWork, "_load", lambda work: (loads.append(work.key), load(work))[1])
    arrays = [lazy(chunked(cells()), model) for model in ("geneformer", "tgpt", "uce")]
    for array in arrays:
        array.compute(scheduler="threads", num_workers=4)
    assert len(loads) == len(set(loads)) == 3
    assert list(lazily._loaded) == loads[1:]


def test_settings_are_those_at_the_call_and_stay_the_users():
    adata = cells()
    found = lazy(chunked(adata), "geneformer")
    threads = torch.get_num_threads()
    with sdr.settings.override(block_cells=5, batch_tokens=64, offline=False):
        before = repr(sdr.settings)
        values = found.compute(scheduler="threads")
        assert repr(sdr.settings) == before
    assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(values, in_memory(adata, "geneformer"))


def test_relative_checkpoints_are_found_from_another_folder(tmp_path, monkeypatch):
    golden("geneformer").copy(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = lazy(chunked(cells()), "geneformer", Path("geneformer") / "weights")
    monkeypatch.chdir("/")
    assert found.compute(scheduler="synchronous").shape == (25, 48)


def test_a_process_with_other_files_refuses(tmp_path):
    weights = golden("geneformer").copy(tmp_path)
    found = lazy(chunked(cells()), "geneformer", weights)
    for file in weights.rglob("config.json"):  # one for each checkpoint of the model
        file.write_text(file.read_text() + "\n")
    with pytest.raises(ValueError, match=r"is not the one of the process that asked.*SHA-256"):
        found.compute(scheduler="synchronous")


def test_a_process_with_other_weights_refuses(tmp_path):
    weights = golden("scgpt").copy(tmp_path)
    found = lazy(chunked(cells()), "scgpt", weights)

    def change(state):
        name = next(name for name, x in state.items() if x.dtype == torch.float32 and x.ndim == 2)
        state[name] = state[name] + 1e-3

    resave(next(weights.glob("*.pt")), change)
    with pytest.raises(ValueError, match=r"The weights file of the model on .* SHA-256"):
        found.compute(scheduler="synchronous")


def test_a_process_without_the_files_says_so_and_does_not_download(tmp_path):
    weights = golden("geneformer").copy(tmp_path)
    found = lazy(chunked(cells()), "geneformer", weights)
    shutil.rmtree(weights)
    weights.mkdir()
    with sdr.settings.override(offline=False), pytest.raises(FileNotFoundError, match="workers never download"):
        found.compute(scheduler="synchronous")


def test_another_version_of_the_package_refuses(monkeypatch):
    found = lazy(chunked(cells()), "geneformer")
    monkeypatch.setattr(lazily, "package_versions", lambda: {"sc-drugresp": "0.0.1"})
    with pytest.raises(ValueError, match="Install one version everywhere"):
        found.compute(scheduler="synchronous")


def test_a_message_names_the_row_of_the_data_set():
    adata = cells(120)
    wrong = int(np.setdiff1d(np.arange(adata.n_obs), probe_rows(adata.n_obs))[-1])
    row = np.zeros(adata.n_obs, dtype=np.float32)
    row[wrong] = 0.5
    adata.X = csr_matrix(adata.X + csr_matrix(row[:, None] * np.ones((1, adata.n_vars), dtype=np.float32)))
    with pytest.raises(ValueError, match=rf"in row {wrong},"):
        lazy(chunked(adata), "geneformer").compute(scheduler="synchronous")


@pytest.mark.parametrize(
    ("model", "options", "form", "error", "words"),
    [
        ("cellplm", {}, csr_matrix, ValueError, "all cells of a set at once"),
        ("pca", {}, csr_matrix, ValueError, "fitted to the cells"),
        ("scgpt", {}, "memory", TypeError, "needs a dask array, but X is a csr_matrix"),
        ("scgpt", {"max_length": 100}, "memory", TypeError, "read_lazy"),
    ],
)
def test_refused_before_weights_are_looked_for(model, options, form, error, words):
    """There are no weights in the cache of a test."""
    adata = cells() if form == "memory" else chunked(cells(), form=form)
    with pytest.raises(error, match=words):
        sdr.tl.embed(adata, model, lazy=True, **options)
    assert not adata.obsm
    assert not adata.uns


def test_genes_of_another_kind_are_refused_at_once():
    adata = cells()
    adata.var_names = [f"nothing{i}" for i in range(adata.n_vars)]
    del adata.var["ensembl_id"]
    with pytest.raises(ValueError, match=r"Only 0\.0% of the counts"):
        lazy(chunked(adata), "scgpt")


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.array", None)
    with pytest.raises(ImportError, match=r"pip install 'sc-drugresp\[scale\]'"):
        sdr.tl.embed(cells(), "scgpt", lazy=True)


def test_dask_is_configured_by_nobody_but_the_user():
    before = dask.config.get("scheduler", None)
    lazy(chunked(cells()), "geneformer").compute(scheduler="synchronous")
    assert dask.config.get("scheduler", None) == before
