"""OpenVINO: the same numbers, nothing sent, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from engines import NETWORKS, embedded, plain_embedding, some
from helpers import close, golden, load, relative
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer

import sc_drugresp as sdr
from sc_drugresp.models import CellEncoder
from sc_drugresp.models._load import model_class
from sc_drugresp.models._openvino import ConvertedLayers, merged_adapters
from sc_drugresp.models._registry import find

if find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)


@pytest.fixture
def plain():
    return plain_embedding


@pytest.mark.parametrize("model", some(NETWORKS))
def test_openvino_does_not_change_a_cell(plain, model):
    close(embedded(model, engine="openvino"), plain(model))


def test_batches_and_order_do_not_change_a_cell(plain):
    encoder, adata = load("scgpt"), golden("scgpt").adata
    order = np.random.default_rng(0).permutation(adata.n_obs)
    with pytest.warns(UserWarning, match="not unique"):
        turned = adata[order].copy()
    found = encoder.embed(turned, genes="exact", engine="openvino", batch_tokens=300)
    close(found, plain("scgpt")[order])


@pytest.mark.parametrize("model", some(NETWORKS))
def test_bfloat16_is_near(plain, model):
    assert 1e-4 < relative(embedded(model, engine="openvino", precision="bfloat16"), plain(model)) < 5e-2


def adapted() -> CellEncoder:
    encoder = load("scgpt")
    inject_adapter_in_model(LoraConfig(r=2, target_modules=encoder.lora_targets), encoder)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return encoder.eval()


def test_adapters_are_merged_and_come_apart_again(plain):
    encoder, adata = adapted(), golden("scgpt").adata
    expected = encoder.embed(adata, genes="exact")
    assert relative(expected, plain("scgpt")) > 1e-2
    before = {name: x.clone() for name, x in encoder.state_dict().items()}
    close(encoder.embed(adata, genes="exact", engine="openvino"), expected)
    assert all(torch.equal(x, before[name]) for name, x in encoder.state_dict().items())
    with merged_adapters(encoder):
        assert all(module.merged for module in encoder.modules() if isinstance(module, LoraLayer))
    assert not any(module.merged for module in encoder.modules() if isinstance(module, LoraLayer))


def test_a_network_that_is_converted_to_something_else_is_refused():
    class Constant(model_class(find("scgpt")[0])):
        def pool(self, hidden, batch):
            return hidden[:, 0] * len(hidden)  # a number of the example

    encoder = load("scgpt")
    encoder.__class__ = Constant
    batch = encoder.collate(encoder.tokenize(golden("scgpt").adata, genes="exact").take(np.arange(5)))
    with torch.inference_mode(), pytest.raises(RuntimeError, match="something else than PyTorch"):
        ConvertedLayers(encoder, "float32")(encoder.stem(batch), batch)


def test_threads_are_those_of_torch():
    encoder = load("scgpt")
    batch = encoder.collate(encoder.tokenize(golden("scgpt").adata, genes="exact").take(np.arange(5)))
    converted, before = ConvertedLayers(encoder, "float32"), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.inference_mode():
                converted(encoder.stem(batch), batch)
            _, request = next(value for key, value in converted.requests.items() if key[0] == threads)
            assert request.get_compiled_model().get_property("INFERENCE_NUM_THREADS") == threads
    finally:
        torch.set_num_threads(before)


SPY = """
import os, socket
def told(kind):
    def tell(*a, **k):
        with open(os.environ["SPY"], "a") as file:
            file.write(f"{os.getpid()} {kind} {a[1:] if a else ''}\\n")
        raise OSError("no network in this test")
    return tell
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, told(name))
socket.getaddrinfo = told("getaddrinfo")
"""
WORK = """
import sys
import numpy as np, torch, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
from helpers import golden, load
from sc_drugresp.models import Tokens
encoder = load("scgpt")
encoder.embed_tokens(Tokens(np.array([0, 3, 8]), np.arange(8) % encoder.n_ids, np.ones(8)), engine="openvino")
import openvino
"""
PHONES = """
import openvino, time
time.sleep(3)
"""


def watched(tmp_path, script: str) -> tuple[list[str], list[str]]:
    """Files in the home folder, and attempts to reach a network, by a process and all of its children."""
    home, site, spy = (tmp_path / name for name in ("home", "site", "spy.txt"))
    home.mkdir()
    site.mkdir()
    (site / "sitecustomize.py").write_text(SPY)
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CI", "XDG_CACHE_HOME", "TF_BUILD", "JENKINS_URL")
    }
    environment = kept | {"HOME": str(home), "PYTHONPATH": path, "SPY": str(spy), "MPLCONFIGDIR": str(tmp_path)}
    tests = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120
    subprocess.run([sys.executable, "-c", script, tests], env=environment, check=True, timeout=300)
    files = [str(file.relative_to(home)) for file in home.rglob("*") if file.is_file()]
    return files, spy.read_text().splitlines() if spy.is_file() else []


@pytest.mark.slow
def test_the_spy_sees_a_child_that_phones_home(tmp_path):
    _, attempts = watched(tmp_path, PHONES)
    if not attempts:
        pytest.fail("this OpenVINO does not phone home when it is imported: the next test proves nothing")


def test_nothing_is_sent_and_nothing_is_left_in_the_home_folder(tmp_path):
    assert watched(tmp_path, WORK) == ([], [])


def test_a_response_model_remembers_engine_and_precision(tmp_path):
    record = golden("scgpt")
    adata = record.adata
    adata.obs_names_make_unique()
    adata.var_names_make_unique()
    half = np.arange(adata.n_obs) % 2
    adata.obs["sample"] = [f"s{i % 6}" for i in range(adata.n_obs)]
    adata.obs["response"] = np.where(half == 1, "sensitive", "resistant")
    how = {"engine": "openvino", "precision": "bfloat16"}
    sdr.tl.embed(adata, "scgpt", checkpoint=record.weights, **how)
    params = adata.uns["scgpt"]["params"]
    assert (params["engine"], params["precision"]) == ("openvino", "bfloat16")
    model = sdr.tl.train_response(adata, use_rep="X_scgpt", group_key="sample")
    model.save(tmp_path / "model")
    saved = sdr.models.ResponseModel.load(tmp_path / "model")
    assert how.items() <= saved.representation.items()
    new = record.adata
    new.var_names_make_unique()
    seen = []
    original = CellEncoder.embed

    def spy(self, *args, **options):
        seen.append((options["engine"], options["precision"]))
        return original(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CellEncoder, "embed", spy)
        sdr.tl.predict_response(new, saved, checkpoint=record.weights)
    assert seen == [("openvino", "bfloat16")]
    exact = record.adata
    exact.var_names_make_unique()
    sdr.tl.embed(exact, "scgpt", checkpoint=record.weights)
    with pytest.raises(ValueError, match=r"precision = 'float32'.*'bfloat16'"):
        sdr.tl.predict_response(exact, saved, checkpoint=record.weights)
