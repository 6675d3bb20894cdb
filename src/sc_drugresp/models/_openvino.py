"""The layers of a network, converted for OpenVINO. They run on the CPU, on as many threads as PyTorch has."""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .._core.imports import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from .._core.kinds import Precision
    from ._network import CellNetwork

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_LARGEST_ERROR = {"float32": 1e-4, "bfloat16": 0.2}
_POSITIONS = 16  # of the example that is traced


def import_openvino() -> ModuleType:
    """OpenVINO without its telemetry, which would report to a server from a process of its own as soon as it is imported.

    Raises
    ------
    ImportError
        It is not installed.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # "cannot be imported"; OpenVINO copes
    return require("openvino", extra="fast")


class ConvertedLayers:
    """What follows the input of the first layer, up to the embedding; converted when it is first needed.

    Parameters
    ----------
    encoder
        The network; its adapters are merged into a copy of the weights.
    precision
        Of the products.
    """

    def __init__(self, encoder: CellNetwork, precision: Precision) -> None:
        self.encoder, self.precision, self.openvino = encoder, precision, import_openvino()
        self.requests: dict[Any, Any] = {}
        self.kept: list[Any] = []

    def __call__(self, x: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Embedding of shape `(cells, dim)` from the input of the first layer."""
        given = {"x": x, "length": batch["length"]} | {name: batch[name] for name in ("keep",) if name in batch}
        key = (torch.get_num_threads(), *((name, tensor.dtype) for name, tensor in given.items()))
        if key not in self.requests:
            self.requests[key] = self._compile(given)
            self._check(given, self.requests[key])
        return self._infer(given, self.requests[key])

    def _infer(self, given: dict[str, Tensor], compiled: tuple[list[str], Any]) -> Tensor:
        names, request = compiled
        request.infer({name: np.ascontiguousarray(given[name].numpy()) for name in names}, share_inputs=True)
        return torch.from_numpy(request.get_output_tensor(0).data.astype(np.float32))

    def _compile(self, given: dict[str, Tensor]) -> tuple[list[str], Any]:
        """Trace the layers with an example and compile them for all shapes."""
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        with (
            torch.inference_mode(mode=False),
            torch.no_grad(),
            merged_adapters(self.encoder),
            warnings.catch_warnings(action="ignore"),  # of TorchScript: it is deprecated, and shapes in conditions
        ):
            example = tuple(_example(name, tensor) for name, tensor in given.items())
            frontend = FrontEndManager().load_by_framework("pytorch")
            layers = _Layers(self.encoder).eval()
            decoder = TorchScriptPythonDecoder(layers, example_input=example, trace_kwargs={"check_trace": False})
            model = frontend.convert(frontend.load(decoder))
            compiled = self.openvino.Core().compile_model(model, "CPU", self._settings())
        self.kept.append((decoder, model))  # OpenVINO reads the weights where they lie
        names = [next(name for name in given if name in port.names) for port in compiled.inputs]
        return names, compiled.create_infer_request()

    def _check(self, given: dict[str, Tensor], compiled: tuple[list[str], Any]) -> None:
        """Compare a few cells with what PyTorch computes; a number that was a constant of the example shows here."""
        few = {name: tensor[: 3 if len(tensor) > 2 else 1] for name, tensor in given.items()}
        expected = self.encoder.after_stem(few["x"], few)
        found, scale = self._infer(few, compiled), float(expected.abs().max())
        error = float((found - expected).abs().max()) / scale if found.shape == expected.shape and scale else np.inf
        if not error <= _LARGEST_ERROR[self.precision]:
            msg = (
                f"OpenVINO computes something else than PyTorch for {self.encoder.name or type(self.encoder).__name__}: "
                f"relative error {error:.1e}, expected at most {_LARGEST_ERROR[self.precision]:.0e}. Leave `engine` out, and "
                "report it with the versions of both."
            )
            raise RuntimeError(msg)

    def _settings(self) -> dict[str, Any]:
        return {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }


def _example(name: str, tensor: Tensor) -> Tensor:
    """The first and the last cell, cut."""
    pair = tensor[[0, -1]]
    return pair.clamp(max=_POSITIONS) if name == "length" else pair[:, :_POSITIONS].clone()


class _Layers(nn.Module):
    """The part of a network that is converted, as a module of tensors."""

    def __init__(self, encoder: CellNetwork) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, length: Tensor, keep: Tensor | None = None) -> Tensor:
        batch = {"length": length} if keep is None else {"length": length, "keep": keep}
        return self.encoder.after_stem(x, batch)


@contextmanager
def merged_adapters(encoder: nn.Module) -> Iterator[None]:
    """Add the adapters of peft to the weights inside the block; afterwards the weights are the same bits as before."""
    layers: list[Any] = [
        module for module in encoder.modules() if hasattr(module, "lora_A") and not getattr(module, "merged", True)
    ]
    weights = [layer.get_base_layer().weight.data for layer in layers]
    try:
        for layer in layers:
            layer.merge(safe_merge=True)  # into a new tensor
        yield
    finally:
        for layer, weight in zip(layers, weights):
            base = layer.get_base_layer().weight
            base.data = torch.empty_like(weight)  # the merged weights belong to the block
            layer.unmerge()
            base.data = weight
