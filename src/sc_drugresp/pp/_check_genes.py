"""Findings of `check` about genes and models."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import genes as gene_tools
from .._core.settings import settings
from .._data.matrices import gene_columns
from .._embed.coverage import LOW_COVERAGE, NO_COVERAGE
from ._gene_report import FAIL_BELOW, WARN_BELOW, identifiers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from .._data import GeneVocab
    from ._findings import Findings
    from ._scan import Scan

_DATE = re.compile(r"(\d{1,2}-(Mar|Sep|Dec|Oct|Apr|Feb)|(Mar|Sep|Dec|Oct|Apr|Feb)-\d{1,2})", re.IGNORECASE)
_TO_HUMAN = "Run pp.harmonize_genes(adata, target='human')."


def check_names(findings: Findings, obs_names: pd.Index, var_names: pd.Index) -> None:
    """Find names that occur twice and names that a spreadsheet turned into dates."""
    for names, code, subject, fix in (
        (obs_names, "duplicated-cells", "obs_names", "Run adata.obs_names_make_unique()."),
        (var_names, "duplicated-genes", "var_names", "Nothing to do for models: they add the counts of such columns."),
    ):
        repeated = np.unique(np.asarray(names[names.duplicated()], dtype=str))
        if len(repeated):
            listed = ", ".join(map(repr, repeated[:3].tolist()))
            findings.warning(code, subject, f"{len(repeated)} names occur more than once ({listed}).", fix)
    dates = [name for name in map(str, var_names) if _DATE.fullmatch(name)]
    if dates:
        message = f"{len(dates)} genes look like dates ({', '.join(map(repr, dates[:3]))}): a spreadsheet changed them."
        findings.warning("gene-dates", "var_names", message, "Take the names from the original file.")


def check_genes(findings: Findings, scanned: Scan, uns: Any) -> gene_tools.Resolution:
    """Resolve the genes and report species and the share of the counts that is covered."""
    names, other = identifiers(scanned.matrix.var, uns)
    found = gene_tools.resolve(names, ids=other)
    weights, basis = scanned.weights()
    own = found.status != "other_species"
    share = float(weights[found.matched].sum() / max(weights[own].sum(), 1e-300))
    status = ", ".join(f"{number} {name}" for name, number in found.counts().items())
    message = f"{found.matched.sum()} of {len(found)} genes are recognized ({share:.1%} of the {basis}): {status}."
    findings.coverage("gene-coverage", "genes", share, (WARN_BELOW, FAIL_BELOW), message)
    if not found.sources.get("hgnc"):
        message = "Previous symbols and aliases of HGNC are not on this machine; Ensembl's synonyms are used alone."
        fix = "pp.harmonize_genes fetches them once (settings.offline=False)."
        findings.info("gene-aliases", "genes", message, fix)
    if found.organism == "mixed":
        foreign = float(weights[~own].sum() / max(weights.sum(), 1e-300))
        message = f"Genes of human and mouse: {foreign:.1%} of the {basis} lie in mouse genes."
        fix = "In a xenograft keep the human cells and the human genes."
        findings.warning("mixed-species", "genes", message, fix)
    elif found.organism == "mouse":
        message = "These are mouse genes; most models know human genes."
        findings.warning("species", "genes", message, _TO_HUMAN)
    elif found.organism == "unknown":
        message = "No gene name is known in human or mouse."
        findings.error("species", "genes", message, "Name the column of .var with symbols or Ensembl ids.")
    else:
        findings.info("species", "genes", f"These are {found.organism} genes.")
    return found


def check_models(findings: Findings, scanned: Scan, found: gene_tools.Resolution, models: Sequence[Any]) -> None:
    """Report for each model whether it can read these data and how much of the counts it would see."""
    names, other = gene_columns(scanned.matrix.var)
    weights, basis = scanned.weights()
    for model in models:
        title, expects, species, vocab, problem = _facts(model)
        if expects == "counts" and not scanned.is_counts:
            message = f"{title} needs raw counts; {scanned.matrix.origin} holds none."
            findings.error("model-counts", title, message, "See 'raw-counts'.")
        if species and found.organism in {"human", "mouse"} and found.organism not in species:
            message = f"{title} was trained on {' and '.join(species)}; these are {found.organism} genes."
            findings.error("model-species", title, message, _TO_HUMAN)
        if problem:
            findings.info("model-files", title, problem, f"sc_drugresp.models.download({title!r})")
        if vocab is None:
            continue
        known = vocab.align(names.tolist(), None if other is None else other.tolist()).matched
        share = float(weights[known].sum() / max(weights.sum(), 1e-300))
        message = f"{title} knows {known.sum()} of {len(known)} genes with {share:.1%} of the {basis}."
        findings.coverage("model-coverage", title, share, (LOW_COVERAGE, NO_COVERAGE), message)


def _facts(model: Any) -> tuple[str, str, tuple[str, ...], GeneVocab | None, str]:
    """Name, expected matrix, species, vocabulary, and why the vocabulary is not known."""
    if not isinstance(model, str):
        return str(getattr(model, "name", "") or type(model).__name__), "counts", (), getattr(model, "vocab", None), ""
    from .. import models as model_tools
    from ..models._registry import find

    spec, checkpoint = find(model)
    if checkpoint is None:
        return model, spec.expects, (), None, ""
    try:
        with settings.override(offline=True):
            vocab = model_tools.load(model).vocab
    except (FileNotFoundError, ConnectionError):
        problem = "The files of this checkpoint are not on this machine, so that its genes are not known yet."
        return model, spec.expects, checkpoint.species, None, problem
    return model, spec.expects, checkpoint.species, vocab, ""
