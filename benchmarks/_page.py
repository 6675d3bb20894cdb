"""What every benchmark leaves behind: a page, its figures, and the numbers as JSON, with the machine and the command."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "benchmarks"
PACKAGES = ("sc_drugresp", "torch", "numpy", "scipy", "numba", "anndata", "openvino")
_SIDE = 2048
_MARK = "## Machine and command"


def processor() -> str:
    """Name of the processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def memory_bytes() -> int | None:
    """Memory of the machine, as far as the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def accelerators() -> list[str]:
    """Names of the GPUs that torch sees."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def load() -> float:
    """Programs that want a core, on average over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gb": None if (n := memory_bytes()) is None else round(n / 1e9, 1),
        "accelerators": accelerators(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "load": round(load(), 1),
    }


def command(arguments: Sequence[str] | None = None) -> str:
    """The command that runs this benchmark again, from the root of the repository."""
    script = Path(sys.argv[0]).resolve()
    shown = script.relative_to(ROOT).as_posix() if script.is_relative_to(ROOT) else script.name
    return shlex.join(["python", shown, *(sys.argv[1:] if arguments is None else arguments)])


def publish(
    page: Path, text: str, results: Any, *, figures: Mapping[str, Callable[[Any], None]] | None = None, run: str = ""
) -> None:
    """Write `page`, `<page>.json` beside it, and its figures.

    Parameters
    ----------
    page
        Markdown file.
    text
        What it says; the machine and the command are added, and the figures, in their order, before them.
    results
        The numbers, as JSON takes them.
    figures
        For each title a function that draws on axes.
    run
        The command; that of this process by default.
    """
    about = machine()
    record = {"benchmark": page.stem, "command": run or command(), "machine": about, "results": results}
    page.parent.mkdir(parents=True, exist_ok=True)
    page.with_suffix(".json").write_text(json.dumps(record, indent=1, default=_plain) + "\n", encoding="utf-8")
    lines = [text.split(_MARK)[0].rstrip(), ""]
    for number, (title, paint) in enumerate((figures or {}).items(), start=1):
        name = f"{page.stem}_{number}.svg"
        draw(page.with_name(name), title, paint)
        lines += [f"![{title}]({name})", ""]
    versions = ", ".join(f"{name} {found}" for name, found in about["versions"].items())
    shown = [about["processor"], f"{about['cores']} cores", *about["accelerators"]]
    shown += [f"{about['memory_gb']} GB", about["system"], f"Python {about['python']}", versions]
    lines += [
        _MARK,
        "",
        f"`{record['command']}`",
        "",
        (
            f"{'; '.join(shown)}. Load at the end: {about['load']} on {about['cores']} cores. The numbers: "
            f"[{page.stem}.json]({page.stem}.json)."
        ),
        "",
    ]
    page.write_text("\n".join(lines), encoding="utf-8")


def _plain(value: Any) -> Any:
    """Arrays and their numbers as JSON takes them."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def tables_in(text: str) -> dict[str, list[dict[str, str]]]:
    """The rows of the Markdown tables of a page, by section; for benchmarks whose results are tables."""
    found: dict[str, list[dict[str, str]]] = {}
    title, names = "", []
    for line in text.splitlines():
        title = line.lstrip("# ") if line.startswith("#") else title
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")] if line.startswith("|") else []
        if not cells:
            names = []
        elif not names:
            names = cells
        elif set("".join(cells)) - set("-:| "):
            found.setdefault(title, []).append(dict(zip(names, cells)))
    return found


def draw(path: Path, title: str, paint: Callable[[Any], None]) -> None:
    """One figure as SVG, the same bytes from the same numbers."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none", "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        paint(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize="small")
        figure.savefig(path, metadata={"Date": None})


@contextmanager
def one_dnn():
    """float32 products through oneDNN instead of MKL, where the processor has no units that would round them."""
    import torch

    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


def matrix_rates(threads: int = 1, repeats: int = 5, now: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Operations per second of a large float32 matrix product: torch as it comes, and oneDNN, interleaved; and its error."""
    import torch

    a, b = torch.rand(_SIDE, _SIDE), torch.rand(_SIDE, _SIDE)
    exact = a[:64].double() @ b.double()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    seconds: dict[str, list[float]] = {"torch": [], "onednn": []}
    try:
        for _ in range(repeats):
            seconds["torch"].append(_timed(lambda: a @ b, now))
            with one_dnn():
                seconds["onednn"].append(_timed(lambda: torch.nn.functional.linear(a, b), now))
        with one_dnn():
            error = float(((a[:64] @ b).double() - exact).abs().max() / exact.abs().max())
    finally:
        torch.set_num_threads(before)
    return {name: 2 * _SIDE**3 / min(times) for name, times in seconds.items()} | {"onednn_error": error}


def _timed(action: Callable[[], Any], now: Callable[[], float]) -> float:
    start = now()
    action()
    return now() - start


def spread(values: Sequence[float], digits: str = ".2f") -> str:
    """Median with the range of the middle 80 %."""
    import numpy as np

    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return f"{middle:{digits}} ({low:{digits}} to {high:{digits}})"
