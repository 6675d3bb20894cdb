"""`models.build_reference`: from the tables of a screen, or one's own, to a reference model."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.log import logger
from .._core.versions import package_versions
from ..names import line_key, lineage_of
from .card import reliability, tissue_means
from .chance import error_quantiles, fit_recalibration
from .expression import line_expression
from .lineage import lineage_centroids, usual_gaps
from .reference import Reference
from .relatives import families, with_relatives
from .ridge import fit_drugs
from .storage import cached, write_reference

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import pandas as pd

PENALTY = 3.0
"""Per gene, chosen in bulk data; skill is flat around it."""
MIN_DRUG_LINES = 100
"""Measured lines below which a drug is left out."""
DRUG_COLUMNS = ("targets", "pathway", "synonyms")


def build_reference(
    name: str,
    *,
    accept_terms: bool = False,
    expression: pd.DataFrame | None = None,
    response: pd.DataFrame | None = None,
    drugs: pd.DataFrame | None = None,
    tissue: Mapping[str, str] | None = None,
    patients: Mapping[str, str] | None = None,
    exclude_lines: Collection[str] = (),
    second_screen: pd.DataFrame | None = None,
    info: Mapping[str, Any] | None = None,
) -> Reference:
    """Fit a reference model: one ridge regression of drug response on expression for every drug of a screen.

    Expression is standardized within each line and then per gene; genes that do not vary between lines are left out. The
    penalty is 3 per gene. Errors of lines are those of fits without the line and its relatives, in closed form. See
    :cite:t:`Hoerl1970` for the regression; how well it transfers to single cells is measured in
    :doc:`/benchmarks/reference`.

    Parameters
    ----------
    name
        A screen that :func:`~sc_drugresp.datasets.screen` knows (`'gdsc2'`, `'gdsc1'`, `'ctrp2'`, `'prism'`), whose tables
        are fetched if they are not given here; or any name for your own screen.
    accept_terms
        You accept the terms of the publisher of the screen.
    expression
        Lines x genes: log2 expression or values standardized within the line. The index names the lines, the columns hold
        gene symbols. `None` takes that of the screen.
    response
        Columns `line`, `drug` and `value`; a higher value means a more resistant line (AUC, ln IC50). Repeated pairs are
        averaged. `None` takes that of the screen.
    drugs
        Index `drug`; columns among `targets`, `pathway` and `synonyms` (separated by `|`).
    tissue
        Line to tissue of origin, in any of the usual vocabularies.
    patients
        Line to patient: lines of one patient are held out together.
    exclude_lines
        Lines to leave out, with all their relatives, so that an evaluation on them cannot leak.
    second_screen
        Response in another screen, as `response`: `screen_agreement` of a drug is the Spearman correlation between the two
        over shared lines, which no prediction can be expected to exceed.
    info
        Further provenance to keep: release, license, citation.

    Returns
    -------
    The reference. Its `drugs` hold, per drug, `n_lines`, `mean`, `spread`, `sensitive_below`, `r`, `rho`,
    `r_within_tissue`, `r_tissue_mean`, `gain_over_tissue`,
    `r2_vs_drug_mean`, `half_width_90`, `screen_agreement`, `targets`, `pathway` and
    `synonyms`. A reference of a whole known screen is kept in the cache, so that :meth:`Reference.load` finds it by name.

    Raises
    ------
    ValueError
        The tables do not have the layout above, or share too few lines.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> import sc_drugresp as sdr
    >>> rng = np.random.default_rng(0)
    >>> lines, genes = [f"L{i}" for i in range(120)], [f"G{i}" for i in range(50)]
    >>> expression = pd.DataFrame(rng.normal(size=(120, 50)), lines, genes)
    >>> value = expression["G0"].to_numpy() + rng.normal(size=120)
    >>> response = pd.DataFrame({"line": lines, "drug": "mine", "value": value})
    >>> reference = sdr.models.build_reference("own", expression=expression, response=response)
    >>> bool(reference.drugs.loc["mine", "r"] > 0.4)
    True
    """
    whole = expression is None and response is None and not len(exclude_lines)
    told: dict[str, Any] = dict(info or {})
    if expression is None or response is None:
        from ..datasets._screens import screen

        found = screen(name, accept_terms=accept_terms)
        expression = found.expression if expression is None else expression
        response = found.response if response is None else response
        drugs = found.drugs if drugs is None else drugs
        tissue = found.lines["tissue"].to_dict() if tissue is None else tissue
        patients = found.lines["patient_id"].to_dict() if patients is None else patients
        told = {key: getattr(found, key) for key in ("release", "licence", "citation", "sources")} | told
    expression, table = tidy_expression(expression), _response_table(response)
    lines = [line for line in expression.index if line in table.index]
    if len(lines) < MIN_DRUG_LINES:
        msg = (
            f"`expression` and `response` share {len(lines)} lines; at least {MIN_DRUG_LINES} are needed. Lines are "
            f"compared by name without punctuation: {', '.join(expression.index[:3])} against {', '.join(table.index[:3])}."
        )
        raise ValueError(msg)
    prepared = line_expression(expression.loc[lines])
    patient = _by_line(patients, lines)
    left_out = with_relatives(exclude_lines, lines, patients=patient, Z=prepared.Z) if len(exclude_lines) else set()
    if left_out:
        lines = [line for line in lines if line not in left_out]
        prepared = line_expression(expression.loc[lines])
        patient = _by_line(patients, lines)
    table = table.loc[lines]
    table = table.loc[:, table.notna().sum() >= MIN_DRUG_LINES]
    if not table.shape[1]:
        msg = f"No drug was measured in {MIN_DRUG_LINES} lines with expression."
        raise ValueError(msg)
    origin = np.array([lineage_of(value) or "" for value in _by_line(tissue, lines)], dtype=object)
    family = families(lines, patients=patient, Z=prepared.Z)
    Y, names = table.to_numpy(dtype=np.float64), [str(drug) for drug in table.columns]
    logger.info("fitting %d drugs to %d lines and %d genes", len(names), len(lines), len(prepared.genes))
    fit = fit_drugs(prepared.Z, Y, family, PENALTY)
    card = reliability(Y, fit, origin, names)
    errors = error_quantiles(Y, fit.held_out)
    told |= {
        "exclude_lines": sorted({line_key(line) for line in exclude_lines}),
        "left_out": sorted(left_out),
        "n_dead_genes": prepared.n_dead,
        "penalty_per_gene": PENALTY,
        "sha256": _fingerprint(expression.loc[lines], table),
        "versions": package_versions(),
    }
    return _assemble(name, prepared, fit, card, errors, table, origin, family, told, drugs, second_screen, keep=whole)


def _assemble(
    name: str,
    prepared: Any,
    fit: Any,
    card: pd.DataFrame,
    errors: np.ndarray,
    table: pd.DataFrame,
    origin: np.ndarray,
    family: np.ndarray,
    told: dict[str, Any],
    drugs: pd.DataFrame | None,
    second_screen: pd.DataFrame | None,
    *,
    keep: bool,
) -> Reference:
    import pandas as pd

    Y = table.to_numpy(dtype=np.float64)
    card["screen_agreement"] = _agreement(table, second_screen)
    for column in DRUG_COLUMNS:
        known = drugs[column] if drugs is not None and column in drugs else pd.Series(dtype=object)
        card[column] = known.groupby(level=0).first().reindex(card.index).fillna("").astype(str)
    lineages, centroids = lineage_centroids(prepared.Z, origin)
    with_mean, means = tissue_means(Y, origin)
    aligned = pd.DataFrame(means, columns=with_mean).reindex(columns=lineages).to_numpy()
    reference = Reference(
        name=name,
        genes=prepared.genes,
        mean=prepared.mean.astype(np.float32),
        spread=prepared.spread.astype(np.float32),
        weights=fit.weights.astype(np.float32),
        intercept=fit.intercept.astype(np.float32),
        drugs=card,
        lines=pd.DataFrame({"lineage": origin, "family": family}, index=table.index.rename("line")),
        errors=errors,
        recalibration=fit_recalibration(Y, fit.held_out, errors, card).astype(np.float32),
        lineages=lineages,
        tissue_means=aligned.astype(np.float32),
        centroids=centroids.astype(np.float32),
        gaps=usual_gaps(prepared.Z, origin, lineages, centroids).astype(np.float32),
        info=told,
    )
    if keep:
        write_reference(reference, cached(name), overwrite=True)
    return reference


def tidy_expression(frame: pd.DataFrame) -> pd.DataFrame:
    """Lines by key, genes by symbol; repeated lines are averaged, of a repeated gene the first column is kept."""
    if not all(np.issubdtype(kind, np.number) for kind in frame.dtypes):
        msg = "`expression` must be a table of numbers, lines x genes, with the names of lines as its index."
        raise ValueError(msg)
    frame = frame.loc[:, ~frame.columns.duplicated()]
    keys = [line_key(line) for line in frame.index]
    return frame.groupby(np.array(keys, dtype=object)).mean() if len(set(keys)) < len(keys) else frame.set_axis(keys)


def _response_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Lines x drugs, repeated pairs averaged."""
    missing = [column for column in ("line", "drug", "value") if column not in frame]
    if missing:
        msg = f"`response` needs the columns 'line', 'drug' and 'value'; {missing} are missing from {list(frame.columns)}."
        raise ValueError(msg)
    spelled = {line: line_key(line) for line in frame["line"].unique()}
    keys = frame["line"].map(spelled).astype(object)
    value = frame["value"].astype(np.float64).where(lambda column: np.isfinite(column))
    return value.groupby([keys, frame["drug"].astype(str)]).mean().unstack()


def _by_line(known: Mapping[str, str] | None, lines: list[str]) -> list[str]:
    """The value of each line, `''` where it has none."""
    spelled = {line_key(line): value for line, value in (known or {}).items() if isinstance(value, str)}
    return [spelled.get(line, "") for line in lines]


def _agreement(table: pd.DataFrame, other: pd.DataFrame | None) -> np.ndarray:
    """Spearman correlation with another screen per drug, NaN with fewer than 20 shared lines."""
    if other is None:
        return np.full(table.shape[1], np.nan)
    from ..names import drug_key

    second = _response_table(other)
    second.columns = [drug_key(name) for name in second.columns]
    second = second.loc[:, ~second.columns.duplicated()].reindex(table.index)
    out = []
    for drug, column in table.items():
        pair = second.get(drug_key(str(drug)))
        shared = 0 if pair is None else int((pair.notna() & column.notna()).sum())
        out.append(column.corr(pair, method="spearman") if shared >= 20 else np.nan)
    return np.array(out, dtype=np.float64)


def _fingerprint(expression: pd.DataFrame, table: pd.DataFrame) -> str:
    digest = hashlib.sha256()
    for frame in (expression, table):
        digest.update(np.ascontiguousarray(frame.to_numpy(dtype=np.float32)).tobytes())
        digest.update("\n".join([*map(str, frame.index), *map(str, frame.columns)]).encode())
    return digest.hexdigest()
