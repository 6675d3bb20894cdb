"""`tl.ask_llm`: zero-shot calls of a language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import RESPONSE, LLMKeys
from .._core.log import logger
from .._data.modalities import Target
from .._llm.local_job import check_local, score_records
from .._llm.options import LLMOptions
from .._llm.records import Records
from ..models._registry import canonical, is_language_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import NonNegativeFloat, NonNegativeInt, SlotName
    from .._llm.options import Unit


@doc_params()
@checked
def ask_llm(
    data: AnnData | MuData,
    *,
    model: str,
    drug: str,
    base_url: str | None = None,
    api_key: str | None = None,
    allow_remote: bool = False,
    unit: Unit = "sample",
    groupby: str | None = None,
    group_key: str | None = None,
    mask_obs: str | None = None,
    metadata: Sequence[str] = (),
    examples: NonNegativeInt = 0,
    label_key: str = RESPONSE,
    dry_run: bool = False,
    price: Sequence[NonNegativeFloat] | None = None,
    max_cost: NonNegativeFloat | None = None,
    options: LLMOptions | None = None,
    layer: str | None = None,
    key_added: SlotName | None = None,
    modality: str = "rna",
    copy: bool = False,
) -> AnnData | MuData | dict[str, Any] | None:
    """Ask a language model which samples, clusters or cells respond to a drug, by their genes. Nothing is learned.

    The server is any that speaks OpenAI's chat completions: one on your machine (vLLM, llama.cpp, Ollama, LM Studio,
    `transformers serve`) or, with `allow_remote=True`, one elsewhere. It is shown the name of the drug and, for each record,
    a list of gene symbols under a running number; never the name of a sample, a label or a count. Replies are checked in any
    case: a record whose answer cannot be read in two tries is *missing*. Every reply is kept on your disk before it is
    counted, without the question, so that an interrupted run goes on and a repeated one costs nothing.

    With `model='llm:<folder or repository>'` and no `base_url` a causal model is read on this machine instead. Nothing it
    writes is parsed: each question is put with either answer first, the likelihood of the two answers gives the log-odds, and
    those of questions without a record are taken off (contextual calibration, :cite:p:`Zhao2021`). No record is missing.

    A model's confidence is a word, no probability, and no error level is known. What the calls are worth is measured by
    :func:`~sc_drugresp.tl.evaluate` with `calls={'name': 'llm_response'}`, see :doc:`/explanation/language_models`.

    Parameters
    ----------
    {data}
    model
        Name of the model at the server, for example `'gpt-4o-mini'`; or `'llm:<folder or repository>'` for a causal model in
        Hugging Face's format on this machine.
    drug
        Name of the drug, as it is told to the model.
    base_url
        Address of the server up to its version, for example `'http://127.0.0.1:8000/v1'`. There is no default: you name where
        data go. `None` for a model on this machine.
    api_key
        Key for the server. `None` reads the environment variable `OPENAI_API_KEY`, for servers elsewhere alone. It is never
        stored.
    allow_remote
        Let gene lists, and the columns in `metadata`, leave this machine. Needed for every address but 127.0.0.0/8, `::1` and
        `localhost`.
    unit
        What one answer is about: `'sample'` (the sum of its cells; tens of requests), `'cluster'` (clusters of each sample by
        `groupby`) or `'cell'` (as many records as cells: look at the price with `dry_run=True`).
    groupby
        Column of `.obs` with clusters or clones, for `unit='cluster'`.
    {group_key}
    mask_obs
        Boolean column of `.obs`: which cells count, for example the malignant ones.
    metadata
        Columns of `.obs` that are told as well, for example the tissue. Columns that name samples or studies, or say the same
        as the label, are refused.
    examples
        Number of labeled samples to show with each question, both classes in turn. Never the sample in question; where
        :func:`~sc_drugresp.pp.split` divided the samples, those for training alone. 0 is zero-shot, and reads no label.
    {label_key}
    dry_run
        Send and write nothing, and return an estimate.
    price
        Price of a million tokens in and of a million tokens out.
    max_cost
        Stop before this could be exceeded, in the currency of `price`.
    options
        Wording, genes, temperature, time limits and so on, see :class:`~sc_drugresp.tl.LLMOptions`.
    {layer}
    {key_added}
    {modality}
    {copy}

    Returns
    -------
    `None`, or the changed copy if `copy=True`. With `dry_run=True` a dictionary: `n_records`, `n_requests` and
    `n_records_to_ask` (without those that are stored), expected `tokens_in`, `tokens_out` and `cost`, `cost_most` (if every
    record is asked about twice; NaN without `price`), `server`, `leaves_this_machine`, and `first_prompt`, the text of the
    first request. Sets the following fields:

    `.obs['llm_response' | key_added]` : :class:`pandas.Series` (dtype `category`)
        `sensitive`, `resistant` or `uncertain`; NaN where an answer is missing.
    `.obs['llm_response_confidence' | key_added + '_confidence']` : :class:`pandas.Series` (dtype `category`)
        `very low`, `low`, `medium`, `high` or `very high`, as the model says.
    `.obs['llm_response_prob' | key_added + '_prob']` : :class:`pandas.Series` (dtype `float64`)
        Probability of `sensitive`, in the place of the confidence, from a model on this machine; NaN for cells left out.
    `.uns['llm_response' | key_added]` : :class:`dict`
        `records` (record, sample, n_cells, call, confidence, reason, status, attempts, examples), `counts` by status,
        `statement`, `model`, `server`, `drug`, `template`, `temperature`, `seed`, `requests` and `cost` of this run, `tokens`
        and `cost_of_all_replies` with those of earlier runs, and `params`.

    Raises
    ------
    ValueError
        No address, an address or option that does not fit, a column that must not be sent, too few examples, or `max_cost`
        would be exceeded.
    PermissionError
        The server is elsewhere, and `allow_remote` is not set.
    ConnectionError
        The server refuses, or fails many times in a row. Nothing is written; the same call goes on.
    KeyError
        A column does not exist.
    ImportError
        `openai` or `tenacity` are not installed (`pip install 'sc-drugresp[llm]'`).

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(4)
    >>> where = dict(model="my-model", base_url="http://127.0.0.1:8000/v1")
    >>> plan = sdr.tl.ask_llm(adata, drug="erlotinib", **where, dry_run=True, price=(0.15, 0.60))
    >>> plan["n_requests"], plan["leaves_this_machine"]
    (4, False)
    """
    target = Target(data, modality, copy, key_added)
    keys = LLMKeys.of(key_added)
    options = LLMOptions() if options is None else options
    read: dict[str, Any] = {
        "unit": unit,
        "groupby": groupby,
        "group_key": group_key,
        "mask_obs": mask_obs,
        "metadata": metadata,
        "examples": examples,
        "label_key": label_key,
        "options": options,
        "layer": layer,
    }
    if base_url is None and is_language_model(model):
        given = {
            "api_key": api_key,
            "allow_remote": allow_remote,
            "dry_run": dry_run,
            "price": price,
            "max_cost": max_cost,
        }
        check_local(drug, given)
        columns, record = score_records(Records.read(target.adata, target.obs, **read), canonical(model), drug.strip())
        out = target.write(obs={keys.call: columns["call"], keys.prob: columns["prob"]}, uns={keys.uns: record})
        told = "added\n    %r, %r, calls of %d records and their probability (adata.obs)\n    %r, what was asked (adata.uns)"
        logger.info(told, keys.call, keys.prob, len(record[keys.records]), keys.uns)
        return out

    from .._llm.job import Job

    job = Job.prepare(
        target.adata,
        target.obs,
        model=model,
        drug=drug,
        base_url=base_url,
        api_key=api_key,
        allow_remote=allow_remote,
        send=not dry_run,
        price=price,
        max_cost=max_cost,
        **read,
    )
    if dry_run:
        return job.estimate()
    columns, record = job.ask()
    written = {keys.call: columns["call"], keys.confidence: columns["confidence"]}
    out = target.write(obs=written, uns={keys.uns: record})
    logger.info(
        "added\n    %r, %r, calls of %d records and how sure (adata.obs)\n    %r, what was asked and answered (adata.uns)",
        *(keys.call, keys.confidence, len(record[keys.records]), keys.uns),
    )
    return out
