"""Ranking kernels against numpy's stable sort and plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from sc_drugresp._data.rank_kernels import descending_order, rank_by_value, top_counts


@pytest.mark.parametrize(
    "values",
    [
        np.array([3.0]),
        np.array([1.0, 2.0, 2.0, 1.0, 5.0]),
        np.random.default_rng(0).lognormal(0, 3, 2000),
        np.random.default_rng(1).integers(1, 6, 500).astype(float),
        1.0 + np.random.default_rng(2).integers(0, 40, 300) * 1e-9,  # alike in float32, not in float64
    ],
)
def test_order_is_that_of_a_stable_sort(values):
    np.testing.assert_array_equal(descending_order(values), np.argsort(-values, kind="stable"))


@pytest.mark.parametrize("narrow", [True, False])
def test_values_follow_the_formula(narrow):
    rng = np.random.default_rng(3)
    indptr = np.array([0, 5, 5, 45])
    ids = np.concatenate([rng.permutation(50)[:5], rng.permutation(50)[:40]]).astype(np.int32)
    counts = rng.integers(1, 9, 45).astype(np.float32)
    totals, scale = np.array([31.0, 2.0, 203.0]), rng.lognormal(0, 1, 50)
    out_indptr, out_ids, values = rank_by_value(indptr, ids, counts, totals, scale, 7, narrow)
    np.testing.assert_array_equal(out_indptr, [0, 5, 5, 12])
    kind = np.float32 if narrow else np.float64
    for cell, n in ((0, 5), (2, 7)):
        entries = slice(indptr[cell], indptr[cell + 1])
        step = counts[entries].astype(kind) * (kind(1) / kind(totals[cell])) * kind(1e4)
        expected = step.astype(np.float64) * scale[ids[entries]]
        order = np.argsort(-expected, kind="stable")[:n]
        rows = slice(out_indptr[cell], out_indptr[cell + 1])
        np.testing.assert_array_equal(out_ids[rows], ids[entries][order])
        np.testing.assert_array_equal(values[rows], expected[order])


def naive_top(ids, counts, words, n_vocabulary, limit):
    """Sort everything, spell it out, cut."""
    spelled = []
    for j in np.argsort(-counts, kind="stable"):
        token = int(ids[j])
        spelled += [token] if token < n_vocabulary else words[token - n_vocabulary]
    return [1, *spelled[:limit], 2]


@pytest.mark.parametrize("limit", [1, 4, 10, 200])
@pytest.mark.parametrize("top", [2, 5, 1000])
def test_top_counts_keep_order_spell_words_and_leave_out(limit, top):
    rng = np.random.default_rng(limit * top)
    words = [[7, 8, 9], [], [3, 3]]
    sizes = [0, 1, 3, 60, 120]
    indptr = np.cumsum([0, *sizes])
    ids = rng.integers(4, 33, indptr[-1]).astype(np.int32)  # 30, 31, 32 are words
    counts = rng.integers(1, top + 1, indptr[-1]).astype(np.float32)
    piece_indptr = np.cumsum([0, *map(len, words)])
    pieces = np.array([piece for word in words for piece in word], dtype=np.int32)
    out_indptr, out = top_counts(indptr, ids, counts, piece_indptr, pieces, 30, 1, 2, limit)
    for cell in range(len(sizes)):
        entries = slice(indptr[cell], indptr[cell + 1])
        expected = naive_top(ids[entries], counts[entries], words, 30, limit)
        assert out[out_indptr[cell] : out_indptr[cell + 1]].tolist() == expected
