"""`tl.aggregate`: from cells to samples and patients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._core.arguments import checked
from .._core.contents import FLAG, NUMBER, NUMBERS, TEXT, Table, mismatch
from .._core.docs import doc_params
from .._core.keys import CALL_CLASSES, REFERENCE, RESISTANT, SENSITIVE, PredictionKeys
from .._core.log import logger
from .._core.rng import Rng, seed_of
from .._data.modalities import Target, as_adata, in_memory, observations
from .._data.obs import read_column, read_groups, read_mask
from .._data.predictions import read_predictions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import SlotName

Score = Literal["mean", "worst"]
_HELD_OUT = {
    "alpha": NUMBER,
    "made": FLAG,
    "reason": TEXT,
    "sensitive": FLAG,
    "resistant": FLAG,
    "n_sensitive": NUMBER,
    "n_resistant": NUMBER,
}
_STORED: dict[str, Any] = {
    "statement": TEXT,
    "models": {},
    "kind?": TEXT,
    "spread?": {"between_sd": NUMBER, "df": NUMBER, "n_samples": NUMBER},
    "bags?": {"method": TEXT, "reason": TEXT, "n_samples": NUMBER, "intercept": NUMBER, "coef": NUMBERS},
    "mean_calls?": {"alpha": NUMBER, "thresholds": NUMBERS, "counts": NUMBERS, "held_out": _HELD_OUT},
    "sample_calls?": {"group_key": TEXT, "table": Table(values={"call": CALL_CLASSES})},
    "prevalence?": {"shift?": NUMBER},
}
"""What of a prediction is read here."""


@doc_params()
@checked
def aggregate(
    data: AnnData | MuData,
    group_key: str | None = None,
    *,
    score: Score = "mean",
    clone_key: str | None = None,
    mask_obs: str | None = None,
    key_added: SlotName | None = None,
    modality: str = "rna",
    rng: Rng = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Score samples by the mean of their cells and by their worst clone, with intervals.

    A tumor survives through its least sensitive clone, so both scores are given, as in PERCEPTION
    :cite:p:`Sinha2024`: the mean P(sensitive), and the smallest mean of a clone with at least 5 % of the cells, shrunk to
    the sample by `n / (n + 20)`. Intervals join a bootstrap of cells, the spread between samples that the model saw among
    held-out training samples, and the uncertainty of the calibration.

    A sample is called where conformal prediction over held-out samples excludes one class, and where calls of held-out samples
    were right often enough; it stays `uncertain` if most of its cells are out of distribution. All cells of a sample are judged
    by the score that the head gives a sample as a whole; where a mask leaves cells out, or another column names the samples,
    by the mean P(sensitive) of the cells.

    Parameters
    ----------
    {data}
    group_key
        Column of `.obs` that names the sample or patient. `None` looks for the usual names.
    score
        `'worst'` calls a sample sensitive only if its worst clone alone would be called so, too.
    clone_key
        Column of `.obs` with the clone or cluster of each cell.
    mask_obs
        Boolean column of `.obs`: which cells count, for example the malignant ones.
    {key_added}
    {modality}
    {rng}
    {copy}

    Returns
    -------
    `None`, or the changed copy if `copy=True`. Sets the following field:

    `.uns['predicted_response' | key_added]['samples']` : :class:`pandas.DataFrame`
        One row per sample: `call`, `mean`, `mean_low`, `mean_high`, `worst`, `worst_low`, `worst_high`, `worst_clone`,
        `fraction_sensitive`, `fraction_ood`, `n_cells` and what the interval covers; `bag`, the score of a model of whole
        samples, if there were at least 30 of them in training. The score is P(sensitive).

    Raises
    ------
    KeyError
        Cells have no predictions yet, or a column does not exist.
    ValueError
        Unknown score, or `mask_obs` is no column of true and false, or leaves no cell.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(12, unlabeled=0.3)
    >>> sdr.tl.predict_response(adata)
    >>> sdr.tl.aggregate(adata, "patient")
    >>> len(adata.uns["predicted_response"]["samples"])
    12
    """
    target, seed = Target(data, modality, copy, key_added), seed_of(rng)
    obs = observations(data, modality=modality)
    keys = PredictionKeys.of(key_added)
    stored = in_memory(as_adata(data, modality=modality).uns.get(keys.uns))
    columns = read_predictions(obs, key_added, needed=("low", "high", "ood"))
    wrong = mismatch(stored, _STORED, keys.uns)
    if wrong:
        msg = f"`.uns[{keys.uns!r}]` is not what tl.predict_response writes: {wrong}. Run sc_drugresp.tl.predict_response(adata) first."
        raise KeyError(msg)
    group_key, groups = read_groups(obs, group_key)
    clones = None if clone_key is None else read_column(obs, clone_key, "clone_key").astype(str).to_numpy()
    keep = np.ones(len(obs), dtype=bool)
    if mask_obs is not None:
        keep = read_mask(obs, mask_obs)
    cells = columns.loc[keep, ["prob", "low", "high", "ood"]]
    table = _table(stored, cells, groups[keep], None if clones is None else clones[keep], seed)
    if stored.get("kind") == REFERENCE:  # cells have the answer of their group, so redrawing them would say nothing
        limits = cells[["low", "high"]].groupby(groups[keep]).mean().reindex(table.index)
        alone = (table["worst"] == table["mean"]).to_numpy()
        for side in ("low", "high"):
            table[f"mean_{side}"] = limits[side]
            table[f"worst_{side}"] = limits[side].where(alone)
        table["interval"] = "redrawn groups"
    table.insert(0, "call", _calls(stored, table, score, group_key if keep.all() else None))
    found = {keys.samples: table, "group_key": group_key, "call_score": score}
    out = target.write(uns={keys.uns: {**stored, **found}})
    logger.info("added\n    %r, %d samples of %r (adata.uns[%r])", keys.samples, len(table), group_key, keys.uns)
    return out


def _table(
    stored: Mapping[str, Any], cells: pd.DataFrame, groups: np.ndarray, clones: np.ndarray | None, rng: int
) -> pd.DataFrame:
    """One row per sample; `stored` is what prediction noted about the spread between samples."""
    from .._response.trust import log_odds
    from .._stats.bags import BagModel
    from .._stats.patients import SampleSpread, aggregate_samples

    saved, bags = stored.get("spread"), stored.get("bags")
    spread = SampleSpread.from_dict(saved) if saved else None
    prob, low, high = (cells[name].to_numpy(dtype=np.float64) for name in ("prob", "low", "high"))
    table = aggregate_samples(prob, groups, limits=(low, high), clones=clones, spread=spread, rng=rng)
    if bags:
        rows = np.isfinite(prob)
        fitted = BagModel.from_dict(bags)
        table["bag"] = fitted.probability(groups[rows], logits=log_odds(prob[rows])).reindex(table.index)
    table["fraction_ood"] = cells["ood"].astype(bool).groupby(groups).mean().reindex(table.index).to_numpy()
    table["worst_clone"] = table["worst_clone"].fillna("").astype(str)
    return table


def _calls(stored: Mapping[str, Any], table: pd.DataFrame, score: Score, group_key: str | None) -> pd.Series:
    """Call of each sample: by the score of the head if all cells of the same samples count, else by their mean."""
    import pandas as pd

    from .._response.predict import MOST, call_names
    from .._response.trust import log_odds
    from .._stats.conformal import Conformal

    means = Conformal.from_dict(stored["mean_calls"]) if "mean_calls" in stored else None
    # Calls are made for the prevalence of training: a shift of the probabilities is taken back.
    shift = float(stored.get("prevalence", {}).get("shift", 0.0))

    def by(column: str) -> np.ndarray:
        if means is None:
            return np.zeros((len(table), 2), dtype=bool)
        values = table[column].to_numpy(dtype=np.float64)
        return means.calls(log_odds(values) - shift) & np.isfinite(values)[:, None]

    whole = stored.get("sample_calls")
    if whole is not None and group_key == whole["group_key"]:
        said = whole["table"]["call"].astype(str).reindex(table.index).to_numpy()
        called = np.column_stack([said == SENSITIVE, said == RESISTANT])
    else:
        called = by("mean")
    called &= (table["fraction_ood"].to_numpy() <= MOST)[:, None]
    if score == "worst":
        called[:, 0] &= by("worst")[:, 0]
    calls = pd.Categorical(call_names(called).tolist(), categories=list(CALL_CLASSES))
    return pd.Series(calls, index=table.index)
