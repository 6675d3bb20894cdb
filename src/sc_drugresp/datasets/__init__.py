"""Data sets: a generator whose truth is known, and public accessions fetched on demand."""

from __future__ import annotations

from ._fetch import available, load
from ._toy import toy

__all__ = ["available", "load", "toy"]
