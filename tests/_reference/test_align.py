"""Alignment: independent of depth, of other samples and of missing genes; shifts of platforms."""

from __future__ import annotations

import numpy as np
import pytest
from screens import bulk_of, cells_of, toy_reference, toy_screen

import sc_drugresp as sdr
from sc_drugresp._reference.align import Scale, standardize, within_sample


def test_values_do_not_depend_on_scale_or_on_other_samples() -> None:
    rng = np.random.default_rng(0)
    scale = Scale(rng.normal(size=50), rng.uniform(0.1, 1, 50))
    values, seen = rng.normal(5, 2, (4, 50)), np.ones(50, dtype=bool)
    found = within_sample(values, seen, scale)
    np.testing.assert_allclose(within_sample(values * 3 + 1, seen, scale), found)
    np.testing.assert_allclose(within_sample(values[:1], seen, scale), found[:1])
    with pytest.raises(ValueError, match="same value"):
        within_sample(np.ones((1, 50)), seen, scale)


def test_missing_genes_do_not_move_the_others() -> None:
    """Genes that are high in all lines are missing: without correction all others would seem high."""
    reference, expression, _ = toy_reference()
    scale = reference.scale
    values = expression[reference.genes].to_numpy()
    seen = scale.mean < np.quantile(scale.mean, 0.7)
    full = within_sample(values, np.ones_like(seen), scale)
    part = within_sample(values, seen, scale)
    assert np.isnan(part[:, ~seen]).all()
    naive = values[:, seen] - values[:, seen].mean(axis=1, keepdims=True)
    naive /= naive.std(axis=1, keepdims=True)
    ours, theirs = (np.abs(found - full[:, seen]).mean() for found in (part[:, seen], naive))
    assert ours < 0.3 * theirs


def test_unseen_genes_say_nothing() -> None:
    scale = Scale(np.zeros(3), np.ones(3))
    Z = standardize(np.array([[1.0, np.nan, 2.0]]), scale, np.array([0.5, 0.0, np.nan]))
    assert Z.tolist() == [[0.5, 0.0, 0.0]]


def test_shift_undoes_the_platform() -> None:
    reference, expression, cells = toy_reference()
    bulk, lines = bulk_of(reference, cells)
    values = within_sample(bulk.values, bulk.seen, reference.scale)
    own = within_sample(expression.loc[lines, reference.genes].to_numpy(), bulk.seen, reference.scale)
    truth = reference.predict(standardize(own, reference.scale, None))
    aligned = reference.predict(standardize(values, reference.scale, reference.shifts["dropseq"].values))
    not_aligned = reference.predict(standardize(values, reference.scale, None))
    assert np.sqrt(np.square(aligned - truth).mean()) < 0.6 * np.sqrt(np.square(not_aligned - truth).mean())


def test_shift_leaves_out_lines_with_their_relatives() -> None:
    expression, response, _ = toy_screen()
    reference = sdr.models.build_reference("own", expression=expression, response=response)
    cells = cells_of(expression.iloc[:6])
    line = str(expression.index[0])
    found = sdr.models.platform_shift(
        cells, "cell_line", chemistry="x", expression=expression, reference=reference, exclude_lines=[line]
    )
    without = sdr.models.platform_shift(
        cells[cells.obs["cell_line"] != line], "cell_line", chemistry="x", expression=expression, reference=reference
    )
    assert line not in found.lines
    assert len(found.lines) == 5
    np.testing.assert_array_equal(found.values, without.values)


def test_shift_needs_lines_that_are_known() -> None:
    expression, response, _ = toy_screen()
    reference = sdr.models.build_reference("own", expression=expression, response=response)
    options = {"chemistry": "x", "expression": expression, "reference": reference}
    with pytest.raises(ValueError, match="names 2 lines"):
        sdr.models.platform_shift(cells_of(expression.iloc[:2]), "cell_line", **options)
    with pytest.raises(ValueError, match="names 0 lines"):
        sdr.models.platform_shift(cells_of(expression.iloc[:5], n_cells=5), "cell_line", **options)
    with pytest.raises(KeyError, match="line"):
        sdr.models.platform_shift(cells_of(expression.iloc[:5]), "line", **options)
    lacking = options | {"expression": expression.iloc[:, 1:]}
    with pytest.raises(ValueError, match="lacks 1"):
        sdr.models.platform_shift(cells_of(expression.iloc[:5]), "cell_line", **lacking)


def test_pseudobulk_adds_counts_and_undoes_logarithms() -> None:
    reference, _, cells = toy_reference()
    bulk, lines = bulk_of(reference, cells)
    first = (cells.obs["cell_line"] == lines[0]).to_numpy()
    assert bulk.totals[0] == cells.X[first].sum()
    assert bulk.n_cells[0] == first.sum()
    assert bulk.counts.sum() == cells[:, reference.genes].X.sum()
    logged = cells.copy()
    logged.X = logged.X.multiply(1e4 / logged.X.sum(axis=1)).tocsr().astype(np.float32)
    logged.X.data = np.log1p(logged.X.data) + np.float32(1e-4)  # counts cannot be recovered
    again, _ = bulk_of(reference, logged)
    np.testing.assert_allclose(again.values, bulk.values, atol=0.1)
    scaled = cells.copy()
    scaled.X = scaled.X.toarray() - 1
    with pytest.raises(ValueError, match="scaled"):
        bulk_of(reference, scaled)
    strange = cells.copy()
    strange.var_names = [f"strange{i}" for i in range(cells.n_vars)]
    with pytest.raises(ValueError, match="None of the"):
        bulk_of(reference, strange)
