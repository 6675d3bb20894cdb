"""Every model, engine and precision gives the same bits in a store as in memory."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import language_models
import numpy as np
import pytest
from helpers import cell_lines, golden

import sc_drugresp as sdr
from sc_drugresp._embed.store.layout import Layout
from sc_drugresp.models._registry import registry

PER_CELL = [
    name for name, spec in registry().items() if not spec.set_based and (spec.kind == "encoder" or name != "scvi")
]
WAYS = [{"precision": "bfloat16"}, *([{"engine": "openvino"}] if find_spec("openvino") else [])]
TGPT = {"model": "tgpt", "checkpoint": golden("tgpt").weights, "key_added": "e"}


pytestmark = pytest.mark.filterwarnings("ignore:Only .* of the counts", "ignore:Embeddings of .* parallel")


@pytest.fixture(autouse=True)
def _small_blocks():
    with sdr.settings.override(block_cells=16):
        yield


@pytest.fixture(scope="module")
def cells():
    return cell_lines(cells=14)  # 70 cells: five blocks, the last one smaller


@pytest.fixture
def out(tmp_path):
    return tmp_path / "run.zarr"


def same(found, expected):
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def files_of(model, cells, folder) -> dict[str, object]:
    """What `tl.embed` needs beside the name of a model."""
    if model == "llama3":
        return {"model": f"llm:{language_models.make('llama', folder / 'llama')}"}
    if model == "student":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there is nothing to learn from so few cells
            student = sdr.models.distill("pca", cells, epochs=1, width=8, n_genes=50, group_key="half")
        student.save(folder / "student")
        return {"model": model, "checkpoint": folder / "student"}
    return {"model": model} | ({"checkpoint": golden(model).weights} if registry()[model].kind == "encoder" else {})


@pytest.mark.parametrize("model", PER_CELL)
def test_a_store_holds_the_bits_of_memory(cells, out, model, tmp_path):
    cells.obs["half"] = np.arange(cells.n_obs) % 6
    options = files_of(model, cells, tmp_path) | {"key_added": "e"}
    plain, stored, again = cells.copy(), cells.copy(), cells.copy()
    sdr.tl.embed(plain, **options)
    sdr.tl.embed(stored, **options, out=out)
    sdr.tl.embed(again, **options, out=out, check_blocks="all")
    for adata in (stored, again):
        same(adata.obsm["e"], plain.obsm["e"])
        note, expected = dict(adata.uns["e"]), dict(plain.uns["e"])
        assert note.pop("store")["path"] == str(out)
        if adata is again and "sentences" in note:
            assert note.pop("sentences")["cells"] == 0  # all of them were written by the call before
            del expected["sentences"]
        assert str(note) == str(expected)


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_a_store_keeps_engine_and_precision(cells, out, how):
    plain, stored = cells.copy(), cells.copy()
    sdr.tl.embed(plain, **TGPT, **how)
    sdr.tl.embed(stored, **TGPT, **how, out=out)
    same(stored.obsm["e"], plain.obsm["e"])
    with pytest.raises(ValueError, match=r"differs in: .*(engine|precision)"):
        sdr.tl.embed(stored, **TGPT, out=out)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_scvi_is_fitted_once(cells, out):
    """Two fits of it differ, so that the first one has to serve all blocks."""
    options = {"model": "scvi", "key_added": "e", "max_epochs": 2, "n_latent": 4, "out": out}
    first, second = cells.copy(), cells.copy()
    sdr.tl.embed(first, **options)
    Layout(out).record(1).unlink()
    Layout(out).chunk(4).unlink()
    sdr.tl.embed(second, **options)
    same(second.obsm["e"], first.obsm["e"])
