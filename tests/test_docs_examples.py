"""The Python blocks of the README and of the pages that users read first are executed, page by page, on toy data.

A block that needs files or weights is marked by `<!-- not run: reason -->` on the line before it; it must still be valid
Python that calls functions and arguments that exist.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

import sc_drugresp as sdr

ROOT = Path(__file__).resolve().parents[1]
README, QUICKSTART = ROOT / "README.md", ROOT / "docs" / "quickstart.md"


def pages(*files: Path) -> list[str]:
    """Paths below the repository; a source distribution holds only the README."""
    return [path.relative_to(ROOT).as_posix() for path in files if path.is_file()]


RUN = pages(
    README,
    QUICKSTART,
    *(page for folder in ("how_to", "explanation") for page in sorted((ROOT / "docs" / folder).glob("*.md"))),
)
ALL = [
    *RUN,
    *pages(
        ROOT / "docs" / "index.md", ROOT / "docs" / "installation.md", *sorted((ROOT / "docs" / "api").glob("*.md"))
    ),
]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>.+?) -->\n\s*)?^(?P<indent> *)```python\n(?P<code>.*?)^ *```$", re.M | re.S
)


class Block(NamedTuple):
    line: int
    code: str
    reason: str | None


def blocks(page: str) -> list[Block]:
    """Python blocks of a page, with the number of their first line."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = BLOCK.finditer(text)
    return [
        Block(text.count("\n", 0, match.start("code")) + 1, textwrap.dedent(match["code"]), match["reason"])
        for match in found
    ]


def toy():
    """An object with the columns that the pages name."""
    adata = sdr.datasets.toy(n_samples=8, cells_per_sample=20, n_genes=100)
    adata.obs["best_response"] = adata.obs["response"].map({"sensitive": "PR", "resistant": "SD"}).astype(str)
    adata.obs["outcome"] = (adata.obs["response"] == "sensitive").astype(int)
    return adata


@pytest.mark.parametrize("page", RUN)
def test_blocks_run(page, tmp_path, monkeypatch):
    from matplotlib import pyplot as plt

    monkeypatch.chdir(tmp_path)
    names = {"sdr": sdr, "adata": toy()}
    for block in blocks(page):
        if block.reason is None:
            code = "\n" * (block.line - 1) + block.code
            exec(compile(code, page, "exec"), names)  # noqa: S102 (our own pages)
    plt.close("all")


def test_most_blocks_run():
    if not QUICKSTART.is_file():
        pytest.skip("the documentation is not part of this installation")
    found = [block for page in RUN for block in blocks(page)]
    assert len(found) > 15
    assert sum(block.reason is None for block in found) >= 12


def calls(code: str) -> list[tuple[str, ast.Call]]:
    """Calls of the package in a block, by dotted name."""
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    return [(name, node) for node in nodes if (name := ast.unparse(node.func)).startswith("sdr.")]


@pytest.mark.parametrize("page", ALL)
def test_names_and_arguments_exist(page):
    for block in blocks(page):
        for name, call in calls(block.code):
            function = sdr
            for part in name.split(".")[1:]:
                function = getattr(function, part)
            keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
            inspect.signature(function).bind(*call.args, **keywords)


@pytest.mark.parametrize("page", ALL)
def test_names_in_prose_exist(page):
    """`sdr.<module>.<name>` and the targets of {func}, {class} and {meth}."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"\bsdr\.([\w.]+\w)", text) + re.findall(r"`~?sc_drugresp\.([\w.]+)`", text)
    for name in found:
        thing = sdr
        for part in name.split("."):
            thing = getattr(thing, part)
