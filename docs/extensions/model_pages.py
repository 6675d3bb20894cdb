"""Write one page per foundation model, and their overview, from the registry."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

    from sc_drugresp.models._spec import Checkpoint, ModelSpec, RemoteFile


COMMERCIAL = {
    True: "commercial use allowed",
    False: "**not for commercial use**",
    None: "**commercial use: not stated, ask the publisher**",
}


KINDS = {
    "encoder": "foundation model",
    "baseline": "baseline, fitted to the data (anew in every fold)",
    "student": "made by {func}`sc_drugresp.models.distill` from another model, see {doc}`/explanation/students`",
}


def write_pages(app: Sphinx) -> None:
    """Write `models/<name>.md` and `models/index.md`; a page is touched only when it changes."""
    from sc_drugresp.models._registry import registry

    folder = Path(app.srcdir) / "models"
    folder.mkdir(exist_ok=True)
    rows = list(registry().values())
    pages = {f"{spec.name}.md": page(spec) for spec in rows}
    pages["index.md"] = index(rows)
    for old in set(folder.glob("*.md")) - {folder / name for name in pages}:
        old.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def index(rows: list[ModelSpec]) -> str:
    """Overview of all models."""
    ordered = sorted(rows, key=lambda spec: (spec.kind != "encoder", spec.name))
    lines = [
        "# Models",
        "",
        "{func}`sc_drugresp.tl.embed`, {func}`sc_drugresp.tl.train_response` and {func}`sc_drugresp.tl.evaluate` take these",
        "models by name, with or without the name of a checkpoint (`scgpt`, `scgpt.pan-cancer`).",
        "{func}`sc_drugresp.models.table` returns all checkpoints as a data frame. These pages are generated from the",
        "registry that the code reads. Weights are never shipped: they are downloaded from their publishers and verified",
        "wherever a size or checksum is known, or read from a folder.",
        "",
        "| model | kind | genes | size of the embedding | what it is |",
        "|---|---|---|---|---|",
        *(f"| [{s.title}]({s.name}.md) | {s.kind} | {s.genes} | {width(s)} | {s.summary} |" for s in ordered),
        "",
        "```{toctree}",
        ":hidden:",
        "",
        *(spec.name for spec in ordered),
        "```",
        "",
    ]
    return "\n".join(lines)


def width(spec: ModelSpec) -> str:
    """The dimension, or the range over the checkpoints."""
    if spec.saved:
        return "that of its teacher"
    sizes = sorted({c.dim for c in spec.checkpoints.values()} or {spec.dim})
    return "chosen by the user" if sizes == [0] else " to ".join(str(n) for n in {sizes[0]: 0, sizes[-1]: 0})


def page(spec: ModelSpec) -> str:
    """Page of one model: facts, strengths, limitations, checkpoints, files, use."""
    cite = f" {{cite:p}}`{spec.reference}`" if spec.reference else ""
    own = "_<teacher>" if spec.saved else ""
    facts = {
        "name": f"`{spec.name}`",
        "kind": KINDS[spec.kind],
        "genes": {"symbol": "symbols", "ensembl": "Ensembl ids", "any": "as they are"}[spec.genes],
        "expects": {"counts": "raw counts", "any": "counts or any other values"}[spec.expects],
        "the embedding of a cell depends on": "the set of cells embedded together"
        if spec.set_based
        else "that cell alone",
        "writes": f"`.obsm['X_{spec.slot}{own}']`, `.uns['{spec.slot}{own}']`",
        "license of the original code": spec.code_license or "ours, BSD-3-Clause",
    }
    if spec.extra:
        facts["needs"] = f"`pip install 'sc-drugresp[{spec.extra}]'`"
    lines = [f"# {spec.title}", "", f"{spec.summary}{cite}", "", "| property | value |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in facts.items()]
    for title, items in (("Strengths", spec.strengths), ("Limitations", spec.limitations)):
        if items:
            lines += ["", f"## {title}", "", *(f"- {item}" for item in items)]
    lines += ["", "## Use", "", "```python", "import sc_drugresp as sdr", "", *use(spec), "```"]
    lines += [] if spec.saved else options(spec)
    if spec.checkpoints:
        lines += ["", "## Checkpoints", ""]
        for checkpoint in spec.checkpoints.values():
            lines += section(spec, checkpoint)
    return "\n".join([*lines, ""])


def use(spec: ModelSpec) -> list[str]:
    """Lines of the example."""
    if spec.saved:
        return [
            'student = sdr.models.distill("scgpt", adata, group_key="patient")',
            'student.save("my/student")',
            f'sdr.tl.embed(adata, "{spec.name}", checkpoint="my/student")',
        ]
    if not spec.checkpoints:
        return [f'sdr.tl.embed(adata, "{spec.name}")']
    return [
        "# Download missing files on first use",
        f'sdr.tl.embed(adata, "{spec.name}")',
        "# Or take the files listed below from a folder",
        f'sdr.tl.embed(adata, "{spec.name}", checkpoint="my/folder")',
    ]


def options(spec: ModelSpec) -> list[str]:
    """Table of the options, from the docstring of the `Config` or of the baseline."""
    from numpydoc.docscrape import NumpyDocString

    module, _, name = spec.target.partition(":")
    model = getattr(import_module(module, "sc_drugresp.models"), name)
    config = getattr(model, "Config", model)
    defaults = {p.name: p.default for p in inspect.signature(config).parameters.values()}
    rows = []
    for entry in NumpyDocString(inspect.getdoc(config) or "")["Parameters"]:
        names = [option.strip() for option in entry.name.split(",")]
        if not set(names) <= defaults.keys():
            msg = f"{config.__name__} documents options that it does not have: {names}"
            raise ValueError(msg)
        shown = ", ".join(f"`{option}`" for option in names)
        values = ", ".join(f"`{defaults[option]!r}`" for option in names)
        rows.append(f"| {shown} | {values} | {' '.join(entry.desc)} |")
    if not rows:
        return []
    intro = "Keyword arguments of {func}`sc_drugresp.tl.embed` and {func}`sc_drugresp.models.load`."
    if spec.checkpoints:
        intro += " Sizes of the network belong to the checkpoint."
    return ["", "## Options", "", intro, "", "| option | default | meaning |", "|---|---|---|", *rows]


def section(spec: ModelSpec, checkpoint: Checkpoint) -> list[str]:
    """A checkpoint: facts and files."""
    default = " (default)" if checkpoint.tag == spec.default else ""
    facts: dict[str, Any] = {
        "species": ", ".join(checkpoint.species),
        "size of the embedding": checkpoint.dim,
        "parameters": f"{checkpoint.parameters:,}" if checkpoint.parameters else None,
        "compute per cell": f"{checkpoint.gflop_per_cell:g} GFLOP" if checkpoint.gflop_per_cell else None,
        "publisher": checkpoint.publisher,
        "license of the weights": f"{checkpoint.license} ({COMMERCIAL[checkpoint.commercial]})",
        "download": f"{checkpoint.download_bytes / 1e9:.2g} GB" if checkpoint.download_bytes else "size not published",
    }
    lines = [
        f"### `{spec.name}.{checkpoint.tag}`{default}",
        "",
        checkpoint.description,
        "",
        "| property | value |",
        "|---|---|",
    ]
    lines += [f"| {key} | {value} |" for key, value in facts.items() if value]
    lines += ["", "| file | bytes | SHA-256 | where |", "|---|---|---|---|"]
    lines += [file_row(file) for file in checkpoint.files.values()]
    return [*lines, ""]


def file_row(file: RemoteFile) -> str:
    """A file: name, size, start of the checksum, source."""
    size = f"{file.bytes:,}" if file.bytes else f"about {file.about_bytes:,}" if file.about_bytes else "?"
    digest = f"`{file.sha256[:16]}…`" if file.sha256 else "not published"
    where = file.manual or "<br>".join(f"`{url}`" for url in file.urls) or "ask the publisher"
    optional = " (optional)" if file.optional else ""
    return f"| `{file.path}`{optional} | {size} | {digest} | {where} |"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("builder-inited", write_pages, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
