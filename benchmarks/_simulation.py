"""What the simulations of coverage.py share: streams, made-up samples, and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Table = list[dict[str, object]]


def seeds(n: int, label: int) -> Iterator[np.random.Generator]:
    """Independent streams, other ones for each table and setting."""
    for child in np.random.SeedSequence([2026, label]).spawn(n):
        yield np.random.default_rng(child)


def rate(hits: list[float] | np.ndarray) -> str:
    """Mean with its Monte-Carlo standard error."""
    values = np.asarray(hits, dtype=float)
    return f"{values.mean():.3f} ± {values.std(ddof=1) / np.sqrt(len(values)):.3f}"


def scores(n_samples: int, rng: np.random.Generator, *, between: float, gap: float = 2.0, cells: int = 50):
    """Held-out logits: samples vary around their class (SD `between`), cells around their sample (SD 1)."""
    label = np.arange(n_samples) % 2
    groups = np.repeat(np.arange(n_samples), rng.integers(cells // 2, cells * 2, n_samples))
    center = rng.normal((label - 0.5) * gap, between)
    return rng.normal(center[groups]), label[groups], groups


def embeddings(n_samples: int, rng: np.random.Generator, *, dim=16, between=0.6, gap=1.6, cells=30):
    label = np.arange(n_samples) % 2
    groups = np.repeat(np.arange(n_samples), cells)
    X = rng.normal(0, between, (n_samples, dim))[groups] + rng.normal(size=(len(groups), dim))
    X[:, 0] += gap * (label[groups] - 0.5)
    return X, label[groups], groups


def markdown(rows: Table) -> str:
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    return "\n".join([*lines, *("| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows)])


def earlier(page: Path) -> dict[str, str]:
    """Sections of the page as it is."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    return {part.partition("\n")[0]: f"## {part.strip()}" for part in text.split("\n## ")[1:]}
