"""Speed and memory of every foundation model at its published size, with random weights, on the CPU.

    python benchmarks/encoders.py                      # all models, one thread; writes docs/benchmarks/encoders.md
    python benchmarks/encoders.py --models scgpt tgpt --quick
    python benchmarks/encoders.py --upstream DIR --checkpoints FOLDER --models scgpt

Each model runs in a process of its own. Operations are counted by PyTorch on one cell at a time, so that padding does
not count; the rate of the machine is that of a 2048 x 2048 matrix product, by torch as it comes or by oneDNN, whichever is
faster, the best of all processes. Engines and precisions take turns on the same cells in one process, so that a busy machine
slows all of them; OpenVINO is left out where it is not installed. `--upstream DIR` names a folder with the original software
and an `upstream.py`, see `benchmarks/_upstream.py`; FOLDER holds the published files of each model in a folder of its name.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A neighbor of this file, coverage.py, must not be taken for the package of that name; others are found from the folder above.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks import _upstream
from benchmarks._page import PAGES, matrix_rates, processor, publish
from benchmarks._variants import NEIGHBOR_CELLS, NEIGHBOR_GENES, compare_variants, variants_table

PAGE = PAGES / "encoders.md"


@dataclass(frozen=True)
class Case:
    """A model, and what the original software reached on one thread of a comparable machine.

    `full_genes` expressed genes give the sequence length of that measurement; `set_size` cells make a set.
    """

    model: str
    forward_floor: float
    token_floor: float | None
    full_genes: int = 4000
    sizes: dict[str, Any] = field(default_factory=dict)
    set_size: int | None = None


V1 = {
    "dim": 256,
    "heads": 4,
    "layers": 6,
    "ffn_dim": 512,
    "positions": 2048,
    "vocab_size": 25426,
    "cls_id": None,
    "eos_id": None,
    "pooling": "cell",
}
CASES = {
    "scgpt": Case("scgpt", 0.6, 400),
    "geneformer.v1-10m": Case("geneformer", 1.4, 77, 3000, V1),
    "geneformer.v2-104m": Case("geneformer", 0.11, 96, 3000),
    "tgpt": Case("tgpt", 4.8, 194, 3000),
    "uce.4l": Case("uce", 0.31, 57),
    "scfoundation": Case("scfoundation", 0.26, 60, 1200),
    "scbert": Case("scbert", 0.08, 16),
    "celllm": Case("celllm", 0.06, 143),
    "cellplm": Case("cellplm", 290, None, set_size=1000),
}
WORKLOADS = {"full": None, "typical": (1500, 3000), "mixed": (200, 6000)}


def cells(names: list[str], n_cells: int, low: int, high: int, seed: int = 0):
    """Counts of `low` to `high` expressed genes per cell (log-uniform), popular genes more often and higher."""
    import anndata as ad
    import numpy as np
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(seed)
    names = list(names)[:20_000]
    popularity = rng.normal(0, 1.5, len(names))
    expressed = np.exp(rng.uniform(np.log(low), np.log(high), n_cells)).astype(int).clip(max=len(names))
    indices, data = [], []
    for n in expressed:
        genes = np.argpartition(-(popularity + rng.gumbel(size=len(names))), n - 1)[:n]
        genes.sort()
        indices.append(genes)
        data.append(1 + rng.negative_binomial(0.7, 0.25 / (0.25 + np.exp(popularity[genes] / 2))))
    indptr = np.concatenate([[0], np.cumsum(expressed)])
    x = csr_matrix((np.concatenate(data).astype(np.float32), np.concatenate(indices), indptr), (n_cells, len(names)))
    adata = ad.AnnData(x)
    adata.var_names = names
    return adata


class Clock:
    """Seconds of this process: CPU time on one thread, which other programs hardly disturb, else wall time."""

    def __init__(self, threads: int) -> None:
        self.now = time.process_time if threads == 1 else time.perf_counter

    def best(self, action, repeats: int = 1) -> float:
        seconds = []
        for _ in range(repeats):
            start = self.now()
            action()
            seconds.append(self.now() - start)
        return min(seconds)


def count_operations(encoder, tokens) -> float:
    """Floating-point operations per cell in matrix products and attention, each cell alone (a set: together)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def attention(q, k, v, *_, **__) -> int:
        batch, heads, queries, width = q
        return 2 * batch * heads * queries * k[2] * (width + v[3])

    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    )
    with counter:
        encoder.embed_tokens(tokens, batch_tokens="auto" if encoder.set_based else 1)
    return counter.get_total_flops() / len(tokens)


def where_time_goes(encoder, tokens) -> str:
    """Shares of the operators that take most of the time of a forward pass."""
    from torch.profiler import ProfilerActivity, profile

    groups = {"linear": ("addmm", "::mm", "linear"), "bmm": ("bmm",), "attention": ("attention",)}
    with profile(activities=[ProfilerActivity.CPU]) as run:
        encoder.embed_tokens(tokens)
    shares: dict[str, float] = {}
    for event in run.key_averages():
        name = event.key.removeprefix("aten::")
        name = next((group for group, parts in groups.items() if any(p in f"::{name}" for p in parts)), name)
        shares[name] = shares.get(name, 0.0) + event.self_cpu_time_total
    total = sum(shares.values())
    best = sorted(shares.items(), key=lambda item: -item[1])[:4]
    return ", ".join(f"{name} {value / total:.0%}" for name, value in best)


def measure(name: str, threads: int, seconds: float, *, rounds: int = 3) -> dict[str, Any]:
    """Everything about one model; runs in a process of its own."""
    import torch

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    import sc_drugresp as sdr
    from sc_drugresp.models._load import model_class
    from sc_drugresp.models._registry import find

    sdr.settings.progress, sdr.settings.device, sdr.settings.verbosity = False, "cpu", 0
    case, clock = CASES[name], Clock(threads)
    cls = model_class(find(case.model)[0])
    encoder = cls.random(cls.Config(**case.sizes))
    weights = sum(tensor.numel() * tensor.element_size() for tensor in encoder.state_dict().values())
    result: dict[str, Any] = {
        "model": name,
        "weights_gb": weights / 1e9,
        "rates": matrix_rates(threads, now=clock.now),
        "workloads": {},
    }

    typical = cells(encoder.vocab.names, 512, *WORKLOADS["typical"])
    encoder.tokenize(typical[:4], genes="exact")  # compiles the kernels
    result["tokenize"] = typical.n_obs / clock.best(lambda: encoder.tokenize(typical, genes="exact"), 3)

    for workload, genes in WORKLOADS.items():
        low, high = genes or (case.full_genes, case.full_genes)
        adata = cells(encoder.vocab.names, case.set_size or 64, low, high, seed=1)
        tokens = encoder.tokenize(adata, genes="exact")
        probe = tokens if case.set_size else tokens.take([0])
        encoder.embed_tokens(probe)  # warm up
        single = clock.best(lambda probe=probe: encoder.embed_tokens(probe))
        n = (
            len(tokens)
            if case.set_size
            else min(
                len(tokens), max(1 if workload == "full" else 2 if workload == "typical" else 4, int(seconds / single))
            )
        )
        chosen = tokens.take(range(n))
        operations = count_operations(encoder, chosen)
        taken = clock.best(lambda chosen=chosen: encoder.embed_tokens(chosen))
        result["workloads"][workload] = {
            "cells": n,
            "tokens": float(encoder.sizes(chosen).mean()),
            "gflop": operations / 1e9,
            "cells_per_s": n / taken,
        }
        if workload == "typical":
            result["profile"] = where_time_goes(encoder, chosen if case.set_size else chosen.take([0]))
            result["variants"] = compare_variants(
                encoder, chosen, clock.best, rounds, cells(encoder.vocab.names, NEIGHBOR_CELLS, *NEIGHBOR_GENES, seed=2)
            )
    again = matrix_rates(threads, now=clock.now)
    result["rates"] = {name: max(rate, again[name]) for name, rate in result["rates"].items()}
    result["load"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    result["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return result


def rates(results: list[dict[str, Any]]) -> dict[str, float]:
    """Best rates of the machine in all processes, in operations per second; files of old have one rate alone."""
    found = [r.get("rates") or {"torch": r["rate"]} for r in results]
    return {name: max(each.get(name, 0.0) for each in found) for name in ("torch", "onednn")}


def page(results: list[dict[str, Any]], threads: int) -> str:
    """The results as Markdown."""
    import torch

    best = rates(results)
    rate = max(best.values()) / 1e9
    lines = [
        "# Speed of the encoders",
        "",
        "Written by `benchmarks/encoders.py`: published sizes, random weights, float32, "
        f"{threads} CPU thread{'s' if threads > 1 else ''} of this processor: {processor()}; PyTorch {torch.__version__}. "
        f"A 2048 x 2048 matrix product reaches {best['torch'] / 1e9:.0f} GFLOP/s by torch as it comes, and "
        f"{best['onednn'] / 1e9:.0f} by oneDNN. "
        + ("Times are CPU times. " if threads == 1 else "")
        + f"Highest load during the run: {max(r['load'] for r in results):.0f} on {os.cpu_count()} cores; programs that "
        "run beside it make caches and memory slower, so a quiet machine is faster. "
        + "Operations are those of matrix products and attention, counted on one cell at a time (no padding); "
        "*share* is the rate that was reached on them as part of the better of these two.",
        "",
        (
            "*Full* cells have the sequence length at which the original software was measured, *typical* cells express "
            "1,500 to 3,000 genes, *mixed* ones 200 to 6,000. `x` compares with the original software, on one thread of "
            "another machine of the same kind. Compare it with care."
        ),
        "",
        "## Forward pass",
        "",
        (
            "| model | tokens (full) | GFLOP/cell | cells/s | x upstream | share | typical: tokens | GFLOP | cells/s | share "
            "| mixed: cells/s | share |"
        ),
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for r in results:
        case, work = CASES[r["model"]], r["workloads"]
        share = {key: w["gflop"] * w["cells_per_s"] / rate for key, w in work.items()}
        full, typical, mixed = (work[key] for key in ("full", "typical", "mixed"))
        lines.append(
            f"| {r['model']} | {full['tokens']:,.0f} | {full['gflop']:.3g} | {full['cells_per_s']:.3g} "
            f"| {full['cells_per_s'] / case.forward_floor:.1f} | {share['full']:.0%} | {typical['tokens']:,.0f} "
            f"| {typical['gflop']:.3g} | {typical['cells_per_s']:.3g} | {share['typical']:.0%} "
            f"| {mixed['cells_per_s']:.3g} | {share['mixed']:.0%} |"
        )
    lines += [
        "",
        *variants_table(results, rate),
        "",
        "## Tokenizing, memory, and where the time goes",
        "",
        "| model | tokenize, cells/s | x upstream | part of the total time | weights, GB | peak memory, GB | forward pass |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for r in results:
        case = CASES[r["model"]]
        ratio = f"{r['tokenize'] / case.token_floor:.0f}" if case.token_floor else ""
        forward = 1 / r["workloads"]["typical"]["cells_per_s"]
        part = (1 / r["tokenize"]) / (1 / r["tokenize"] + forward)
        lines.append(
            f"| {r['model']} | {r['tokenize']:,.0f} | {ratio} | {part:.2%} | {r['weights_gb']:.2f} | {r['peak_gb']:.2f} "
            f"| {r['profile']} |"
        )
    lines += [
        "",
        (
            "Tokenizing starts from a sparse matrix in memory and includes gene matching. A cell is one token of CellPLM, whose "
            "sets have 1,000 cells here."
        ),
        "",
    ]
    return "\n".join(lines)


def figures(results: list[dict[str, Any]]) -> dict[str, Any]:
    """What is drawn: how much of the machine each model uses."""
    best = max(rates(results).values()) / 1e9

    def shares(axes: Any) -> None:
        for shift, workload in enumerate(WORKLOADS):
            values = [w["gflop"] * w["cells_per_s"] / best for w in (r["workloads"][workload] for r in results)]
            axes.bar([i + 0.27 * (shift - 1) for i in range(len(results))], values, 0.27, label=f"{workload} cells")
        axes.set_xticks(range(len(results)), [r["model"] for r in results], rotation=30, ha="right")
        axes.set(ylabel="share of the best matrix rate", ylim=(0, 1))

    return {"Share of the machine": shares}


def compared(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Each model beside its original, on cells of the typical workload."""
    import sc_drugresp as sdr

    out = []
    for name in arguments.models:
        checkpoint = arguments.checkpoints / CASES[name].model
        if not checkpoint.is_dir():
            print(f"no folder {checkpoint}: {name} is not compared", file=sys.stderr)
            continue
        genes = sdr.models.load(name, checkpoint=checkpoint, verify=False).vocab.names
        adata = cells(genes, 8 if arguments.quick else 64, *WORKLOADS["typical"], seed=1)
        repeats = 2 if arguments.quick else 7
        out.append(
            _upstream.compare(arguments.upstream, name, checkpoint, adata, threads=arguments.threads, repeats=repeats)
        )
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES), metavar="MODEL")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few cells, and no page unless --output is given")
    parser.add_argument("--output", type=Path, help=f"page to write, {PAGE.name} by default")
    parser.add_argument(
        "--json", type=Path, help="keep the results here; models that are not measured now come from it"
    )
    parser.add_argument("--upstream", type=Path, metavar="DIR", help="compare with the original software in DIR")
    parser.add_argument(
        "--checkpoints", type=Path, metavar="FOLDER", help="published files, in a folder for each model"
    )
    parser.add_argument("--worker", choices=list(CASES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    seconds, rounds = (1.0, 2) if arguments.quick else (8.0, 5)
    if arguments.worker:
        print(json.dumps(measure(arguments.worker, arguments.threads, seconds, rounds=rounds)))
        return 0
    if (arguments.upstream is None) != (arguments.checkpoints is None):
        parser.error("--upstream and --checkpoints go together")
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "MKL_NUM_THREADS": str(arguments.threads)}
    kept = arguments.json is not None and arguments.json.is_file()
    results = {r["model"]: r for r in (json.loads(arguments.json.read_text(encoding="utf-8")) if kept else [])}
    failed = []
    for name in arguments.models:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        command = [sys.executable, "-P", __file__, "--worker", name, "--threads", str(arguments.threads)]
        run = subprocess.run(
            command + ["--quick"] * arguments.quick, env=environment, capture_output=True, text=True, check=False
        )
        if run.returncode:
            failed.append(name)
            print(run.stderr, file=sys.stderr)
            continue
        results[name] = json.loads(run.stdout.splitlines()[-1])
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(list(results.values()), indent=1), encoding="utf-8")
    if results:
        measured = [results[name] for name in CASES if name in results]
        text = page(measured, arguments.threads)
        beside = compared(arguments) if arguments.upstream is not None else []
        text += f"\n{_upstream.lines(beside)}" if beside else ""
        print(text)
        output = arguments.output or (None if arguments.quick or failed or len(results) < len(CASES) else PAGE)
        if output is not None:
            publish(output, text, {"encoders": measured, "upstream": beside}, figures=figures(measured))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    raise SystemExit(main())
