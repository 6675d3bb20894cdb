"""One small study that holds a result of every verb, for the attacks to change."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache

import anndata as ad
import numpy as np
import pandas as pd
from screens import toy_reference

import sc_drugresp as sdr
from sc_drugresp.models import Reference

OPTIONS = sdr.tl.EvaluationOptions(n_boot=5, n_permutations=0, n_pairings=2)


def reference(names: tuple[str, ...] | None = None) -> Reference:
    """A fitted reference of four drugs; `names` renames them."""
    made = toy_reference()[0]
    return made if names is None else replace(made, drugs=made.drugs.set_axis(list(names)))


def cells() -> ad.AnnData:
    """Eight labeled patients before and after treatment, two data sets, clones."""
    adata = sdr.datasets.toy(16, 12, 120, timepoints=True)
    adata.obs["dataset"] = np.where(np.isin(adata.obs["patient"].cat.codes, (0, 1, 3, 4)), "one", "two")
    adata.obs["clone"] = np.where(np.arange(adata.n_obs) % 12 < 6, "a", "b")
    adata.obs["malignant"] = True
    return adata


def run(adata: ad.AnnData, drugs: tuple[str, ...] | None = None) -> ad.AnnData:
    """Write what every verb writes, with calls by a reference under `by_drug` and epochs under `train_response`."""
    ref = reference(drugs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdr.tl.embed(adata, "pca", n_comps=5)
        sdr.tl.embed(adata, "hvg", n_top_genes=50)
        sdr.tl.train_response(adata, use_rep="X_sdr_pca", group_key="patient")
        sdr.tl.predict_response(adata, use_rep="X_sdr_pca", group_key="patient")
        sdr.tl.aggregate(adata, "patient", clone_key="clone")
        sdr.tl.evaluate(
            adata, use_rep=["X_sdr_pca", "X_sdr_hvg"], group_key="patient", dataset_key="dataset", split="group",
            options=OPTIONS,
        )  # fmt: skip
        who = {"malignant_key": "malignant", "chemistry": "dropseq", "reference": ref}
        sdr.tl.rank_drugs(adata, groupby="clone", sample_key="patient", combine=2, **who)
        sdr.tl.predict_response(adata, drug=ref.drugs.index[0], groupby="patient", key_added="by_drug", **who)
        sdr.tl.state_control(adata, "timepoint", "pre", use_rep="X_sdr_pca", group_key="patient")
    epochs = {"epoch": 1.0, "loss": 0.7, "held_out_loss": 0.7, "held_out_auroc": 0.5}
    adata.uns["train_response"]["history"] = pd.DataFrame([epochs, epochs | {"epoch": 2.0}])
    return adata


@cache
def _done() -> ad.AnnData:
    return run(cells())


def done() -> ad.AnnData:
    """A copy of the finished study."""
    return _done().copy()


def raised_by_us(error: BaseException, what: str, *words: str) -> None:
    """An error was raised by a line of ours, not inside a library, and says these words."""
    frame = error.__traceback__
    while frame.tb_next is not None:
        frame = frame.tb_next
    assert "sc_drugresp" in frame.tb_frame.f_code.co_filename, f"{what}: {error!r}"
    assert [word for word in words if word not in str(error)] == [], f"{what}: {error}"
