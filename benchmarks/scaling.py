"""Cells per second against the length of a cell and the number of cells, and memory against the number of cells.

    python benchmarks/scaling.py                              # scGPT, tGPT and CellPLM, one and two threads
    python benchmarks/scaling.py --models scgpt --threads 1
    python benchmarks/scaling.py --quick                      # few points, prints only

Published sizes, random weights, on the CPU. Every point is timed in a process of its own, and the numbers of threads take
turns. The estimate of `tl.embed(dry_run=True)` for the same cells stands beside the time that they took.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

# A neighbor of this file, coverage.py, must not be taken for the package of that name; others are found from the folder above.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks._page import PAGES, publish, table
from benchmarks.encoders import CASES, cells

GENES = (250, 500, 1_000, 2_000, 4_000)
CELLS = (16, 64, 256)
GENES_AT_CELLS = 500
FAST_CELLS = (1_000, 4_000, 16_000)
"""Numbers of cells for models that embed hundreds of them in a second."""


def measure(name: str, threads: int, n_cells: int, genes: int) -> dict[str, Any]:
    """Seconds, tokens and memory of one embedding, and what the estimate said; in a process of its own."""
    import resource

    import torch

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    import sc_drugresp as sdr
    from sc_drugresp._data.counts import read_counts
    from sc_drugresp.models._load import model_class
    from sc_drugresp.models._probe import Lengths
    from sc_drugresp.models._probe import measure as probe
    from sc_drugresp.models._registry import find

    sdr.settings.progress, sdr.settings.device, sdr.settings.verbosity = False, "cpu", 0
    case = CASES[name]
    cls = model_class(find(case.model)[0])
    encoder = cls.random(cls.Config(**case.sizes))
    adata = cells(encoder.vocab.names, n_cells, genes, genes)
    warm = adata[:2].copy()
    encoder.embed(warm, genes="exact")
    aligned = read_counts(adata).align(encoder.vocab, "exact")
    lengths = Lengths.of(encoder, aligned, 0)
    told = probe(encoder, aligned, lengths, seed=0, batch_tokens="auto", budget=2.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    encoder.embed(adata, genes="exact")
    return {
        "model": name,
        "threads": threads,
        "cells": n_cells,
        "genes": genes,
        "tokens": float(lengths.tokens.mean()),
        "seconds": time.perf_counter() - start,
        "told": told.seconds + lengths.seconds,
        "told_range": [told.low + lengths.seconds / 2, told.high + 2 * lengths.seconds],
        "memory_before_mb": before / 1e3,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def points(model: str, *, quick: bool) -> list[tuple[int, int]]:
    """Numbers of cells and of expressed genes to measure."""
    fast = CASES[model].set_size is not None
    numbers, few = (FAST_CELLS, 2_000) if fast else (CELLS, 8)
    found = [(n, GENES_AT_CELLS) for n in numbers] + [(few, n) for n in GENES]
    return [found[0], found[-3]] if quick else found


def page(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    one = {(r["model"], r["cells"], r["genes"]): r["seconds"] for r in rows if r["threads"] == 1}
    lines = []
    for r in rows:
        alone = one.get((r["model"], r["cells"], r["genes"]))
        lines.append(
            [
                r["model"],
                r["threads"],
                f"{r['cells']:,}",
                f"{r['genes']:,}",
                f"{r['tokens']:,.0f}",
                f"{r['cells'] / r['seconds']:.3g}",
                "" if alone is None or r["threads"] == 1 else f"{alone / r['seconds']:.2f}",
                f"{r['memory_mb']:,.0f}",
                f"{r['seconds']:.3g}",
                f"{r['told']:.3g} ({r['told_range'][0]:.3g} to {r['told_range'][1]:.3g})",
            ]
        )
    inside = sum(r["told_range"][0] <= r["seconds"] <= r["told_range"][1] for r in rows)
    header = [
        "model",
        "threads",
        "cells",
        "genes",
        "tokens",
        "cells/s",
        "x one thread",
        "peak memory, MB",
        "s",
        "told, s",
    ]
    return (
        "# Speed against length and number\n\n"
        "Cells per second from counts to the embedding, and the peak memory of the process, at published sizes with random weights in "
        "float32. *Told* is the estimate from a probe of two seconds, with its range, made just before; "
        f"{inside} of {len(rows)} times lie in the range.\n\n{table(header, lines)}\n"
    )


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What is drawn: a line for each model and number of threads."""

    def lines(axes: Any, x: str, y: Any, chosen: Any) -> None:
        for key in dict.fromkeys((r["model"], r["threads"]) for r in rows):
            part = sorted((r[x], y(r)) for r in rows if (r["model"], r["threads"]) == key and chosen(r))
            if part:
                axes.plot(*zip(*part, strict=True), "o-", label=f"{key[0]}, {key[1]} thread{'s' * (key[1] > 1)}")
        axes.set(xscale="log", yscale="log")

    def length(axes: Any) -> None:
        lines(axes, "genes", lambda r: r["cells"] / r["seconds"], lambda r: r["cells"] in (8, 2_000))
        axes.set(xlabel="expressed genes of a cell", ylabel="cells/s")

    def number(axes: Any) -> None:
        lines(axes, "cells", lambda r: r["cells"] / r["seconds"], lambda r: r["genes"] == GENES_AT_CELLS)
        axes.set(xlabel="cells", ylabel="cells/s")

    def memory(axes: Any) -> None:
        lines(axes, "cells", lambda r: r["memory_mb"], lambda r: r["genes"] == GENES_AT_CELLS)
        axes.set(xlabel="cells", ylabel="peak memory, MB")

    return {"Speed against length": length, "Speed against number": number, "Memory against number": memory}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", choices=list(CASES), default=["scgpt", "tgpt", "cellplm"], metavar="MODEL"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--quick", action="store_true", help="few points, and nothing is written")
    parser.add_argument("--output", type=Path, default=PAGES / "scaling.md")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        name, *numbers = arguments.worker
        print(json.dumps(measure(name, *map(int, numbers))))
        return 0
    rows = []
    for model in arguments.models:
        for n_cells, genes in points(model, quick=arguments.quick):
            for threads in arguments.threads:
                command = [sys.executable, "-P", __file__, "--worker", model, str(threads), str(n_cells), str(genes)]
                environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
                run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                rows.append(json.loads(run.stdout.splitlines()[-1]))
                print(rows[-1], file=sys.stderr, flush=True)
    text = page(rows)
    print(text)
    if not arguments.quick:
        publish(arguments.output, text, rows, figures=figures(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
