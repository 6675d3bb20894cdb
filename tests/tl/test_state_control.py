"""State or sensitivity: a score that recognizes treated cells is unmasked, one that predicts is not."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

import sc_drugresp as sdr


def _cells(*, signal: str, n_patients: int = 12, n: int = 25) -> ad.AnnData:
    """Pairs of samples before and after; the label follows the treatment or a program of the patient."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(n_patients), 2 * n)
    treated = np.tile(np.repeat([0, 1], n), n_patients)
    sensitive = treated == 0 if signal == "state" else patient % 2 == 0
    x = rng.normal(size=(len(patient), 8)) + 0.3 * rng.normal(size=(n_patients, 8))[patient]
    x[:, 0] += 3.0 * treated
    x[:, 1] += 3.0 * sensitive * (signal == "patient")
    adata = ad.AnnData(np.ones((len(patient), 3), dtype=np.float32))
    adata.obs["patient"] = [f"P{p:02d}" for p in patient]
    adata.obs["time"] = np.where(treated, "day 11", "day 0")
    adata.obs["response"] = np.where(sensitive, "sensitive", "resistant")
    adata.obsm["X_mine"] = x
    return adata


@pytest.mark.parametrize(("signal", "verdicts"), [("state", {"state"}), ("patient", {"pre-treatment signal"})])
def test_verdict(signal, verdicts, tmp_path) -> None:
    adata = _cells(signal=signal)
    sdr.tl.state_control(adata, "time", "day 0", use_rep="X_mine", group_key="patient")
    sdr.tl.state_control(adata, "time", "day 0", use_rep="X_mine", group_key="patient", key_added="mine")
    assert adata.uns["mine"]["verdict"] == adata.uns["state_control"]["verdict"]
    assert adata.uns["state_control"]["verdict"] in verdicts
    table = sdr.get.state_control_df(adata)
    assert table.loc["auroc", "value"] > 0.9
    assert (table.loc["erased", "value"] > 0.8) == (signal == "patient")
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert ad.read_h5ad(tmp_path / "a.h5ad").uns["state_control"]["reason"] == adata.uns["state_control"]["reason"]


def test_wrong_value_is_told() -> None:
    with pytest.raises(ValueError, match="day 0"):
        sdr.tl.state_control(_cells(signal="state"), "time", "before", use_rep="X_mine")
