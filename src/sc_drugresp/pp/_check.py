"""Findings about an object before any work is done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.docs import doc_data, doc_label_key, doc_layer, doc_modality, doc_params
from .._core.keys import RESPONSE
from .._core.log import logger
from .._data.content import TRANSFORM_WORDS, WORDS
from .._data.counts import other_counts, refusal
from .._data.modalities import as_adata
from ._check_design import check_aliasing, check_depth, check_groups, check_labels, find_group
from ._check_genes import check_genes, check_models, check_names
from ._findings import Findings
from ._scan import Scan, scan

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

_FEW_GENES = 200
_MANY_GENES = 2_000


@doc_params(data=doc_data, label_key=doc_label_key, layer=doc_layer, modality=doc_modality)
def check(
    data: AnnData | MuData,
    *,
    models: str | Sequence[Any] | None = None,
    label_key: str | None = None,
    group_key: str | None = None,
    layer: str | None = None,
    modality: str = "rna",
) -> pd.DataFrame:
    """List what will go wrong or mislead, before any work is done. Nothing is written.

    The matrix is read once, in blocks. Codes are stable, so that scripts can act on them:

    - matrix: `empty`, `raw-counts`, `counts-recovered`, `not-finite`, `negative`, `binary`, `empty-cells`, `few-genes`
    - genes: `gene-coverage`, `gene-aliases`, `gene-dates`, `species`, `mixed-species`, `duplicated-genes`, `duplicated-cells`
    - models: `model-counts`, `model-coverage`, `model-species`, `model-files`
    - labels: `labels`, `labels-absent`, `labels-wording`, `labels-missing`, `labels-one-class`, `labels-aliased`
    - samples: `groups`, `groups-absent`, `groups-missing`, `groups-one`, `few-samples`, `small-samples`, `depth-by-label`

    Parameters
    ----------
    {data}
    models
        Names of models, or loaded encoders, that should be able to read the data.
    {label_key}
        `None` looks for `response`.
    group_key
        Column of `.obs` with the independent unit. `None` takes the first of the usual ones (`patient`, `donor`,
        `cell_line`, `sample`, ...) that has more than one value.
    {layer}
    {modality}

    Returns
    -------
    :class:`~pandas.DataFrame` with one row for each finding, errors first: `code`, `severity` (`error`, `warning`,
    `info`), `subject`, `message`, `fix`.

    Raises
    ------
    KeyError
        `label_key`, `group_key`, `layer` or `modality` does not exist.
    ValueError
        There is no such model.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=2, cells_per_sample=30, n_genes=100)
    >>> found = sdr.pp.check(adata)
    >>> found.loc[found["severity"] == "error", ["code", "subject"]].values.tolist()
    [['labels-aliased', 'patient']]
    """
    adata = as_adata(data, modality=modality)
    available = [str(name) for name in adata.obs.columns]
    for argument, key in (("label_key", label_key), ("group_key", group_key)):
        if key is not None and key not in available:
            msg = f"Column {key!r} (`{argument}`) not found in `.obs`. Available columns: {sorted(available)}."
            raise KeyError(msg)
    findings = Findings()
    if 0 in adata.shape:
        findings.add("empty", "error", "X", f"The object has shape {adata.shape}.", "Cells and genes are needed.")
        return findings.frame()
    check_names(findings, np.asarray(adata.obs_names, dtype=str), np.asarray(adata.var_names, dtype=str))
    scanned = scan(adata, layer)
    if scanned is None:
        message = "`.X`, `.raw` and `.layers['counts']` are all empty."
        findings.add("empty", "error", "X", message, "Put raw counts into `.X` or `.layers['counts']`.")
    else:
        _check_matrix(findings, adata, scanned)
        found = check_genes(findings, scanned, adata.uns)
        if models is not None:
            check_models(findings, scanned, found, [models] if isinstance(models, str) else list(models))

    columns = _columns(adata, available)
    label_key = RESPONSE if label_key is None else label_key
    labels = columns[label_key] if label_key in columns else _text(adata, label_key) if label_key in available else None
    y = check_labels(findings, labels, label_key)
    group_key = find_group(columns) if group_key is None else group_key
    groups = None if group_key is None else columns.get(group_key, _text(adata, group_key))
    groups = check_groups(findings, groups, group_key, y)
    if y is not None:
        check_aliasing(findings, columns, y, groups, {label_key, str(group_key)})
        if scanned is not None:
            check_depth(findings, scanned, y, groups)
    frame = findings.frame()
    logger.info("%s", frame["severity"].value_counts().to_dict())
    return frame


def _text(adata: AnnData, key: str) -> np.ndarray:
    """A column of `.obs`, also of a lazy object, as text; `""` where missing."""
    import pandas as pd

    values = np.asarray(adata.obs[key], dtype=object)
    return np.where(pd.isna(values), "", values).astype(str)


def _columns(adata: AnnData, available: list[str]) -> dict[str, np.ndarray]:
    """Columns of `.obs` that hold names rather than measurements."""
    return {name: _text(adata, name) for name in available if np.dtype(_plain(adata.obs[name].dtype)).kind not in "fc"}


def _plain(dtype: Any) -> Any:
    return dtype if isinstance(dtype, np.dtype) else getattr(dtype, "numpy_dtype", object)


def _check_matrix(findings: Findings, adata: AnnData, scanned: Scan) -> None:
    origin = scanned.origin
    if scanned.n_nan or scanned.n_infinite:
        message = f"{scanned.n_nan} values are NaN, {scanned.n_infinite} infinite."
        findings.add(
            "not-finite", "error", origin, message, "Replace missing values (counts that were not seen are 0)."
        )
    if scanned.is_counts and scanned.transform is not None:
        message = (
            f"Holds {TRANSFORM_WORDS[scanned.transform]}; the integer counts are recovered exactly, in every cell."
        )
        findings.add(
            "counts-recovered", "info", origin, message, "Nothing to do. Keep counts in .layers['counts'] next time."
        )
    elif scanned.is_counts:
        findings.add("raw-counts", "info", origin, f"Holds raw counts (largest {scanned.largest:.0f}).")
    else:
        looked = list(scanned.looked_at)
        if scanned.kind == "counts":
            message = f"{origin}: {scanned.n_fractions} values are not integers, {scanned.n_negative} are negative."
        else:
            message = refusal(looked, other_counts(adata)).split(" Put the integer counts")[0]
        fix = "Put integer counts into .layers['counts']. Models for any matrix ('pca', 'hvg') work on it as it is."
        findings.add("raw-counts", "error", origin, message, fix)
    if scanned.n_negative:
        message = f"{scanned.n_negative} values are negative: {WORDS['scaled']}."
        findings.add("negative", "warning", origin, message, "Take the matrix from before scaling.")
    if scanned.is_counts and scanned.largest <= 1:
        message = "No value is larger than 1: the counts were cut to 0 and 1, or the cells are almost empty."
        findings.add("binary", "warning", origin, message, "Take the matrix from before.")
    empty = int((scanned.detected == 0).sum())
    if empty:
        message = f"{empty} of {len(scanned.detected)} cells have no counts."
        findings.add("empty-cells", "warning", origin, message, "They are kept and get missing predictions.")
    few = int((scanned.detected < _FEW_GENES).sum()) - empty
    if len(scanned.gene_totals) >= _MANY_GENES and few > 0.05 * len(scanned.detected):
        message = f"{few} of {len(scanned.detected)} cells have fewer than {_FEW_GENES} detected genes."
        findings.add("few-genes", "warning", origin, message, "Filter with scanpy.pp.filter_cells if they are debris.")
