"""Open a language model with transformers: no foreign code, safetensors alone, nothing printed, no global state moved."""

from __future__ import annotations

import json
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .._core.device import resolve_device
from .._core.imports import require
from ._weights import BROKEN, check_finite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn


_SAFE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
SPECIAL = ("<unk>", "<s>", "</s>")
_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.: ,_"


@contextmanager
def quiet() -> Iterator[Any]:
    """Transformers, without its bars and advice, and with the random generator of torch as it was."""
    import torch
    import transformers
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.filterwarnings("ignore", module=r"(transformers|bitsandbytes)\..*")
            yield transformers
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


class opening:  # noqa: N801 (used like a function)
    """Errors of foreign libraries about a file, told as ours; those of the Rust ones are plain `Exception` objects.

    Parameters
    ----------
    path
        What is opened.
    what
        What is wrong with it if it cannot be.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from safetensors import SafetensorError

        if isinstance(error, (*BROKEN, SafetensorError)) or type(error) is Exception:
            said = (str(error).splitlines() or [type(error).__name__])[0][:200]
            msg = f"{self.path} {self.what} ({said}). Download it again."
            raise ValueError(msg) from error


def open_config(path: Path) -> Any:
    """The configuration in a folder, as transformers reads it.

    Raises
    ------
    ValueError
        It describes no network that transformers knows, or one that needs code of its own, or an encoder with a decoder.
    """
    with quiet() as transformers:
        try:
            config = transformers.AutoConfig.from_pretrained(path.parent, **_SAFE).get_text_config()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            msg = (
                f"{path} describes no network that transformers {transformers.__version__} knows by itself "
                f"({(str(error).splitlines() or [''])[0][:200]}). Code that comes with a model is never run."
            )
            raise ValueError(msg) from error
    if getattr(config, "is_encoder_decoder", False):
        msg = f"{path} describes an encoder with a decoder ({config.model_type}); expected one network that reads text: a causal or an encoder model."
        raise ValueError(msg)
    return config


def open_tokenizer(path: Path) -> Any:
    """The tokenizer in a folder.

    Raises
    ------
    ValueError
        Its files are damaged, or need a package that is not there.
    """
    with quiet() as transformers, opening(path, "cannot be read as a tokenizer"):
        return transformers.AutoTokenizer.from_pretrained(path.parent, **_SAFE)


def open_network(path: Path, *, causal: bool, dtype: str, quantize: str) -> nn.Module:
    """The network in the folder of a weights file, frozen, in evaluation mode.

    Parameters
    ----------
    path
        A file of its weights.
    causal
        With the layer that predicts the next token.
    dtype, quantize
        As in :class:`~sc_drugresp.models.llm.LanguageModelConfig`.

    Raises
    ------
    ValueError
        Weights are missing, of another shape, or not finite, or the device cannot run quantized ones.
    """
    import torch

    options: dict[str, Any] = {}
    if quantize != "no":
        options = {"quantization_config": _quantization(quantize, dtype), "device_map": {"": resolve_device()}}
    with quiet() as transformers, opening(path.parent, "cannot be opened as a network"):
        auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
        options |= {"use_safetensors": True, "dtype": getattr(torch, dtype), "output_loading_info": True}
        network, found = auto.from_pretrained(path.parent, **_SAFE, **options)
    if getattr(network, "pooler", None) is not None:
        network.pooler = None  # reads the first token for another task, and is often not in the file
    plain_layers(network)
    # Older releases give lists, newer ones sets.
    lost = sorted(str(name) for name in found["missing_keys"] if not str(name).startswith("pooler."))
    other = sorted(str(name) for name in found["mismatched_keys"])
    if lost or other:
        what = f"{len(lost)} tensors are missing ({', '.join(lost[:4])})" if lost else f"shapes differ ({other[0]})"
        msg = f"The weights in {path.parent} do not fit its config.json: {what}. Take all files from one model."
        raise ValueError(msg)
    if quantize == "no":
        for name, tensor in network.named_parameters():
            check_finite(name, tensor.detach(), source=path.parent)
    return network.requires_grad_(requires_grad=False).eval()


def plain_layers(network: nn.Module) -> None:
    """Replace the layers of GPT-2, whose weights stand `[in, out]`, by linear ones, in place."""
    import torch
    from transformers.pytorch_utils import Conv1D

    for name, module in list(network.named_modules()):
        if isinstance(module, Conv1D):
            layer = torch.nn.utils.skip_init(torch.nn.Linear, *module.weight.shape, dtype=module.weight.dtype)
            layer.weight = torch.nn.Parameter(module.weight.detach().t().contiguous())
            layer.bias = module.bias
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, layer)


def _quantization(quantize: str, dtype: str) -> Any:
    """Settings of bitsandbytes.

    Raises
    ------
    ImportError
        bitsandbytes is not installed.
    ValueError
        It does not support the device.
    """
    import torch
    import transformers

    library = require("bitsandbytes", extra="llm")
    where = resolve_device().type
    supported = set(getattr(library, "supported_torch_devices", {"cuda"}))
    if where not in supported:
        msg = (
            f"quantize={quantize!r} needs bitsandbytes {library.__version__} on a device that it supports "
            f"({', '.join(sorted(supported))}), found {where!r}. Use quantize='no' with weights='bfloat16'."
        )
        raise ValueError(msg)
    if quantize == "8bit":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype)
    )


def made_up_network(sizes: Any) -> nn.Module:
    """A Llama of these sizes with random weights."""
    with quiet() as transformers:
        stated = transformers.LlamaConfig(
            hidden_size=sizes.dim,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            num_key_value_heads=max(1, sizes.heads // 4),
            intermediate_size=sizes.ffn_dim,
            max_position_embeddings=sizes.positions,
            vocab_size=sizes.vocab_size,
            attention_dropout=0.0,
        )
        return transformers.AutoModel.from_config(stated).requires_grad_(requires_grad=False).eval()


def made_up_tokenizer() -> Any:
    """A tokenizer whose tokens are single characters."""
    vocab = {token: i for i, token in enumerate((*SPECIAL, *_CHARACTERS))}
    split = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}
    first = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    state: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": split,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": first,
            "pair": [*first, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    }
    from tokenizers import Tokenizer

    with quiet() as transformers:
        names = dict(zip(("unk_token", "bos_token", "eos_token"), SPECIAL))
        return transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **names)
