"""Products through oneDNN: only where they are exact, only inside the block, never against a setting of the user."""

from __future__ import annotations

import threading

import pytest
import torch

import sc_drugresp as sdr
from sc_drugresp._nn import products
from sc_drugresp._nn.products import advantage, fast_products, is_exact, plain_products

MATMUL = torch.backends.mkldnn.matmul


@pytest.fixture(autouse=True)
def probed_anew(monkeypatch):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    is_exact.cache_clear()
    yield
    is_exact.cache_clear()
    assert MATMUL.fp32_precision == "none"


def rounded(a, b):
    """A product as matrix units compute it: factors of 8 bits, exact sums."""
    return (a.bfloat16().double() @ b.bfloat16().double()).float()


def exact(a, b):
    return (a.double() @ b.double()).float()


def test_permission_ends_with_the_block(monkeypatch):
    monkeypatch.setattr(products, "product", exact)
    with fast_products():
        assert MATMUL.fp32_precision == "bf16"
        with fast_products():
            assert MATMUL.fp32_precision == "bf16"
        assert MATMUL.fp32_precision == "bf16"
    assert MATMUL.fp32_precision == "none"
    assert torch.get_float32_matmul_precision() == "highest"


def test_permission_ends_with_an_error(monkeypatch):
    monkeypatch.setattr(products, "product", exact)
    with pytest.raises(ValueError, match="none"), fast_products(), plain_products():
        raise ValueError(MATMUL.fp32_precision)
    assert MATMUL.fp32_precision == "none"
    assert not products.are_fast()


def test_a_processor_that_rounds_gets_no_permission(monkeypatch):
    monkeypatch.setattr(products, "product", rounded)
    with fast_products():
        assert MATMUL.fp32_precision == "none"
        assert not products.are_fast()


def test_the_probe_is_done_once(monkeypatch):
    seen = []
    monkeypatch.setattr(products, "product", lambda a, b: seen.append(MATMUL.fp32_precision) or exact(a, b))
    for _ in range(3):
        with fast_products():
            pass
    assert seen == ["bf16", "bf16"]


@pytest.mark.parametrize("own", ["bf16", "ieee"])
def test_a_setting_of_the_user_stays(monkeypatch, own):
    monkeypatch.setattr(products, "product", exact)
    MATMUL.fp32_precision = own
    try:
        with fast_products():
            assert MATMUL.fp32_precision == own
            with plain_products():
                assert MATMUL.fp32_precision == own
        assert MATMUL.fp32_precision == own
    finally:
        MATMUL.fp32_precision = "none"


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setattr(products, "product", exact)
    with sdr.settings.override(speedups=["attention"]), fast_products():
        assert MATMUL.fp32_precision == "none"


def test_permission_lasts_until_the_last_thread_is_done(monkeypatch):
    monkeypatch.setattr(products, "product", exact)
    entered, leave = threading.Event(), threading.Event()

    def other():
        with fast_products():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with fast_products():
        thread.start()
        assert entered.wait(10)
    assert MATMUL.fp32_precision == "bf16"
    leave.set()
    thread.join()
    assert MATMUL.fp32_precision == "none"


def test_measuring_leaves_the_permission_as_it_was(monkeypatch):
    monkeypatch.setattr(products, "product", exact)
    advantage.cache_clear()
    with fast_products():
        assert advantage(torch.float32, 1) > 0
        assert MATMUL.fp32_precision == "bf16"
    assert advantage(torch.bfloat16, 1) > 0
    advantage.cache_clear()
