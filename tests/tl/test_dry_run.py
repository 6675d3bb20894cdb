"""`tl.embed(dry_run=True)`: what it tells is what happens, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import golden

import sc_drugresp as sdr
from sc_drugresp._embed import estimate
from sc_drugresp.models import _hub, _probe
from sc_drugresp.models._registry import find

NARROW = {"dim": 16, "heads": 2, "layers": 2, "ffn_dim": 32}


@pytest.fixture(autouse=True)
def _short_probe(monkeypatch):
    monkeypatch.setattr(estimate, "PROBE_SECONDS", 0.05)


@pytest.fixture
def toy():
    return sdr.datasets.toy(n_samples=4, cells_per_sample=10, n_genes=300)


@pytest.mark.parametrize("model", ["scgpt", "tgpt", "cellplm", "scfoundation"])
def test_it_tells_what_will_happen(model, capsys):
    """Tokens to the last one, the embedding to the last byte, memory in the right order of magnitude."""
    record = golden(model)
    adata, weights = record.adata, record.weights
    before = adata.copy()
    group_key = "sample" if model == "cellplm" else None
    told = sdr.tl.embed(adata, model, checkpoint=weights, group_key=group_key, dry_run=True)
    assert capsys.readouterr().out == f"{told!r}\n"
    assert (set(adata.obsm), set(adata.uns), list(adata.obs)) == (set(before.obsm), set(before.uns), list(before.obs))
    assert (adata.X != before.X).nnz == 0
    encoder = sdr.models.load(model, checkpoint=weights)
    tokens = encoder.tokenize(adata)
    assert (told.tokens, told.tokens_longest, told.tokens_exact) == (len(tokens.ids), tokens.lengths.max(), True)
    assert (told.missing, told.download_bytes) == ((), 0)
    assert 0 < told.seconds_range[0] <= told.seconds <= told.seconds_range[1]
    with _probe.LiveBytes() as live:
        values = encoder.embed_tokens(tokens)
    assert told.disk_bytes == told.memory_bytes["embedding"] == values.nbytes
    assert 0.2 < told.memory_bytes["batch"] / live.most < 20


class Clock:
    """Time that passes as work is done."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize("model", ["tgpt", "scgpt"])
def test_time_follows_the_work(monkeypatch, model):
    """A network that takes a millisecond for a token and a thousandth of it for a pair takes as long as was told."""
    clock, record = Clock(), golden(model)
    adata = sdr.datasets.toy(n_samples=4, cells_per_sample=40, n_genes=200)
    encoder = sdr.models.load(model, checkpoint=record.weights)
    adata.var_names = list(encoder.vocab.names[: adata.n_vars])
    forward = type(encoder).forward

    def slow(self, batch):
        n, longest = batch["ids"].shape
        clock.now += n * (longest + longest**2 / 1_000) / 1_000
        return forward(self, batch)

    monkeypatch.setattr(type(encoder), "forward", slow)
    encoder.embed(adata)
    whole = clock.now
    monkeypatch.setattr(_probe, "time", clock)
    told = sdr.tl.embed(adata, model, checkpoint=record.weights, dry_run=True)
    assert told.seconds_range[0] < whole < told.seconds_range[1]
    assert told.seconds == pytest.approx(whole, rel=0.1)


def test_without_the_files(toy):
    """A network of the published size with random weights is timed; nothing is downloaded."""
    told = sdr.tl.embed(toy, "geneformer", dry_run=True, **NARROW, max_length=64)
    row = find("geneformer")[1]
    needed = [file for file in row.files.values() if not file.optional]
    assert set(told.missing) >= {file.path for file in needed}
    assert told.download_bytes >= sum(file.bytes or file.about_bytes for file in needed)
    assert "random weights" in told.notes[0]
    expressed = np.diff(toy.X.tocsr().indptr)
    assert told.tokens == np.minimum(expressed + 2, 64).sum(), "every gene counts as known, between [CLS] and [EOS]"
    assert told.disk_bytes == toy.n_obs * 16 * 4
    assert not sdr.settings.cache_dir.exists() or not any(sdr.settings.cache_dir.rglob("*.safetensors"))
    assert "random weights" in repr(told)
    assert "download" in repr(told)


def test_what_is_in_the_cache_is_not_downloaded(toy, monkeypatch):
    spec, row = find("scgpt")
    told = sdr.tl.embed(toy, "scgpt", dry_run=True, **NARROW)
    small = row.files["vocab"]
    monkeypatch.setattr(_hub, "_problem", lambda *_: None)
    path = sdr.settings.cache_dir / "models" / spec.name / row.tag / small.path
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    again = sdr.tl.embed(toy, "scgpt", dry_run=True, **NARROW)
    assert set(told.missing) - set(again.missing) == {small.path}


def test_of_many_cells_a_sample_is_tokenized(monkeypatch, toy):
    monkeypatch.setattr(_probe, "MOST_CELLS", 10)
    told = sdr.tl.embed(toy, "tgpt", dry_run=True, **NARROW)
    assert not told.tokens_exact
    assert told.tokens == pytest.approx(toy.n_obs * told.tokens_mean, abs=1)
    assert f"about {told.tokens:,}" in repr(told)


@pytest.mark.parametrize("model", ["pca", "hvg"])
def test_what_is_fitted(toy, model):
    before = toy.copy()
    told = sdr.tl.embed(toy, model, dry_run=True)
    assert told.tokens is None
    assert told.seconds_range[0] <= told.seconds <= told.seconds_range[1]
    sdr.tl.embed(before, model)
    assert told.disk_bytes == before.obsm[f"X_sdr_{model}"].nbytes
    assert not toy.obsm


def test_what_cannot_be_told(toy, monkeypatch):
    monkeypatch.setattr(sdr.models.load("pca").__class__, "steady", False)
    told = sdr.tl.embed(toy, "pca", dry_run=True)
    assert (told.seconds, told.seconds_range) == (None, None)
    assert "not estimated" in repr(told)
    assert "is trained on these cells" in repr(told)


def test_it_refuses_what_embedding_would_refuse(toy):
    with pytest.raises(KeyError, match="Available layers"):
        sdr.tl.embed(toy, "pca", layer="nothing", dry_run=True)
    with pytest.raises(FileNotFoundError, match=r"best_model\.pt"):
        sdr.tl.embed(toy, "scgpt", checkpoint="/does/not/exist", dry_run=True)
    with pytest.raises(TypeError, match="dry_run"):
        sdr.tl.embed(toy, "pca", dry_run="yes")
