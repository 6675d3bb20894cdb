"""Answers for groups: order, probability, interval, abstention; clones and pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from screens import bulk_of, toy_reference, toy_screen

import sc_drugresp as sdr
from sc_drugresp._reference.abstain import drug_reasons
from sc_drugresp._reference.chance import KNOTS, LEVELS, below, interval, probability, with_platform
from sc_drugresp._reference.clones import combine_clones, rank_pairs
from sc_drugresp._reference.lineage import contradiction
from sc_drugresp._reference.rank import answer_groups, ranking_table
from sc_drugresp.names import lineage_of


@pytest.fixture(scope="module")
def answered():
    reference, _, cells = toy_reference()
    bulk, lines = bulk_of(reference, cells)
    _, response, tissue = toy_screen()
    stated = [lineage_of(tissue[line]) for line in lines]
    answers = answer_groups(reference, bulk, lines, chemistry="dropseq", lineages=stated)
    truth = response.pivot_table(index="line", columns="drug", values="value").reindex(lines)[reference.drugs.index]
    return reference, bulk, lines, stated, answers, truth.to_numpy()


def test_new_lines_are_ordered(answered) -> None:
    reference, _, _, _, answers, truth = answered
    for drug, least in (("seen", 0.6), ("Erlotinib", 0.6)):
        j = list(reference.drugs.index).index(drug)
        there = np.isfinite(truth[:, j])
        assert np.corrcoef(answers.z[there, j], truth[there, j])[0, 1] > least


def test_intervals_hold_and_probabilities_follow_the_limit(answered) -> None:
    reference, _, _, _, answers, truth = answered
    z = reference.z(truth)
    inside = ((z >= answers.low) & (z <= answers.high))[np.isfinite(z)].mean()
    assert 0.8 < inside <= 0.98
    sensitive = truth < reference.drugs["sensitive_below"].to_numpy()
    j = list(reference.drugs.index).index("seen")
    assert answers.prob[sensitive[:, j], j].mean() > answers.prob[~sensitive[:, j], j].mean() + 0.2


def test_unknown_platform_gives_an_order_and_no_number(answered) -> None:
    reference, bulk, lines, stated, *_ = answered
    answers = answer_groups(reference, bulk, lines, chemistry="10x3v3", lineages=stated)
    table = ranking_table(reference, answers)
    spoken = table[table["abstain_reason"] == ""]
    assert not answers.aligned
    assert spoken["z"].notna().any()
    assert table[["P", "low", "high"]].isna().all(axis=None)
    assert (table["call"] == "uncertain").all()


def test_table_orders_drugs_and_puts_abstentions_last(answered) -> None:
    reference, _, lines, _, answers, _ = answered
    table = ranking_table(reference, answers)
    assert len(table) == len(lines) * len(reference.drugs)
    one = table[table["group"] == lines[0]]
    spoken = one["abstain_reason"] == ""
    assert one["drug"].tolist()[:2] == one[spoken].sort_values("z")["drug"].tolist()
    assert one.loc[~spoken, ["z", "P", "low", "high"]].isna().all(axis=None)
    reasons = dict(zip(one["drug"], one["abstain_reason"]))
    assert reasons["Osimertinib"].startswith("needs mutation")
    assert reasons["unseen"].startswith("drug not predictable")
    assert reasons["seen"] == ""
    assert one["tissue_mean_z"].notna().all()


def test_groups_do_not_depend_on_each_other(answered) -> None:
    reference, bulk, lines, stated, answers, _ = answered
    one = replace(bulk, counts=bulk.counts[:1], totals=bulk.totals[:1], n_cells=bulk.n_cells[:1])
    alone = answer_groups(reference, one, lines[:1], chemistry="dropseq", lineages=stated[:1])
    np.testing.assert_allclose(alone.z[0], answers.z[0])


def test_groups_that_cannot_be_answered(answered) -> None:
    reference, bulk, lines, _, _, _ = answered
    few = replace(bulk, n_cells=np.full(len(lines), 9))
    assert answer_groups(reference, few, lines).reasons[0].startswith("too few cells: 9")
    lacking = replace(bulk, seen=np.arange(len(reference.genes)) < 20)
    assert answer_groups(reference, lacking, lines).reasons[0].startswith("too few genes")
    blood = [i for i, line in enumerate(lines) if toy_screen()[2][line].startswith("haema")]
    said = answer_groups(reference, bulk, lines, chemistry="dropseq", lineages=["breast"] * len(lines))
    assert all(said.reasons[i].startswith("lineage: looks like blood") for i in blood)
    table = ranking_table(reference, said)
    assert table.loc[table["group"] == lines[blood[0]], "z"].isna().all()


def test_lineage_rule() -> None:
    names, gaps = ["breast", "lung", "blood"], np.array([0.2, 0.3, 0.0])
    assert contradiction(np.array([0.1, 0.25, 0.0]), names, gaps, "breast") == ""
    assert "looks like lung" in contradiction(np.array([0.0, 0.25, 0.0]), names, gaps, "breast")
    assert "looks like blood" in contradiction(np.array([0.1, 0.0, 0.12]), names, gaps, "breast")
    assert contradiction(np.array([0.1, 0.0, 0.12]), names, gaps, "lymphoid") == ""
    assert contradiction(np.array([0.1, 0.0, 0.12]), names, gaps, None) == ""
    assert contradiction(np.array([0.1, 0.0, 0.12]), names, gaps, "eye") == ""


def test_weak_drugs_and_genotypes() -> None:
    reference = sdr.models.Reference.load()
    reasons = dict(zip(reference.drugs.index, drug_reasons(reference.drugs)))
    assert reasons["imatinib"].startswith("needs mutation: BCR-ABL1")
    weak = reference.drugs.index[reference.drugs["r"] < 0.3]
    assert len(weak) > 50
    assert all(reasons[drug] for drug in weak)


def test_probability_is_what_was_seen_in_held_out_lines() -> None:
    """Errors that are wider at one end: plain shares are overconfident there, recalibrated ones are not."""
    reference = sdr.models.Reference.load()
    assert (np.diff(reference.recalibration) >= -1e-6).all()
    assert probability(np.array([0.95]), reference.recalibration)[0] < 0.9
    assert len(reference.recalibration) == len(KNOTS)


def test_share_of_errors() -> None:
    errors = np.quantile(np.arange(-50, 51), np.linspace(0, 1, 101))[None]
    assert below(np.array([[0.0], [25.0], [200.0]]), errors, np.array([0.0])).ravel() == pytest.approx([0.5, 0.25, 0.0])


def test_clones() -> None:
    z = np.array([[-1.0, 0.0], [1.0, 0.0], [5.0, 5.0]])
    mean, worst, which = combine_clones(z, np.array([60, 39, 1]))
    assert mean[0] == pytest.approx(-0.16)
    assert which[0] == 1  # the third clone has too few cells
    assert mean[0] < worst[0] < 1.0
    alone = combine_clones(z[:1], np.array([10]))
    np.testing.assert_allclose(alone[0], alone[1])


def test_pairs_cover_different_clones() -> None:
    z = np.array([[-2.0, 1.0, -0.5, 1.0], [1.0, -2.0, -0.5, 1.0]])
    found = rank_pairs(z, np.array([50, 50]), ["a", "b", "c", "d"], n_pairs=3)
    assert found.loc[0, ["drug_1", "drug_2"]].tolist() == ["a", "b"]
    assert found.loc[0, "mean_z"] == pytest.approx(-2.0)
    assert found.loc[0, "gain_over_best_single"] == pytest.approx(1.5)
    assert found["note"].str.contains("no synergy").all()


def test_what_a_platform_does_to_a_line_widens_intervals() -> None:
    reference, _, cells = toy_reference()
    bulk, lines = bulk_of(reference, cells)
    shift = reference.shifts["dropseq"]
    assert shift.deviations.shape == (len(shift.lines), len(reference.genes))
    np.testing.assert_allclose(np.nansum(shift.deviations, axis=0), 0, atol=1e-3)
    noisy = replace(shift, deviations=20 * shift.deviations)
    silent = replace(shift, deviations=None)
    widths, probs = [], []
    for one in (silent, shift, noisy):
        answers = answer_groups(reference.with_shift(one), bulk, lines, chemistry="dropseq")
        widths.append((answers.high - answers.low).mean())
        probs.append(answers.prob)
    assert widths[0] < widths[1] < 0.8 * widths[2]
    assert np.ptp(probs[2]) < np.ptp(probs[0])


def test_errors_through_a_platform_are_covered() -> None:
    rng = np.random.default_rng(0)
    errors = np.quantile(rng.normal(0, 1, (4000, 1)), LEVELS, axis=0).T
    deviations = rng.normal(0, 0.8, (400, 1))
    low, high = interval(np.zeros((1, 1)), with_platform(errors, deviations))
    new = rng.normal(0, 1, 20_000) + rng.normal(0, 0.8, 20_000)
    assert ((new >= low) & (new <= high)).mean() == pytest.approx(0.9, abs=0.015)
    low, high = interval(np.zeros((1, 1)), errors)
    assert ((new >= low) & (new <= high)).mean() < 0.84


def test_one_clone_needs_no_pair() -> None:
    z = np.random.default_rng(0).normal(size=(1, 6))
    assert rank_pairs(z, np.array([50.0]), list("abcdef")).empty
