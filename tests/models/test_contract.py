"""The contract that every foundation model keeps.

It runs on every recorded checkpoint in `tests/golden`, and on a tiny network with random parameters of every model in
our registry, which needs no file at all. A case is a name, a way to load the encoder, and cells (:class:`Case`).

A model of another package is tested by the same contract. Install the package, so that its entry point in the group
`sc_drugresp.models` is found, and run::

    SC_DRUGRESP_CONTRACT=mymodel=FOLDER python -m pytest tests/models/test_contract.py

`mymodel` is the name in the registry (`mymodel` or `mymodel.checkpoint`) and `FOLDER` holds the files of its smallest
checkpoint: up to a few million parameters, so that the contract takes seconds. Without `=FOLDER` the contract runs on
`CellEncoder.random` with the sizes of the model's `Config` made small (:data:`SMALL`). Only this model is tested then.
The cells are made up from the names in the vocabulary of the model.
"""

from __future__ import annotations

import dataclasses
import os
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import GOLDEN, close, golden, same_tokens
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from scipy.sparse import csc_matrix, csr_matrix

import sc_drugresp as sdr
from sc_drugresp._data import GeneVocab, Tokens
from sc_drugresp.models import CellEncoder
from sc_drugresp.models._hub import locate
from sc_drugresp.models._load import model_class
from sc_drugresp.models._registry import find, registry

# Largest value of a field of `Config` with this name in a tiny network.
SMALL = {
    "dim": 16,
    "width": 16,
    "latent_dim": 8,
    "token_dim": 16,
    "decoder_dim": 12,
    "mixture_dim": 12,
    "heads": 2,
    "head_dim": 8,
    "layers": 2,
    "ffn_dim": 24,
    "features": 12,
    "bin_num": 8,
    "clusters": 4,
    "genes": 80,
    "seq_len": 82,
    "vocab_size": 84,
    "positions": 128,
    "max_length": 64,
    "sample_size": 24,
}
KNOWN, UNKNOWN, CELLS = 60, 4, 24


@dataclasses.dataclass
class Case:
    """A model to test: its name in the registry, how to load it, cells, and the folder of its files if it has any.

    Models that look at sets get the samples as sets.
    """

    name: str
    load: Callable[[], CellEncoder]
    adata: ad.AnnData
    checkpoint: Path | None = None

    @property
    def set_based(self) -> bool:
        return find(self.name)[0].set_based

    def groups(self, adata: ad.AnnData) -> np.ndarray | None:
        return adata.obs["sample"].astype("category").cat.codes.to_numpy() if self.set_based else None

    def embed(self, encoder: CellEncoder, adata: ad.AnnData | None = None, **options: Any) -> np.ndarray:
        adata = self.adata if adata is None else adata
        return encoder.embed(adata, groups=self.groups(adata), **{"genes": "exact", **options})

    def batch(self, encoder: CellEncoder, n: int = 4) -> dict[str, torch.Tensor]:
        tokens = encoder.tokenize(self.adata, genes="exact")
        usable = np.flatnonzero(encoder.embeddable(tokens))[:n]
        return encoder.collate(tokens.take(usable))

    @cached_property
    def encoder(self) -> CellEncoder:
        """What the tests compare with; nothing changes it."""
        return self.load()

    @cached_property
    def expected(self) -> np.ndarray:
        return self.embed(self.encoder)

    @cached_property
    def tokens(self) -> Tokens:
        return self.encoder.tokenize(self.adata, genes="exact")


def made_up_cells(vocab: GeneVocab) -> ad.AnnData:
    """Counts of known and unknown genes in four samples; one cell is empty, one has a single known gene."""
    rng = np.random.default_rng(0)
    names = [vocab.names[i] for i in np.linspace(0, len(vocab) - 1, min(KNOWN, len(vocab)), dtype=int)]
    x = rng.negative_binomial(1, 0.25, (CELLS, len(names) + UNKNOWN)).astype(np.float32)
    x[:3, 0] += 1  # no cell of those that are changed below is empty
    x[5] = 0
    x[20] = 0
    x[20, 2] = 3
    obs = pd.DataFrame({"sample": [f"S{i % 4}" for i in range(CELLS)]}, index=[f"c{i}" for i in range(CELLS)])
    return ad.AnnData(csr_matrix(x), obs=obs, var=pd.DataFrame(index=[*names, *(f"not-{i}" for i in range(UNKNOWN))]))


def random_encoder(name: str) -> CellEncoder:
    """A tiny network whose output depends on every parameter."""
    cls = model_class(find(name)[0])
    config = cls.Config()
    sizes = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    small = {field: min(SMALL[field], size) for field, size in sizes.items() if field in SMALL and size is not None}
    encoder = cls.random(dataclasses.replace(config, **small), seed=1)
    generator = torch.Generator().manual_seed(2)
    for parameter in encoder.parameters():
        parameter.data = parameter + 0.3 * torch.randn(parameter.shape, generator=generator)
    encoder.name, encoder.checkpoint = name, {"name": name, "file": "", "sha256": ""}
    return encoder.requires_grad_(False)


def full_name(name: str) -> str:
    spec, row = find(name)
    return f"{spec.name}.{row.tag}"


def recorded() -> Iterator[str]:
    """Each checkpoint whose files are in the folder of recordings, by name."""
    for model in sorted(path.name for path in GOLDEN.iterdir() if path.name in sdr.models.available("encoder")):
        seen = set()
        for tag, row in registry()[model].checkpoints.items():
            try:
                weights = locate(registry()[model], row, golden(model).weights)["weights"]
            except FileNotFoundError:
                continue
            if weights not in seen:
                seen.add(weights)
                yield f"{model}.{tag}"


def factories() -> dict[str, Callable[[], Case]]:
    """How to make each case, by the id of its tests; nothing is loaded yet."""
    wanted, _, folder = os.environ.get("SC_DRUGRESP_CONTRACT", "").partition("=")
    if wanted:
        name = full_name(wanted)
        return {f"{name}-given": partial(given_case, name, Path(folder))} if folder else random_cases([name])
    cases = {f"{name}-recorded": partial(recorded_case, name) for name in recorded()}
    ours = [name for name in sdr.models.available("encoder") if find(name)[0].target.startswith(".")]
    return cases | random_cases(map(full_name, ours))


def recorded_case(name: str) -> Case:
    record = golden(name.partition(".")[0])
    return Case(name, partial(sdr.models.load, name, checkpoint=record.weights), record.adata, record.weights)


def given_case(name: str, folder: Path) -> Case:
    load = partial(sdr.models.load, name, checkpoint=folder)
    return Case(name, load, made_up_cells(load().vocab), folder)


def random_case(name: str) -> Case:
    return Case(name, partial(random_encoder, name), made_up_cells(random_encoder(name).vocab))


def random_cases(names: Iterable[str]) -> dict[str, Callable[[], Case]]:
    return {f"{name}-random": partial(random_case, name) for name in names}


FACTORIES = factories()


@cache
def make_case(key: str) -> Case:
    return FACTORIES[key]()


@pytest.fixture(params=FACTORIES)
def case(request) -> Case:
    return make_case(request.param)


@pytest.fixture
def encoder(case) -> CellEncoder:
    return case.encoder


@pytest.fixture
def expected(case) -> np.ndarray:
    return case.expected


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
    tokens = case.tokens
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
        same_tokens(encoder.tokenize(case.adata, genes="exact"), case.tokens)
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
    tokens = case.tokens
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
        same_tokens(encoder.tokenize(adata, genes="exact"), case.tokens)
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


def test_embed_writes_the_promised_slots_only(case, expected, tmp_path, monkeypatch):
    if case.checkpoint is None:
        monkeypatch.setattr(sdr.models, "load", lambda *_, **__: case.load())
    adata = case.adata.copy()
    options = {"group_key": "sample"} if case.set_based else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cells without genes, genes that the recorded vocabulary lacks
        out = sdr.tl.embed(adata, case.name, checkpoint=case.checkpoint, genes="exact", copy=True, **options)
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
