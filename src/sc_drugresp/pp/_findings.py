"""The list of findings that `check` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["error", "warning", "info"]
COLUMNS = ("code", "severity", "subject", "message", "fix")
_ORDER = ("error", "warning", "info")


class Findings:
    """Findings in the order in which they were made."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, str, str]] = []

    def add(self, code: str, severity: Severity, subject: str, message: str, fix: str = "") -> None:
        """Add one finding."""
        self.rows.append((code, severity, subject, message, fix))

    def frame(self) -> pd.DataFrame:
        """All findings, errors first."""
        import pandas as pd

        rows = sorted(self.rows, key=lambda row: _ORDER.index(row[1]))
        return pd.DataFrame(rows, columns=list(COLUMNS)).astype(str)
