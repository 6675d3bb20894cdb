"""Frames behind the plots of evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from .._core.arguments import checked
from .._core.docs import doc_params
from .._evaluate.options import PROTOCOLS
from .._stats.intervals import MACRO
from ._read import EVALUATION, held_out

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import Bins, SlotName

Level = Literal["cell", "sample"]


@doc_params()
@checked
def metrics_df(
    data: AnnData | MuData,
    metric: str | None = None,
    *,
    protocol: str | None = None,
    level: Level | None = None,
    macro: bool = True,
    key_added: SlotName | None = None,
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
    {read_key}
    {modality}

    Returns
    -------
    Columns `model`, `kind` (model or naive), `protocol`, `n_labeled`, `dataset`, `level`, `metric`, `value`, `low`,
    `high` (95 %, over samples), `n_groups`, `repeat_sd`, `repeat_low`, `repeat_high` (AUROC of single pairings of held-out
    samples: standard deviation and range), `p_value`, `p_adjusted` (Holm, over the models compared) and `caution`.

    Raises
    ------
    {no_evaluation}
    ValueError
        The evaluation has no such metric, or there is no such protocol.

    Examples
    --------
    {evaluated}
    >>> sdr.get.metrics_df(adata, "auroc", level="cell")["protocol"].tolist()
    ['leave_group_out', 'pooled']
    """
    frame: pd.DataFrame = EVALUATION.read(data, key_added, modality)["metrics"]
    for argument, value, others in (("metric", metric, ()), ("protocol", protocol, PROTOCOLS)):
        known = {*frame[argument], *others}
        if value is not None and len(frame) and value not in known:
            msg = f"`{argument}` must be one of {sorted(known)}, found {value!r}."
            raise ValueError(msg)
    wanted = {"metric": metric, "protocol": protocol, "level": level, "dataset": MACRO if macro else None}
    for column, value in wanted.items():
        if value is not None:
            frame = frame[frame[column] == value]
    return frame.reset_index(drop=True)


@doc_params()
@checked
def leakage_gap_df(data: AnnData | MuData, *, key_added: SlotName | None = None, modality: str = "rna") -> pd.DataFrame:
    """Get the AUROC of a random split of cells beside that of held-out samples, for every model and naive baseline.

    Parameters
    ----------
    {data}
    {read_key}
    {modality}

    Returns
    -------
    Columns `model`, `kind`, `pooled`, `leave_group_out` and `gap`.

    Raises
    ------
    {no_evaluation}

    Examples
    --------
    {evaluated}
    >>> list(sdr.get.leakage_gap_df(adata).columns)
    ['model', 'kind', 'pooled', 'leave_group_out', 'gap']
    """
    return EVALUATION.read(data, key_added, modality)["leakage_gap"].copy()


@doc_params()
@checked
def roc_df(
    data: AnnData | MuData, *, level: Level = "cell", key_added: SlotName | None = None, modality: str = "rna"
) -> pd.DataFrame:
    """Get the ROC curve of the held-out scores of the first model in each data set.

    Parameters
    ----------
    {data}
    level
        By cell, or by sample (mean score; a few samples with both labels count as the label of most of their cells).
    {read_key}
    {modality}

    Returns
    -------
    Columns `dataset`, `false_positive_rate`, `true_positive_rate` (of sensitive) and `threshold`. The area under a curve
    is the AUROC of that data set; data sets with one class only have no curve.

    Raises
    ------
    {no_evaluation}

    Examples
    --------
    {evaluated}
    >>> float(sdr.get.roc_df(adata)["true_positive_rate"].iloc[-1])
    1.0
    """
    from sklearn.metrics import roc_curve

    from .._stats.metrics import sample_scores

    columns = ["dataset", "false_positive_rate", "true_positive_rate", "threshold"]
    curves = []
    for dataset, cells in held_out(data, key_added, modality).groupby("dataset", sort=True):
        y, score = cells["y"].to_numpy(), cells["score"].to_numpy()
        if level == "sample":
            samples = sample_scores(y, score, cells["group"].to_numpy())
            y, score = samples.y, samples.prob
        if len(np.unique(y)) == 2:
            curves.append(pd.DataFrame({"dataset": dataset, **dict(zip(columns[1:], roc_curve(y, score)))}))
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=columns)


@doc_params()
@checked
def calibration_df(
    data: AnnData | MuData, *, n_bins: Bins = 10, key_added: SlotName | None = None, modality: str = "rna"
) -> pd.DataFrame:
    """Get the reliability of held-out, calibrated probabilities: predicted against observed, samples weighing the same.

    Parameters
    ----------
    {data}
    n_bins
        Largest number of bins; the bins have equal weight.
    {read_key}
    {modality}

    Returns
    -------
    Columns `predicted`, `observed`, `observed_low`, `observed_high` (90 %, over samples), `weight`, `n_cells`,
    `n_samples` and the limits of the bins.

    Raises
    ------
    {no_evaluation}

    Examples
    --------
    {evaluated}
    >>> round(float(sdr.get.calibration_df(adata)["weight"].sum()), 6)
    1.0
    """
    from .._stats.reliability import reliability_table

    cells = held_out(data, key_added, modality)
    return reliability_table(cells["y"], cells["prob"], cells["group"], n_bins=n_bins)


@doc_params()
@checked
def risk_coverage_df(
    data: AnnData | MuData, *, key_added: SlotName | None = None, modality: str = "rna"
) -> pd.DataFrame:
    """Get the error rate among called cells as more and more of the less certain cells are called.

    Parameters
    ----------
    {data}
    {read_key}
    {modality}

    Returns
    -------
    Columns `coverage`, `risk`, `confidence` and `n_cells`; every sample weighs the same.

    Raises
    ------
    {no_evaluation}

    Examples
    --------
    {evaluated}
    >>> round(float(sdr.get.risk_coverage_df(adata)["coverage"].iloc[-1]), 6)
    1.0
    """
    from .._stats.reliability import risk_coverage

    cells = held_out(data, key_added, modality)
    return risk_coverage(cells["y"], cells["prob"], cells["group"])


@doc_params()
@checked
def split_design_df(
    data: AnnData | MuData, *, key_added: SlotName | None = None, modality: str = "rna"
) -> pd.DataFrame:
    """Get the design of the evaluated data: cells of each class by sample, patient, batch and so on.

    Parameters
    ----------
    {data}
    {read_key}
    {modality}

    Returns
    -------
    One row per combination of the columns found, with `n_cells`, `n_sensitive`, `n_resistant` and `n_unlabeled`.

    Raises
    ------
    {no_evaluation}

    Examples
    --------
    {evaluated}
    >>> len(sdr.get.split_design_df(adata))
    6
    """
    return EVALUATION.read(data, key_added, modality)["design"].copy()


@doc_params()
@checked
def evaluation_card(
    data: AnnData | MuData, *, key_added: SlotName | None = None, modality: str = "rna"
) -> dict[str, Any]:
    """Get the evaluation card: what another person needs to judge and to repeat an evaluation, as JSON values.

    Parameters
    ----------
    {data}
    {read_key}
    {modality}

    Returns
    -------
    A dictionary: `verdict`, `scores`, `naive_baselines`, `leakage_gap`, `split`, `data` (with hash), `versions`,
    `command`.

    Raises
    ------
    {no_evaluation}

    Examples
    --------
    {evaluated}
    >>> sdr.get.evaluation_card(adata)["score"]
    'P(sensitive)'
    """
    from .._evaluate.card import evaluation_card as build

    return build(EVALUATION.read(data, key_added, modality))
