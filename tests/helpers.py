"""What tests of several folders share: the recorded files, made-up cells, measures of error, files that run code."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_matrix

import sc_drugresp as sdr
from sc_drugresp._data import Tokens
from sc_drugresp.models._weights import read_state

# Another folder with recordings of the same kind, of whatever sizes and seeds, can take the place of ours.
GOLDEN = Path(os.environ.get("SC_DRUGRESP_GOLDEN") or Path(__file__).parent / "golden")
GOLDEN_MODELS = sorted(path.name for path in GOLDEN.iterdir() if (path / "weights").is_dir())


@dataclass(frozen=True)
class Golden:
    """A tiny random checkpoint in its published format, cells, and what the original software made of them."""

    model: str

    @property
    def folder(self) -> Path:
        return GOLDEN / self.model

    @property
    def weights(self) -> Path:
        return self.folder / "weights"

    @property
    def expected(self) -> dict[str, np.ndarray]:
        """What the original software gave, by name."""
        with np.load(self.folder / "expected.npz") as file:
            return dict(file)

    @property
    def adata(self) -> ad.AnnData:
        """The recorded cells."""
        return ad.read_h5ad(self.folder / "input.h5ad")

    @property
    def manifest(self) -> dict[str, Any]:
        """Names and shapes of the tensors of the published checkpoints."""
        return json.loads((self.folder / "manifest_full.json").read_text())

    def copy(self, target: Path) -> Path:
        """A folder of weights inside `target` that a test may damage, with the sizes that lie beside it."""
        weights = shutil.copytree(self.weights, target / self.model / "weights", copy_function=shutil.copyfile)
        for path in self.folder.glob("config.json"):
            shutil.copyfile(path, weights.parent / path.name)
        for path in (weights, *weights.rglob("*")):
            path.chmod(0o755)
        return weights


def golden(model: str) -> Golden:
    """The recordings of one model."""
    return Golden(model)


@cache
def known_genes() -> pd.DataFrame:
    """Symbols (index) and Ensembl ids of the genes in the recorded inputs of all models, each once."""
    var = pd.concat([golden(model).adata.var[["ensembl_id"]].astype(str) for model in GOLDEN_MODELS])
    var = var[var["ensembl_id"].str.startswith("ENSG") & (var.index == var.index.str.upper())]
    return var[~var.index.duplicated() & ~var["ensembl_id"].duplicated()].sort_index()


def cell_lines(cells: int = 5, *, lines: int = 5, plates: int = 1, seed: int = 0) -> ad.AnnData:
    """Made-up counts of cell lines that differ from each other; every second line is sensitive.

    All models know some of the genes. `obs` holds `cell_line`, `sample` (the plate) and `response`. A line has a
    profile of its own, and sensitive ones share a program in a fifth of the genes.
    """
    rng = np.random.default_rng(seed)
    var = known_genes()
    shape = (lines, plates, cells, len(var))
    line, plate, _, _ = np.indices(shape, sparse=True)
    sensitive = line % 2 == 1
    log_mean = rng.normal(0, 0.8, len(var)) + rng.normal(0, 0.6, (lines, 1, 1, len(var)))
    log_mean = log_mean + rng.normal(0, 0.1, (1, plates, 1, len(var)))
    log_mean = log_mean + sensitive * np.where(rng.random(len(var)) < 0.2, 1.0, 0.0)
    depth = rng.lognormal(0, 0.3, shape[:3] + (1,))
    counts = rng.poisson(rng.gamma(2.0, np.exp(log_mean) * depth / 2.0)).astype(np.float32)
    obs = {
        "cell_line": [f"line{i}" for i in np.broadcast_to(line, (*shape[:3], 1)).ravel()],
        "sample": [f"plate{i}" for i in np.broadcast_to(plate, (*shape[:3], 1)).ravel()],
        "response": np.where(np.broadcast_to(sensitive, (*shape[:3], 1)).ravel(), "sensitive", "resistant"),
    }
    names = [f"cell{i}" for i in range(lines * plates * cells)]
    obs = pd.DataFrame(obs, index=names, dtype="category")
    return ad.AnnData(csr_matrix(counts.reshape(len(obs), -1)), obs=obs, var=var.copy())


def relative(found: Any, expected: Any) -> float:
    """Largest difference, relative to the largest expected value; the same entries must be NaN."""
    found, expected = (np.asarray(x.detach() if hasattr(x, "detach") else x) for x in (found, expected))
    assert found.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    return float(np.nanmax(np.abs(found - expected)) / np.nanmax(np.abs(expected)))


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Assert that two arrays agree, relative to the largest expected value."""
    assert relative(found, expected) <= tolerance


def same_tokens(found: Tokens, expected: Tokens) -> None:
    """Assert that two sets of sequences are the same to the bit."""
    np.testing.assert_array_equal(found.indptr, expected.indptr)
    np.testing.assert_array_equal(found.ids, expected.ids)
    if expected.values is not None:
        np.testing.assert_array_equal(found.values, expected.values)


def resave(path: Path, change: Callable[[Any], Any]) -> None:
    """Write a file of weights anew; `change` gives its new content, or `None` after a change in place."""
    content = read_state(path)
    path.unlink()  # the old file stays mapped into memory
    changed = change(content)
    torch.save(content if changed is None else changed, path)


class RunsCode:
    """Creates a folder when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


def load(model: str, name: str | None = None, **options: Any) -> Any:
    """The recorded checkpoint of `model`; `name` tells which, where there are several."""
    return sdr.models.load(name or model, checkpoint=golden(model).weights, **options)
