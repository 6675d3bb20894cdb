"""LoRA by peft, injected in place, so that an encoder keeps its class; adapters in peft's own file format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer

if TYPE_CHECKING:
    from ...models._encoder import CellEncoder
    from ..model import ResponseModel

PREFIX = "base_model.model."
"""What `peft.PeftModel` puts before the names of a module: with it, `PeftModel.from_pretrained` reads our files."""

READ = frozenset({"r", "lora_alpha", "lora_dropout", "target_modules", "peft_type"})
"""Settings of a saved adapter that are used."""
ALLOWED = READ | {"base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type"}
"""Those that may have any value, because nothing is done with them."""


def lora_config(encoder: CellEncoder, *, rank: int, alpha: int, dropout: float) -> LoraConfig:
    """Adapters on the linear layers that the encoder names."""
    return LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=encoder.lora_targets, bias="none")


def inject(encoder: CellEncoder, config: LoraConfig, *, seed: int = 0) -> list[str]:
    """Add adapters in place, initialized from `seed`; everything else stays frozen.

    Returns
    -------
    Names of the adapted layers.

    Raises
    ------
    ValueError
        No layer matches the encoder's `lora_targets`.
    """
    with torch.random.fork_rng(devices=[]):  # peft draws from the global stream of the CPU, which is the user's
        torch.random.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        inject_adapter_in_model(config, encoder)
    adapted = [name for name, module in encoder.named_modules() if isinstance(module, LoraLayer)]
    if not adapted:
        msg = f"No layer of {type(encoder).__name__} matches {encoder.lora_targets!r}; nothing would be trained."
        raise ValueError(msg)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return adapted


def inject_saved(encoder: CellEncoder, adapter: dict[str, Any]) -> LoraConfig:
    """Add the adapter of a saved model in place.

    Raises
    ------
    ValueError
        The tensors do not fit this encoder.
    """
    config = saved_config(adapter, encoder.lora_targets)
    names = inject(encoder, config)
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in adapter["tensors"].items()}
    expected = {f"{name}.lora_{side}.weight" for name in names for side in "AB"}
    shapes = {
        name.replace(".default.", "."): parameter.shape
        for name, parameter in encoder.named_parameters()
        if "lora_" in name
    }
    if tensors.keys() != expected or any(tensors[name].shape != shapes[name] for name in expected):
        msg = f"The adapter does not fit {type(encoder).__name__}; it was trained on another base model."
        raise ValueError(msg)
    set_peft_model_state_dict(encoder, tensors)
    return config


def saved_config(adapter: dict[str, Any], targets: str | list[str]) -> LoraConfig:
    """Settings of a saved adapter: the few that this package writes; a file may not choose anything else.

    `LoraConfig` has fields that name modules to import, files to read and patterns to match.

    Raises
    ------
    ValueError
        A setting is missing, has a value that makes no sense or does not fit the tensors, or is not one of ours.
    """
    values = adapter["config"]
    if not isinstance(values, dict):
        msg = f"The configuration of the adapter is no table of settings, found {type(values).__name__}."
        raise ValueError(msg)
    default = _jsonable(LoraConfig().to_dict())
    for name, value in values.items():
        if name not in ALLOWED and value and value != default.get(name):
            msg = f"The adapter sets {name} = {str(value)[:80]!r}; only {', '.join(sorted(READ))} can be chosen."
            raise ValueError(msg)
    rank, alpha, dropout = (values.get(name) for name in ("r", "lora_alpha", "lora_dropout"))
    ranks = {
        tensor.shape[0 if "lora_A" in name else -1] if tensor.ndim == 2 else 0
        for name, tensor in adapter["tensors"].items()
    }
    own = targets if isinstance(targets, str) else sorted(targets)  # as they are written
    checks: dict[str, tuple[Any, bool, str]] = {
        "r": (rank, type(rank) is int and ranks == {rank}, f"the rank of its tensors, {sorted(ranks)}"),
        "lora_alpha": (alpha, _between(alpha, 1e-9, 1e6), "a positive number"),
        "lora_dropout": (dropout, _between(dropout, 0, 0.999), "a number from 0 to below 1"),
        "target_modules": (values.get("target_modules"), values.get("target_modules") == own, repr(own)),
        "peft_type": (values.get("peft_type"), values.get("peft_type") == "LORA", "'LORA'"),
    }
    for name, (found, good, expected) in checks.items():
        if not good:
            msg = f"The adapter has {name} = {str(found)[:80]!r}, expected {expected}. It was trained on another base model or is damaged."
            raise ValueError(msg)
    return LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, bias="none")


def _between(value: Any, low: float, high: float) -> bool:
    return type(value) in {int, float} and low <= value <= high


def adapter_state(encoder: CellEncoder, config: LoraConfig) -> dict[str, Any]:
    """Tensors and configuration as peft writes them."""
    state = get_peft_model_state_dict(encoder)
    tensors = {f"{PREFIX}{name}": tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    values = {key: sorted(item) if isinstance(item, set) else item for key, item in config.to_dict().items()}
    return {"tensors": tensors, "config": _jsonable(values | {"inference_mode": True})}


def apply_tuned(encoder: CellEncoder, model: ResponseModel) -> CellEncoder:
    """Put a model's tuned weights and adapter, where it has them, onto the encoder they were made from.

    Parameters
    ----------
    encoder
        The base model, as published.
    model
        A model trained with `mode='lora'` or `'full'`.

    Raises
    ------
    ValueError
        The tensors do not fit this encoder.
    """
    if model.weights is not None:
        load_weights(encoder, model.weights)
    if model.adapter is not None:
        inject_saved(encoder, model.adapter)
    return encoder.eval().requires_grad_(requires_grad=False)


def merge_adapters(encoder: CellEncoder) -> None:
    """Replace every adapted layer by a plain one with the adapter added to its weight."""
    for name, module in list(encoder.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)  # on a copy: loaded weights may be mapped from a read-only file
            parent, _, child = name.rpartition(".")
            setattr(encoder.get_submodule(parent), child, module.get_base_layer())


def load_weights(encoder: CellEncoder, weights: dict[str, torch.Tensor]) -> None:
    """Replace tensors of the encoder by tuned ones.

    Raises
    ------
    ValueError
        A tensor has no place in this encoder, or another shape.
    """
    own = encoder.state_dict()
    wrong = [name for name, tensor in weights.items() if name not in own or own[name].shape != tensor.shape]
    if wrong:
        msg = f"The tuned weights do not fit {type(encoder).__name__} (for example {wrong[0]!r})."
        raise ValueError(msg)
    moved = {name: tensor.to(own[name].device) for name, tensor in weights.items()}
    encoder.load_state_dict({**own, **moved}, assign=True)


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_jsonable(item) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return getattr(value, "value", str(value))
