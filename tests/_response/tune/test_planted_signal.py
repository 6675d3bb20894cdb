"""A response program that a frozen embedding hides and tuning finds; and noise, in which tuning finds nothing."""

from __future__ import annotations

from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics import roc_auc_score

import sc_drugresp as sdr
from sc_drugresp._response.crossfit import cross_validate
from sc_drugresp._response.features import FixedFeatures
from sc_drugresp._response.tune.features import TunedFeatures
from sc_drugresp._response.tune.options import FineTuning
from sc_drugresp._stats.folds import Fold
from sc_drugresp.models.scgpt import ScGPT, ScGPTConfig, make_vocab

SEEDS = (0, 1, 2)
DIM, N_PLANTED = 12, 4
OPTIONS = FineTuning(
    rank=8, alpha=16, dropout=0.0, epochs=24, patience=24, learning_rate=1e-2, head_learning_rate=1e-2, batch_size=32
)


def planted(seed: int, *, noise: bool):
    """Toy samples that differ strongly for other reasons; four of the genes follow the response, two up and two down."""
    options = {"noise_labels": "sample"} if noise else {}
    adata = sdr.datasets.toy(24, 15, 60, signal=0.0, sample_effect=1.5, rng=seed, **options)
    y = (adata.obs["response"] == "sensitive").to_numpy().astype(int)
    if not noise:
        rng, x = np.random.default_rng(seed), adata.X.toarray()
        for i, gene in enumerate(rng.choice(adata.n_vars, N_PLANTED, replace=False)):
            x[:, gene] = rng.poisson(np.where(y == i % 2, 12.0, 0.5))
        adata.X = csr_matrix(x)
    return adata, y, adata.obs["sample"].to_numpy(dtype=str)


def encoder(genes: list[str], seed: int) -> ScGPT:
    """Twelve channels for sixty genes: the embedding is a random mixture, in which other differences are larger."""
    config = ScGPTConfig(
        dim=DIM, heads=2, layers=1, ffn_dim=4 * DIM, dropout=0.0, max_length=len(genes) + 1, normalize=False
    )
    model = ScGPT.random(config, make_vocab({gene: i for i, gene in enumerate(genes)}), seed=seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and name.startswith("layers."):
            parameter.data.mul_(1 / 0.02 / DIM**0.5)  # of the size of trained weights, so that attention is not flat
    return model


def halves(y: np.ndarray, groups: np.ndarray, seed: int) -> list[Fold]:
    """Two folds of whole samples with both classes."""
    rng = np.random.default_rng(seed)
    sides = np.zeros(len(y), dtype=int)
    for label in (0, 1):
        names = rng.permutation(np.unique(groups[y == label]))
        sides[np.isin(groups, names[: len(names) // 2])] = 1
    return [Fold(str(side), np.flatnonzero(sides != side), np.flatnonzero(sides == side)) for side in (0, 1)]


@cache
def aurocs(*, noise: bool) -> np.ndarray:
    """Leave-groups-out AUROC of the frozen and the tuned encoder for every seed, shape `(seeds, 2)`."""
    rows = []
    with sdr.settings.override(progress=False, device="cpu"):
        for seed in SEEDS:
            adata, y, groups = planted(seed, noise=noise)
            genes = list(adata.var_names)
            tokens = encoder(genes, seed).tokenize(adata)
            frozen = FixedFeatures("frozen", encoder(genes, seed).embed_tokens(tokens))
            load = partial(encoder, genes, seed)
            recipe = SimpleNamespace(name="tuned", mode="lora", settings=OPTIONS, load=load)
            tuned = TunedFeatures(recipe, tokens, y, groups, kind="logistic", seed=0)
            folds = halves(y, groups, seed)
            probs = [
                cross_validate(features, y, groups, folds, head=head).prob
                for features, head in ((frozen, "logistic"), (tuned, tuned.head))
            ]
            rows.append([roc_auc_score(y, prob) for prob in probs])
    return np.array(rows)


@pytest.mark.slow
def test_tuning_finds_what_the_frozen_embedding_hides():
    frozen, tuned = aurocs(noise=False).T
    assert (tuned > frozen + 0.1).all()
    assert tuned.mean() > frozen.mean() + 0.2
    assert tuned.mean() > 0.8


@pytest.mark.slow
def test_tuning_finds_nothing_in_noise():
    _, tuned = aurocs(noise=True).T
    assert tuned.mean() < 0.62
    assert tuned.min() < 0.55
