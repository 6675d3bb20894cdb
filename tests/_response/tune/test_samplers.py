"""Batches of training: balanced, of whole samples where cells see each other, and decided by seed and epoch."""

from __future__ import annotations

import numpy as np
import pytest

from sc_drugresp._response.tune.held_out import split_samples
from sc_drugresp._response.tune.samplers import balanced_batches, parts, set_batches

Y = np.array([1] * 90 + [1] * 10 + [0] * 300 + [0] * 4)
GROUPS = np.array(["a"] * 90 + ["b"] * 10 + ["c"] * 300 + ["d"] * 4)


def test_cells_are_drawn_so_that_classes_and_samples_are_seen_equally_often():
    epochs = (balanced_batches(Y, GROUPS, batch_size=16, seed=0, epoch=epoch) for epoch in range(60))
    drawn = np.concatenate([batch for batches in epochs for batch in batches])
    share = {group: np.mean(GROUPS[drawn] == group) for group in "abcd"}
    assert len(drawn) == 60 * len(Y)
    for value in share.values():
        assert value == pytest.approx(0.25, abs=0.015)


def test_sets_never_cross_samples_and_samples_take_turns():
    batches = set_batches(Y, GROUPS, max_cells=40, seed=0, epoch=0)
    assert max(map(len, batches)) <= 40
    names = [set(GROUPS[batch]) for batch in batches]
    assert all(len(name) == 1 for name in names)
    counts = {group: sum(name == {group} for name in names) for group in "abcd"}
    assert counts["a"] + counts["b"] == counts["c"] + counts["d"] == 9  # 300 cells make 8 parts, 4 cells another
    assert set(counts.values()) == {4, 5}
    seen = {
        cell
        for epoch in range(4)
        for batch in set_batches(Y, GROUPS, max_cells=40, seed=0, epoch=epoch)
        for cell in batch
    }
    assert len(seen) > 0.95 * len(Y)


@pytest.mark.parametrize("batches", [balanced_batches, set_batches])
def test_an_epoch_depends_on_seed_and_number_alone(batches):
    size = {"batch_size": 16} if batches is balanced_batches else {"max_cells": 40}
    assert batches(Y, GROUPS, seed=3, epoch=1, **size) == batches(Y, GROUPS, seed=3, epoch=1, **size)
    assert batches(Y, GROUPS, seed=3, epoch=1, **size) != batches(Y, GROUPS, seed=3, epoch=2, **size)
    assert batches(Y, GROUPS, seed=3, epoch=1, **size) != batches(Y, GROUPS, seed=4, epoch=1, **size)


@pytest.mark.parametrize("seed", range(5))
def test_split_keeps_samples_whole_and_both_classes_on_both_sides(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 9, 200)
    y = (np.arange(9) < 4).astype(int)[groups]
    train, held_out = split_samples(y, groups, validation=0.25, seed=seed)
    assert not set(groups[train]) & set(groups[held_out])
    assert set(y[train]) == set(y[held_out]) == {0, 1}
    assert len(train) + len(held_out) == len(y)


@pytest.mark.parametrize(
    ("y", "groups"),
    [
        ([1, 0, 1, 0], "aabb"),
        ([1, 0, 1, 0, 0], "aabcc"),  # only the mixed sample can be held out alone
        ([1, 1, 0, 0], "abcd"),
        ([1, 1, 1, 1, 1, 1, 0, 0, 1], "aaaaaabcb"),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_smallest_splits_have_both_classes_on_both_sides(y, groups, seed):
    y, groups = np.array(y), np.array(list(groups))
    train, held_out = split_samples(y, groups, validation=0.25, seed=seed)
    assert set(y[train]) == set(y[held_out]) == {0, 1}
    assert not set(groups[train]) & set(groups[held_out])


@pytest.mark.parametrize("divide", [True, False])
@pytest.mark.parametrize("total", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [1, 5, 16, 33])
def test_parts_of_processes_make_up_the_batches(divide, total, size):
    batches = balanced_batches(Y, GROUPS, batch_size=size, seed=0, epoch=0)[:11] + [[7]]
    shares = [parts(batches, rank=rank, total=total, divide=divide) for rank in range(total)]
    assert len({len(mine) for mine in shares}) == 1  # all meet in every step
    steps = list(zip(*shares))
    losses = np.random.default_rng(0).normal(size=len(Y))
    if divide:
        together = batches
    else:
        together = [batches[first : first + total] for first in range(0, len(batches), total)]
        together = [[cell for batch in group for cell in batch] for group in together]
    for step, cells in zip(steps, together, strict=True):
        counted = [cell for part in step if part.share for cell in part.cells]
        assert sorted(counted) == sorted(cells)
        assert all(part.cells for part in step)
        if divide:
            average = np.mean([losses[part.cells].mean() * part.share for part in step])
            assert average == pytest.approx(losses[cells].mean())
    if total == 1:
        assert [part.cells for part in shares[0]] == batches
        assert {part.share for part in shares[0]} == {1.0}
