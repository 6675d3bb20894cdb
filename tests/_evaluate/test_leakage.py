from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sc_drugresp._core.hashing import data_hash
from sc_drugresp._core.json import jsonable
from sc_drugresp._design.given_away import fitted_elsewhere
from sc_drugresp._evaluate.leakage import label_derived, sets_cross_folds
from sc_drugresp._stats.folds import Fold

Y = np.repeat([0, 1], 20)
NOISE = np.random.default_rng(0).normal(size=40)


@pytest.mark.parametrize(
    ("values", "derived"),
    [
        (Y * 2.0 + 0.01 * NOISE, True),
        (-Y.astype(float), True),
        (np.where(Y == 1, np.nan, 1.0), True),  # what is missing tells the class
        (np.where(Y == 1, "CR", "PD"), True),
        (NOISE, False),
        (np.ones(40), False),
        (np.full(40, np.nan), False),
        (np.array(["a", "b"] * 20), False),
        (np.arange(40).astype(str), False),  # names of cells
    ],
)
def test_label_derived(values, derived):
    assert bool(label_derived(values, Y)) is derived


def test_sets_across_folds():
    folds = [Fold("a", np.arange(20), np.arange(20, 40)), Fold("b", np.arange(10, 40), np.arange(10))]
    assert sets_cross_folds(np.zeros(40), folds) == ["a", "b"]
    assert sets_cross_folds(np.arange(40) // 10, folds) == []
    assert sets_cross_folds(np.arange(40) // 20, folds) == ["b"]


def test_known_slots_are_called_transductive():
    assert all(
        fitted_elsewhere(key).startswith("transductive") for key in ("X_pca", "X_umap", "X_scVI", "X_pca_harmony")
    )
    assert not fitted_elsewhere("X_mine").startswith("transductive")


def test_data_hash_depends_on_profiles_labels_and_samples():
    hashes, groups = np.arange(40, dtype=np.uint64), np.repeat(["a", "b"], 20)
    base = data_hash(hashes, Y, groups)
    assert base == data_hash(hashes.copy(), Y.astype(np.int64), groups.astype(object))
    assert (
        len(
            {
                base,
                data_hash(hashes + np.uint64(1), Y, groups),
                data_hash(hashes, 1 - Y, groups),
                data_hash(hashes, Y, groups[::-1]),
            }
        )
        == 4
    )


def test_jsonable():
    value = {"a": np.float32(0.5), "b": [np.nan, np.int64(2)], "c": np.array(["x"]), 1: pd.Series([1]).to_numpy()}
    assert jsonable(value) == {"a": 0.5, "b": [None, 2], "c": ["x"], "1": [1]}
