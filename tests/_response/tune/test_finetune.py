"""Tuning of every foundation model, on its recorded tiny checkpoint and made-up cells of five cell lines."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from helpers import RunsCode, cell_lines, close, load
from peft import LoraConfig, PeftModel, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer

import sc_drugresp as sdr
from sc_drugresp._data import Tokens
from sc_drugresp._response.fit import fit_head
from sc_drugresp._response.trust import Trust
from sc_drugresp._response.tune.adapters import PREFIX, apply_tuned, inject, inject_saved, lora_config, merge_adapters
from sc_drugresp._response.tune.finetune import Tuned, compare, embed_by_sample, finetune
from sc_drugresp._response.tune.module import ResponseModule
from sc_drugresp._response.tune.options import FineTuning
from sc_drugresp._stats.groups import balanced_weights
from sc_drugresp.models import CellEncoder, ResponseModel
from sc_drugresp.models._load import model_class
from sc_drugresp.models._registry import find

MODELS = ["celllm", "cellplm", "geneformer", "scbert", "scfoundation", "scgpt", "tgpt", "uce"]
# scBERT has the trunk of CellLM and three times its positions.
EACH = [pytest.param(name, marks=pytest.mark.slow if name == "scbert" else ()) for name in MODELS]
# The costlier tests run on one ordinary and one set-based model; on all the others when slow tests are wanted.
FEW = [pytest.param(name, marks=() if name in ("scgpt", "cellplm") else pytest.mark.slow) for name in MODELS]
OPTIONS = FineTuning(rank=2, alpha=4, epochs=3, patience=3, batch_size=8, learning_rate=1e-3, head_learning_rate=1e-2)

LONGER = replace(OPTIONS, epochs=8, batch_size=4, dropout=0.0)


@dataclass
class Case:
    """Tokens, labels and samples (cell lines) for one model."""

    name: str
    tokens: Tokens
    y: np.ndarray
    groups: np.ndarray

    def load(self, **options: Any) -> CellEncoder:
        return load(self.name, **options)

    def embed(self, encoder: CellEncoder) -> np.ndarray:
        return embed_by_sample(encoder, self.tokens, self.groups)

    def tune(self, mode: str = "lora", seed: int = 0, **changes: Any) -> tuple[CellEncoder, Tuned]:
        encoder = self.load()
        start = changes.pop("start", None)
        options = replace(OPTIONS, **changes)
        how: Any = {"mode": mode, "head": "logistic", "options": options, "seed": seed, "start": start}
        return encoder, finetune(encoder, self.tokens, self.y, self.groups, **how)

    def batch(self, encoder: CellEncoder, n: int = 4) -> dict[str, torch.Tensor]:
        return encoder.collate(self.tokens.take(np.arange(n)))


@cache
def make_case(name: str) -> Case:
    adata = cell_lines()
    y = (adata.obs["response"] == "sensitive").to_numpy().astype(np.int64)
    return Case(name, load(name).tokenize(adata), y, adata.obs["cell_line"].astype(str).to_numpy(dtype=str))


@cache
def lora(name: str) -> tuple[Case, CellEncoder, Tuned]:
    """One tuning run, which several tests look at."""
    with sdr.settings.override(progress=False, device="cpu"):
        case = make_case(name)
        return case, *case.tune()


@cache
def full(name: str) -> tuple[Case, CellEncoder, Tuned]:
    with sdr.settings.override(progress=False, device="cpu"):
        case = make_case(name)
        return case, *case.tune("full", epochs=2, learning_rate=1e-3)


def layers(encoder: torch.nn.Module) -> dict[str, LoraLayer]:
    return {name: module for name, module in encoder.named_modules() if isinstance(module, LoraLayer)}


def digest(encoder: CellEncoder) -> dict[str, str]:
    """Hash of every tensor of the base model."""
    state = {name.replace(".base_layer.", "."): t for name, t in encoder.state_dict().items() if "lora_" not in name}
    return {name: hashlib.sha256(t.contiguous().numpy().tobytes()).hexdigest() for name, t in state.items()}


def saved(tuned: Tuned, case: Case) -> ResponseModel:
    return ResponseModel(tuned.head, {}, {"dim": 0}, trust=None, adapter=tuned.adapter, weights=tuned.weights)


# LoRA ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EACH)
def test_loss_falls(name):
    """Log loss of the training cells without dropout, before and after: every epoch counts, none is chosen."""
    whole = make_case(name)
    two = np.isin(whole.groups, ["line0", "line1"])
    case = Case(name, whole.tokens.take(np.flatnonzero(two)), whole.y[two], whole.groups[two])
    encoder = case.load()
    before = case.embed(encoder)
    frozen = fit_head("logistic", before, case.y, case.groups, rng=0).logit(before)
    how: Any = {"mode": "lora", "head": "logistic", "options": replace(LONGER, force=True), "seed": 0}
    tuned = finetune(encoder, case.tokens, case.y, case.groups, **how)  # one sample of a class: none is held out
    after = tuned.head.logit(case.embed(encoder))
    weights = balanced_weights(case.y, case.groups)
    losses = [np.average(np.logaddexp(0, -logit * (2 * case.y - 1)), weights=weights) for logit in (frozen, after)]
    assert losses[1] < losses[0]


@pytest.mark.parametrize("name", EACH)
def test_base_is_bit_identical_after_adapters_were_trained(name):
    case, encoder, _ = lora(name)
    assert digest(encoder) == digest(case.load())
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("name", EACH)
def test_held_out_scores_are_computed_without_dropout(name):
    case, encoder, tuned = lora(name)
    rows = {row["model"]: row for row in compare(tuned, case.y, case.groups)}
    best = min(row["held_out_loss"] for row in tuned.history)
    # Computed in training by the module, and here from the embedding of the restored parameters.
    assert rows["tuned"]["held_out_loss"] == pytest.approx(best, rel=1e-4)
    assert rows.keys() == {"frozen", "tuned"}
    np.testing.assert_array_equal(case.embed(encoder), case.embed(encoder))
    chosen = case.embed(encoder)[tuned.held_out]
    close(tuned.head.logit(chosen), tuned.logits)


@pytest.mark.parametrize("name", EACH)
def test_every_adapter_learned_and_changes_the_output(name):
    case, encoder, tuned = lora(name)
    assert len(tuned.adapted) == len(layers(encoder)) >= 12
    encoder = apply_tuned(case.load(), saved(tuned, case))  # of its own: dropout is switched off below
    dropouts = [module for module in encoder.modules() if isinstance(module, torch.nn.Dropout)]
    batch = case.batch(encoder)
    for training in (False, True):
        encoder.train(training)
        for module in dropouts:
            module.p = 0.0
        for module in encoder.modules():
            if isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0
        with torch.no_grad():
            whole = encoder(batch)
            for layer_name, layer in layers(encoder).items():
                assert layer.lora_B["default"].weight.abs().max() > 0, layer_name  # it began at zero
                scale, layer.scaling["default"] = layer.scaling["default"], 0.0
                assert (encoder(batch) - whole).abs().max() > 0, layer_name
                layer.scaling["default"] = scale


@pytest.mark.parametrize("name", EACH)
def test_fast_and_plain_ways_agree_after_tuning(name):
    for case, encoder, _ in (lora(name), full(name)):
        batch = case.batch(encoder)
        with torch.no_grad():
            plain = encoder.pool(encoder.hidden(batch), batch).numpy()
            close(encoder(batch).numpy(), plain)
        sets = {"groups": np.zeros(4, dtype=int)} if encoder.set_based else {}
        close(encoder.embed_tokens(case.tokens.take(np.arange(4)), **sets), plain)
        reloaded = apply_tuned(case.load(), saved(_, case))
        np.testing.assert_array_equal(case.embed(reloaded), case.embed(encoder))


@pytest.mark.parametrize("name", EACH)
def test_merged_adapters_give_the_same_embedding(name):
    case, encoder, tuned = lora(name)
    merged = apply_tuned(case.load(), saved(tuned, case))
    merge_adapters(merged)
    assert not layers(merged)
    close(case.embed(merged), case.embed(encoder))
    assert np.abs(case.embed(case.load()) - case.embed(encoder)).max() > 1e-4


@pytest.mark.parametrize("name", EACH)
def test_adapter_opens_with_plain_peft(name, tmp_path):
    case, encoder, tuned = lora(name)
    expected, held = case.embed(encoder), tuned.held_out
    trust = Trust.fit(tuned.logits, case.y[held], case.groups[held], expected[held], error_level=0.1, rng=0)
    model = ResponseModel(tuned.head, {"model": name}, {"dim": encoder.dim}, trust=trust, adapter=tuned.adapter)
    model.save(tmp_path / "model")
    wrapped = PeftModel.from_pretrained(case.load(), tmp_path / "model")
    close(case.embed(wrapped.get_base_model()), expected, 1e-6)
    with torch.no_grad():
        batch = case.batch(encoder)
        close(wrapped(batch).numpy(), encoder(batch).numpy(), 1e-6)
    plain = case.load()
    inject_adapter_in_model(LoraConfig.from_pretrained(tmp_path / "model"), plain)
    tensors = ResponseModel.load(tmp_path / "model").adapter["tensors"]
    set_peft_model_state_dict(plain, {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items()})
    close(case.embed(plain.eval()), expected, 1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_adapter_is_small_beside_the_published_base(name):
    cls: Any = model_class(find(name)[0])
    config = cls.Config()
    with torch.device("meta"):
        encoder = cls(config, cls.example_vocab(config))
        base = sum(tensor.numel() * tensor.element_size() for tensor in encoder.state_dict().values())
        default = FineTuning()
        inject(encoder, lora_config(encoder, rank=default.rank, alpha=default.alpha, dropout=default.dropout))
    trained = [p for p in encoder.parameters() if p.requires_grad]
    assert 0 < sum(p.numel() * p.element_size() for p in trained) < 0.05 * base


# Full ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EACH)
def test_full_tuning_changes_all_parameters_and_no_table(name):
    case, encoder, tuned = full(name)
    before, after = digest(case.load()), digest(encoder)
    buffers = dict(encoder.named_buffers())
    matrices = {key for key, p in encoder.named_parameters() if p.ndim > 1}
    assert tuned.weights is not None
    assert tuned.adapter is None
    assert {key for key in matrices if before[key] == after[key]} == set()
    assert {key for key in buffers if before[key] != after[key]} == set()
    assert tuned.weights.keys() == dict(encoder.named_parameters()).keys()
    if name == "uce":  # the protein table lies outside of the module
        torch.testing.assert_close(encoder.table, case.load().table, rtol=0, atol=0)
    if name in ("scbert", "celllm"):
        assert {"gene.table", "layers.0.attn.projection"} <= buffers.keys()  # no redraw of directions


# Runs ------------------------------------------------------------------------------------------------------------------


def same_run(one: Tuned, two: Tuned) -> None:
    assert [row.keys() for row in one.history] == [row.keys() for row in two.history]
    assert [list(row.values()) for row in one.history] == [list(row.values()) for row in two.history]
    tensors, others = ((run.adapter["tensors"] if run.adapter else run.weights) for run in (one, two))
    assert tensors.keys() == others.keys()
    for key, tensor in tensors.items():
        assert torch.equal(tensor, others[key]), key
    np.testing.assert_array_equal(one.logits, two.logits)


@pytest.mark.parametrize("name", FEW)
def test_interrupted_and_resumed_is_uninterrupted(name, tmp_path, monkeypatch):
    case, _, whole = lora(name)
    step = ResponseModule.training_step

    def interrupt(self, batch, number):
        if self.current_epoch == 1 and number == 1:
            raise KeyboardInterrupt
        return step(self, batch, number)

    monkeypatch.setattr(ResponseModule, "training_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        case.tune(checkpoint_dir=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    monkeypatch.setattr(ResponseModule, "training_step", step)
    _, resumed = case.tune(checkpoint_dir=tmp_path)
    same_run(resumed, whole)
    _, again = case.tune(checkpoint_dir=tmp_path)  # it was finished: nothing is trained
    same_run(again, whole)


def test_run_that_stopped_early_stays_stopped(tmp_path):
    case = make_case("tgpt")
    options = {"patience": 1, "epochs": 9, "learning_rate": 0.05, "checkpoint_dir": tmp_path}
    _, first = case.tune(**options)
    assert len(first.history) < 9
    _, again = case.tune(**options)
    same_run(first, again)


def test_run_with_other_settings_is_not_continued(tmp_path):
    case = make_case("tgpt")
    case.tune(epochs=1, checkpoint_dir=tmp_path)
    for change in ({"rank": 4}, {"seed": 1}, {"mode": "full"}):
        with pytest.raises(ValueError, match="had other cells, labels, weights or settings"):
            case.tune(epochs=2, checkpoint_dir=tmp_path, **change)
    _, more = case.tune(epochs=2, checkpoint_dir=tmp_path)
    same_run(more, case.tune(epochs=2)[1])


@pytest.mark.parametrize("name", FEW)
def test_seed_decides_and_global_streams_stay(name):
    case, _, first = lora(name)
    before = np.random.get_state()[1].copy(), torch.get_rng_state(), random.getstate()
    _, again = case.tune()
    other = case.tune(seed=1, epochs=1)[1]
    case.embed(apply_tuned(case.load(), saved(again, case)))
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    assert random.getstate() == before[2]
    same_run(first, again)
    assert other.history[0] != first.history[0]


@pytest.mark.parametrize("name", FEW)
def test_gradient_checkpointing_changes_nothing_but_memory(name):
    case = make_case(name)
    plain, recomputed = (case.tune(epochs=1, gradient_checkpointing=on)[1] for on in (False, True))
    np.testing.assert_allclose(recomputed.logits, plain.logits, rtol=1e-3, atol=1e-4)
    assert recomputed.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], rel=1e-4)


def test_accumulated_batches_have_dropout_of_their_own():
    case, states = make_case("tgpt"), []
    start = ResponseModule.on_train_batch_start

    def note(self, batch, number):
        start(self, batch, number)
        states.append(torch.get_rng_state().numpy().tobytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResponseModule, "on_train_batch_start", note)
        case.tune(epochs=2, accumulate=3)
    assert len(set(states)) == len(states) == 4


def test_diverged_training_is_told():
    with pytest.raises(RuntimeError, match="Lower `learning_rate`"):
        make_case("tgpt").tune(learning_rate=1e30, head_learning_rate=1e30)


def test_without_held_out_samples_the_last_epoch_is_kept():
    case = make_case("scgpt")
    one = np.isin(case.groups, np.unique(case.groups[case.y == 1])[:1]) | (case.y == 0)
    part = Case(case.name, case.tokens.take(np.flatnonzero(one)), case.y[one], case.groups[one])
    with pytest.raises(ValueError, match="at least 2 samples of each class"):
        part.tune()
    _, tuned = part.tune(force=True, epochs=2)
    assert [sorted(row) for row in tuned.history] == [["epoch", "loss"]] * 2
    assert len(tuned.held_out) == len(tuned.logits) == 0
    assert compare(tuned, part.y, part.groups) == []


# Continuing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modes", [("lora", "lora"), ("lora", "full"), ("full", "lora"), ("full", "full")])
@pytest.mark.parametrize("merge", [False, True])
def test_continued_model_is_what_was_trained(modes, merge):
    """Weights and adapters of both stages must be in the result: applied to the base they give the tuned encoder."""
    case = make_case("tgpt")
    first = case.tune(modes[0], epochs=1)[1]
    start = replace(saved(first, case), info={"dim": 0, "data_hash": "first"})
    encoder, second = case.tune(modes[1], epochs=1, start=start, merge=merge)
    rebuilt = apply_tuned(case.load(), saved(second, case))
    close(case.embed(rebuilt), case.embed(encoder), 1e-6)
    begun = apply_tuned(case.load(), start)
    expected = first.head.logit(case.embed(begun)[second.held_out])
    np.testing.assert_allclose(second.references["start"], expected, atol=1e-5)
    assert [row["model"] for row in compare(second, case.y, case.groups)] == ["start", "frozen", "tuned"]


# Wrong use -------------------------------------------------------------------------------------------------------------


def test_adapter_of_another_model_is_refused():
    _, _, tuned = lora("tgpt")
    with pytest.raises(ValueError, match="does not fit ScGPT"):
        inject_saved(make_case("scgpt").load(), tuned.adapter)
    smaller = {"config": tuned.adapter["config"], "tensors": dict(list(tuned.adapter["tensors"].items())[1:])}
    with pytest.raises(ValueError, match="does not fit TGPT"):
        inject_saved(make_case("tgpt").load(), smaller)


# Token caps ------------------------------------------------------------------------------------------------------------


def test_capped_sequences_keep_their_special_tokens():
    scfoundation = make_case("scfoundation").load(max_genes=20)
    tokens = scfoundation.tokenize(cell_lines())
    assert (tokens.lengths == 22).all()
    ends = tokens.indptr[1:]
    assert (tokens.ids[ends - 2] == scfoundation.target_id).all()
    assert (tokens.ids[ends - 1] == scfoundation.source_id).all()
    whole = make_case("scfoundation").tokens
    for cell in range(3):  # the most expressed genes, and the depths of the whole cell
        kept, values = (t.values[t.indptr[cell] : t.indptr[cell + 1]] for t in (tokens, whole))
        np.testing.assert_array_equal(kept[-2:], values[-2:])
        np.testing.assert_allclose(np.sort(kept[:-2]), np.sort(values[:-2])[-20:])
    uce = make_case("uce").load(sample_size=24)
    tokens = uce.tokenize(cell_lines())
    assert tokens.lengths.max() < make_case("uce").tokens.lengths.min()
    assert (tokens.ids[tokens.indptr[:-1]] == uce.config.cls).all()
    assert (tokens.ids[tokens.indptr[1:] - 1] == uce.config.closing).all()
    genes = [
        (sequence >= uce.genome.first) & (sequence < uce.genome.chromosome_offset)
        for sequence in map(tokens.sequence, range(len(tokens)))
    ]
    assert all(row.sum() == 24 for row in genes)


@pytest.mark.parametrize("damage", ["code", "cut", "empty", "bit"])
def test_a_damaged_file_of_an_interrupted_run_is_refused(tmp_path, damage):
    case, _, _ = lora("tgpt")
    case.tune(checkpoint_dir=tmp_path)
    path = tmp_path / "last.ckpt"
    content = bytearray(path.read_bytes())
    if damage == "code":
        torch.save({"state_dict": RunsCode(tmp_path / "executed")}, path)
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes({"cut": content[:5_000], "empty": b"", "bit": content}[damage])
    with pytest.raises(ValueError, match=r"cannot be resumed.*last\.ckpt.*Delete") as caught:
        case.tune(checkpoint_dir=tmp_path)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "executed").exists()
