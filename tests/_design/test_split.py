from __future__ import annotations

import itertools

import numpy as np
import pytest

from sc_drugresp._design.aliasing import aliasing, design_table, nested
from sc_drugresp._design.split import choose_split

CELLS = 5


def cells(labels, **columns):
    """Repeat one entry per sample over its cells."""
    y = np.repeat(labels, CELLS)
    return y, {role: np.repeat(values, CELLS) for role, values in columns.items()}


def test_enough_patients():
    y, columns = cells([1] * 5 + [0] * 5, patient=[f"P{i}" for i in range(10)])
    plan = choose_split(y, columns)
    assert plan.level == "patient"
    assert plan.verdict.code == "OK"
    assert plan.strict
    assert "5 sensitive and 5 resistant" in plan.verdict.reason


@pytest.mark.parametrize("n_sensitive", [1, 2, 4])
@pytest.mark.parametrize("n_resistant", [1, 3])
def test_one_sample_in_a_class_is_always_aliased(n_sensitive, n_resistant):
    """No false negatives: a class that stands on one sample is never scored, at any level and under any name."""
    n = n_sensitive + n_resistant
    names = [f"S{i}" for i in range(n)]
    for role in ("dataset", "patient", "sample", "batch", "timepoint", "drug"):
        y, columns = cells([1] * n_sensitive + [0] * n_resistant, **{role: names})
        plan = choose_split(y, columns)
        if min(n_sensitive, n_resistant) == 1:
            assert plan.verdict.code == "ALIASED", (role, n_sensitive, n_resistant)
            assert not plan.strict
            assert "one" in plan.verdict.reason
        else:
            assert plan.verdict.code != "ALIASED"


def test_samples_of_one_patient_per_class_do_not_hide_the_aliasing():
    y, columns = cells([1, 1, 1, 0, 0, 0], patient=["A", "A", "A", "B", "B", "B"], sample=list("123456"))
    plan = choose_split(y, columns)
    assert plan.verdict.code == "ALIASED"
    assert plan.level == "patient"
    assert "each class comes from one patient" in plan.verdict.reason


def test_batches_of_one_class_are_aliased_however_many_patients_there_are():
    y, columns = cells([1] * 6 + [0] * 6, patient=[f"P{i}" for i in range(12)], batch=["a"] * 6 + ["b"] * 6)
    plan = choose_split(y, columns)
    assert plan.verdict.code == "ALIASED"
    assert "one batch" in plan.verdict.reason
    mixed = columns | {"batch": np.tile(["a", "b"], 30)}
    assert choose_split(y, mixed).verdict.code == "OK"


def test_response_that_is_a_time_point_is_aliased():
    y, columns = cells([1, 0] * 6, patient=np.repeat([f"P{i}" for i in range(6)], 2), timepoint=["pre", "post"] * 6)
    plan = choose_split(y, columns)
    assert plan.verdict.code == "ALIASED"
    assert "time point" in plan.verdict.reason
    assert any("before treatment" in text for text in plan.verdict.suggestions)


def test_one_patient_with_both_classes_among_pure_others():
    # Without P0 no sensitive cell is left: samples of P0 must not be held out one by one instead.
    y, columns = cells([1, 1, 0, 0, 0, 0], patient=["P0", "P0", "P0", "P1", "P2", "P3"], sample=list("abcdef"))
    assert choose_split(y, columns).verdict.code == "ALIASED"


def test_strictest_level_first():
    labels = [1, 1, 0, 0] * 3
    y, columns = cells(
        labels, dataset=np.repeat(["d1", "d2", "d3"], 4), patient=[f"P{i}" for i in range(12)], batch=["x", "y"] * 6
    )
    plan = choose_split(y, columns)
    assert plan.level == "dataset"
    assert len(np.unique(plan.units)) == 12  # statistics still count patients
    # One of two data sets has one class only: leaving out the other would leave no sensitive sample.
    y, columns = cells([1, 1, 0, 0, 0, 0], dataset=["a"] * 4 + ["b"] * 2, patient=[f"P{i}" for i in range(6)])
    plan = choose_split(y, columns)
    assert plan.level == "patient"
    assert any("data set" in text for text in plan.verdict.cautions)


def test_constant_columns_are_passed_over():
    y, columns = cells([1, 1, 0, 0, 0], patient=["PC9"] * 5, sample=list("abcde"))
    assert choose_split(y, columns).level == "sample"


def test_two_lines_of_a_class_are_underpowered():
    y, columns = cells([1, 1, 0, 0, 0], patient=list("abcde"))
    verdict = choose_split(y, columns).verdict
    assert verdict.code == "UNDERPOWERED"
    assert "0.1" in verdict.reason  # 1 / C(5, 2)
    assert "2 sensitive and 3 resistant" in verdict.reason


def test_one_sample_is_no_independent_unit():
    plan = choose_split(np.array([0, 1] * 10), {"patient": np.array(["A"] * 20)})
    assert plan.level == "cells"
    assert plan.verdict.code == "UNDERPOWERED"
    assert not plan.strict


def test_mixed_samples_can_be_held_out():
    y = np.tile([0, 1], 40)
    plan = choose_split(y, {"sample": np.repeat([f"mix{i}" for i in range(8)], 10)})
    assert plan.level == "sample"
    assert plan.verdict.code == "OK"


def test_unlabeled_cells_do_not_count():
    y, columns = cells([1, 0, -1, -1, -1, -1], sample=list("abcdef"))
    assert choose_split(y, columns).verdict.code == "ALIASED"


def test_design_table_counts_every_cell():
    y, columns = cells([1, 0, -1], sample=["a", "b", "b"], drug=["x", "x", "y"])
    table = design_table(y, columns)
    assert table[["sample", "drug"]].to_numpy().tolist() == [["a", "x"], ["b", "x"], ["b", "y"]]
    assert table[["n_cells", "n_sensitive", "n_resistant", "n_unlabeled"]].to_numpy().tolist() == [
        [5, 5, 0, 0],
        [5, 0, 5, 0],
        [5, 0, 0, 5],
    ]


def test_aliasing_by_enumeration():
    """Against the definition, for every labeling of four cells in two or three levels."""
    for levels in itertools.product("abc", repeat=4):
        for labels in itertools.product((0, 1), repeat=4):
            sets = {level: {y for l, y in zip(levels, labels) if l == level} for level in levels}
            got = aliasing(np.array(labels), np.array(levels))
            assert got.n_mixed == sum(len(s) == 2 for s in sets.values())
            assert got.determines_label == (len(sets) > 1 and all(len(s) == 1 for s in sets.values()))


def test_nested():
    assert nested(np.array(list("aabb")), np.array(list("xxxx")))
    assert not nested(np.array(list("aabb")), np.array(list("xyxx")))
