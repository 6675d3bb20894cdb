from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import sparse

from sc_drugresp._stats.folds import (
    Fold,
    cross_dataset,
    few_shot,
    find_leaks,
    given_folds,
    leave_group_out,
    pooled,
    profile_hashes,
    repeated,
    shared_profiles,
    without_copies,
)


def covers_once(folds, n):
    return np.array_equal(np.sort(np.concatenate([fold.test for fold in folds])), np.arange(n))


@pytest.mark.parametrize(("n_groups", "n_folds"), [(8, 4), (30, 10)])
def test_leave_group_out(n_groups, n_folds):
    groups = np.repeat(np.arange(n_groups), 3)
    y = groups % 2
    folds = leave_group_out(y, groups)
    assert len(folds) == n_folds
    assert covers_once(folds, len(y))
    for fold in folds:
        assert not np.intersect1d(groups[fold.train], groups[fold.test]).size
        assert y[fold.train].mean() == pytest.approx(0.5, abs=0.02)
    assert find_leaks(folds, {"sample": groups}) == []


def test_pairs_keep_the_balance_of_training():
    groups = np.repeat(np.arange(7), 2)
    y = (groups < 2).astype(int)
    folds = leave_group_out(y, groups)
    assert len(folds) == 5
    assert {len(np.unique(groups[fold.train][y[fold.train] == 1])) for fold in folds} == {1}
    assert {len(np.unique(groups[fold.train][y[fold.train] == 0])) for fold in folds} == {4}
    tested = np.bincount(np.concatenate([groups[fold.test] for fold in folds])) // 2
    assert tested[2:].tolist() == [1] * 5
    assert sorted(tested[:2]) == [2, 3]


def test_one_at_a_time():
    groups = np.repeat(np.arange(4), 3)
    folds = leave_group_out(groups % 2, groups, pairs=False)
    assert [fold.name for fold in folds] == ["0", "1", "2", "3"]
    mixed = leave_group_out(np.tile([0, 1], 6), groups)  # pairs make no sense where groups hold both classes
    assert [fold.name for fold in mixed] == ["0", "1", "2", "3"]


def test_pairs_take_the_bias_out_of_leaving_out():
    """Nearest class mean, no signal: one at a time falls below chance, pairs do not."""
    k, d, means = 10, 30, {True: [], False: []}
    groups = np.arange(k)
    y = (groups < k // 2).astype(int)
    for seed in range(200):
        x = np.random.default_rng(seed).normal(size=(k, d))
        for pairs, scores in means.items():
            score = np.zeros(k)
            for fold in leave_group_out(y, groups, pairs=pairs, rng=seed):
                high, low = (x[fold.train][y[fold.train] == kind].mean(axis=0) for kind in (1, 0))
                score[fold.test] = (x[fold.test] - (high + low) / 2) @ (high - low)
            scores.append((score[y == 1][:, None] > score[y == 0]).mean())
    assert np.mean(means[False]) < 0.43
    assert abs(np.mean(means[True]) - 0.5) < 0.04


@pytest.mark.parametrize(("n_sensitive", "n_resistant"), [(6, 7), (3, 14), (15, 15), (12, 30), (3, 27)])
def test_every_fold_tests_both_classes_whatever_the_cells(n_sensitive, n_resistant):
    """Samples are dealt out, not cells: a few large samples must not leave folds without a class."""
    labels = np.repeat([1, 0], [n_sensitive, n_resistant])
    size = np.random.default_rng(0).integers(1, 200, len(labels)) ** 2 // 100 + 1
    groups = np.repeat(np.arange(len(labels)), size)
    y = labels[groups]
    for rng in range(5):
        folds = leave_group_out(y, groups, rng=rng)
        assert len(folds) == (10 if len(labels) > 20 else n_resistant)
        assert {len(np.unique(y[fold.test])) for fold in folds} == {2}
        assert len(np.unique(np.concatenate([fold.test for fold in folds]))) == len(y)
        left = [len(np.unique(groups[fold.train][y[fold.train] == 1])) for fold in folds]
        assert max(left) - min(left) <= 1


def test_turns_pair_every_sensitive_group_with_every_resistant_one():
    groups = np.repeat(np.arange(7), 2)
    y = (groups < 3).astype(int)
    repeats = repeated(partial(leave_group_out, y, groups, rng=1), 10)
    assert [len(folds) for folds in repeats] == [4, 4, 4]
    pairs = {tuple(np.unique(groups[fold.test])) for folds in repeats for fold in folds}
    assert len(pairs) == 12
    assert len(repeated(partial(leave_group_out, y, groups, pairs=False), 10)) == 1
    many = np.repeat(np.arange(40), 2)
    assert len(repeated(partial(leave_group_out, many % 2, many), 4)) == 4


def test_a_group_with_both_classes_is_paired_by_its_majority():
    groups = np.repeat(np.arange(8), 5)
    y = groups % 2
    y[0] = 1  # one cell of group 0
    folds = leave_group_out(y, groups)
    assert len(folds) == 4
    assert {len(np.unique(groups[fold.test])) for fold in folds} == {2}
    y[groups < 3] = np.tile([0, 1, 0, 1, 0], 3)  # three of eight: a mixed design
    assert len(leave_group_out(y, groups)) == 8


def test_one_group_cannot_be_held_out():
    with pytest.raises(ValueError, match="at least two groups"):
        leave_group_out(np.array([0, 1]), np.array(["a", "a"]))


def test_pooled_is_stratified_and_leaks_samples():
    y, groups = np.repeat([0, 1, 0, 1], 10), np.repeat(list("abcd"), 10)
    folds = pooled(y, rng=0)
    assert covers_once(folds, 40)
    assert all(y[fold.test].mean() == 0.5 for fold in folds)
    assert {leak.kind for leak in find_leaks(folds, {"sample": groups})} == {"levels of 'sample'"}
    with pytest.raises(ValueError, match="two cells of each class"):
        pooled(np.array([0, 0, 1]))


def test_cross_dataset():
    y, datasets = np.array([0, 1, 0, 1, 0, 0]), np.array(list("aabbcc"))
    folds = cross_dataset(y, datasets)
    assert [fold.name for fold in folds] == ["a", "b", "c"]
    assert folds[0].train.tolist() == [2, 3, 4, 5]
    with pytest.raises(ValueError, match="at least two data sets"):
        cross_dataset(y, np.array(["a"] * 6))
    with pytest.raises(ValueError, match="one class only"):
        cross_dataset(np.array([0, 0, 1, 1]), np.array(list("aabb")))


def test_few_shot_tests_the_same_cells_for_every_number_of_samples():
    units = np.repeat(np.arange(16), 4)
    y, datasets = units % 2, np.where(units < 8, "a", "b")
    folds = few_shot(y, datasets, units, (0, 1, 2, 4, 10), n_repeats=2, rng=0)
    assert {fold.n_labeled for fold in folds} == {0, 1, 2, 4}  # 10 labeled samples would leave no test samples
    for fold in folds:
        target = fold.name[0]
        shown = np.unique(units[fold.train][datasets[fold.train] == target])
        assert len(shown) == fold.n_labeled
        assert not np.intersect1d(shown, units[fold.test]).size
        assert len(np.unique(y[fold.test])) == 2
        if fold.n_labeled in (2, 4):
            assert y[np.isin(units, shown)].mean() == 0.5
    for repeat in (0, 1):
        same = [fold.test for fold in folds if fold.name.startswith("a,") and fold.name.endswith(f"repeat {repeat}")]
        assert all(np.array_equal(test, same[0]) for test in same)


def test_given_folds():
    folds = given_folds(np.array(["x", "x", "y", "", "y"]))
    assert [(fold.train.tolist(), fold.test.tolist()) for fold in folds] == [([2, 3, 4], [0, 1]), ([0, 1, 3], [2, 4])]
    with pytest.raises(ValueError, match="two folds"):
        given_folds(np.array(["x", "x"]))


def test_leaks_are_named():
    patient, sample = np.array(list("PPQQ")), np.array(list("abcd"))
    split = given_folds(np.array(["1", "2", "2", "2"]))  # replicates a and b of patient P are apart
    (leak,) = [leak for leak in find_leaks(split, {"patient": patient, "sample": sample}) if leak.fold == "1"]
    assert leak.kind == "levels of 'patient'"
    assert "'P'" in str(leak)
    overlapping = [Fold("bad", np.array([0, 1]), np.array([1, 2]))]
    assert find_leaks(overlapping, {})[0].kind == "cells"
    assert find_leaks(split, {"patient": np.array(["P"] * 4)}) == []  # a limit of the data, not of the split


def profiles():
    dense = np.random.default_rng(0).poisson(1.0, (12, 60)).astype(np.float32)
    dense[7] = dense[2]
    dense[11] = 0
    dense[10] = 0
    return sparse.csr_matrix(dense)


def test_hashes_find_copies_whatever_the_blocks():
    matrix = profiles()
    whole = profile_hashes([(0, matrix)], 12)
    parts = profile_hashes([(start, matrix[start : start + 5]) for start in (0, 5, 10)], 12)
    np.testing.assert_array_equal(whole, parts)
    assert whole[2] == whole[7]
    assert whole[10] == whole[11] == 0  # empty cells are equal by chance
    assert len(np.unique(whole[:10])) == 9
    changed = matrix.copy()
    changed.data[0] += 1
    assert profile_hashes([(0, changed)], 12)[0] != whole[0]


def test_copies_of_test_cells_leave_the_training_part():
    hashes = profile_hashes([(0, profiles())], 12)
    folds = [Fold("0", np.arange(6, 12), np.arange(6)), Fold("1", np.arange(6), np.arange(6, 12))]
    own = np.zeros(12, dtype=bool)
    clean, removed = without_copies(folds, hashes, own)
    assert removed == 2
    assert 7 not in clean[0].train
    assert 2 not in clean[1].train
    assert [len(fold.test) for fold in clean] == [6, 6]
    assert without_copies(clean, hashes, own)[1] == 0


def test_cells_that_stand_in_two_groups_are_neither_learned_from_nor_tested():
    hashes = profile_hashes([(0, profiles())], 12)
    shared = shared_profiles(hashes, np.repeat([0, 1], 6))
    assert np.flatnonzero(shared).tolist() == [2, 7]
    assert not shared_profiles(hashes, np.zeros(12)).any()
    folds = [Fold("0", np.arange(6, 12), np.arange(6)), Fold("1", np.arange(6), np.arange(6, 12))]
    clean, _ = without_copies(folds, hashes, shared)
    for fold in clean:
        assert not shared[fold.train].any()
        assert not shared[fold.test].any()
        assert len(fold.train) == len(fold.test) == 5
