"""Columns that go with the label: found under any name and type, and clean cohorts left alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sc_drugresp._design.columns import usable_columns
from sc_drugresp._design.judge import assess

N, CELLS = 16, 20
LABEL = np.arange(N) % 2
Y = np.repeat(LABEL, CELLS)


def table(**columns):
    """`.obs` of 16 patients; a column has one entry per patient or per cell."""
    obs = pd.DataFrame({"patient": np.repeat([f"P{i:02d}" for i in range(N)], CELLS)})
    for name, values in columns.items():
        values = pd.Series(values)
        obs[name] = (values.loc[values.index.repeat(CELLS)] if len(values) == N else values).to_numpy()
    return obs


def verdict(**columns):
    return assess(table(**columns), Y, group_key=None).verdict


def agreeing(wrong):
    batch = LABEL.copy()
    batch[:wrong] = 1 - batch[:wrong]
    return np.char.add("B", batch.astype(str))


@pytest.mark.parametrize("name", ["batch", "platform", "site", "chemistry", "condition", "seq_run", "frozen"])
def test_a_column_of_the_design_that_is_the_label_is_aliased(name):
    found = verdict(**{name: np.where(LABEL == 1, "x", "y")})
    assert found.code == "ALIASED"
    assert name in found.reason


@pytest.mark.parametrize(
    "values",
    [
        np.where(LABEL == 1, "x", "y"),
        LABEL.astype(bool),
        LABEL * 3,
        LABEL * 2.5,
        pd.Categorical(np.where(LABEL == 1, "treated", "vehicle")),
        pd.Series(np.where(LABEL == 1, "x", None)),
        np.arange(N) + 100.0 * LABEL,
        np.arange(N) * (2 * LABEL - 1),
        pd.Timestamp("2021-01-01") + pd.to_timedelta(np.arange(N) + 90 * LABEL, unit="D"),
        (pd.Timestamp("2021-01-01") + pd.to_timedelta(np.arange(N) + 90 * LABEL, unit="D")).strftime("%Y-%m-%d"),
    ],
    ids=["text", "bool", "int", "float", "category", "missing", "numbers", "order", "dates", "dates as text"],
)
def test_any_column_that_tells_the_label_is_named(values):
    found = verdict(thing=values, other=np.arange(N) // 2 % 2)
    assert found.code == "CONFOUNDED"
    assert found.reason.startswith("thing (tells the label of")


@pytest.mark.parametrize("wrong", [1, 2])
def test_a_batch_that_almost_is_the_label(wrong):
    found = verdict(batch=agreeing(wrong))
    assert found.code == "CONFOUNDED"
    assert f"batch (tells the label of {N - wrong} of {N}" in found.reason


def test_two_batches_per_class_and_two_columns_together():
    batches = 2 * LABEL + np.arange(N) // 2 % 2
    found = verdict(batch=np.char.add("B", batches.astype(str)))
    assert found.code == "CONFOUNDED"
    assert "nothing can be compared inside its strata" in found.reason
    site = np.arange(N) // 2 % 2
    found = verdict(site=site.astype(str), chemistry=(site ^ LABEL).astype(str))
    assert found.code == "CONFOUNDED"
    assert "site x chemistry" in found.reason


def test_shares_of_cells_count():
    rng = np.random.default_rng(0)
    library = np.where(rng.random(len(Y)) < np.where(Y == 1, 0.8, 0.2), "a", "b")
    assert verdict(library=library).code == "CONFOUNDED"
    assert verdict(library=rng.choice(["a", "b"], len(Y))).code == "OK"


def test_depth_of_cells():
    rng = np.random.default_rng(0)
    depth = rng.normal(0, 0.4, len(Y))
    assert verdict(n_counts=np.exp(8 + depth - 0.7 * Y)).code == "CONFOUNDED"
    # A difference that single cells hardly show is what expression itself can make.
    assert verdict(n_counts=np.exp(8 + depth - 0.1 * Y)).code == "OK"


def test_cell_types_are_named_but_may_be_the_biology():
    rng = np.random.default_rng(0)
    kinds = np.where(rng.random(len(Y)) < np.where(Y == 1, 0.9, 0.1), "T cell", "tumor")
    found = verdict(cell_type=kinds)
    assert found.code == "OK"
    assert any("cell_type" in text and "biology" in text for text in found.cautions)


def test_outcomes_and_what_we_wrote_are_no_confounders():
    words = np.where(LABEL == 1, "CR", "PD")
    found = verdict(
        recist=words,
        response_other=np.where(np.arange(N) % 3, "resistant", ""),
        evaluation_prob=Y + 0.0,
        evaluation_fold=Y,
        split=np.where(LABEL == 1, "train", "test"),
    )
    assert found.code == "OK"
    assert any("'recist'" in text and "other words" in text for text in found.cautions)
    obs = table(outcome=np.where(LABEL == 1, "long", "short"))
    assert assess(obs, Y, group_key=None).verdict.code == "CONFOUNDED"
    assert assess(obs, Y, group_key=None, ignore=["outcome"]).verdict.code == "OK"


def test_numbers_named_after_a_measure_of_response_are_no_confounders():
    """Dose responses of the line or survival of the patient: the label was made from them, or is another one of its kind."""
    rng = np.random.default_rng(0)
    value = LABEL + rng.uniform(0, 0.5, N)
    found = verdict(gdsc2_AUC_afatinib=value, LN_IC50=-value, os_months=10 * value, viability=value)
    assert found.code == "OK"
    assert any("'gdsc2_AUC_afatinib', 'LN_IC50'" in text and "not judged" in text for text in found.cautions)
    assert verdict(rna_quality=value).code == "CONFOUNDED"
    by_cell = table(patient_signature=np.zeros(N)).assign(
        viability=np.repeat(value, CELLS) + rng.normal(0, 0.01, len(Y))
    )
    assert (
        assess(by_cell, Y, group_key=None).verdict.code == "CONFOUNDED"
    )  # of the cells of a sample that was frozen, say


def test_identities_are_left_out():
    obs = table(
        donor_number=np.argsort(np.argsort(LABEL, kind="stable")),
        barcode=[f"c{i}" for i in range(len(Y))],
        sample=np.char.add(np.repeat([f"P{i:02d}" for i in range(N)], CELLS), np.tile(["a", "b"], len(Y) // 2)),
        constant=np.full(N, "x"),
    )
    columns, copies = usable_columns(obs, Y, obs["patient"].to_numpy(str), obs["patient"].to_numpy(str))
    assert ([column.name for column in columns], copies) == ([], [])


def test_score_within_strata():
    obs = table(batch=agreeing(2))
    confounding = assess(obs, Y, group_key=None).confounding
    batch = (obs["batch"] == "B1").to_numpy()
    reads_batch = confounding.within(batch + 0.01 * np.random.default_rng(0).normal(size=len(Y)))
    assert reads_batch.p_value > 0.05
    reads_label = confounding.within(Y + batch)
    assert reads_label.auroc == 1
    assert reads_label.p_value < 0.05
    assert reads_label.n_pairs == 7 * 1 + 7 * 1
    only = assess(table(foo=LABEL), Y, group_key=None).confounding.within(Y + 0.0)
    assert np.isnan(only.auroc)
    assert only.n_pairs == 0


def test_data_sets_are_compared_inside_only():
    """What differs between data sets cannot raise a score that is computed within them."""
    label = np.r_[np.repeat([1, 1, 1, 0], 4), np.repeat([0, 0, 0, 1], 4)]
    obs = pd.DataFrame({"patient": [f"P{i}" for i in range(32)], "dataset": ["one"] * 16 + ["two"] * 16})
    obs["kit"] = np.where(obs["dataset"] == "one", "v2", "v3")
    assert assess(obs, label, group_key=None).verdict.code == "OK"


def test_clean_cohorts_keep_their_verdict():
    lowered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = verdict(
            site=rng.integers(0, 2, N).astype(str),
            lane=rng.integers(0, 4, N).astype(str),
            operator=rng.integers(0, 3, N).astype(str),
            age=rng.integers(30, 80, N),
            pct_mt=rng.normal(size=len(Y)) + np.repeat(rng.normal(size=N), CELLS),
            cell_type=rng.choice(["a", "b", "c"], len(Y)),
        )
        lowered += found.code != "OK"
    assert lowered <= 6  # binomial, 5 %: more in one of 40 runs


def test_units_with_both_labels_are_pairs():
    obs = pd.DataFrame({"patient": np.repeat([f"P{i}" for i in range(8)], 20), "well": np.tile(["a", "b"], 80)})
    y = np.tile(np.repeat([1, 0], 10), 8)
    assert assess(obs, y, group_key=None).verdict.code == "OK"
    obs["well"] = np.where(y == 1, "a", "b")
    assert assess(obs, y, group_key=None).verdict.code == "CONFOUNDED"
