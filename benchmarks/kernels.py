"""Cells per second of every kernel that makes tokens, on one and on two threads.

    python benchmarks/kernels.py                  # writes docs/benchmarks/kernels.md, .json and a figure
    python benchmarks/kernels.py --quick          # prints only

All are timed in turns in one run. What two threads can reach at this moment is told by two processes: while other programs
run, less than two cores are free. The *share* is what two threads reach of what two processes reach.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

# A neighbor of this file, coverage.py, must not be taken for the package of that name; others are found from the folder above.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
sys.path.append(str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from benchmarks._page import PAGES, publish, spread, table

from sc_drugresp._data.bin_kernels import keep_smallest, quantile_bins
from sc_drugresp._data.kernels import cell_streams, entry_uniforms, restrict_rows
from sc_drugresp._data.product_kernels import weighted_rows
from sc_drugresp._data.rank_kernels import rank_by_value, top_counts
from sc_drugresp._data.sentence_kernels import assemble_sentences, draw_genes, shuffle_chromosomes

if TYPE_CHECKING:
    from collections.abc import Callable

N_GENES = 20_000


def kernels(n_cells: int) -> dict[str, Callable[[], Any]]:
    """Every kernel, on cells that express 1,500 to 3,000 genes."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1_500, 3_001, n_cells)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.concatenate([np.sort(rng.choice(N_GENES, n, replace=False)) for n in lengths]).astype(np.int32)
    counts = (1 + rng.negative_binomial(0.7, 0.2, len(ids))).astype(np.float32)
    totals = np.add.reduceat(counts, indptr[:-1]).astype(float)
    place, uniforms, scale = rng.permutation(N_GENES).astype(np.int32), rng.random(len(ids)), rng.random(N_GENES)
    chromosome, position = rng.integers(0, 24, N_GENES), rng.permutation(N_GENES)
    streams = cell_streams(indptr, ids, counts, 0)
    drawn = draw_genes(indptr, ids, counts, streams, 1_024)
    order = shuffle_chromosomes(drawn, 0, chromosome, streams)
    gene_table = rng.random((N_GENES, 1_024)).astype(np.float32)
    none = (np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int32))
    return {
        "match genes": lambda: restrict_rows(indptr, ids, counts, place, N_GENES),
        "random streams": lambda: cell_streams(indptr, ids, counts, 0),
        "random numbers": lambda: entry_uniforms(indptr, ids, streams, 1),
        "bin": lambda: quantile_bins(indptr, counts, uniforms, 51),
        "choose entries": lambda: keep_smallest(indptr, uniforms, 1_200),
        "rank": lambda: rank_by_value(indptr, ids, counts, totals, scale, 2_048, True),
        "rank counts": lambda: top_counts(indptr, ids, counts, *none, N_GENES, 1, 2, 62),
        "sentence: draw": lambda: draw_genes(indptr, ids, counts, streams, 1_024),
        "sentence: shuffle": lambda: shuffle_chromosomes(drawn, 0, chromosome, streams),
        "sentence: assemble": lambda: assemble_sentences(drawn, order, 0, chromosome, position, (1, 2, 3), 1_536),
        "product, 1,024 wide": lambda: weighted_rows(indptr, ids, counts, gene_table, threads=torch.get_num_threads()),
    }


def serve(n_cells: int) -> None:
    """Run the kernel that a line names, on one thread, and answer with the time it was done."""
    torch.set_num_threads(1)
    known = kernels(n_cells)
    for kernel in known.values():
        kernel()
    print("ready", flush=True)
    for line in sys.stdin:
        known[line.strip()]()
        print("done", flush=True)


def measure(n_cells: int, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each kernel on one thread, on two, and in two processes with half of the cells each."""
    command = [sys.executable, "-W", "ignore", __file__, "--serve", str(n_cells // 2)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    halves = [subprocess.Popen(command, **pipes) for _ in range(2)]
    known = kernels(n_cells)
    found: dict[str, dict[str, list[float]]] = {name: {"one": [], "two": [], "processes": []} for name in known}

    def both(name: str) -> None:
        for half in halves:
            half.stdin.write(f"{name}\n")
            half.stdin.flush()
        for half in halves:
            half.stdout.readline()

    try:
        for half in halves:
            half.stdout.readline()
        for round_ in range(-1, repeats):
            for name, kernel in known.items():
                for way in ("one", "two", "processes"):
                    torch.set_num_threads(2 if way == "two" else 1)
                    start = time.perf_counter()
                    both(name) if way == "processes" else kernel()
                    if round_ >= 0:
                        found[name][way].append(time.perf_counter() - start)
    finally:
        for half in halves:
            half.stdin.close()
            half.wait()
    return found


def page(found: dict[str, dict[str, list[float]]], n_cells: int) -> str:
    """The results as Markdown."""
    rows = []
    for name, ways in found.items():
        one, two, processes = (np.array(ways[way]) for way in ("one", "two", "processes"))
        rows.append(
            [
                name,
                f"{n_cells / np.median(one):,.0f}",
                f"{n_cells / np.median(two):,.0f}",
                spread(one / two),
                spread(one / processes),
                f"{np.median(processes / two):.0%}",
            ]
        )
    header = ["kernel", "cells/s, one thread", "two threads", "ratio", "two processes", "share"]
    return (
        "# Speed of the kernels\n\n"
        f"Cells that express 1,500 to 3,000 of {N_GENES:,} genes, {n_cells:,} at once. Medians of {len(next(iter(found.values()))['one'])} "
        "rounds in which all ways take turns, with the middle 80 % of the ratios. *Two processes* that share the cells tell what two "
        "cores give at that moment; *share* is what two threads reach of it. The numbers that are computed are the same to the last "
        f"bit.\n\n{table(header, rows)}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=2_048)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--quick", action="store_true", help="few cells, and nothing is written")
    parser.add_argument("--output", type=Path, default=PAGES / "kernels.md")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve)
        return
    n_cells, repeats = (512, 3) if arguments.quick else (arguments.cells, arguments.repeats)
    found = measure(n_cells, repeats)
    text = page(found, n_cells)
    print(text)
    if arguments.quick:
        return

    def paint(axes: Any) -> None:
        at = np.arange(len(found))
        for shift, way, label in ((-0.2, "one", "one thread"), (0.2, "two", "two threads")):
            axes.barh(at + shift, [n_cells / np.median(ways[way]) for ways in found.values()], 0.4, label=label)
        axes.set(yticks=at, yticklabels=list(found), xscale="log", xlabel="cells/s")
        axes.invert_yaxis()

    publish(arguments.output, text, {"cells": n_cells, "seconds": found}, figures={"Cells per second": paint})


if __name__ == "__main__":
    main()
