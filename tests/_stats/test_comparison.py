from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from sc_drugresp._stats.comparison import compare_models, further_samples, samples_needed
from sc_drugresp._stats.intervals import hanley_mcneil


def scores(n=10):
    rng = np.random.default_rng(0)
    base = rng.uniform(0.5, 0.8, n)
    return pd.DataFrame({"good": base + 0.1 + 0.01 * rng.normal(size=n), "bad": base, "worse": base - 0.05})


def test_ranks_and_tests():
    table = scores()
    result = compare_models(table)
    assert result.ranks.to_dict() == {"good": 1.0, "bad": 2.0, "worse": 3.0}
    assert result.friedman_p < 0.001
    pair = result.pairs.set_index(["first", "second"]).loc[("good", "bad")]
    assert pair["p_value"] == pytest.approx(wilcoxon(table["good"] - table["bad"]).pvalue)
    assert pair["difference"] == pytest.approx((table["good"] - table["bad"]).mean())
    assert (result.pairs["p_adjusted"] >= result.pairs["p_value"]).all()
    assert result.caution == ""


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_critical_difference_is_demsars_table(k, q):
    table = pd.DataFrame(np.random.default_rng(1).random((14, k)), columns=[f"m{i}" for i in range(k)])
    expected = q * np.sqrt(k * (k + 1) / (6 * 14))
    assert compare_models(table).critical_difference == pytest.approx(expected, rel=1e-3)


def test_losses_rank_the_other_way():
    assert compare_models(scores(), higher_is_better=False).ranks.index[0] == "worse"


def test_few_or_missing_data_sets():
    table = scores(4)
    table.iloc[0, 0] = np.nan
    result = compare_models(table)
    assert result.n_datasets == 3
    assert "0.25" in result.caution
    with pytest.raises(ValueError, match="at least two models"):
        compare_models(table[["bad"]])


def test_equal_models():
    table = pd.DataFrame({"a": [0.5, 0.6], "b": [0.5, 0.6]})
    assert compare_models(table).pairs["p_value"].tolist() == [1.0]


def test_samples_needed_is_the_smallest_number():
    sensitive, resistant = samples_needed(0.8, 0.1)
    assert 1.96 * np.sqrt(hanley_mcneil(0.8, sensitive, resistant)) <= 0.1
    assert 1.96 * np.sqrt(hanley_mcneil(0.8, sensitive - 1, resistant - 1)) > 0.1
    # 50 against 50 samples are known to give 0.09 (Hanley and McNeil at 0.80).
    assert 35 < sensitive <= 50
    with pytest.raises(ValueError, match="half_width"):
        samples_needed(0.8, 0.0)
    with pytest.raises(ValueError, match="More than 50"):
        samples_needed(0.8, 0.05, limit=50)


def test_further_samples():
    assert further_samples(0.7, 0.1, 6, 7, observed_half_width=0.2) == 39  # four times as many
    assert further_samples(0.7, 0.3, 50, 50, observed_half_width=0.1) == 0
    assert further_samples(0.8, 0.1, 6, 6) == pytest.approx(sum(samples_needed(0.8, 0.1)) - 12)
