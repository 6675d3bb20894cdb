"""The configuration of an adapter is a file of somebody else: it chooses three numbers and nothing more."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sc_drugresp._response.tune.adapters import saved_config

TARGETS = r".*\.(attn\.[qkvo]|up|down)"


def adapter(**changes: Any) -> dict[str, Any]:
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": TARGETS}
    tensors = {"a.lora_A.weight": torch.zeros(4, 6), "a.lora_B.weight": torch.zeros(5, 4)}
    return {"config": config | changes, "tensors": tensors}


def test_our_own_settings_are_read():
    config = saved_config(adapter(peft_version="0.99", inference_mode=True, bias="none", eva_config=None), TARGETS)
    assert (config.r, config.lora_alpha, config.lora_dropout, config.target_modules) == (4, 8, 0.1, TARGETS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("auto_mapping", {"parent_library": "antigravity", "base_model_class": "x"}),
        ("megatron_config", {"x": 1}),
        ("megatron_core", "antigravity"),
        ("modules_to_save", ["head"]),
        ("init_lora_weights", "pissa"),
        ("corda_config", {"cache_file": "/etc/passwd"}),
        ("rank_pattern", {"(a+)+$": 10**9}),
        ("layer_replication", [[0, 10**9]]),
        ("layers_pattern", "(a+)+$"),
        ("use_dora", True),
        ("bias", "all"),
        ("target_parameters", ["x"]),
        ("a_setting_of_tomorrow", 1),
    ],
)
def test_a_file_cannot_choose_anything_else(name, value):
    with pytest.raises(ValueError, match=f"The adapter sets {name} = "):
        saved_config(adapter(**{name: value}), TARGETS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("r", value) for value in (None, 0, -1, 10**9, True, "4", 4.0, [4])],
        *[("lora_alpha", value) for value in (None, 0, -1, float("nan"), float("inf"), 10**400, "8", [], True)],
        *[("lora_dropout", value) for value in (None, -0.1, 1.0, float("nan"), "x", {})],
        *[("target_modules", value) for value in (None, "(a+)+$", "all-linear", ["q"], [["q"]], 5, {"q": 1})],
        *[("peft_type", value) for value in (None, "LOHA", 5)],
    ],
)
def test_a_setting_without_sense_names_itself(name, value):
    with pytest.raises(ValueError, match=f"The adapter has {name} = "):
        saved_config(adapter(**{name: value}), TARGETS)


@pytest.mark.parametrize("config", [None, [], "x", 5])
def test_a_configuration_that_is_no_table(config):
    with pytest.raises(ValueError, match="no table of settings"):
        saved_config(adapter() | {"config": config}, TARGETS)


@pytest.mark.parametrize("shape", [(), (4,), (0, 6), (10**3, 6), (4, 6, 2)])
def test_tensors_of_another_rank(shape):
    broken = adapter()
    broken["tensors"]["a.lora_A.weight"] = torch.zeros(shape)
    with pytest.raises(ValueError, match="rank of its tensors"):
        saved_config(broken, TARGETS)
