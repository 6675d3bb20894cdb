"""What may move the last digit of an embedding, and is no part of what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.log import warn
from .._core.settings import settings
from .._core.versions import package_versions
from .store.fingerprint import differences

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .job import Job
    from .store.records import Record


def environment(job: Job) -> dict[str, str]:
    """Versions, threads, speed-ups and device."""
    out = {name: version for name, version in package_versions().items() if name in {"numpy", "scipy", "torch"}}
    if hasattr(job.embedder, "parameters"):
        import torch

        out |= {"threads": str(torch.get_num_threads()), "speedups": ", ".join(settings.speedups)}
        if (device := next(job.embedder.parameters()).device).type == "cuda":
            out["device"] = torch.cuda.get_device_name(device)
    return out


def check_environment(records: Mapping[int, Record], job: Job) -> None:
    """Tell if finished blocks were computed in another way, as far as that is known to matter."""
    now = environment(job)
    found = {name for record in records.values() for name in differences(record.environment, now)}
    if found:
        warn(
            f"Finished blocks were computed with other {', '.join(sorted(found))}: the last digits of new blocks may differ from "
            "what one run would give."
        )
