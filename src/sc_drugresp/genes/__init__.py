"""Gene names as arrays: packaged tables, aliases, orthologs, and how names resolve to genes."""

from __future__ import annotations

from ._aliases import Aliases, fetch_file, load_aliases
from ._match import gene_groups, match
from ._resolve import Resolution, resolve
from ._table import gene_table

__all__ = ["Aliases", "Resolution", "fetch_file", "gene_groups", "gene_table", "load_aliases", "match", "resolve"]
