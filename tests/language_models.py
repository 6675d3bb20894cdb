"""Tiny language models with random weights, in folders, for tests."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from sc_drugresp.models._language_open import made_up_tokenizer, quiet

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 90}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "vocab_size": 90}


def configs(positions: int) -> dict[str, transformers.PretrainedConfig]:
    """One of each kind: causal with rotary positions, encoder with a table of them, and one that counts from padding."""
    return {
        "llama": transformers.LlamaConfig(**SIZES, num_key_value_heads=2, max_position_embeddings=positions),
        "bert": transformers.BertConfig(**SIZES, max_position_embeddings=positions),
        "roberta": transformers.RobertaConfig(**SIZES, max_position_embeddings=positions + 3, pad_token_id=2),
        "gpt2": transformers.GPT2Config(**GPT2, n_positions=positions, bos_token_id=1, eos_token_id=2),
    }


def make(kind: str, folder: Path, positions: int = 300) -> Path:
    """Write a model of a kind into a folder: with the layer that predicts words if it is causal."""
    config = configs(positions)[kind]
    with quiet():
        causal = kind in {"llama", "gpt2"}
        auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
        network = auto.from_config(config)
        generator = torch.Generator().manual_seed(0)
        for parameter in network.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
        network.save_pretrained(folder)
        tokenizer = made_up_tokenizer()
        tokenizer.pad_token = tokenizer.eos_token
        tokenizer.save_pretrained(folder)
    return folder
