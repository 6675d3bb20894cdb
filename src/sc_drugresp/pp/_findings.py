"""The list of findings that `check` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("code", "severity", "subject", "message", "fix")
SEVERITIES = ("error", "warning", "info")


class Findings:
    """Findings in the order in which they were made.

    `error`, `warning` and `info` add one: its stable code, what it is about, what was found, and what to do.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str, str, str]] = []

    def error(self, code: str, subject: str, message: str, fix: str) -> None:
        """Work will fail, or its result will be worthless."""
        self._rows.append((code, "error", subject, message, fix))

    def warning(self, code: str, subject: str, message: str, fix: str) -> None:
        """Results may mislead."""
        self._rows.append((code, "warning", subject, message, fix))

    def info(self, code: str, subject: str, message: str, fix: str = "") -> None:
        """Good to know."""
        self._rows.append((code, "info", subject, message, fix))

    def coverage(self, code: str, subject: str, share: float, limits: tuple[float, float], message: str) -> None:
        """A share of the counts, judged by the limits below which it deserves a warning and an error."""
        fix = "Run pp.harmonize_genes, with gene_key= for a column that holds other identifiers."
        warn_below, fail_below = limits
        if share >= warn_below:
            self.info(code, subject, message)
        elif share >= fail_below:
            self.warning(code, subject, message, fix)
        else:
            self.error(code, subject, message, fix)

    def frame(self) -> pd.DataFrame:
        """All findings, errors first."""
        import pandas as pd

        rows = sorted(self._rows, key=lambda row: SEVERITIES.index(row[1]))
        return pd.DataFrame(rows, columns=list(COLUMNS)).astype(str)
