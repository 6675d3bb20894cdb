"""The contract that every foundation model keeps, run on every recorded checkpoint."""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import GOLDEN
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from scipy.sparse import csc_matrix, csr_matrix

import sc_drugresp as sdr
from sc_drugresp._data import Tokens
from sc_drugresp.models import CellEncoder
from sc_drugresp.models._hub import locate
from sc_drugresp.models._registry import find, registry

RELATIVE = 1e-5


def recorded_checkpoints() -> list[str]:
    """Each checkpoint whose files are in the golden folder; its name alone where the folder is missing."""
    names = []
    for model in sdr.models.available("encoder"):
        seen = set()
        for tag, row in registry()[model].checkpoints.items():
            try:
                weights = locate(registry()[model], row, GOLDEN / model / "weights")["weights"]
            except FileNotFoundError:
                continue
            if weights not in seen:
                seen.add(weights)
                names.append(f"{model}.{tag}")
        if not seen:
            names.append(f"{model}.{registry()[model].default}")
    return names


@dataclass
class Case:
    """A recorded checkpoint and its cells. Models that look at sets get the samples as sets."""

    name: str
    folder: Path
    adata: ad.AnnData

    @property
    def set_based(self) -> bool:
        return find(self.name)[0].set_based

    def load(self, **options) -> CellEncoder:
        return sdr.models.load(self.name, checkpoint=self.folder, **options)

    def groups(self, adata: ad.AnnData) -> np.ndarray | None:
        return adata.obs["sample"].astype("category").cat.codes.to_numpy() if self.set_based else None

    def embed(self, encoder: CellEncoder, adata: ad.AnnData | None = None, **options) -> np.ndarray:
        adata = self.adata if adata is None else adata
        return encoder.embed(adata, groups=self.groups(adata), **{"genes": "exact", **options})

    def batch(self, encoder: CellEncoder, n: int = 4) -> dict[str, torch.Tensor]:
        tokens = encoder.tokenize(self.adata, genes="exact")
        usable = np.flatnonzero(encoder.embeddable(tokens))[:n]
        return encoder.collate(tokens.take(usable))


@cache
def open_case(name: str) -> Case:
    model = name.split(".")[0]
    return Case(name, GOLDEN / model / "weights", ad.read_h5ad(GOLDEN / model / "input.h5ad"))


@cache
def reference(name: str) -> tuple[CellEncoder, np.ndarray, Tokens]:
    """Encoder, embedding and tokens that the tests compare with; nothing changes them."""
    case = open_case(name)
    encoder = case.load()
    return encoder, case.embed(encoder), encoder.tokenize(case.adata, genes="exact")


@pytest.fixture(params=recorded_checkpoints())
def case(request) -> Case:
    return open_case(request.param)


@pytest.fixture
def encoder(case) -> CellEncoder:
    return reference(case.name)[0]


@pytest.fixture
def expected(case) -> np.ndarray:
    return reference(case.name)[1]


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float = RELATIVE) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    assert np.nanmax(np.abs(actual - expected)) <= tolerance * np.nanmax(np.abs(expected))


def same_tokens(actual: Tokens, expected: Tokens) -> None:
    np.testing.assert_array_equal(actual.indptr, expected.indptr)
    np.testing.assert_array_equal(actual.ids, expected.ids)
    if expected.values is not None:
        np.testing.assert_array_equal(actual.values, expected.values)


# A cell is a cell ------------------------------------------------------------------------------------------------------


def test_registry_row_and_class_agree(case, encoder, expected):
    spec, row = find(case.name)
    assert encoder.set_based == spec.set_based
    assert encoder.name == case.name
    assert encoder.needs_fit is False
    assert expected.shape == (case.adata.n_obs, encoder.dim)
    assert expected.dtype == np.float32
    assert row.license
    assert row.publisher
    assert spec.strengths
    assert spec.limitations


def test_cells_are_embedded_or_nan_as_a_whole(case, encoder, expected):
    nan = np.isnan(expected)
    np.testing.assert_array_equal(nan.any(axis=1), nan.all(axis=1))
    assert not nan.all()
    tokens = reference(case.name)[2]
    np.testing.assert_array_equal(~nan.any(axis=1), encoder.embeddable(tokens))
    assert len(tokens) == case.adata.n_obs


def test_twice_the_same_bits(case, encoder, expected):
    np.testing.assert_array_equal(case.embed(encoder), expected)
    np.testing.assert_array_equal(case.embed(case.load()), expected)


@pytest.mark.parametrize("batch_tokens", [1, 700])
def test_batch_size_does_not_change_a_cell(case, encoder, expected, batch_tokens):
    close(case.embed(encoder, batch_tokens=batch_tokens), expected)


@pytest.mark.parametrize("block_cells", [1, 5])
def test_block_size_does_not_change_a_cell(case, encoder, expected, block_cells):
    with sdr.settings.override(block_cells=block_cells):
        same_tokens(encoder.tokenize(case.adata, genes="exact"), reference(case.name)[2])
        close(case.embed(encoder), expected)


def test_order_does_not_change_a_cell(case, encoder, expected):
    order = np.random.default_rng(0).permutation(case.adata.n_obs)
    close(case.embed(encoder, case.adata[order].copy()), expected[order])


def test_neighbors_do_not_change_a_cell(case, encoder, expected):
    """A subset of the cells, or of whole sets where cells of a set see each other."""
    samples = case.adata.obs["sample"].astype(str).to_numpy()
    rows = np.flatnonzero(samples == samples[0]) if case.set_based else np.array([3, 0, 11])
    part = expected[rows]
    close(case.embed(encoder, case.adata[rows].copy()), part)


def test_order_of_columns_does_not_change_a_cell(case, encoder):
    turned = case.adata[:, np.random.default_rng(1).permutation(case.adata.n_vars)].copy()
    whole = encoder.tokenize(case.adata)
    same_tokens(encoder.tokenize(turned), whole)


def test_tokens_made_before_give_the_same_embedding(case, encoder, expected):
    tokens = reference(case.name)[2]
    options = {"groups": case.groups(case.adata)} if case.set_based else {}
    close(encoder.embed_tokens(tokens, **options), expected)


CONTAINERS = {
    "csc": lambda adata, _: replaced(adata, csc_matrix(adata.X)),
    "dense": lambda adata, _: replaced(adata, adata.X.toarray()),
    "integer": lambda adata, _: replaced(adata, adata.X.astype(np.int64)),
    "float64": lambda adata, _: replaced(adata, adata.X.astype(np.float64)),
    "view": lambda adata, _: adata[[*range(adata.n_obs), 0, 1]].copy()[: adata.n_obs],
    "layer": lambda adata, _: in_layer(adata),
    "backed": lambda adata, folder: backed(adata, folder, csr_matrix),
    "backed_dense": lambda adata, folder: backed(adata, folder, lambda x: x.toarray()),
    "dask": lambda adata, _: replaced(adata, chunked(adata.X)),
}


def replaced(adata: ad.AnnData, x) -> ad.AnnData:
    return ad.AnnData(x, obs=adata.obs, var=adata.var)


def in_layer(adata: ad.AnnData) -> ad.AnnData:
    logged = adata.X.copy()
    logged.data = np.log1p(logged.data / 3)
    return ad.AnnData(logged, obs=adata.obs, var=adata.var, layers={"counts": adata.X})


def backed(adata: ad.AnnData, folder: Path, form) -> ad.AnnData:
    path = folder / "cells.h5ad"
    replaced(adata, form(adata.X)).write_h5ad(path)
    return ad.read_h5ad(path, backed="r")


def chunked(x: csr_matrix):
    import dask.array as da

    return da.from_array(x.toarray(), chunks=(7, x.shape[1])).map_blocks(csr_matrix)


@pytest.mark.parametrize("container", CONTAINERS)
def test_container_does_not_change_a_cell(case, encoder, tmp_path, container):
    adata = CONTAINERS[container](case.adata, tmp_path)
    try:
        same_tokens(encoder.tokenize(adata, genes="exact"), reference(case.name)[2])
    finally:
        if adata.isbacked:
            adata.file.close()


def test_nothing_else_is_touched(case, encoder):
    before = case.adata.copy()
    numpy_state, torch_state, python_state = np.random.get_state()[1].copy(), torch.get_rng_state(), random.getstate()
    case.embed(case.load(), rng=7)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert (case.adata.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(case.adata.obs, before.obs)
    pd.testing.assert_frame_equal(case.adata.var, before.var)


AWKWARD = {
    "all_zero": lambda x: x.multiply(0),
    "one_gene": lambda x: csr_matrix((x.data[:1], ([0], [x.indices[0]])), shape=x.shape),
    "huge_counts": lambda x: x * 1e6,
    "all_ones": lambda x: csr_matrix(np.ones(x.shape)),
}


@pytest.mark.parametrize("kind", AWKWARD)
def test_awkward_cells_keep_their_row(case, encoder, kind):
    x = csr_matrix(AWKWARD[kind](case.adata.X[:3]), dtype=np.float32)
    adata = ad.AnnData(x, obs=case.adata.obs.iloc[:3], var=case.adata.var)
    out = case.embed(encoder, adata)
    assert out.shape == (3, encoder.dim)
    filled = np.asarray(x.sum(axis=1)).ravel() > 0
    if kind in ("huge_counts", "all_ones"):
        assert filled.all()
        assert np.isfinite(out).all()
    nan = np.isnan(out)
    np.testing.assert_array_equal(nan.any(axis=1), nan.all(axis=1))


@pytest.mark.parametrize("kind", ["log", "negative", "nan"])
def test_matrices_that_are_not_counts_are_refused(case, encoder, kind):
    x = case.adata.X[:6].toarray()
    x = {"log": np.log1p(x / 3), "negative": x - 1, "nan": np.where(x > 2, np.nan, x)}[kind]
    adata = ad.AnnData(x.astype(np.float32), obs=case.adata.obs.iloc[:6], var=case.adata.var)
    with pytest.raises(ValueError, match=r"(?i)counts|NaN"):
        encoder.tokenize(adata, genes="exact")


def test_genes_of_nothing_known_are_refused(case, encoder):
    adata = ad.AnnData(csr_matrix(np.ones((2, 3), dtype=np.float32)), var=pd.DataFrame(index=["q%1", "q%2", "q%3"]))
    with pytest.raises(ValueError, match="None of the 3 genes is known"):
        encoder.embed(adata, groups=np.zeros(2, dtype=int) if case.set_based else None)


# tl.embed --------------------------------------------------------------------------------------------------------------


def test_embed_writes_the_promised_slots_only(case, expected, tmp_path):
    adata = case.adata.copy()
    options = {"group_key": "sample"} if case.set_based else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cells without genes, genes that the recorded vocabulary lacks
        out = sdr.tl.embed(adata, case.name, checkpoint=case.folder, genes="exact", copy=True, **options)
    assert list(adata.obsm) == []
    assert list(adata.uns) == list(case.adata.uns)
    key = case.name.replace(".", "_").replace("-", "_")
    assert list(out.obsm) == [f"X_{key}"]
    assert set(out.uns) - set(adata.uns) == {key}
    np.testing.assert_array_equal(out.obsm[f"X_{key}"], expected)
    assert list(out.obs) == list(adata.obs)
    assert list(out.var) == list(adata.var)
    assert (out.X != adata.X).nnz == 0
    out.write_h5ad(tmp_path / "out.h5ad")
    again = ad.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(again.obsm[f"X_{key}"], expected)
    assert again.uns[key]["checkpoint"]["name"] == case.name


# Training --------------------------------------------------------------------------------------------------------------


def with_adapters(case: Case) -> CellEncoder:
    """A fresh encoder with adapters that are not zero."""
    encoder = case.load()
    config = LoraConfig(r=2, lora_alpha=4, target_modules=encoder.lora_targets, lora_dropout=0.0)
    generator_state = torch.get_rng_state()
    inject_adapter_in_model(config, encoder)
    torch.set_rng_state(generator_state)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return encoder


def score(out: torch.Tensor) -> torch.Tensor:
    """A number that depends on all of the embedding."""
    weight = torch.linspace(-1, 1, out.numel()).reshape(out.shape).cos()
    return (out * weight).sum()


def test_forward_equals_pooled_hidden_states(case, encoder):
    batch = case.batch(encoder)
    with torch.no_grad():
        fast, plain = encoder(batch), encoder.pool(encoder.hidden(batch), batch)
    close(fast.numpy(), plain.numpy())


def test_adapters_reach_plain_linear_layers_and_change_the_output(case, encoder):
    adapted = with_adapters(case)
    layers = [module for module in adapted.modules() if isinstance(module, LoraLayer)]
    assert len(layers) >= 4
    assert all(type(layer.get_base_layer()) is torch.nn.Linear for layer in layers)
    batch = case.batch(adapted)
    with torch.no_grad():
        plain = encoder(batch)
        for training in (False, True):
            for module in adapted.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
            adapted.train(training)
            changed = adapted(batch)
            assert (changed - plain).abs().max() > 1e-3 * plain.abs().max()
        adapted.eval()
        close(adapted(batch).numpy(), adapted.pool(adapted.hidden(batch), batch).numpy())
    tokens = adapted.tokenize(case.adata, genes="exact")
    usable = np.flatnonzero(adapted.embeddable(tokens))[:4]
    options = {"groups": np.zeros(len(usable), dtype=int)} if case.set_based else {}
    with torch.no_grad():
        close(adapted.embed_tokens(tokens.take(usable), **options), adapted(batch).numpy())


def test_adapters_get_gradients_and_the_base_none(case):
    adapted = with_adapters(case)
    for training in (False, True):
        adapted.train(training)
        adapted.zero_grad(set_to_none=True)
        score(adapted(case.batch(adapted))).backward()
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                assert parameter.grad is not None, name
                assert parameter.grad.abs().max() > 0, name
            else:
                assert not parameter.requires_grad, name
                assert parameter.grad is None, name


def test_merged_adapters_give_the_same_embedding(case):
    adapted = with_adapters(case).eval()
    batch = case.batch(adapted)
    with torch.no_grad():
        apart = adapted(batch).numpy().copy()
        for module in adapted.modules():
            if isinstance(module, LoraLayer):
                module.merge()
        close(adapted(batch).numpy(), apart)


def test_every_parameter_learns(case):
    encoder = case.load().requires_grad_(True)
    score(encoder(case.batch(encoder, 12))).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if name.endswith("weight"):  # biases of keys shift all scores alike and may have none
            assert parameter.grad.abs().max() > 0, name


def test_gradient_checkpointing_gives_the_same_gradients(case):
    gradients = []
    for recompute in (False, True):
        adapted = with_adapters(case).eval()
        adapted.gradient_checkpointing = recompute
        score(adapted(case.batch(adapted))).backward()
        gradients.append({name: p.grad for name, p in adapted.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))
