"""Open a language model with transformers: no foreign code, safetensors alone, nothing printed, no global state moved."""

from __future__ import annotations

import json
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .._core.device import resolve_device
from .._core.imports import require
from ._weights import check_finite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn

    from ._config import Config

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
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(transformers|bitsandbytes)\..*")
            yield transformers
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


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
    with quiet() as transformers:
        try:
            return transformers.AutoTokenizer.from_pretrained(path.parent, **_SAFE)
        except Exception as error:  # the Rust library raises plain `Exception`
            msg = f"{path} cannot be read as a tokenizer ({(str(error).splitlines() or [''])[0][:200]}). Download it again."
            raise ValueError(msg) from error


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
    with quiet() as transformers:
        auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
        try:
            network, found = auto.from_pretrained(
                path.parent,
                use_safetensors=True,
                dtype=getattr(torch, dtype),
                output_loading_info=True,
                **_SAFE,
                **options,
            )
        except Exception as error:  # safetensors and transformers raise what they like
            msg = f"{path.parent} cannot be opened as a network ({(str(error).splitlines() or [''])[0][:200]}). Download it again."
            raise ValueError(msg) from error
    if getattr(network, "pooler", None) is not None:
        network.pooler = None  # reads the first token for another task, and is often not in the file
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
            f"({', '.join(sorted(supported))}), found {where!r}. Use quantize='no' with precision='bfloat16'."
        )
        raise ValueError(msg)
    if quantize == "8bit":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype)
    )


def made_up_network(config: Any) -> nn.Module:
    """A Llama of these sizes with random weights."""
    sizes: Config = config
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
    state = {
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
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(json.dumps(state)), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
        )
