"""Engines, precisions and speed-ups of an encoder against version 0.1, taking turns in one process."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

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


def compare_variants(
    encoder: Any, tokens: Any, best: Callable[..., float], rounds: int, few: Any
) -> dict[str, dict[str, float]]:
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
                    best(lambda name=name, part=part: found.update({name: encoder.embed_tokens(part)}))
                )
    first = np.array(seconds["as 0.1"][1:])
    out = {}
    for name in names:
        ratios = first / np.array(seconds[name][1:])
        out[name] = {"x": float(np.median(ratios)), "low": float(ratios.min()), "high": float(ratios.max())}
        out[name]["cells_per_s"] = len(tokens) / float(np.min(seconds[name][1:]))
        out[name]["error"] = float(np.abs(found[name] - found["as 0.1"]).max() / np.abs(found["as 0.1"]).max())
    if encoder.sizes(tokens.take([0, 1])).max() < 8_000 and len(encoder.vocab) > NEIGHBOR_GENES[1]:
        for name, kept in neighbors_kept(encoder, names, converted, few).items():
            out[name] |= kept
    return out


def neighbors_kept(encoder, names: list[str], converted: dict[str, Any], few: Any) -> dict[str, dict[str, float]]:
    """Worst cosine between centered embeddings, and the share of the nearest neighbors kept, of cells with few genes."""
    import numpy as np

    tokens = encoder.tokenize(few, genes="exact")

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


def variants_table(results: list[dict[str, Any]], best_rate: float) -> list[str]:
    """Engines and precisions against version 0.1 as Markdown."""
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
            share = f"{gflop * v['cells_per_s'] / best_rate:.0%}"
            kept = (f"{v['cosine']:.5f}", f"{v['neighbors']:.1%}") if "cosine" in v else ("", "")
            lines.append(
                f"| {r['model']} | {name} | {v['x']:.2f} ({v['low']:.2f}-{v['high']:.2f}) | {v['cells_per_s']:.3g} | {share} "
                f"| {v['error']:.0e} | {kept[0]} | {kept[1]} |"
            )
    return lines
