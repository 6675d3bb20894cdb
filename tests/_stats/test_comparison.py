from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from sc_drugresp._stats.comparison import compare_models, further_samples


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


def test_few_or_missing_data_sets():
    table = scores(4)
    table.iloc[0, 0] = np.nan
    result = compare_models(table)
    assert result.n_datasets == 3
    assert "0.25" in result.caution
    with pytest.raises(ValueError, match="two or more models"):
        compare_models(table[["bad"]])


def test_equal_models():
    table = pd.DataFrame({"a": [0.5, 0.6], "b": [0.5, 0.6]})
    assert compare_models(table).pairs["p_value"].tolist() == [1.0]


def test_further_samples():
    assert further_samples(13, 0.2, 0.1) == 39  # four times as many
    assert further_samples(100, 0.1, 0.3) == 0
