"""Speed and memory of training a head, adapters or everything, for every foundation model, with random weights.

    python benchmarks/training.py                        # published sizes, one CPU thread; writes docs/benchmarks/training.md
    python benchmarks/training.py --models scgpt tgpt
    python benchmarks/training.py --tiny                 # two narrow layers: checks the script

Each model and mode runs in a process of its own. The run fails unless gradients and optimizer state of LoRA take less
than half of the memory that full fine-tuning takes.
"""

from __future__ import annotations

import argparse
import importlib.util
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

from benchmarks._page import PAGES, processor, publish

PAGE = PAGES / "training.md"
MODES = ("frozen", "lora", "full")
GENES = 500
"""Expressed genes of a cell: about as many tokens for most models."""


@dataclass(frozen=True)
class Case:
    """A model, the options that differ from the published ones, and why."""

    batch: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    tiny: dict[str, Any] = field(default_factory=dict)


NARROW = {"dim": 16, "heads": 2, "layers": 2, "ffn_dim": 32}
PERFORMER = {"dim": 16, "heads": 2, "head_dim": 8, "features": 16, "layers": 2, "ffn_dim": 32, "genes": 700}
CASES = {
    "scgpt": Case(tiny=NARROW),
    "geneformer": Case(tiny=NARROW),
    "tgpt": Case(batch=8, note="62 genes by design", tiny=NARROW),
    "uce": Case(
        options={"sample_size": 448},
        note="sample_size=448 of 1,024",
        tiny={**NARROW, "dim": 16, "width": 16, "token_dim": 24, "decoder_dim": 16},
    ),
    "scfoundation": Case(tiny={"width": 16, "heads": 2, "layers": 2, "ffn_dim": 32, "seq_len": 702}),
    "scbert": Case(
        options={"layers": 2},
        note="2 of 6 layers: every cell has 16,907 positions, of which none can be left out",
        tiny=PERFORMER,
    ),
    "celllm": Case(tiny=PERFORMER),
    "cellplm": Case(
        batch=64, note="a set of 64 cells", tiny={"width": 16, "heads": 2, "layers": 2, "ffn_dim": 32, "latent_dim": 16}
    ),
}


def encoders() -> Any:
    """The script beside this one; the folder itself stays off the path, where its names would hide libraries."""
    spec = importlib.util.spec_from_file_location("benchmark_encoders", Path(__file__).with_name("encoders.py"))
    if spec is None or spec.loader is None:
        msg = "encoders.py is missing beside this script"
        raise ImportError(msg)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def build(model: str, *, tiny: bool) -> Any:
    """An encoder with random weights."""
    from sc_drugresp.models._load import model_class
    from sc_drugresp.models._registry import find

    case, cls = CASES[model], model_class(find(model)[0])
    return cls.random(cls.Config(**(case.options | (case.tiny if tiny else {}))))


def tensor_bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measure(model: str, mode: str, *, steps: int, tiny: bool) -> dict[str, Any]:
    """Steps of training on one batch; runs in a process of its own, on one thread, and counts CPU time."""
    import numpy as np
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    import sc_drugresp as sdr
    from sc_drugresp._response.heads import LinearHead
    from sc_drugresp._response.tune.adapters import inject, lora_config
    from sc_drugresp._response.tune.finetune import unfreeze
    from sc_drugresp._response.tune.module import ResponseModule, TorchHead
    from sc_drugresp._response.tune.options import FineTuning

    sdr.settings.progress, sdr.settings.device, sdr.settings.verbosity = False, "cpu", 0
    encoder, options, n = build(model, tiny=tiny), FineTuning(rank=1 if tiny else 8), CASES[model].batch
    total = sum(parameter.numel() for parameter in encoder.parameters())
    if mode == "lora":
        inject(encoder, lora_config(encoder, rank=options.rank, alpha=options.alpha, dropout=options.dropout))
    elif mode == "full":
        unfreeze(encoder)
    tokens = encoder.tokenize(encoders().cells(encoder.vocab.names, n, GENES, GENES), genes="exact")
    y, rows, nothing = np.arange(n) % 2, np.arange(n), np.empty(0, dtype=int)
    head = TorchHead(LinearHead(np.zeros(encoder.dim), np.ones(encoder.dim), np.zeros(encoder.dim), np.zeros(1)))
    module = ResponseModule(
        encoder, head, tokens, y, np.zeros(n), train=rows, held_out=nothing, options=options, seed=0, fingerprint=""
    )
    optimizer = module.configure_optimizers()
    inputs, target = encoder.collate(tokens), torch.as_tensor(y, dtype=torch.float32)
    module.train(mode != "frozen")
    seconds = []
    for _ in range(steps):
        start = time.process_time()
        if mode == "frozen":  # embedded once, whatever the number of epochs
            with torch.no_grad():
                embedding = encoder(inputs)
            loss = F.binary_cross_entropy_with_logits(head(embedding), target)
        else:
            loss = F.binary_cross_entropy_with_logits(module(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.process_time() - start)
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    state = [
        value for values in optimizer.state.values() for value in values.values() if isinstance(value, torch.Tensor)
    ]
    return {
        "model": model,
        "mode": mode,
        "tokens": float(encoder.sizes(tokens).mean()),
        "parameters": total,
        "trainable": sum(p.numel() for p in module.trained().values()),
        "cells_per_s": n / min(seconds),
        "state_bytes": tensor_bytes(gradients) + tensor_bytes(state),
        "peak_bytes": memory(),
    }


def memory() -> int:
    """Highest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def check(results: list[dict[str, Any]]) -> dict[str, float]:
    """Gradient and optimizer memory of LoRA as a share of that of full fine-tuning, by model.

    Raises
    ------
    AssertionError
        It is not less than half.
    """
    size = {(row["model"], row["mode"]): row["state_bytes"] for row in results}
    shares = {model: size[model, "lora"] / size[model, "full"] for model, mode in size if mode == "lora"}
    too_large = {model: share for model, share in shares.items() if not share < 0.5}
    if too_large:
        msg = f"LoRA needs more than half of the gradient and optimizer memory of full fine-tuning: {too_large}"
        raise AssertionError(msg)
    return shares


def page(results: list[dict[str, Any]], command: str, *, tiny: bool) -> str:
    """The results as Markdown."""
    import torch

    size = "two narrow layers" if tiny else "published sizes"
    lines = [
        "# Cost of fine-tuning",
        "",
        (
            f"Written by `{command}`: {size} unless noted, random weights, float32, one CPU thread of this processor: "
            f"{processor()}; PyTorch {torch.__version__}; load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores at the end. "
            f"Cells express {GENES} genes. Times are CPU times of the best of the steps, forward, backward and AdamW; *frozen* "
            "is one pass of the encoder and a step of the head, and later epochs of a frozen model cost next to nothing. "
            "*State* is what gradients and AdamW hold; *peak* is the resident memory of the whole process, weights and "
            "activations included, without gradient checkpointing."
        ),
        "",
        "| model | tokens | batch | mode | trainable | of all | cells/s | state (MB) | LoRA / full | peak (GB) |",
        "|---|--:|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    shares = check(results)
    for row in results:
        share = f"{shares[row['model']]:.1%}" if row["mode"] == "lora" else ""
        lines.append(
            f"| {row['model']} | {row['tokens']:,.0f} | {CASES[row['model']].batch} | {row['mode']} | {row['trainable']:,} "
            f"| {row['trainable'] / row['parameters']:.2%} | {row['cells_per_s']:.3g} | {row['state_bytes'] / 1e6:,.1f} "
            f"| {share} | {row['peak_bytes'] / 1e9:.2f} |"
        )
    notes = [
        f"- {name}: {CASES[name].note}." for name in dict.fromkeys(r["model"] for r in results) if CASES[name].note
    ]
    largest = max(shares, key=shares.__getitem__)
    lines += ["", *(["Notes:", "", *notes, ""] if notes and not tiny else [])]
    lines += [
        (
            f"Gradients and optimizer state of LoRA take at most {shares[largest]:.1%} of those of full fine-tuning "
            f"({largest}); the script fails at one half."
        ),
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="two narrow layers; prints, writes no page")
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "MODE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one, steps=args.steps, tiny=args.tiny)))
        return 0
    results = []
    for model in args.models:
        for mode in MODES:
            command = [sys.executable, "-P", __file__, "--one", model, mode, "--steps", str(args.steps)]
            command += ["--tiny"] if args.tiny else []
            run = subprocess.run(
                command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
            results.append(json.loads(run.stdout.splitlines()[-1]))
            print(results[-1], flush=True)
    shown = ["python benchmarks/training.py", *(["--tiny"] if args.tiny else [])]
    shown += ["--models", *args.models] if set(args.models) != set(CASES) else []
    text = page(results, " ".join(shown), tiny=args.tiny)
    print(text)
    if not args.tiny:
        publish(args.out, text, results, run=" ".join(shown))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
