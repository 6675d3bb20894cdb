"""Speed and memory of every foundation model at its published size, with random weights, on the CPU.

    python benchmarks/encoders.py                      # all models, one thread; writes docs/benchmarks/encoders.md
    python benchmarks/encoders.py --models scgpt tgpt --quick

Each model runs in a process of its own. Operations are counted by PyTorch on one cell at a time, so that padding does
not count; the rate of the machine is that of a 2048 x 2048 matrix product, the best of all processes. Engines and precisions
take turns on the same cells in one process, so that a busy machine slows all of them; OpenVINO is left out where it is not
installed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# A neighbor of this file, coverage.py, must not be taken for the package of that name.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "encoders.md"


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
OLD = ("first_position", "shared_tokens")
"""The speed-ups that version 0.1 had as well."""
VARIANTS: dict[str, tuple[tuple[str, ...] | str, str, str]] = {
    "as 0.1": (OLD, "torch", "float32"),
    "default": ("all", "torch", "float32"),
    "without onednn": ((*OLD, "attention"), "torch", "float32"),
    "without attention": ((*OLD, "onednn"), "torch", "float32"),
    "without first_position": (("onednn", "attention", "shared_tokens"), "torch", "float32"),
    "without shared_tokens": (("onednn", "attention", "first_position"), "torch", "float32"),
    "openvino": ("all", "openvino", "float32"),
    "bfloat16": ("all", "torch", "bfloat16"),
    "openvino, bfloat16": ("all", "openvino", "bfloat16"),
}
"""Speed-ups, engine and precision."""
NEIGHBORS, NEIGHBOR_CELLS, NEIGHBOR_GENES = 15, 48, (100, 200)
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


def matmul_rates(clock: Clock) -> dict[str, float]:
    """Operations per second of a large matrix product, as PyTorch computes it by default, through oneDNN, and in bfloat16."""
    import torch

    from sc_drugresp._nn.products import fast_products

    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    half = a.bfloat16(), b.bfloat16()
    rates = {"torch": clock.best(lambda: a @ b, 5), "bfloat16": clock.best(lambda: half[0] @ half[1], 5)}
    with fast_products():
        rates["onednn"] = clock.best(lambda: a @ b, 5)
    return {name: 2 * 2048**3 / seconds for name, seconds in rates.items()}


@contextmanager
def variant(encoder, name: str, converted: dict[str, Any]):
    """Settings of one variant; networks converted for OpenVINO are kept in `converted`, so that converting is not timed."""
    import sc_drugresp as sdr
    from sc_drugresp.models._engines import running

    speedups, engine, precision = VARIANTS[name]
    with sdr.settings.override(speedups=speedups):
        if engine == "torch":
            with running(encoder, "torch", precision):
                yield
            return
        if precision not in converted:
            from sc_drugresp.models._openvino import ConvertedLayers

            converted[precision] = ConvertedLayers(encoder, precision)
        encoder.converted = converted[precision]
        try:
            yield
        finally:
            encoder.converted = None


def variants_of(encoder) -> list[str]:
    """Variants that this model has here."""
    engines = set(encoder.engines) if find_spec("openvino") else {"torch"}
    used = {
        "without attention": attention_pays(),
        "without first_position": getattr(encoder, "leading", None) == 1 and "openvino" in encoder.engines,
        "without shared_tokens": hasattr(encoder, "_projected"),
    }
    return [name for name, (_, engine, _) in VARIANTS.items() if engine in engines and used.get(name, True)]


def attention_pays() -> bool:
    """Whether attention in chunks is used on this machine."""
    import torch

    from sc_drugresp._nn.chunks import LEAST_ADVANTAGE
    from sc_drugresp._nn.products import advantage

    return advantage(torch.float32, torch.get_num_threads()) >= LEAST_ADVANTAGE


def compare_variants(encoder, tokens, clock: Clock, rounds: int) -> dict[str, dict[str, float]]:
    """Ratio of the time of every variant to that of 0.1, taking turns: the median over rounds, the least and the most."""
    import numpy as np

    names, converted = variants_of(encoder), {}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    found = {}
    for turn in range(rounds + 1):  # the first compiles and warms up
        part = tokens if turn or encoder.set_based else tokens.take([0])
        for name in names:
            with variant(encoder, name, converted):
                seconds[name].append(
                    clock.best(lambda name=name, part=part: found.update({name: encoder.embed_tokens(part)}))
                )
    first = np.array(seconds["as 0.1"][1:])
    out = {}
    for name in names:
        ratios = first / np.array(seconds[name][1:])
        out[name] = {"x": float(np.median(ratios)), "low": float(ratios.min()), "high": float(ratios.max())}
        out[name]["cells_per_s"] = len(tokens) / float(np.min(seconds[name][1:]))
        out[name]["error"] = float(np.abs(found[name] - found["as 0.1"]).max() / np.abs(found["as 0.1"]).max())
    if encoder.sizes(tokens.take([0, 1])).max() < 8_000 and len(encoder.vocab) > NEIGHBOR_GENES[1]:
        for name, kept in neighbors_kept(encoder, names, converted).items():
            out[name] |= kept
    return out


def neighbors_kept(encoder, names: list[str], converted: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Worst cosine between centered embeddings, and the share of the nearest neighbors kept, of cells with few genes."""
    import numpy as np

    adata = cells(encoder.vocab.names, NEIGHBOR_CELLS, *NEIGHBOR_GENES, seed=2)
    tokens = encoder.tokenize(adata, genes="exact")

    def embedded(name: str):
        with variant(encoder, name, converted):
            x = encoder.embed_tokens(tokens).astype(float)
        return x - x.mean(0)

    def nearest(x):
        distances = np.square(x[:, None] - x[None]).sum(-1)
        np.fill_diagonal(distances, np.inf)
        return np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBORS]

    x = embedded("as 0.1")
    expected, out = nearest(x), {}
    for name in names:
        if "without" in name or name == "as 0.1":
            continue
        y = embedded(name)
        cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        same = [len(np.intersect1d(a, b)) / NEIGHBORS for a, b in zip(expected, nearest(y))]
        out[name] = {"cosine": float(cosine.min()), "neighbors": float(np.mean(same))}
    return out


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
        encoder.embed_tokens(tokens, batch_tokens=None if encoder.set_based else 1)
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
    result: dict[str, Any] = {"model": name, "weights_gb": weights / 1e9, "rates": matmul_rates(clock), "workloads": {}}

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
            result["variants"] = compare_variants(encoder, chosen, clock, rounds)
    result["rates"] = {key: max(rate, result["rates"][key]) for key, rate in matmul_rates(clock).items()}
    result["load"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    result["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return result


def processor() -> str:
    """Name of the processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def best_rates(results: list[dict[str, Any]]) -> dict[str, float]:
    """The best rate of each kind of product over all processes, GFLOP/s."""
    return {kind: max(r["rates"][kind] for r in results) / 1e9 for kind in results[0]["rates"]}


def variants_table(results: list[dict[str, Any]]) -> list[str]:
    """Engines and precisions against version 0.1 as Markdown."""
    rates = best_rates(results)
    lines = [
        "## Engines and precisions",
        "",
        (
            "*Typical* cells, all variants in turn in one process: how many times as fast as with the speed-ups of version 0.1 "
            "alone (median of the rounds, least and most in brackets). *Share* is that of the best float32 product. *Error* is "
            "the largest difference from the first row, relative to the largest value. *Cosine* is the worst of "
            f"{NEIGHBOR_CELLS} cells with {NEIGHBOR_GENES[0]} to {NEIGHBOR_GENES[1]} genes after centering, *neighbors* the share "
            f"of the {NEIGHBORS} nearest that stay. Weights are random here, so that cosine and "
            "neighbors say nothing certain about published weights. Each `without` row leaves one speed-up of the default "
            "out."
        ),
        "",
        "| model | variant | x 0.1 | cells/s | share | error | cosine | neighbors |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for r in results:
        gflop = r["workloads"]["typical"]["gflop"]
        for name, v in r["variants"].items():
            share = f"{gflop * v['cells_per_s'] / max(rates['torch'], rates['onednn']):.0%}"
            kept = (f"{v['cosine']:.5f}", f"{v['neighbors']:.1%}") if "cosine" in v else ("", "")
            lines.append(
                f"| {r['model']} | {name} | {v['x']:.2f} ({v['low']:.2f}-{v['high']:.2f}) | {v['cells_per_s']:.3g} | {share} "
                f"| {v['error']:.0e} | {kept[0]} | {kept[1]} |"
            )
    return lines


def page(results: list[dict[str, Any]], threads: int) -> str:
    """The results as Markdown."""
    import torch

    rates = best_rates(results)
    rate = max(rates["torch"], rates["onednn"])
    lines = [
        "# Speed of the encoders",
        "",
        "Written by `benchmarks/encoders.py`: published sizes, random weights, float32, "
        f"{threads} CPU thread{'s' if threads > 1 else ''} of this processor: {processor()}; PyTorch {torch.__version__}. "
        f"A 2048 x 2048 matrix product reaches {rates['torch']:.0f} GFLOP/s as PyTorch computes it by default, "
        f"{rates['onednn']:.0f} through oneDNN, and {rates['bfloat16']:.0f} in bfloat16. "
        + ("Times are CPU times. " if threads == 1 else "")
        + f"Highest load during the run: {max(r['load'] for r in results):.0f} on {os.cpu_count()} cores; programs that "
        "run beside it make caches and memory slower, so a quiet machine is faster. "
        + "Operations are those of matrix products and attention, counted on one cell at a time (no padding); "
        "*share* is the rate that was reached on them as part of that of the better float32 product.",
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
        *variants_table(results),
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES), metavar="MODEL")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few cells, and no page unless --output is given")
    parser.add_argument("--output", type=Path, help=f"page to write, {PAGE.relative_to(ROOT)} by default")
    parser.add_argument(
        "--json", type=Path, help="keep the results here; models that are not measured now come from it"
    )
    parser.add_argument("--worker", choices=list(CASES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    seconds, rounds = (1.0, 2) if arguments.quick else (8.0, 5)
    if arguments.worker:
        print(json.dumps(measure(arguments.worker, arguments.threads, seconds, rounds=rounds)))
        return 0
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
        text = page([results[name] for name in CASES if name in results], arguments.threads)
        print(text)
        output = arguments.output or (None if arguments.quick or failed or len(results) < len(CASES) else PAGE)
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(text, encoding="utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    raise SystemExit(main())
