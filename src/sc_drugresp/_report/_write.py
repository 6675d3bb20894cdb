"""`report`: gather the sections and write one file."""

from __future__ import annotations

import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .._core.docs import doc_data, doc_label_key, doc_modality, doc_params
from .._core.keys import STATE_CONTROL, TRAIN_RESPONSE, EvaluationKeys, PredictionKeys
from .._core.log import logger
from .._data.modalities import as_adata

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData


@doc_params(data=doc_data, label_key=doc_label_key, modality=doc_modality)
def report(
    data: AnnData | MuData,
    path: str | PathLike[str] = "report.html",
    *,
    title: str = "Drug response report",
    label_key: str = "response",
    card: bool = True,
    modality: str = "rna",
) -> Path:
    """Write one self-contained HTML page about predictions, samples, training and evaluation.

    The page has no scripts and loads nothing from the network. It holds what the tools wrote into the object; nothing is
    computed anew and the object is not changed.

    Parameters
    ----------
    {data}
    path
        File to write. It appears complete or not at all.
    title
        Title of the page.
    {label_key}
    card
        Also write the evaluation card as JSON beside the page (`<name>.card.json`), if there is an evaluation.
    {modality}

    Returns
    -------
    The path of the page.

    Raises
    ------
    ValueError
        There is nothing to report: no predictions, no evaluation, no training.

    Examples
    --------
    >>> import sc_drugresp as sdr, tempfile
    >>> adata = sdr.datasets.toy(12, unlabeled=0.3)
    >>> sdr.tl.predict_response(adata)
    >>> folder = tempfile.TemporaryDirectory()
    >>> sdr.report(adata, f"{folder.name}/report.html").name
    'report.html'
    >>> folder.cleanup()
    """
    adata = as_adata(data, modality=modality)
    predictions, evaluations = PredictionKeys(), EvaluationKeys()
    found = [key for key in (predictions.uns, evaluations.uns, TRAIN_RESPONSE) if key in adata.uns]
    if not found:
        msg = "There is nothing to report. Run tl.predict_response, tl.train_response or tl.evaluate first."
        raise ValueError(msg)
    import matplotlib as mpl

    from .._evaluate.card import evaluation_card, package_versions
    from . import _sections as sections
    from ._page import page

    parts: list[tuple[str, str]] = []
    with mpl.rc_context({"font.size": 10, "figure.max_open_warning": 0}):
        parts.append(("Data", sections.data_section(adata, label_key)))
        if predictions.uns in adata.uns:
            parts.append(("Predicted response", sections.prediction_section(adata, label_key)))
            if predictions.samples in adata.uns[predictions.uns]:
                parts.append(("Samples", sections.sample_section(adata, label_key)))
        if evaluations.uns in adata.uns:
            parts.append(("Evaluation", sections.evaluation_section(adata)))
        if STATE_CONTROL in adata.uns:
            parts.append(("State or sensitivity", sections.state_section(adata)))
        if TRAIN_RESPONSE in adata.uns:
            parts.append(("Training", sections.training_section(adata)))
        parts.append(("Limits", sections.limits_section(adata)))
        versions = package_versions()
        parts.append(("Methods", sections.methods_section(adata, versions)))
    made = datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
    path = Path(path)
    _write(path, page(title, f"sc_drugresp {versions.get('sc-drugresp', '')}, {made}", parts))
    if card and evaluations.uns in adata.uns:
        values = evaluation_card(adata.uns[evaluations.uns])
        _write(path.with_suffix(".card.json"), json.dumps(values, indent=2, allow_nan=False))
    logger.info("wrote %s", path)
    return path


def _write(path: Path, text: str) -> None:
    """Write to a draft beside the file, then rename: a full disk leaves no half page behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    finally:
        Path(draft).unlink(missing_ok=True)
