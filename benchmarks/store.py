"""Embedding into a store: peak memory against the number of cells, tokenizing ahead, and what a kill costs.

Writes synthetic counts (20,000 genes, about 450 of them expressed in a cell) to disk and embeds them with a small random
tGPT, each time in a process of its own:

- in memory and into a store, at several numbers of cells: cells/s and peak memory;
- into a store with the next block read in another thread and without, alternating, several times;
- into a store with a SIGKILL in the middle and a second call, against one call; and a call that finds everything done.

    python benchmarks/store.py                       # 100,000 and 300,000 cells
    python benchmarks/store.py --quick               # 4,000 and 8,000
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# A neighbor of this file, coverage.py, must not be taken for the package of that name.
HERE = Path(__file__).resolve().parent
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != HERE]

import numpy as np

GENES = 20_000


def call(path: Path, out: Path | None) -> None:
    """The call that is measured."""
    import warnings

    import sc_drugresp as sdr

    warnings.simplefilter("ignore")
    sdr.tl.embed(path, "tgpt", out=out)


def worker(path: Path, out: Path | None, *, ahead: bool, small: Path) -> dict[str, float]:
    """Seconds and peak memory of a call, after a small one has loaded and compiled everything."""
    from sc_drugresp._embed import run
    from sc_drugresp._response.recipe import Recipe
    from sc_drugresp.models.tgpt import TGPT

    config = TGPT.Config(dim=32, heads=2, layers=2, ffn_dim=64, vocab_size=GENES + 4)
    encoder = TGPT.random(config)
    encoder.name = "tgpt"
    Recipe.load = lambda self: encoder
    if not ahead:
        run.ahead = iter
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        call(small, None if out is None else Path(folder) / "warm.zarr")
    before = peak()
    print("ready", flush=True)
    start = time.perf_counter()
    call(path, out)
    return {"seconds": time.perf_counter() - start, "before_mb": before, "peak_mb": peak()}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def command(path: Path, out: Path | None, *, ahead: bool, small: Path) -> list[str]:
    words = [sys.executable, __file__, "--worker", str(path), "--small", str(small)]
    return words + (["--into", str(out)] if out else []) + ([] if ahead else ["--one-thread"])


def measure(path: Path, out: Path | None, *, small: Path, ahead: bool = True) -> dict[str, float]:
    if out is not None:
        shutil.rmtree(out, ignore_errors=True)
    return again(path, out, small=small, ahead=ahead)


def again(path: Path, out: Path | None, *, small: Path, ahead: bool = True) -> dict[str, float]:
    """Without removing what is there."""
    done = subprocess.run(command(path, out, ahead=ahead, small=small), check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def kill_half_way(path: Path, out: Path, seconds: float, small: Path) -> float:
    """Start, kill after this time, and return how long it ran."""
    shutil.rmtree(out, ignore_errors=True)
    with subprocess.Popen(command(path, out, ahead=True, small=small), stdout=subprocess.PIPE, text=True) as process:
        next(iter(process.stdout or ()), None)
        start = time.perf_counter()
        time.sleep(seconds)
        process.kill()
        return time.perf_counter() - start


def spread(values: list[float]) -> str:
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def write_counts(path: Path, n_cells: int) -> float:
    """As for the page on memory."""
    spec = importlib.util.spec_from_file_location("memory", HERE / "memory.py")
    memory = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(memory)
    return memory.write(path, n_cells, GENES)


def run_all(cells: list[int], repeats: int, rounds_of: int, folder: Path) -> list[str]:
    small, out = folder / "small.h5ad", folder / "run.zarr"
    write_counts(small, 300)
    table = [
        "| cells | matrix, MB | embedding, MB | where to | cells/s | peak before, MB | peak, MB |",
        "|---" * 7 + "|",
    ]
    path = folder / "rounds.h5ad"
    write_counts(path, rounds_of)
    speeds = ratios(path, out, small, rounds_of, repeats)
    for n in cells:
        path = folder / f"{n}.h5ad"
        size = write_counts(path, n) * 1e3
        for name, target in (("memory", None), ("store", out)):
            found = measure(path, target, small=small)
            row = [f"{n:,}", f"{size:.0f}", f"{n * 32 * 4 / 1e6:.0f}", name, f"{n / found['seconds']:,.0f}"]
            table.append("| " + " | ".join([*row, f"{found['before_mb']:.0f}", f"{found['peak_mb']:.0f}"]) + " |")
            print(table[-1], flush=True)
        path.unlink()
    return [*table, "", *speeds]


def ratios(path: Path, out: Path, small: Path, n: int, repeats: int) -> list[str]:
    """Ratios of times that alternate in one run."""
    ahead, killed, idle, plain = [], [], [], []
    for _ in range(repeats):
        one = measure(path, out, small=small, ahead=False)["seconds"]
        two = measure(path, out, small=small)["seconds"]
        idle.append(again(path, out, small=small)["seconds"])
        plain.append(two / measure(path, None, small=small)["seconds"])
        ahead.append(one / two)
        part = kill_half_way(path, out, two / 2, small)
        killed.append((part + again(path, out, small=small)["seconds"]) / two)
        print(ahead[-1], killed[-1], idle[-1], plain[-1], flush=True)
    return [
        f"{n:,} cells, {repeats} rounds, median (least to most):",
        "",
        f"- time without reading ahead, relative to that with it: {spread(ahead)}",
        f"- time into a store, relative to that in memory: {spread(plain)}",
        f"- time of a call killed half-way and of the next one, relative to one call: {spread(killed)}",
        f"- a call that finds everything done: {spread(idle)} s",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[100_000, 300_000])
    parser.add_argument("--repeats", type=int, default=3, help="rounds of what is compared")
    parser.add_argument("--rounds-of", type=int, default=20_000, help="cells in these rounds")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that it works")
    parser.add_argument("--folder", type=Path, help="where the counts are written (default: a temporary folder)")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    for name in ("--worker", "--small", "--into"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one-thread", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(worker(args.worker, args.into, ahead=not args.one_thread, small=args.small)))
        return
    if args.quick:
        args.cells, args.rounds_of, args.repeats = [4_000, 8_000], 4_000, 1
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        lines = run_all(args.cells, args.repeats, args.rounds_of, Path(folder))
    print("\n".join(lines))
    if args.out:
        cells = " ".join(map(str, args.cells))
        machine = f"{os.cpu_count()} cores of {platform.machine()}, {platform.system()}"
        text = (
            "# Runs into a store\n\nEmbedding counts on disk (20,000 genes, about 450 expressed in a cell) with a small random "
            "tGPT (2 layers of width 32), in blocks of 2,048 cells, each call in a process of its own. `peak before` is what "
            "libraries and a call on 300 cells took. With such a small network, reading, tokenizing and writing weigh more "
            "than they do with a published one.\n\n"
        )
        text += "\n".join(lines)
        text += f"\n\nMachine: {machine}. Command: `python benchmarks/store.py --cells {cells} --out docs/benchmarks/store.md`\n"
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
