"""UCE against upstream's recorded arrays, and what the interface promises."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch
from helpers import RunsCode, relative, resave
from scipy import sparse, stats

import sc_drugresp as sdr
from sc_drugresp._data import CountBlock, Tokens
from sc_drugresp.models._weights import flat_state, read_state
from sc_drugresp.models.uce import UCE, UCEConfig

MODEL = "uce"


@pytest.fixture
def cells(adata):
    return adata


@pytest.fixture
def encoder(folder):
    return sdr.models.load("uce", checkpoint=folder / "weights")


def recorded(expected, prefix=""):
    return Tokens.from_padded(expected[f"{prefix}tokens"], expected[f"{prefix}seq_len"])


def batch_of(encoder, tokens, cells, width=None):
    batch = encoder.collate(tokens.take(cells))
    assert width is None or batch["ids"].shape[1] == width
    return batch


def test_sizes_and_options_come_from_the_files(encoder):
    config = encoder.config
    assert (config.token_dim, config.width, config.heads, config.ffn_dim, config.layers) == (64, 48, 4, 72, 4)
    assert (config.dim, config.decoder_dim, config.sample_size, config.max_length) == (32, 40, 64, 160)
    assert encoder.genome.chromosome_offset == 324
    assert encoder.dim == 32
    assert encoder.name == "uce.4l"
    assert not encoder.training
    assert len(encoder.vocab) == 265


def test_the_gene_table_is_upstreams(encoder, golden, cells):
    names = cells.var_names[golden["kept_genes"]]
    ids = encoder.vocab.align(names, mode="exact").ids
    assert np.array_equal(ids, golden["gene_token_idx"])
    genome = encoder.genome
    assert np.array_equal(genome.chromosome[ids - genome.first], golden["gene_chrom_code"])
    place, start = genome.place[ids - genome.first], golden["gene_start"]
    assert np.array_equal(np.sign(place[:, None] - place), np.sign(start[:, None] - start))


def test_sentences_from_recorded_draws(encoder, golden):
    tokens = encoder.assemble(golden["gene_token_idx"][golden["sampled_gene_idx"]], golden["chrom_order"])
    assert np.array_equal(tokens.lengths, golden["seq_len"])
    assert np.array_equal(tokens.padded(tokens.ids, 0, width=golden["tokens"].shape[1]), golden["tokens"])


@pytest.mark.parametrize("block_cells", [5, 2048])
def test_the_legacy_sampler_reproduces_upstream(folder, golden, cells, block_cells):
    encoder = sdr.models.load("uce", checkpoint=folder / "weights", sampler="legacy")
    with sdr.settings.override(block_cells=block_cells):
        filtered = encoder.tokenize(cells[golden["kept_cells"]][:, golden["kept_genes"]], genes="exact")
        everything = encoder.tokenize(cells, genes="exact")
    assert np.array_equal(filtered.padded(filtered.ids, 0, width=golden["tokens"].shape[1]), golden["tokens"])
    kept = everything.take(golden["nofilter_cells"])
    assert np.array_equal(kept.padded(kept.ids, 0, width=golden["nofilter_tokens"].shape[1]), golden["nofilter_tokens"])
    assert everything.lengths[3] == 0  # the all-zero row keeps its place and draws nothing


def test_inputs_equal_upstream(encoder, golden):
    ids = torch.from_numpy(golden["tokens"][:1, : golden["batch_len"][0]])
    with torch.inference_mode():
        rows = encoder.token_rows(ids[0])
        encoded = encoder.encode(rows)
        inputs = encoder.inputs({"ids": ids})[0]
    assert relative(rows, golden["input_row0"]) < 1e-6
    assert relative(encoded, golden["encoder_row0"]) < 1e-5
    assert relative(inputs, golden["pos_row0"]) < 1e-5


def layer_outputs(encoder, batch):
    outputs = []
    handles = [layer.register_forward_hook(lambda _m, _i, out: outputs.append(out)) for layer in encoder.layers]
    with torch.inference_mode():
        hidden = encoder.hidden(batch)
    for handle in handles:
        handle.remove()
    return torch.stack(outputs).numpy(), hidden


@pytest.mark.parametrize("row", [0, 9])
def test_layers_without_padding(encoder, golden, row):
    outputs, _ = layer_outputs(encoder, batch_of(encoder, recorded(golden), [row]))
    assert relative(outputs[:, 0], golden[f"layers_bs1_row{row}"]) < 1e-5


@pytest.mark.parametrize("row", [0, 9])
def test_layers_with_upstreams_padding(folder, golden, row):
    encoder = sdr.models.load("uce", checkpoint=folder / "weights", padding="upstream", batch_size=8)
    first = row // 8 * 8
    batch = batch_of(encoder, recorded(golden), np.arange(first, first + 8), int(golden["batch_len"][row // 8]))
    outputs, hidden = layer_outputs(encoder, batch)
    assert relative(outputs[:, row - first], golden[f"layers_bs8_row{row}"]) < 1e-5
    with torch.inference_mode():
        decoded = encoder.decoder(hidden)
    assert relative(decoded[row - first], golden[f"gene_output_bs8_row{row}"]) < 1e-5


def test_embeddings_without_padding(encoder, golden):
    assert relative(encoder.embed_tokens(recorded(golden)), golden["X_uce_bs1"]) < 1e-5
    one_by_one = encoder.embed_tokens(recorded(golden), batch_tokens=1)
    assert relative(one_by_one, golden["X_uce_bs1"]) < 1e-5
    with torch.inference_mode():  # cells of all lengths in one batch: the mask does what separate batches do
        masked = encoder(encoder.collate(recorded(golden)))
    assert relative(masked, golden["X_uce_bs1"]) < 1e-5


@pytest.mark.parametrize(("batch_size", "name"), [(8, "X_uce"), (1000, "X_uce_bsall")])
def test_embeddings_with_upstreams_padding(folder, golden, cells, batch_size, name):
    options = {"padding": "upstream", "batch_size": batch_size, "sampler": "legacy"}
    encoder = sdr.models.load("uce", checkpoint=folder / "weights", **options)
    assert relative(encoder.embed_tokens(recorded(golden)), golden[name]) < 1e-5
    filtered = cells[golden["kept_cells"]][:, golden["kept_genes"]]
    with sdr.settings.override(block_cells=5):  # batches do not end with a block
        assert relative(encoder.embed(filtered, genes="exact"), golden[name]) < 1e-5
    assert relative(golden["X_uce_bs1"], golden[name]) > 0.01  # the two definitions can be told apart


def test_embeddings_without_upstreams_filter(folder, golden, cells):
    encoder = sdr.models.load(
        "uce", checkpoint=folder / "weights", padding="upstream", batch_size=1000, sampler="legacy"
    )
    found = encoder.embed(cells, genes="exact")
    assert relative(found[golden["nofilter_cells"]], golden["nofilter_X_uce"]) < 1e-5
    assert np.isnan(found[3]).all()


@pytest.mark.parametrize("name", ["4layer_model.torch", "33l_8ep_1024t_1280.torch"])
def test_published_parameters(folder, name):
    manifest = json.loads((folder / "manifest_full.json").read_text())["checkpoints"][name]
    state = {key: torch.empty(shape, device="meta") for key, shape, _ in manifest["state_dict"]}
    config = UCEConfig(layers=manifest["config"]["nlayers"])
    with torch.device("meta"):
        model = UCE(config, UCE.example_vocab(config))
    mapped = {key: tuple(tensor.shape) for key, tensor in UCE.remap(state).items()}
    assert mapped == {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    dropped = ("pe_embedding.", "binary_decoder.", "gene_embedding_layer.")
    left = {key: tensor for key, tensor in state.items() if not key.startswith(dropped)}
    assert sum(tensor.numel() for tensor in left.values()) == sum(t.numel() for t in model.state_dict().values())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs the list of mapped files that Linux keeps")
def test_the_token_table_stays_on_disk(encoder):
    address = encoder.table.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(part, 16) for part in line.split()[0].split("-"))
        if low <= address < high:
            assert line.endswith("4layer_model.torch")
            break
    else:
        pytest.fail("the table is nowhere")
    assert not any(tensor.shape == (390, 64) for tensor in encoder.state_dict().values())


# Sampling -------------------------------------------------------------------------------------------------------------


def block_of(matrix, ids):
    matrix = sparse.csr_matrix(np.asarray(matrix, dtype=np.float32))
    totals = np.asarray(matrix.sum(1)).ravel()
    return CountBlock(0, matrix.indptr.astype(np.int64), ids[matrix.indices].astype(np.int32), matrix.data, totals)


def test_genes_are_drawn_in_proportion_to_log1p(folder):
    encoder = sdr.models.load("uce", checkpoint=folder / "weights", sample_size=20_000, max_length=30_000)
    encoder.config = type(encoder.config)(**{**vars(encoder.config), "positions": 30_000})
    counts = np.array([1, 2, 5, 0, 40, 900])
    ids = encoder.vocab.ids[10:16]
    tokens = encoder.tokenize_block(block_of([counts], ids), seed=1)
    drawn = Counter(tokens.ids.tolist())
    observed = np.array([drawn[int(i)] for i in ids])
    weights = np.log1p(counts)
    keep = counts > 0
    assert observed[~keep].sum() == 0
    assert stats.chisquare(observed[keep], 20_000 * weights[keep] / weights.sum()).pvalue > 1e-3


def test_chromosomes_are_shuffled_fairly(encoder):
    ids = encoder.vocab.ids
    rng = np.random.default_rng(0)
    tokens = encoder.tokenize_block(block_of(rng.integers(1, 9, (600, len(ids))), ids), seed=3)
    offset, firsts = encoder.genome.chromosome_offset, []
    for cell in range(600):
        sequence = tokens.sequence(cell)
        codes = sequence[sequence >= offset] - offset
        assert len(set(codes)) == len(codes)
        firsts.append(codes[0])
    common = np.bincount(firsts)
    assert np.count_nonzero(common) > 20
    assert common.max() < 80  # 25 chromosomes, 24 expected


def test_sentences_are_well_formed(encoder, cells):
    tokens, genome = encoder.tokenize(cells, genes="exact"), encoder.genome
    for cell in np.flatnonzero(tokens.lengths):
        sequence = tokens.sequence(cell)
        assert sequence[0] == 3
        assert sequence[-1] == 2
        genes = (sequence >= genome.first) & (sequence < genome.chromosome_offset)
        assert genes.sum() == encoder.config.sample_size
        parts = np.split(sequence[1:], np.flatnonzero(sequence[1:] == 2) + 1)[:-1]
        assert len(sequence) == 1 + encoder.config.sample_size + 2 * len(parts)
        for part in parts:
            code, members = part[0] - genome.chromosome_offset, part[1:-1] - genome.first
            assert (genome.chromosome[members] == code).all()
            assert (np.diff(genome.place[members]) >= 0).all()


def test_a_cell_depends_on_itself_and_the_seed_alone(encoder, cells):
    rng = np.random.default_rng(1)
    before = (np.random.get_state()[1].copy(), torch.get_rng_state())
    whole = encoder.embed(cells, genes="exact")
    again = encoder.embed(cells, genes="exact")
    assert np.array_equal(whole, again, equal_nan=True)
    rows, columns = rng.permutation(cells.n_obs), rng.permutation(cells.n_vars)
    with sdr.settings.override(block_cells=7):
        moved = encoder.embed(cells[rows][:, columns], genes="exact", batch_tokens=300)
    assert np.nanmax(np.abs(moved - whole[rows])) < 2e-6
    assert np.array_equal(np.isnan(moved).any(1), np.isnan(whole[rows]).any(1))
    alone = encoder.embed(cells[[5]], genes="exact")
    assert np.abs(alone[0] - whole[5]).max() < 2e-6
    other = encoder.tokenize(cells, genes="exact", rng=1)
    assert not np.array_equal(other.ids, encoder.tokenize(cells, genes="exact").ids)
    assert np.array_equal(before[0], np.random.get_state()[1])
    assert torch.equal(before[1], torch.get_rng_state())


def test_awkward_cells_keep_their_rows(encoder, cells):
    found = encoder.embed(cells, genes="exact")
    assert found.shape == (24, 32)
    assert np.flatnonzero(np.isnan(found).any(1)).tolist() == [3]
    assert np.allclose(np.linalg.norm(np.delete(found, 3, 0), axis=1), 1, atol=1e-5)


def test_long_sentences_are_cut(folder, cells):
    encoder = sdr.models.load("uce", checkpoint=folder / "weights", max_length=50)
    assert encoder.tokenize(cells, genes="exact").lengths.max() == 50
    assert encoder.embed(cells, genes="exact").shape == (24, 32)


def test_other_species(folder):
    encoder = sdr.models.load("uce", checkpoint=folder / "weights", species="mouse")
    offsets = {"mouse": 284, "mouse_lemur": 310}
    assert encoder.genome.first == offsets["mouse"]
    assert encoder.vocab["trp53"] == offsets["mouse"] + 1
    mouse = ad.AnnData(np.array([[3.0, 0.0], [1.0, 7.0]], dtype=np.float32))
    mouse.var_names = ["Trp53", "NLRP3"]
    tokens = encoder.tokenize(mouse, genes="exact")
    genes = tokens.ids[(tokens.ids >= 284) & (tokens.ids < 310)]
    assert set(genes.tolist()) == {285, 286}
    with pytest.raises(ValueError, match=r"no species 'yeti'.*zebrafish"):
        sdr.models.load("uce", checkpoint=folder / "weights", species="yeti")


def test_tokens_that_do_not_fit_are_refused(encoder):
    with pytest.raises(ValueError, match="Token ids must lie between"):
        encoder.embed_tokens(Tokens.from_padded(np.array([[3, 400]]), [2]))
    with pytest.raises(ValueError, match="has 1600 tokens; this checkpoint has 1536 positions"):
        encoder.embed_tokens(Tokens.from_padded(np.full((1, 1600), 3), [1600]))


# Files ----------------------------------------------------------------------------------------------------------------


def without(state, name):
    return {key: tensor for key, tensor in state.items() if key != name}


def test_heads_cannot_be_guessed(copy):
    (copy.parent / "config.json").unlink()
    with pytest.raises(ValueError, match="give it as `heads=`"):
        sdr.models.load("uce", checkpoint=copy)
    assert sdr.models.load("uce", checkpoint=copy, heads=4, sample_size=8).config.sample_size == 8


def test_a_configuration_of_another_model_is_refused(copy):
    path = copy.parent / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "nlayers": 33}))
    with pytest.raises(ValueError, match="nlayers=33"):
        sdr.models.load("uce", checkpoint=copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "decoder.1.1.bias"), "missing: decoder.1.1.bias"),
        (lambda s: without(s, "encoder.0.weight"), "encoder.0.weight"),
        (lambda s: s.update(extra=torch.zeros(2)), "unknown: extra"),
        (lambda s: s.update({"decoder.3.bias": torch.zeros(7)}), "shapes differ"),
        (lambda s: s.update({"pe_embedding.weight": torch.zeros(390, 3)}), "token table"),
        (lambda s: s.update({"pe_embedding.weight": torch.zeros(120, 64)}), "do not fit|n_tokens"),
        (lambda s: {"epoch": 3}, "no named tensors"),
    ],
)
def test_damaged_weights_are_refused(copy, change, message):
    resave(copy / "4layer_model.torch", change)
    with pytest.raises(ValueError, match=message):
        sdr.models.load("uce", checkpoint=copy)


def test_truncated_and_executable_files_are_refused(copy, tmp_path):
    path = copy / "4layer_model.torch"
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(ValueError, match=r"truncated|not loaded"):
        sdr.models.load("uce", checkpoint=copy)

    torch.save({"pos_encoder.pe": RunsCode(tmp_path / "executed")}, path)
    with pytest.raises(ValueError, match="could run code"):
        sdr.models.load("uce", checkpoint=copy)
    assert not (tmp_path / "executed").exists()


def test_the_offsets_pickle_is_not_executed(copy, tmp_path):
    (copy / "species_offsets.pkl").write_bytes(pickle.dumps({"human": RunsCode(tmp_path / "executed")}))
    with pytest.raises(ValueError, match="not loaded"):
        sdr.models.load("uce", checkpoint=copy)
    assert not (tmp_path / "executed").exists()


def test_the_protein_file_of_another_species_is_refused(copy):
    folder = copy / "protein_embeddings"
    human = folder / "Homo_sapiens.GRCh38.gene_symbol_to_embedding_ESM2.pt"
    shutil.copyfile(human, folder / "Mus_musculus.GRCm39.gene_symbol_to_embedding_ESM2.pt")
    with pytest.raises(ValueError, match="265 genes, which do not fit between rows 284 and 310"):
        sdr.models.load("uce", checkpoint=copy, species="mouse")
    human.unlink()
    with pytest.raises(FileNotFoundError, match=r"protein_embeddings\.tar\.gz"):
        sdr.models.load("uce", checkpoint=copy)


def test_the_protein_file_is_not_executed(copy, tmp_path):
    path = copy / "protein_embeddings" / "Homo_sapiens.GRCh38.gene_symbol_to_embedding_ESM2.pt"
    torch.save({"TP53": RunsCode(tmp_path / "executed")}, path)
    with pytest.raises(ValueError, match="could run code"):
        sdr.models.load("uce", checkpoint=copy)
    assert not (tmp_path / "executed").exists()
    torch.save([torch.zeros(2)], path)
    with pytest.raises(ValueError, match="dictionary of symbols"):
        sdr.models.load("uce", checkpoint=copy)


@pytest.mark.parametrize("zipped", [True, False])
def test_protein_keys_in_any_torch_format(copy, zipped):
    expected = sdr.models.load("uce", checkpoint=copy).vocab.names
    path = copy / "protein_embeddings" / "Homo_sapiens.GRCh38.gene_symbol_to_embedding_ESM2.pt"
    table = {key: torch.nn.Parameter(tensor.clone()) for key, tensor in read_state(path).items()}
    torch.save(table, path, _use_new_zipfile_serialization=zipped)
    assert sdr.models.load("uce", checkpoint=copy).vocab.names == expected


def test_the_protein_archive_is_unpacked_once(copy, cells):
    expected = sdr.models.load("uce", checkpoint=copy).vocab.names
    shutil.make_archive(str(copy / "protein_embeddings"), "gztar", copy, "protein_embeddings")
    shutil.rmtree(copy / "protein_embeddings")
    encoder = sdr.models.load("uce", checkpoint=copy)
    assert encoder.vocab.names == expected
    assert [path.name for path in (copy / "protein_embeddings").iterdir()] == [
        "Homo_sapiens.GRCh38.gene_symbol_to_embedding_ESM2.pt"
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(copy, golden, dtype):
    resave(copy / "4layer_model.torch", lambda s: {name: tensor.to(dtype) for name, tensor in s.items()})
    encoder = sdr.models.load("uce", checkpoint=copy)
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    found, expected = encoder.embed_tokens(recorded(golden)), golden["X_uce_bs1"]
    assert relative(found, expected) < (1e-5 if dtype is torch.float64 else 0.1)


def test_nested_prefixed_and_missing_table(copy, golden):
    def change(state):
        state.pop("pe_embedding.weight")
        return {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 8}

    resave(copy / "4layer_model.torch", change)
    encoder = sdr.models.load("uce", checkpoint=copy)  # the table then comes from all_tokens.torch
    assert relative(encoder.embed_tokens(recorded(golden)), golden["X_uce_bs1"]) < 1e-5
    (copy / "all_tokens.torch").unlink()
    with pytest.raises(ValueError, match="no token table"):
        sdr.models.load("uce", checkpoint=copy)


# Training -------------------------------------------------------------------------------------------------------------


def test_adapters_reach_the_output_in_training_and_evaluation(encoder, golden):
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    tokens = recorded(golden).take([0, 9])
    batch = encoder.collate(tokens)
    plain = encoder.embed_tokens(tokens)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=encoder.lora_targets, lora_dropout=0.0), encoder)
    layers = [module for module in encoder.modules() if isinstance(module, LoraLayer)]
    assert len(layers) == 4 * 6
    generator = torch.Generator().manual_seed(0)
    for layer in layers:
        weight = layer.lora_B["default"].weight
        weight.data = torch.randn(weight.shape, generator=generator) * 0.2
    adapted = encoder.embed_tokens(tokens)
    assert np.abs(adapted - plain).max() > 1e-3
    for training in (True, False):
        encoder.train(training)
        encoder.zero_grad()
        for checkpointing in (False, True):
            encoder.gradient_checkpointing = checkpointing
            encoder(batch).square().sum(0)[0].backward()
        grads = [layer.lora_B["default"].weight.grad for layer in layers]
        assert all(grad is not None and grad.abs().sum() > 0 for grad in grads)
    with torch.inference_mode():
        assert relative(encoder(batch), encoder.pool(encoder.hidden(batch), batch).numpy()) < 1e-5
    for layer in layers:
        layer.merge()
    assert relative(encoder.embed_tokens(tokens), adapted) < 1e-5


def test_every_parameter_learns(encoder, golden):
    encoder.train().requires_grad_(requires_grad=True)
    batch = encoder.collate(recorded(golden).take([0, 9]))
    encoder(batch)[:, 0].sum().backward()
    # the bias of the keys cancels in the softmax
    silent = [name for name, p in encoder.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert all(name.endswith("attn.k.bias") for name in silent)
    assert all(p.grad is not None for p in encoder.parameters())


def test_projected_tokens_follow_the_weights(encoder, golden):
    tokens = recorded(golden).take([0])
    before = encoder.embed_tokens(tokens)
    encoder.project.weight.data *= 1.5
    assert np.abs(encoder.embed_tokens(tokens) - before).max() > 1e-3
    assert encoder._projected is None


def test_random_builds_embed():
    encoder = UCE.random(
        UCEConfig(token_dim=16, width=16, heads=2, layers=2, ffn_dim=8, decoder_dim=8, dim=8, sample_size=32)
    )
    names = encoder.vocab.names[:40]
    data = ad.AnnData(np.random.default_rng(0).poisson(1.0, (3, 40)).astype(np.float32))
    data.var_names = names
    found = encoder.embed(data, genes="exact")
    assert found.shape == (3, 8)
    assert np.isfinite(found).all()


def test_read_state_gives_the_published_names(folder, golden):
    state = flat_state(read_state(folder / "weights" / "4layer_model.torch"), source="golden")
    assert len(state) == 86
    assert len(UCE.remap(state)) == 86 - 1 - 14 - 4 + 4 * 2 * 2
