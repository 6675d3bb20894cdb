"""`report`: gather the sections and write one file."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.files import write_text
from .._core.log import logger
from .._data.opening import is_path, open_cells
from ..get._read import CONTROL, EVALUATION, PREDICTION, RANKING, TRAINING, Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import SlotName


@doc_params()
@checked
def report(
    data: AnnData | MuData | str | PathLike[str],
    path: str | PathLike[str] = "report.html",
    *,
    title: str = "Drug response report",
    label_key: str = "response",
    prediction_key: SlotName | None = None,
    evaluation_key: SlotName | None = None,
    training_key: SlotName | None = None,
    control_key: SlotName | None = None,
    ranking_key: SlotName | None = None,
    card: bool = True,
    modality: str = "rna",
) -> Path:
    """Write one self-contained HTML page about predictions, rankings of drugs, samples, training and evaluation.

    The page has no scripts and loads nothing from the network. It shows what the tools wrote into the object and the
    findings of :func:`~sc_drugresp.pp.check`; no model is trained or run, and the object is not changed.

    Parameters
    ----------
    {cells}
    path
        File to write. It appears complete or not at all.
    title
        Title of the page.
    {label_key}
    prediction_key
        The `key_added` of :func:`~sc_drugresp.tl.predict_response`; `None` shows the predictions of the default name if
        there are any. The same holds for the other keys.
    evaluation_key
        The `key_added` of :func:`~sc_drugresp.tl.evaluate`.
    training_key
        The `key_added` of :func:`~sc_drugresp.tl.train_response`.
    control_key
        The `key_added` of :func:`~sc_drugresp.tl.state_control`.
    ranking_key
        The `key_added` of :func:`~sc_drugresp.tl.rank_drugs`.
    card
        Also write the evaluation card as JSON beside the page (`<name>.card.json`), if there is an evaluation.
    {modality}

    Returns
    -------
    The path of the page.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    KeyError
        Nothing was written under a key that was given, or what was written is damaged.
    ValueError
        There is nothing to report: no predictions, no ranking, no evaluation, no training.

    Examples
    --------
    {predicted}
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> sdr.report(adata, f"{folder.name}/report.html").name
    'report.html'
    >>> folder.cleanup()
    """
    if Path(path).is_dir():
        msg = f"`path` must be a file to write, found the folder {str(path)!r}."
        raise ValueError(msg)
    if is_path(data):
        data = open_cells(data)
    keys = {PREDICTION: prediction_key, RANKING: ranking_key, EVALUATION: evaluation_key}
    keys |= {TRAINING: training_key, CONTROL: control_key}
    arguments = dict(zip(keys, ("prediction_key", "ranking_key", "evaluation_key", "training_key", "control_key")))
    found = {
        record: record.find(data, None, modality)
        if key is None
        else record.read(data, key, modality, argument=arguments[record])
        for record, key in keys.items()
    }
    instead = [(record, record.instead(data, record.default, modality)) for record in keys if not found[record]]
    others = [f"{record.what} {record.default!r} in `.uns`{told}" for record, told in instead if told]
    if not any(found[record] for record in (PREDICTION, RANKING, EVALUATION, TRAINING)):
        msg = (
            f"There is nothing to report{': no ' if others else ''}{', no '.join(others)}. Run tl.predict_response, tl.rank_drugs, tl.train_response or tl.evaluate first, or "
            "name what was written with `key_added` by `prediction_key`, `ranking_key`, `training_key` or `evaluation_key`."
        )
        raise ValueError(msg)
    for other in others:
        logger.warning("left out of the report: no %s", other)
    import matplotlib as mpl

    from .._core.versions import package_versions
    from .._evaluate.card import evaluation_card
    from . import _sections as sections
    from ._page import render

    def describe(section: Callable[..., dict[str, Any]], record: Record, **options: Any) -> dict[str, Any] | None:
        stored = found[record]
        return stored and section(data, stored, key_added=keys[record], modality=modality, **options)

    with mpl.rc_context({"font.size": 10, "figure.max_open_warning": 0}):
        page = render(
            title=title,
            made=datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC"),
            versions=package_versions(),
            data=sections.describe_data(data, label_key, modality),
            prediction=describe(sections.describe_prediction, PREDICTION, label_key=label_key),
            ranking=describe(sections.describe_ranking, RANKING),
            evaluation=describe(sections.describe_evaluation, EVALUATION),
            control=describe(sections.describe_control, CONTROL),
            training=describe(sections.describe_training, TRAINING),
        )
    path, result = Path(path), found[EVALUATION]
    files = {path: page.encode("utf-8", "replace").decode("utf-8")}  # names may hold half of a character
    if card and result is not None:
        files[path.with_suffix(".card.json")] = json.dumps(evaluation_card(result), indent=2, allow_nan=False)
    for file, text in files.items():  # all that can fail has been done
        write_text(file, text)
    logger.info("wrote %s", path)
    return path
