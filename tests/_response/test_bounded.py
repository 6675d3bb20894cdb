"""Cells on disk: what is asked for at once, and what is kept, does not follow the number of cells."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import sc_drugresp as sdr
from sc_drugresp._data.rows import Rows
from sc_drugresp._response import choose, crossfit, features, reference_groups, train
from sc_drugresp._response.fitters import fit_settings
from sc_drugresp._stats.groups import spread_rows

N_SAMPLES = 8


def study(n: int) -> ad.AnnData:
    rng = np.random.default_rng(0)
    sample = np.arange(n) % N_SAMPLES
    counts = rng.poisson(0.1, (n, 1_000)).astype(np.float32)
    for label in (0, 1):  # as many counts in both classes
        counts[sample % 2 == label, 10 * label : 10 * label + 10] += rng.poisson(2, ((sample % 2 == label).sum(), 10))
    obs = pd.DataFrame(
        {"sample": [f"S{i}" for i in sample], "response": np.where(sample % 2, "sensitive", "resistant")},
        index=[f"c{i}" for i in range(n)],
    )
    return ad.AnnData(sparse.csr_matrix(counts), obs)


@pytest.fixture
def small(monkeypatch):
    """Limits that a small study reaches."""
    for module in (crossfit, train):
        monkeypatch.setattr(module, "MOST_CELLS", 160)
    monkeypatch.setattr(features, "ALL_AT_ONCE", 100)
    monkeypatch.setattr(choose, "IN_MEMORY_CELLS", 100)
    asked: list[int] = []
    read = Rows.read

    def record(self, index):
        block = read(self, index)
        asked.append(block.shape[0])
        return block

    monkeypatch.setattr(Rows, "read", record)
    return asked


@pytest.mark.parametrize("verb", [sdr.pp.check, sdr.tl.predict_response])
def test_no_verb_asks_for_more_rows_at_once_in_larger_files(tmp_path, small, verb):
    largest = []
    for n in (400, 1_600):
        study(n).write_h5ad(tmp_path / f"{n}.h5ad")
        small.clear()
        with sdr.settings.override(block_cells=64):
            verb(tmp_path / f"{n}.h5ad", group_key="sample")
        largest.append(max(small))
    # Besides blocks of 64, runs that are looked at first and the 2 times 150 cells by which samples are compared.
    assert largest[1] <= max(largest[0], N_SAMPLES * 150)
    assert largest[1] < 1_600


def test_heads_learn_from_a_bounded_choice_and_every_cell_is_scored(small, monkeypatch):
    seen: list[int] = []

    def record(settings, x, *args, **kwargs):
        seen.append(len(x))
        return fit_settings(settings, x, *args, **kwargs)

    monkeypatch.setattr(crossfit, "fit_settings", record)
    adata = study(800)
    sdr.tl.predict_response(adata, group_key="sample")
    assert seen
    assert max(seen) <= 160
    assert adata.obs["predicted_response_prob"].notna().all()
    assert adata.uns["train_response"]["metrics"]["cell_auroc"] > 0.9


def test_rows_are_spread_over_samples():
    strata = np.repeat([0, 1, 2], [5, 400, 1_000])
    chosen = spread_rows(np.arange(1_405), strata, 205)
    assert np.bincount(strata[chosen]).tolist() == [5, 100, 100]
    assert (np.diff(chosen) > 0).all()
    assert np.diff(chosen[strata[chosen] == 2]).max() <= 11  # evenly, not the first ones
    assert np.array_equal(spread_rows(np.arange(10), strata, 205), np.arange(10))


def test_a_path_gives_what_the_object_gives_and_the_file_stays(tmp_path):
    adata = study(320)
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    before = path.read_bytes()
    opened = sdr.tl.predict_response(path, group_key="sample")
    sdr.tl.predict_response(adata, group_key="sample")
    np.testing.assert_allclose(opened.obs["predicted_response_prob"], adata.obs["predicted_response_prob"], atol=1e-6)
    pd.testing.assert_frame_equal(sdr.pp.check(path, group_key="sample"), sdr.pp.check(study(320), group_key="sample"))
    sdr.report(opened, tmp_path / "report.html")
    assert path.read_bytes() == before
    assert not isinstance(opened.X, np.ndarray | sparse.spmatrix)


def test_cells_that_are_not_clustered_join_their_neighbors(monkeypatch):
    from sc_drugresp._data import read_counts

    rng = np.random.default_rng(1)
    rate = np.ones((2, 40))
    rate[0, :20], rate[1, 20:] = 8, 8
    kind = np.arange(400) % 2
    source = read_counts(ad.AnnData(sparse.csr_matrix(rng.poisson(rate[kind]).astype(np.float32))))
    monkeypatch.setattr(reference_groups, "MOST_CLUSTERED", 101)
    threads = torch.get_num_threads()
    found = reference_groups.find_clusters(source, np.ones(400, dtype=bool), rng=0)
    assert torch.get_num_threads() == threads  # kernels of numba set them
    for name in np.unique(found):
        assert len(np.unique(kind[found == name])) == 1
    assert (found != "").all()
