"""Gene names as arrays: packaged tables, aliases, orthologs, and how names resolve to genes."""

from __future__ import annotations

from ._aliases import Aliases, fetch_file, load_aliases, read_hgnc, read_orthologs
from ._match import gene_groups, match
from ._resolve import STATUSES, Resolution, resolve
from ._table import GeneTable, gene_table, provenance

__all__ = [
    "Aliases",
    "GeneTable",
    "Resolution",
    "STATUSES",
    "fetch_file",
    "gene_groups",
    "gene_table",
    "load_aliases",
    "match",
    "provenance",
    "read_hgnc",
    "read_orthologs",
    "resolve",
]
