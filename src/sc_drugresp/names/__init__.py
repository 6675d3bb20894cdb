"""Names of drugs, cell lines and tissues, and what they mean: tables of the package and rules to compare spellings."""

from __future__ import annotations

from ._drugs import drug_key, is_combination, known_names, match_drug
from ._lines import line_key
from ._tissues import LINEAGES, check_lineage, lineage_of, lineages_agree

__all__ = [
    "LINEAGES",
    "check_lineage",
    "drug_key",
    "is_combination",
    "known_names",
    "line_key",
    "lineage_of",
    "lineages_agree",
    "match_drug",
]
