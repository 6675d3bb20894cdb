"""Which lines are left out together."""

from __future__ import annotations

import numpy as np

from sc_drugresp._reference.relatives import families, known_families, with_relatives


def together(lines, *pair, **known) -> bool:
    found = dict(zip(lines, families(lines, **known).tolist()))
    return found[pair[0]] == found[pair[1]]


def test_curated_families_and_derived_names() -> None:
    lines = ["SKBR3", "AU565", "MCF7", "BT474", "BT474CLONE5", "SW48", "SW480", "SW620", "NCIH1", "NCIH10"]
    assert together(lines, "SKBR3", "AU565")
    assert together(lines, "BT474", "BT474CLONE5")
    assert together(lines, "SW480", "SW620")
    assert not together(lines, "SW48", "SW480")
    assert not together(lines, "NCIH1", "NCIH10")
    assert not together(lines, "MCF7", "AU565")


def test_patients_and_equal_profiles() -> None:
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(3, 300))
    Z[2] = Z[0] + 0.1 * rng.normal(size=300)
    assert together(["A", "B", "C"], "A", "C", Z=Z)
    assert not together(["A", "B", "C"], "A", "B", Z=Z)
    assert together(["A", "B", "C"], "A", "B", patients=["p", "p", ""])
    assert not together(["A", "B", "C"], "A", "C", patients=["p", "p", ""])


def test_relatives_of_a_line_that_is_not_there_are_found() -> None:
    assert with_relatives(["KPL-1"], ["MCF7", "T47D"]) == {"MCF7"}
    assert with_relatives(["nothing"], ["MCF7", "T47D"]) == set()


def test_no_line_stands_in_two_rows_of_the_table() -> None:
    lines = [line for family in known_families() for line in family]
    assert len(lines) == len(set(lines)) > 100
    assert all(line == line.upper() and line.isalnum() for line in lines)
