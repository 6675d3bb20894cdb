"""Cells per second, numerical error and memory of every foundation model at its published size on a GPU.

    python benchmarks/gpu.py                          # all models on the GPU; writes docs/benchmarks/gpu.md
    python benchmarks/gpu.py --models scgpt --device cpu --output somewhere.md

float32 and bfloat16 take turns on the same cells with random weights. The error is that against float32 on the CPU for a few
of the cells, relative to the largest value; *cosine* is the worst after centering.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

# A neighbor of this file, coverage.py, must not be taken for the package of that name; others are found from the folder above.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks._page import PAGES, publish, table
from benchmarks.encoders import CASES, WORKLOADS, cells

PAGE = PAGES / "gpu.md"
PRECISIONS = ("float32", "bfloat16")


def measure(name: str, device: str, n_cells: int, repeats: int, sizes: dict[str, Any] | None = None) -> dict[str, Any]:
    """One model: cells per second and peak memory in each precision, and what rounding does to a few cells."""
    import numpy as np
    import torch

    import sc_drugresp as sdr
    from sc_drugresp.models._load import model_class
    from sc_drugresp.models._registry import find

    case = CASES[name]
    cls = model_class(find(case.model)[0])
    encoder = cls.random(cls.Config(**(case.sizes if sizes is None else sizes)))
    tokens = encoder.tokenize(
        cells(encoder.vocab.names, case.set_size or n_cells, *WORKLOADS["typical"]), genes="exact"
    )
    few = tokens if case.set_size else tokens.take(range(min(8, len(tokens))))
    with sdr.settings.override(device="cpu", progress=False):
        exact = encoder.embed_tokens(few).astype(float)
    scale, centered = np.abs(exact).max(), exact - exact.mean(0)
    encoder.to(device)
    seconds: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    out: dict[str, Any] = {"model": name, "cells": len(tokens), "tokens": float(encoder.sizes(tokens).mean())}
    for turn in range(repeats + 1):  # the first warms up
        for precision in PRECISIONS:
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            encoder.embed_tokens(tokens, precision=precision)  # ends with a copy to the CPU, which waits for the GPU
            if turn:
                seconds[precision].append(time.perf_counter() - start)
            if torch.cuda.is_available():
                out[f"{precision}_gb"] = torch.cuda.max_memory_allocated() / 1e9
    for precision in PRECISIONS:
        found = encoder.embed_tokens(few, precision=precision).astype(float)
        other = found - found.mean(0)
        norms = np.linalg.norm(centered, axis=1) * np.linalg.norm(other, axis=1)
        rates = [len(tokens) / s for s in seconds[precision]]
        out[precision] = {
            "cells_per_s": statistics.median(rates),
            "low": min(rates),
            "high": max(rates),
            "error": float(np.abs(found - exact).max() / scale),
            "cosine": float(((centered * other).sum(1) / np.maximum(norms, 1e-30)).min()),
        }
    return out


def page(results: list[dict[str, Any]], device: str) -> str:
    """The results as Markdown."""
    rows = []
    for r in results:
        for precision in PRECISIONS:
            p, memory = r[precision], r.get(f"{precision}_gb")
            rows.append(
                [
                    r["model"],
                    precision,
                    f"{r['tokens']:,.0f}",
                    f"{p['cells_per_s']:.3g} ({p['low']:.3g}-{p['high']:.3g})",
                    f"{p['error']:.0e}",
                    f"{p['cosine']:.5f}",
                    "" if memory is None else f"{memory:.1f}",
                ]
            )
    header = ["model", "precision", "tokens", "cells/s", "error", "cosine", "peak memory, GB"]
    return "\n".join(
        [f"# Speed on {device!r}", "", *(__doc__ or "").split("\n\n")[-1].splitlines(), "", table(header, rows)]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES), metavar="MODEL")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--cells", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=PAGE)
    arguments = parser.parse_args()
    import sc_drugresp as sdr
    from sc_drugresp._core.device import resolve_device

    sdr.settings.device, sdr.settings.progress, sdr.settings.verbosity = arguments.device, False, 0
    resolve_device()  # without this device there is nothing to measure
    results = []
    for name in arguments.models:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        results.append(measure(name, arguments.device, arguments.cells, arguments.repeats))
    text = page(results, arguments.device)
    print(text)
    publish(arguments.output, text, results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
