"""Processes that train one model together: who started them, whether they are those asked for, and which one this is."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from ..._core.device import chosen_device

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lightning.pytorch.plugins.environments import ClusterEnvironment

    from .options import FineTuning


@dataclass(frozen=True)
class Processes:
    """As many on each node; every one makes the same call, and they meet in training."""

    environment: ClusterEnvironment
    per_node: int
    nodes: int

    @property
    def total(self) -> int:
        """How many there are."""
        return self.per_node * self.nodes

    def check(self, options: FineTuning, *, set_based: bool) -> None:
        """Refuse a step that cannot be shared: a set of cells is never divided, since its cells see each other.

        Raises
        ------
        ValueError
            There are fewer cells, or sets, in a step than processes, or the sets cannot be shared equally.
        """
        if set_based and options.accumulate % self.total:
            msg = (
                f"{self.total} processes cannot share steps of accumulate={options.accumulate} sets of cells equally, and a "
                f"set is never divided. Use a multiple, such as FineTuning(accumulate={self.total})."
            )
            raise ValueError(msg)
        if not set_based and options.batch_size < self.total:
            msg = (
                f"{self.total} processes cannot share batches of batch_size={options.batch_size} cells. `batch_size` counts "
                "the cells of all processes: make it larger."
            )
            raise ValueError(msg)


def started(options: FineTuning) -> Processes | None:
    """Those that train together with this one, or `None` where it trains alone on one device.

    Raises
    ------
    ValueError
        Several are asked for, and this process was not started by torchrun or srun, or they are not as many.
    """
    if options.strategy == "auto" and options.devices == options.num_nodes == 1:
        return None
    if TorchElasticEnvironment.detect():
        launcher, variable = "torchrun", "LOCAL_WORLD_SIZE"
        environment: ClusterEnvironment = TorchElasticEnvironment()
    elif SLURMEnvironment.detect():
        launcher, variable = "srun", "SLURM_NTASKS_PER_NODE"
        environment = SLURMEnvironment(auto_requeue=False)  # no signal handlers, no files of its own
    elif options.strategy == "auto" and options.devices == "auto" and options.num_nodes == 1:
        return None
    else:
        asked = f"devices={options.devices!r}, num_nodes={options.num_nodes}, strategy={options.strategy!r}"
        msg = (
            f"FineTuning({asked}) trains in several processes, and this one was started alone. Start a script with "
            "`torchrun --nproc-per-node N script.py` or, on SLURM, with `srun python script.py`; in a notebook leave "
            "devices=1."
        )
        raise ValueError(msg)
    total = environment.world_size()
    per_node = int(os.environ.get(variable, total))
    nodes = total // per_node
    if options.devices not in ("auto", per_node) or options.num_nodes != nodes or per_node * nodes != total:
        msg = (
            f"FineTuning(devices={options.devices!r}, num_nodes={options.num_nodes}) does not fit: {launcher} started "
            f"{total} processes, {per_node} on each of {nodes} nodes. Use devices='auto', num_nodes={nodes}, and as many "
            "processes on every node."
        )
        raise ValueError(msg)
    return Processes(environment, per_node, nodes)


@contextmanager
def own_device(processes: Processes | None) -> Iterator[None]:
    """Make `'cuda'` mean the GPU of this process while it trains together with others.

    Raises
    ------
    ValueError
        The device in the settings is one GPU for all, or a kind of device that cannot be shared out, or there are too few.
    """
    chosen = chosen_device()
    named = torch.device("cuda" if chosen == "auto" else chosen)
    if processes is None:
        yield
    elif named.index is not None or named.type not in {"cpu", "cuda"}:
        msg = (
            f"The device in the settings is {chosen!r}, and {processes.per_node} processes on this machine train together. "
            "Set it to 'cuda' or 'auto', so that each takes a GPU of its own, or to 'cpu'."
        )
        raise ValueError(msg)
    elif named.type == "cpu" or not torch.cuda.is_available():
        yield
    elif torch.cuda.device_count() < processes.per_node:
        msg = (
            f"{processes.per_node} processes train on this machine, and each sees {torch.cuda.device_count()} GPUs. Every "
            "process must see all GPUs of its machine (on SLURM --gres=gpu:N, without --gpus-per-task or --gpu-bind)."
        )
        raise ValueError(msg)
    else:
        with torch.cuda.device(processes.environment.local_rank()):
            yield


def averaging() -> DDPStrategy:
    """Gradients are averaged; nothing else is sent around.

    Buffers are tables that never change. Parameters that stay as published may lie in a read-only file, into which torch must
    not copy those of the first process, as it would; see `alike` for the others.
    """
    return DDPStrategy(broadcast_buffers=False, init_sync=False)


def alike(parameters: Iterable[torch.Tensor]) -> None:
    """Let all processes begin with the parameters of the first, to the bit, whatever their processors made of them."""
    with torch.no_grad():
        for parameter in parameters:
            torch.distributed.broadcast(parameter, src=0)


def from_all(value: Any, total: int) -> list[Any]:
    """The values of all processes, by rank; every process gets the same list."""
    if total == 1:
        return [value]
    out: list[Any] = [None] * total
    torch.distributed.all_gather_object(out, value)
    return out
