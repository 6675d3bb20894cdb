"""`datasets.Screen`: expression and drug response of one screen of cell lines, with identifiers reconciled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .._core.arguments import checked
from ..names import drug_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Screen:
    """Drug response of cell lines and their expression, from one screen.

    Parameters
    ----------
    name, release, licence, citation
        What the screen is called, its release, the terms of its data in a few words, and the papers to cite.
    expression
        Lines x genes, float32. The index holds line keys (see `sc_drugresp.names.line_key`), the columns hold gene
        symbols; both are unique.
    expression_kind
        `'rma'` (log2 intensities of microarrays), `'rma_z'` (the same, standardized within each line) or `'log2tpm'`
        (log2(TPM + 1) of RNA-seq).
    response
        Columns `line`, `drug` and `value` (float64): one row per pair, repeated measurements averaged. A higher value
        means a more resistant line. Lines without expression are kept.
    response_kind
        `'auc'` (area under the dose-response curve) or `'ln_ic50'` (natural logarithm of the IC50 in micromolar).
    drugs
        Index `drug`; columns `targets`, `pathway` and `synonyms` (separated by `'|'`), `''` where unknown.
    lines
        Index `line`: every line of `response` or `expression`. Columns `name`, `depmap_id`, `cosmic_id`, `patient_id`
        and `disease`, `''` where unknown, and `tissue`, one of `sc_drugresp.names.LINEAGES` or `None`. Lines that
        share a `patient_id` come from one patient.
    sources
        File name to SHA-256 of every file that was read.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> screen = sdr.datasets.screen("gdsc2", accept_terms=True)  # doctest: +SKIP
    >>> screen.match("tarceva")  # doctest: +SKIP
    'Erlotinib'
    """

    name: str
    release: str
    licence: str
    citation: str
    expression: pd.DataFrame
    expression_kind: str
    response: pd.DataFrame
    response_kind: str
    drugs: pd.DataFrame
    lines: pd.DataFrame
    sources: Mapping[str, str] = field(default_factory=dict)

    @checked
    def match(self, drug: str) -> str:
        """Name of a drug in this screen, from a generic name, brand or code; see `sc_drugresp.names.match_drug`."""
        from ..names import match_drug

        return match_drug(drug, self.drugs)

    def __repr__(self) -> str:
        both = len(set(self.response["line"]) & set(self.expression.index))
        return (
            f"Screen {self.name} ({self.release}): {len(self.response):,} pairs ({self.response_kind}) of "
            f"{self.response['line'].nunique():,} lines and {len(self.drugs):,} drugs; {both:,} of the lines with "
            f"{self.expression.shape[1]:,} genes ({self.expression_kind})"
        )


DRUG_COLUMNS = ("targets", "pathway", "synonyms")
LINE_COLUMNS = ("name", "depmap_id", "cosmic_id", "patient_id", "disease", "tissue")


def average_pairs(response: pd.DataFrame) -> pd.DataFrame:
    """One row per line and drug: the mean of what was measured; rows without line, drug or value are left out.

    Spellings of a drug that differ in case and punctuation alone are one drug, under the most frequent spelling.
    """
    import numpy as np

    kept = response.loc[:, ["line", "drug", "value"]].replace([np.inf, -np.inf], np.nan).dropna()
    kept = kept[(kept["line"] != "") & (kept["drug"] != "")]
    spelling = kept["drug"].value_counts()
    best: dict[str, str] = {}
    for drug in sorted(spelling.index, key=lambda drug: (-spelling[drug], drug)):
        best.setdefault(drug_key(drug), drug)
    drugs = {drug: best[drug_key(drug)] for drug in spelling.index}
    kept = kept.assign(drug=kept["drug"].map(drugs), value=kept["value"].astype("float64"))
    return kept.groupby(["line", "drug"], sort=True)["value"].mean().reset_index()
