"""`pp.check`: problems of an object, found before any work is done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import RESPONSE
from .._core.kinds import told
from .._core.log import logger
from .._data.content import TRANSFORM_WORDS, WORDS
from .._data.counts import refusal
from .._data.matrices import other_counts
from .._data.modalities import as_adata, observations
from .._data.obs import as_text, find_group, read_column
from .._data.opening import is_path, open_cells
from ._check_cells import check_compartments, check_treatment
from ._check_design import check_depth, check_groups, check_labels, check_verdict, judged_rows
from ._check_genes import check_genes, check_models, check_names
from ._findings import Findings
from ._scan import Scan, scan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData


_FEW_GENES = 200
_MANY_GENES = 2_000


@doc_params()
@checked
def check(
    data: AnnData | MuData | str | PathLike[str],
    *,
    models: str | Sequence[Any] | None = None,
    label_key: str | None = None,
    group_key: str | None = None,
    layer: str | None = None,
    modality: str = "rna",
) -> pd.DataFrame:
    """List problems that would make an analysis fail or mislead, before any work is done. Nothing is written.

    The matrix is read once, in blocks. Codes are stable, so that scripts can act on them:

    - matrix: `empty`, `raw-counts`, `counts-recovered`, `not-finite`, `negative`, `binary`, `empty-cells`, `few-genes`
    - cells: `cell-types`, `treated-cells`
    - genes: `gene-coverage`, `gene-aliases`, `gene-dates`, `species`, `mixed-species`, `duplicated-genes`, `duplicated-cells`
    - models: `model-counts`, `model-coverage`, `model-species`, `model-files`
    - labels: `labels`, `labels-absent`, `labels-wording`, `labels-missing`, `labels-one-class`, `labels-aliased`,
      `labels-confounded`
    - samples: `groups`, `groups-absent`, `groups-missing`, `groups-one`, `few-samples`, `small-samples`, `depth-by-label`
    - design: `verdict`, `verdict-caution`: what :func:`~sc_drugresp.tl.evaluate` will say; every column of `.obs` is compared with
      the label over samples

    Parameters
    ----------
    {cells}
    models
        Names of models, or loaded encoders, to be checked against the data.
    {label_key}
        `None` looks for `response`.
    {group_key}
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
    TypeError
        `models` holds something else than names and models.
    FileNotFoundError
        There is no such file.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=2, cells_per_sample=30, n_genes=100)
    >>> found = sdr.pp.check(adata)
    >>> found.loc[found["severity"] == "error", ["code", "subject"]].values.tolist()
    [['labels-aliased', 'patient']]
    """
    listed = [] if models is None else [models] if isinstance(models, str) else list(models)
    for model in listed:
        if not isinstance(model, str) and not any(hasattr(model, name) for name in ("vocab", "embed")):
            msg = f"`models` must hold names or loaded models, found {told(model)}."
            raise TypeError(msg)
    opened = open_cells(data) if is_path(data) else data
    adata, obs = as_adata(opened, modality=modality), observations(opened, modality=modality)
    for argument, key in (("label_key", label_key), ("group_key", group_key)):
        if key is not None:
            read_column(obs, key, argument)
    findings = Findings()
    if 0 in adata.shape:
        findings.error("empty", "X", f"The object has shape {adata.shape}.", "Cells and genes are needed.")
        return findings.frame()
    check_names(findings, adata.obs_names, adata.var_names)
    scanned = scan(adata, layer, "checking")
    if scanned is None:
        message = "`.X`, `.raw` and `.layers['counts']` are all empty."
        findings.error("empty", "X", message, "Put raw counts into `.X` or `.layers['counts']`.")
    else:
        _check_values(findings, adata, scanned)
        _check_cells(findings, scanned)
        check_compartments(findings, adata, layer)
        found = check_genes(findings, scanned, adata.uns)
        check_models(findings, scanned, found, listed)

    check_treatment(findings, obs)
    label_key = RESPONSE if label_key is None else label_key
    y = check_labels(findings, as_text(obs[label_key]) if label_key in obs else None, label_key)
    unit_key = find_group(obs) if group_key is None else group_key
    groups = check_groups(findings, None if unit_key is None else as_text(obs[unit_key]), unit_key)
    if y is not None:
        rows = judged_rows(y, groups)
        if groups is not None:
            copies = [f"{modality}:{name}" for name in obs]  # a MuData's own copies of a modality's columns
            columns = obs.drop(columns=copies, errors="ignore") if group_key not in copies else obs
            measured = {} if scanned is None else scanned.measured(rows)
            check_verdict(findings, columns.iloc[rows].assign(**measured), y[rows], group_key, label_key)
        if scanned is not None:
            check_depth(findings, scanned, rows, y[rows], None if groups is None else groups[rows])
    frame = findings.frame()
    logger.info("%s", frame["severity"].value_counts().to_dict())
    return frame


def _check_values(findings: Findings, adata: AnnData, scanned: Scan) -> None:
    matrix = scanned.matrix
    origin = matrix.origin
    if scanned.n_nan or scanned.n_infinite:
        message = f"{scanned.n_nan} values are NaN, {scanned.n_infinite} infinite."
        findings.error("not-finite", origin, message, "Replace missing values (counts that were not seen are 0).")
    if scanned.n_negative:
        message = f"{scanned.n_negative} values are negative: {WORDS['scaled']}."
        findings.warning("negative", origin, message, "Use the matrix from before scaling.")
    if not scanned.is_counts:
        message = f"{origin}: {scanned.n_fractions} values are not integers, {scanned.n_negative} are negative."
        if matrix.kind != "counts":
            message = refusal(scanned.looked_at, other_counts(adata)).split(" Put the integer counts")[0]
        fix = "Put integer counts into .layers['counts']. Models for any matrix ('pca', 'hvg') work on it as it is."
        findings.error("raw-counts", origin, message, fix)
        return
    if matrix.transform is not None:
        message = f"Holds {TRANSFORM_WORDS[matrix.transform]}; the integer counts are recovered exactly, in every cell."
        findings.info("counts-recovered", origin, message, "Nothing to do. Keep counts in .layers['counts'] next time.")
    else:
        findings.info("raw-counts", origin, f"Holds raw counts (largest {scanned.largest:.0f}).")
    if scanned.largest <= 1:
        message = "No value is larger than 1: the counts were cut to 0 and 1, or the cells are almost empty."
        findings.warning("binary", origin, message, "Use the matrix from before it was binarized.")


def _check_cells(findings: Findings, scanned: Scan) -> None:
    n, origin = len(scanned.detected), scanned.matrix.origin
    empty = int((scanned.detected == 0).sum())
    if empty:
        message = f"{empty} of {n} cells have no counts."
        findings.warning("empty-cells", origin, message, "They are kept and get missing predictions.")
    few = int((scanned.detected < _FEW_GENES).sum()) - empty
    if len(scanned.gene_totals) >= _MANY_GENES and few > 0.05 * n:
        message = f"{few} of {n} cells have fewer than {_FEW_GENES} detected genes."
        findings.warning("few-genes", origin, message, "Filter with scanpy.pp.filter_cells if they are debris.")
