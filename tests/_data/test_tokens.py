"""Ragged tokens against plain lists."""

from __future__ import annotations

import numpy as np

from sc_drugresp.models import Tokens


def test_marked_tokens_stay_and_emptied_cells_too():
    tokens = Tokens([0, 3, 3, 5], [4, 5, 6, 7, 8], np.arange(5.0), {"sets": np.array([2, 1, 0])})
    kept = tokens.only(np.array([True, False, True, False, False]))
    assert [kept.sequence(cell).tolist() for cell in range(3)] == [[4, 6], [], []]
    np.testing.assert_array_equal(kept.values, [0.0, 2.0])
    np.testing.assert_array_equal(kept.cells["sets"], [2, 1, 0])
    assert tokens.only(np.zeros(5, dtype=bool)).lengths.tolist() == [0, 0, 0]


def test_tokens_without_values_stay_without():
    assert Tokens([0, 2], [1, 2]).only(np.array([False, True])).values is None
