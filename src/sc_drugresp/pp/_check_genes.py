"""What `check` says about genes and models."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import genes as gene_tools
from .._core.keys import GeneKeys
from .._core.settings import settings
from .._data.counts import gene_columns
from ._genes import FAIL_BELOW, WARN_BELOW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._data import GeneVocab
    from ._findings import Findings, Severity
    from ._scan import Scan

_DATE = re.compile(r"(\d{1,2}-(Mar|Sep|Dec|Oct|Apr|Feb)|(Mar|Sep|Dec|Oct|Apr|Feb)-\d{1,2})", re.IGNORECASE)


def check_names(findings: Findings, obs_names: np.ndarray, var_names: np.ndarray) -> None:
    """Find names that occur twice and names that a spreadsheet turned into dates."""
    for names, code, subject, fix in (
        (obs_names, "duplicated-cells", "obs_names", "Run adata.obs_names_make_unique()."),
        (var_names, "duplicated-genes", "var_names", "Nothing to do for models: they add the counts of such columns."),
    ):
        unique, counts = np.unique(names, return_counts=True)
        repeated = unique[counts > 1]
        if len(repeated):
            listed = ", ".join(map(repr, repeated[:3].tolist()))
            findings.add(code, "warning", subject, f"{len(repeated)} names occur more than once ({listed}).", fix)
    dates = [name for name in var_names.tolist() if _DATE.fullmatch(name)]
    if dates:
        message = f"{len(dates)} genes look like dates ({', '.join(map(repr, dates[:3]))}): a spreadsheet changed them."
        findings.add("gene-dates", "warning", "var_names", message, "Take the names from the original file.")


def check_genes(findings: Findings, scanned: Scan, uns: Any, gene_key: str | None = None) -> gene_tools.Resolution:
    """Resolve the genes and report species and the share of the counts that is covered."""
    keys = GeneKeys()
    before = uns.get(keys.uns, {})
    ours = (keys.symbol, keys.ensembl_id) if before.get("organism") != before.get("target") else ()
    names, other = gene_columns(scanned.var, gene_key, skip=ours)
    found = gene_tools.resolve(names, ids=other)
    weights, basis = _weights(scanned)
    own = found.status != "other_species"
    share = float(weights[found.matched].sum() / max(weights[own].sum(), 1e-300))
    severity: Severity = "error" if share < FAIL_BELOW else "warning" if share < WARN_BELOW else "info"
    status = ", ".join(f"{number} {name}" for name, number in found.counts().items())
    findings.add(
        "gene-coverage",
        severity,
        "genes",
        f"{found.matched.sum()} of {len(found)} genes are recognized ({share:.1%} of the {basis}): {status}.",
        ""
        if severity == "info"
        else "Run pp.harmonize_genes, with gene_key= for a column that holds other identifiers.",
    )
    if not found.sources.get("hgnc"):
        message = "Previous symbols and aliases of HGNC are not on this machine; Ensembl's synonyms are used alone."
        findings.add(
            "gene-aliases", "info", "genes", message, "pp.harmonize_genes fetches them once (settings.offline=False)."
        )
    if found.organism == "mixed":
        foreign = float(weights[~own].sum() / max(weights.sum(), 1e-300))
        message = f"Genes of human and mouse: {foreign:.1%} of the {basis} lie in mouse genes."
        findings.add(
            "mixed-species", "warning", "genes", message, "In a xenograft keep the human cells and the human genes."
        )
    elif found.organism == "mouse":
        message = "The genes are those of the mouse; most models know human genes."
        findings.add("species", "warning", "genes", message, "Run pp.harmonize_genes(adata, target='human').")
    elif found.organism == "unknown":
        message = "No gene name is known in human or mouse."
        findings.add("species", "error", "genes", message, "Name the column of .var with symbols or Ensembl ids.")
    else:
        findings.add("species", "info", "genes", f"The genes are those of {found.organism}.")
    return found


def check_models(findings: Findings, scanned: Scan, found: gene_tools.Resolution, models: Sequence[Any]) -> None:
    """Report for each model whether it can read these data and how much of the counts it would see."""
    names, other = gene_columns(scanned.var)
    weights, basis = _weights(scanned)
    for model in models:
        title, expects, species, vocab, problem = _facts(model)
        if expects == "counts" and not scanned.is_counts:
            findings.add(
                "model-counts",
                "error",
                title,
                f"{title} needs raw counts; {scanned.origin} holds none.",
                "See 'raw-counts'.",
            )
        if (
            found.organism in {"human", "mouse"}
            and species
            and found.organism not in species
            and found.target not in species
        ):
            message = f"{title} was trained on {' and '.join(species)}, the genes are those of {found.organism}."
            findings.add("model-species", "error", title, message, "Run pp.harmonize_genes(adata, target='human').")
        if problem:
            findings.add("model-files", "info", title, problem, f"sc_drugresp.models.download({title!r})")
        if vocab is None:
            continue
        known = vocab.align(names.tolist(), None if other is None else other.tolist()).ids >= 0
        share = float(weights[known].sum() / max(weights.sum(), 1e-300))
        severity: Severity = "error" if share < FAIL_BELOW else "warning" if share < WARN_BELOW else "info"
        message = f"{title} knows {known.sum()} of {len(known)} genes with {share:.1%} of the {basis}."
        findings.add(
            "model-coverage", severity, title, message, "" if severity == "info" else "Run pp.harmonize_genes first."
        )


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


def _weights(scanned: Scan) -> tuple[np.ndarray, str]:
    if scanned.kind == "scaled" or not scanned.gene_totals.any():
        return np.ones(len(scanned.gene_totals)), "genes"
    return np.maximum(scanned.gene_totals, 0), "counts"
