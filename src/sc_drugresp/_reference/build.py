"""`models.build_reference`: from the tables of a screen, or one's own, to a reference model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.arguments import checked
from .._core.log import logger
from .._core.versions import package_versions
from ..names import line_key
from .card import reliability, tissue_means
from .chance import error_quantiles, fit_recalibration
from .expression import line_expression
from .lineage import lineage_centroids, usual_gaps
from .programs import program_limits
from .reference import Reference
from .relatives import families, with_relatives
from .ridge import fit_drugs
from .storage import cached, write_reference
from .tables import agreement, published, screen_tables

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import pandas as pd

    from ..datasets._screen import Screen
    from .tables import ScreenTables

PENALTY = 3.0
"""Per gene, chosen in bulk data; skill is flat around it."""
DRUG_COLUMNS = ("targets", "pathway", "synonyms")


@checked
def build_reference(
    screen: str | Screen,
    *,
    accept_terms: bool = False,
    expression: pd.DataFrame | None = None,
    response: pd.DataFrame | None = None,
    drugs: pd.DataFrame | None = None,
    tissue: Mapping[str, str] | None = None,
    relatives: Mapping[str, str] | None = None,
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
    screen
        A screen that :func:`~sc_drugresp.datasets.screen` knows by name (`'gdsc2'`, `'gdsc1'`, `'ctrp2'`, `'prism'`) or that it
        returned; or any name for your own, with `expression` and `response`.
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
    relatives
        Line to patient, or to any name of a family: lines of one family are held out together, beside those that are known
        to be relatives from a table of the package, from their names or from their profiles.
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
    told: dict[str, Any] = dict(info or {})
    name = screen if isinstance(screen, str) else screen.name
    whole = False
    if expression is None or response is None:
        found = published(screen, accept_terms=accept_terms) if isinstance(screen, str) else screen
        drugs = found.drugs if drugs is None else drugs
        tissue = _column(found.lines, "tissue") if tissue is None else tissue
        relatives = _column(found.lines, "patient_id") if relatives is None else relatives
        told = {key: getattr(found, key) for key in ("release", "licence", "citation", "sources")} | told
        whole = expression is None and response is None and not exclude_lines
        expression = found.expression if expression is None else expression
        response = found.response if response is None else response
    tables = screen_tables(expression, response, tissue, relatives)
    left_out: set[str] = set()
    if exclude_lines:
        Z = line_expression(tables.expression).Z
        left_out = with_relatives(exclude_lines, tables.lines, patients=tables.relatives, Z=Z)
        tables = tables.without(left_out)
    told |= {"exclude_lines": sorted({line_key(line) for line in exclude_lines}), "left_out": sorted(left_out)}
    reference = _fit(name, tables.measured(), drugs, second_screen, told)
    if whole:
        write_reference(vars(reference), cached(name), overwrite=True)
    return reference


def _column(lines: pd.DataFrame, column: str) -> dict[str, str]:
    return {str(line): value for line, value in lines[column].items() if isinstance(value, str)}


def _fit(
    name: str,
    tables: ScreenTables,
    drugs: pd.DataFrame | None,
    second_screen: pd.DataFrame | None,
    told: dict[str, Any],
) -> Reference:
    import pandas as pd

    prepared = line_expression(tables.expression)
    family = families(tables.lines, patients=tables.relatives, Z=prepared.Z)
    Y, names = tables.response.to_numpy(dtype=np.float64), [str(drug) for drug in tables.response.columns]
    logger.info("fitting %d drugs to %d lines and %d genes", len(names), len(tables.lines), len(prepared.genes))
    fit = fit_drugs(prepared.Z, Y, family, PENALTY)
    errors = error_quantiles(Y, fit.held_out)
    card = reliability(Y, fit, tables.tissue, names)
    card["screen_agreement"] = agreement(tables.response, second_screen)
    for column in DRUG_COLUMNS:
        known = drugs[column] if drugs is not None and column in drugs else pd.Series(dtype=object)
        card[column] = known.groupby(level=0).first().reindex(card.index).fillna("").astype(str)
    lineages, centroids = lineage_centroids(prepared.Z, tables.tissue)
    with_mean, means = tissue_means(Y, tables.tissue)
    lines = pd.DataFrame({"lineage": tables.tissue, "family": family}, index=pd.Index(tables.lines, name="line"))
    told |= {
        "n_dead_genes": prepared.n_dead,
        "penalty_per_gene": PENALTY,
        "sha256": tables.sha256(),
        "versions": package_versions(),
    }
    return Reference(
        name=name,
        genes=prepared.genes,
        mean=prepared.mean.astype(np.float32),
        spread=prepared.spread.astype(np.float32),
        weights=fit.weights.astype(np.float32),
        intercept=fit.intercept.astype(np.float32),
        drugs=card,
        lines=lines,
        errors=errors,
        recalibration=fit_recalibration(Y, fit.held_out, errors, card).astype(np.float32),
        lineages=lineages,
        tissue_means=pd.DataFrame(means, columns=with_mean).reindex(columns=lineages).to_numpy(dtype=np.float32),
        centroids=centroids.astype(np.float32),
        gaps=usual_gaps(prepared.Z, tables.tissue, lineages, centroids).astype(np.float32),
        programs=program_limits(prepared.Z, prepared.genes),
        info=told,
    )
