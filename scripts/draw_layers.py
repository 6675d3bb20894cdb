"""Draw the layers of the package from its imports: `python scripts/draw_layers.py` writes `docs/contributing/layers.svg`.

One row and one column for each package, from the surface down to the ground. A number says how many modules of the row
import from the column. Imports go down, so that everything lies right of the diagonal; a test compares the file with what
this script makes of the code as it is.
"""

from __future__ import annotations

import ast
from collections import Counter
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "sc_drugresp"
PICTURE = ROOT / "docs" / "contributing" / "layers.svg"
CELL, LEFT, TOP = 34, 440, 96

LAYERS: list[tuple[str, str]] = [
    ("demo", "the main job from counts to a report"),
    ("_report", "one self-contained HTML page"),
    ("pl", "plots"),
    ("get", "the numbers behind every plot"),
    ("pp", "check, harmonize, split"),
    ("tl", "one public verb per file"),
    ("_llm", "questions to language models"),
    ("_evaluate", "folds, naive baselines, leaks, tables"),
    ("_distill", "small networks for large ones"),
    ("_response", "features, heads, cross-validation, trust, tuning"),
    ("_embed", "coverage of genes, embeddings in an object"),
    ("models", "one file per model, registry, files"),
    ("_reference", "drug screens of cell lines as models"),
    ("datasets", "generator, public data, drug screens"),
    ("_design", "what a cohort allows to conclude"),
    ("_stats", "metrics, intervals, calibration, conformal sets"),
    ("_nn", "blocks of networks"),
    ("_data", "counts, tokens, kernels, columns of .obs"),
    ("genes", "gene names"),
    ("names", "names of drugs, cell lines, tissues"),
    ("_core", "slot names, settings, messages, downloads"),
]
"""Packages from the surface to the ground, and what each is for. Packages of one layer do not import each other."""


def imports(path: Path) -> set[str]:
    """Packages of ours that a module imports at run time, wherever in the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typed = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    here = ["sc_drugresp", *path.relative_to(SOURCE).parts[:-1]]
    found = set()
    for node in ast.walk(tree):
        if id(node) in typed or not isinstance(node, ast.ImportFrom):
            continue
        base = here[: len(here) - node.level + 1] if node.level else []
        for alias in node.names:
            parts = [*base, *(node.module or "").split("."), alias.name]
            parts = [part for part in parts if part]
            if parts[0] == "sc_drugresp" and len(parts) > 1:
                found.add(parts[1])
    return found


def counts() -> Counter[tuple[str, str]]:
    """How many modules of one package import from another."""
    out: Counter[tuple[str, str]] = Counter()
    for path in sorted(SOURCE.rglob("*.py")):
        own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if own != "__init__":
            out.update((own, other) for other in imports(path) if other != own)
    return out


def draw() -> str:
    """The picture as SVG."""
    names = [name for name, _ in LAYERS]
    found = counts()
    unknown = {name for pair in found for name in pair} - set(names)
    if unknown:
        msg = f"Packages without a place in LAYERS: {sorted(unknown)}."
        raise ValueError(msg)
    width, height = LEFT + CELL * len(names) + 20, TOP + CELL * len(names) + 20
    style = 'font-family="system-ui, sans-serif" font-size="13" role="img"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {style}>',
        "<title>Layers of sc_drugresp and the imports between them</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for i, (name, purpose) in enumerate(LAYERS):
        x, y = LEFT + CELL * i, TOP + CELL * i
        middle = y + CELL / 2
        lines += [
            f'<rect x="8" y="{y + 2}" width="{LEFT - 16}" height="{CELL - 4}" rx="4" fill="#f2f5f9" stroke="#c9d3df"/>',
            f'<text x="18" y="{middle + 4:g}" font-weight="600">{escape(name)}</text>',
            f'<text x="106" y="{middle + 4:g}" fill="#555">{escape(purpose)}</text>',
            f'<text transform="translate({x + CELL / 2 + 4:g} {TOP - 8}) rotate(-60)">{escape(name)}</text>',
            f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="#d9dee5"/>',
        ]
        for j, other in enumerate(names):
            if n := found[name, other]:
                left, color = LEFT + CELL * j, "#0072B2" if j > i else "#D55E00"
                lines += [
                    f'<circle cx="{left + CELL / 2:g}" cy="{middle:g}" r="13" fill="{color}"/>',
                    f'<text x="{left + CELL / 2:g}" y="{middle + 4:g}" fill="#fff" text-anchor="middle">{n}</text>',
                ]
    right, bottom = LEFT + CELL * len(names), TOP + CELL * len(names)
    for at in range(0, CELL * len(names) + 1, CELL):
        grid = f"M{LEFT} {TOP + at}H{right}M{LEFT + at} {TOP}V{bottom}"
        lines.append(f'<path d="{grid}" stroke="#e3e7ec" fill="none"/>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
