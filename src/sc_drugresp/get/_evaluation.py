"""Frames behind the plots of evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from .._core.docs import doc_data, doc_key_added, doc_modality, doc_params
from .._core.keys import SENSITIVE, STATE_CONTROL, EvaluationKeys
from .._data.modalities import as_adata
from .._stats.intervals import MACRO

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

Level = Literal["cell", "sample"]


def evaluation(data: AnnData | MuData, key_added: str | None, modality: str) -> dict[str, Any]:
    """What `tl.evaluate` wrote.

    Raises
    ------
    KeyError
        Nothing was evaluated.
    """
    keys = EvaluationKeys.of(key_added)
    uns = as_adata(data, modality=modality).uns
    if keys.uns not in uns:
        msg = f"No evaluation {keys.uns!r} in `.uns`. Run sc_drugresp.tl.evaluate(adata) first."
        raise KeyError(msg)
    return dict(uns[keys.uns])


def held_out(data: AnnData | MuData, key_added: str | None, modality: str) -> pd.DataFrame:
    """Held-out cells of an evaluation: `y` (1 sensitive), `prob`, `group`."""
    keys = EvaluationKeys.of(key_added)
    params = evaluation(data, key_added, modality)["params"]
    obs = as_adata(data, modality=modality).obs
    prob = obs[keys.prob].to_numpy(dtype=np.float64)
    label, group = obs[str(params["label_key"])], str(params["group_key"])
    keep = np.isfinite(prob) & label.notna().to_numpy()
    groups = obs[group].astype(str).to_numpy() if group in obs else np.arange(len(obs)).astype(str)
    y = (label.astype(str) == SENSITIVE).to_numpy().astype(int)
    return pd.DataFrame({"y": y[keep], "prob": prob[keep], "group": groups[keep]}, index=obs.index[keep])


@doc_params(data=doc_data, key_added=doc_key_added, modality=doc_modality)
def metrics_df(
    data: AnnData | MuData,
    metric: str | None = None,
    *,
    protocol: str | None = None,
    level: Level | None = None,
    macro: bool = True,
    key_added: str | None = None,
    modality: str = "rna",
) -> pd.DataFrame:
    """Get the metrics of :func:`~sc_drugresp.tl.evaluate`, one row each.

    Parameters
    ----------
    {data}
    metric
        Only this metric: `'auroc'`, `'auprc'`, `'f1'`, `'mcc'`, ...
    protocol
        Only this protocol: `'leave_group_out'`, `'pooled'`, ...
    level
        Only metrics by cell or by sample.
    macro
        Only the average over data sets; otherwise one row per data set as well.
    {key_added}
    {modality}

    Returns
    -------
    Columns `model`, `kind` (model or naive), `protocol`, `n_labeled`, `dataset`, `level`, `metric`, `value`, `low`,
    `high`, `n_groups`, `p_value`.

    Raises
    ------
    KeyError
        Nothing was evaluated.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100)
    >>> sdr.tl.evaluate(adata, model="pca", baselines=False, n_boot=20, n_permutations=0)
    >>> sdr.get.metrics_df(adata, "auroc", level="cell")["protocol"].tolist()
    ['leave_group_out', 'pooled']
    """
    frame: pd.DataFrame = evaluation(data, key_added, modality)["metrics"]
    wanted = {"metric": metric, "protocol": protocol, "level": level, "dataset": MACRO if macro else None}
    for column, value in wanted.items():
        if value is not None:
            frame = frame[frame[column] == value]
    return frame.reset_index(drop=True)


@doc_params(data=doc_data, key_added=doc_key_added, modality=doc_modality)
def leakage_gap_df(data: AnnData | MuData, *, key_added: str | None = None, modality: str = "rna") -> pd.DataFrame:
    """Get the AUROC of a random split of cells beside the strict one, for every model and naive row.

    Parameters
    ----------
    {data}
    {key_added}
    {modality}

    Returns
    -------
    Columns `model`, `kind`, `pooled`, `leave_group_out` and `gap`.

    Raises
    ------
    KeyError
        Nothing was evaluated.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100)
    >>> sdr.tl.evaluate(adata, model="pca", baselines=False, n_boot=20, n_permutations=0)
    >>> list(sdr.get.leakage_gap_df(adata).columns)
    ['model', 'kind', 'pooled', 'leave_group_out', 'gap']
    """
    return evaluation(data, key_added, modality)["leakage_gap"].copy()


@doc_params(data=doc_data, key_added=doc_key_added, modality=doc_modality)
def roc_df(
    data: AnnData | MuData, *, level: Level = "cell", key_added: str | None = None, modality: str = "rna"
) -> pd.DataFrame:
    """Get the ROC curve of the held-out scores of the first model.

    Parameters
    ----------
    {data}
    level
        By cell, or by sample (mean score; samples with both labels are left out).
    {key_added}
    {modality}

    Returns
    -------
    Columns `false_positive_rate`, `true_positive_rate` (of sensitive) and `threshold`.

    Raises
    ------
    KeyError
        Nothing was evaluated.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100)
    >>> sdr.tl.evaluate(adata, model="pca", baselines=False, n_boot=20, n_permutations=0)
    >>> float(sdr.get.roc_df(adata)["true_positive_rate"].iloc[-1])
    1.0
    """
    from sklearn.metrics import roc_curve

    from .._stats.metrics import sample_scores

    cells = held_out(data, key_added, modality)
    y, prob = cells["y"].to_numpy(), cells["prob"].to_numpy()
    if level == "sample":
        samples = sample_scores(y, prob, cells["group"].to_numpy())
        y, prob = samples.y, samples.prob
    if len(np.unique(y)) < 2:
        return pd.DataFrame(columns=["false_positive_rate", "true_positive_rate", "threshold"], dtype=float)
    false, true, threshold = roc_curve(y, prob)
    return pd.DataFrame({"false_positive_rate": false, "true_positive_rate": true, "threshold": threshold})


@doc_params(data=doc_data, key_added=doc_key_added, modality=doc_modality)
def calibration_df(
    data: AnnData | MuData, *, n_bins: int = 10, key_added: str | None = None, modality: str = "rna"
) -> pd.DataFrame:
    """Get the reliability of held-out probabilities: predicted against observed, every sample weighing the same.

    Parameters
    ----------
    {data}
    n_bins
        Most bins of equal weight.
    {key_added}
    {modality}

    Returns
    -------
    Columns `predicted`, `observed`, `observed_low`, `observed_high` (90 %, over samples), `weight`, `n_cells`,
    `n_samples` and the limits of the bins.

    Raises
    ------
    KeyError
        Nothing was evaluated.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100)
    >>> sdr.tl.evaluate(adata, model="pca", baselines=False, n_boot=20, n_permutations=0)
    >>> round(float(sdr.get.calibration_df(adata)["weight"].sum()), 6)
    1.0
    """
    from .._stats.calibration import reliability_table

    cells = held_out(data, key_added, modality)
    return reliability_table(cells["y"], cells["prob"], cells["group"], n_bins=n_bins)


@doc_params(data=doc_data, key_added=doc_key_added, modality=doc_modality)
def risk_coverage_df(data: AnnData | MuData, *, key_added: str | None = None, modality: str = "rna") -> pd.DataFrame:
    """Get the error among called cells as ever less certain cells are called.

    Parameters
    ----------
    {data}
    {key_added}
    {modality}

    Returns
    -------
    Columns `coverage`, `risk`, `confidence` and `n_cells`; every sample weighs the same.

    Raises
    ------
    KeyError
        Nothing was evaluated.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100)
    >>> sdr.tl.evaluate(adata, model="pca", baselines=False, n_boot=20, n_permutations=0)
    >>> round(float(sdr.get.risk_coverage_df(adata)["coverage"].iloc[-1]), 6)
    1.0
    """
    from .._stats.conformal import risk_coverage

    cells = held_out(data, key_added, modality)
    return risk_coverage(cells["y"], cells["prob"], cells["group"]).table


@doc_params(data=doc_data, key_added=doc_key_added, modality=doc_modality)
def split_design_df(data: AnnData | MuData, *, key_added: str | None = None, modality: str = "rna") -> pd.DataFrame:
    """Get the design of the evaluated data: cells of each class by sample, patient, batch and so on.

    Parameters
    ----------
    {data}
    {key_added}
    {modality}

    Returns
    -------
    One row per combination of the columns found, with `n_cells`, `n_sensitive`, `n_resistant` and `n_unlabeled`.

    Raises
    ------
    KeyError
        Nothing was evaluated.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100)
    >>> sdr.tl.evaluate(adata, model="pca", baselines=False, n_boot=20, n_permutations=0)
    >>> len(sdr.get.split_design_df(adata))
    6
    """
    return evaluation(data, key_added, modality)["design"].copy()


@doc_params(data=doc_data, key_added=doc_key_added, modality=doc_modality)
def evaluation_card(data: AnnData | MuData, *, key_added: str | None = None, modality: str = "rna") -> dict[str, Any]:
    """Get the evaluation card: what another person needs to judge and to repeat an evaluation, as JSON values.

    Parameters
    ----------
    {data}
    {key_added}
    {modality}

    Returns
    -------
    A dictionary: `verdict`, `scores`, `floors`, `leakage_gap`, `split`, `data` (with hash), `versions`, `command`.

    Raises
    ------
    KeyError
        Nothing was evaluated.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100)
    >>> sdr.tl.evaluate(adata, model="pca", baselines=False, n_boot=20, n_permutations=0)
    >>> sdr.get.evaluation_card(adata)["score"]
    'P(sensitive)'
    """
    from .._evaluate.card import evaluation_card as build

    return build(evaluation(data, key_added, modality))


@doc_params(data=doc_data, modality=doc_modality)
def state_control_df(data: AnnData | MuData, *, modality: str = "rna") -> pd.DataFrame:
    """Get the AUROCs of :func:`~sc_drugresp.tl.state_control`.

    Parameters
    ----------
    {data}
    {modality}

    Returns
    -------
    Rows `auroc`, `erased`, `pretreatment`, `treated`, `treated_erased`; columns `value`, `low`, `high`, `n_samples`. The
    verdict is in `.attrs['verdict']`.

    Raises
    ------
    KeyError
        The control was not run.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=8, cells_per_sample=20, n_genes=100, timepoints=True)
    >>> sdr.tl.state_control(adata, "timepoint", "pre", model="pca", group_key="patient")
    >>> sdr.get.state_control_df(adata).shape
    (5, 4)
    """
    uns = as_adata(data, modality=modality).uns
    if STATE_CONTROL not in uns:
        msg = "The control was not run. Run sc_drugresp.tl.state_control(adata, treatment_key, untreated) first."
        raise KeyError(msg)
    frame = uns[STATE_CONTROL]["table"].copy()
    frame.attrs["verdict"] = str(uns[STATE_CONTROL]["verdict"])
    return frame
