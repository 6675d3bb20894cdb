"""LoRA by peft, injected in place, so that an encoder keeps its class; adapters in peft's own file format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer

if TYPE_CHECKING:
    import torch

    from ..models._encoder import CellEncoder
    from ..models._response import ResponseModel


def lora_config(encoder: CellEncoder, *, rank: int, alpha: int, dropout: float) -> LoraConfig:
    """Adapters on the linear layers that the encoder names."""
    return LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=encoder.lora_targets, bias="none")


def inject(encoder: CellEncoder, config: LoraConfig) -> list[str]:
    """Add adapters in place; everything else stays frozen.

    Returns
    -------
    Names of the adapted layers.

    Raises
    ------
    ValueError
        No layer matches the encoder's `lora_targets`.
    """
    inject_adapter_in_model(config, encoder)
    adapted = [name for name, module in encoder.named_modules() if isinstance(module, LoraLayer)]
    if not adapted:
        msg = f"No layer of {type(encoder).__name__} matches {encoder.lora_targets!r}; nothing would be trained."
        raise ValueError(msg)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return adapted


def adapter_state(encoder: CellEncoder, config: LoraConfig) -> dict[str, Any]:
    """Tensors and configuration as peft writes them."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in get_peft_model_state_dict(encoder).items()}
    values = {key: sorted(item) if isinstance(item, set) else item for key, item in config.to_dict().items()}
    return {"tensors": tensors, "config": _jsonable(values)}


def apply_tuned(encoder: CellEncoder, model: ResponseModel, *, merge: bool = False) -> CellEncoder:
    """Put a model's adapter, or its fully tuned weights, onto the encoder they were made from.

    Parameters
    ----------
    encoder
        The base model, as published.
    model
        A model trained with `mode='lora'` or `'full'`.
    merge
        Add the adapter to the weights, which then run without it.

    Raises
    ------
    ValueError
        The tensors do not fit this encoder.
    """
    if model.weights is not None:
        _load_full(encoder, model.weights)
    if model.adapter is not None:
        config = LoraConfig(
            **{k: v for k, v in model.adapter["config"].items() if k in LoraConfig.__dataclass_fields__}
        )
        inject(encoder, config)
        result = set_peft_model_state_dict(encoder, model.adapter["tensors"])
        if result.unexpected_keys or any("lora_" in name for name in result.missing_keys):
            msg = f"The adapter does not fit {type(encoder).__name__}; it was trained on another base model."
            raise ValueError(msg)
        if merge:
            merge_adapters(encoder)
    return encoder.eval().requires_grad_(requires_grad=False)


def merge_adapters(encoder: CellEncoder) -> None:
    """Replace every adapted layer by a plain one with the adapter added to its weight."""
    for name, module in list(encoder.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(encoder.get_submodule(parent), child, module.get_base_layer())


def _load_full(encoder: CellEncoder, weights: dict[str, torch.Tensor]) -> None:
    own = encoder.state_dict()
    wrong = [name for name, tensor in weights.items() if name not in own or own[name].shape != tensor.shape]
    if wrong:
        msg = f"The tuned weights do not fit {type(encoder).__name__} (for example {wrong[0]!r})."
        raise ValueError(msg)
    encoder.load_state_dict({**own, **weights}, assign=True)


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_jsonable(item) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return getattr(value, "value", str(value))
