"""`models.distill`: what a student learns, how it is judged, and what it says of itself."""

from __future__ import annotations

import html

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import golden
from scipy.sparse import csc_matrix, csr_matrix

import sc_drugresp as sdr
from sc_drugresp._distill.split import JUDGE, LEARN, STOP, choose_cells, deal_samples

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        ".* have no gene that",
        "The student is not shown",
        "On .* held-out samples the cosine",
        "Embeddings of .* are nearly parallel",
    )
]
QUICK = {"group_key": "sample", "width": 16, "epochs": 2}


def bent_cells(n_samples: int = 10, per_sample: int = 60, seed: int = 0) -> ad.AnnData:
    """Counts that four hidden factors drive, and an embedding of which no linear map of the counts comes close."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_samples), per_sample)
    z = rng.normal(size=(len(groups), 4))
    own = 0.2 * rng.normal(size=(n_samples, 150))
    x = rng.poisson(np.exp(1 + z @ rng.normal(size=(4, 150)) / 2 + own[groups])).astype(np.float32)
    obs = pd.DataFrame({"sample": [f"S{g}" for g in groups]}, index=[f"c{i}" for i in range(len(groups))])
    adata = ad.AnnData(csr_matrix(x), obs=obs, var=pd.DataFrame(index=[f"GENE{i}" for i in range(150)]))
    values = np.column_stack([np.abs(z), z[:, [0]] * z[:, [1]], z[:, [2]] * z[:, [3]], np.sin(2 * z)])
    adata.obsm["X_bent"] = values.astype(np.float32)
    adata.obsm["X_shuffled"] = rng.permutation(adata.obsm["X_bent"])
    return adata


def toy_with_genes_of(
    model: str, n_samples: int = 8, per_sample: int = 15
) -> tuple[sdr.models.CellEncoder, ad.AnnData]:
    encoder = sdr.models.load(model, checkpoint=golden(model).weights)
    names = list(encoder.vocab.names)
    adata = sdr.datasets.toy(n_samples, per_sample, len(names))
    adata.var_names = names
    return encoder, adata


@pytest.fixture(scope="module")
def bent() -> ad.AnnData:
    return bent_cells()


@pytest.fixture(scope="module")
def student(bent) -> sdr.models.Student:
    with sdr.settings.override(progress=False, device="cpu"):
        return sdr.models.distill("mine", bent, use_rep="X_bent", group_key="sample", width=128, epochs=25)


def test_a_bent_embedding_is_learned_better_than_by_ridge(student):
    table = student.fidelity_df()
    gain = student.fidelity["gain_over_ridge"]
    assert student.fidelity["verdict"] == "OK"
    assert gain["low"] > 0.1
    assert table.loc["student", "cosine"] > table.loc["ridge", "cosine"] + 0.1
    assert table.loc["student", "r2"] > table.loc["ridge", "r2"] + 0.1
    assert (table["cosine_p05"] < table["cosine"]).all()
    assert table.loc["student", "cosine_low"] < table.loc["student", "cosine"] < table.loc["student", "cosine_high"]
    assert table["neighbors_kept"].gt(2 * student.fidelity["chance"]["neighbors_kept"]).all()
    assert table["auroc"].isna().all()  # no labels


def test_fidelity_is_that_of_samples_that_taught_nothing(bent, student):
    parts = student.data["samples"]
    assert sorted(name for names in parts.values() for name in names) == sorted(bent.obs["sample"].unique())
    held = bent.obs["sample"].isin(parts["held_out"]).to_numpy()
    learned = bent.obs["sample"].isin(parts["learned"]).to_numpy()
    truth = bent.obsm["X_bent"]
    center = truth[learned].mean(axis=0)
    a, b = student.embed(bent)[held] - center, truth[held] - center
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    by_sample = pd.Series(cosine).groupby(bent.obs["sample"].to_numpy()[held]).mean()
    found = student.fidelity_df().loc["student"]
    assert found["cosine"] == pytest.approx(by_sample.mean(), abs=1e-4)
    assert found["cosine_p05"] == pytest.approx(np.quantile(cosine, 0.05), abs=1e-4)
    assert student.fidelity["n_samples"] == len(by_sample)


def test_held_out_samples_have_no_say(bent, student):
    """Another embedding of the samples that judge: the same student, other marks."""
    changed = bent.copy()
    held = bent.obs["sample"].isin(student.data["samples"]["held_out"]).to_numpy()
    changed.obsm["X_bent"] = np.where(held[:, None], -bent.obsm["X_bent"], bent.obsm["X_bent"])
    with pytest.warns(UserWarning, match="cannot be learned"):
        other = sdr.models.distill("mine", changed, use_rep="X_bent", group_key="sample", width=128, epochs=25)
    np.testing.assert_array_equal(other.embed(bent), student.embed(bent))
    assert other.fidelity["rows"]["student"]["cosine"] < 0 < student.fidelity["rows"]["student"]["cosine"]


def test_nonsense_is_reported_as_not_learned(bent):
    with pytest.warns(UserWarning, match="cannot be learned from the counts"):
        found = sdr.models.distill("mine", bent, use_rep="X_shuffled", **QUICK)
    assert found.fidelity["verdict"] == "NOT_LEARNED"
    assert abs(found.fidelity["rows"]["student"]["cosine"]) < 0.1


def test_a_linear_teacher_leaves_nothing_to_gain():
    """PCA is fitted to the samples that teach; the student says that a ridge regression would do."""
    adata = sdr.datasets.toy(14, 40, 200)
    with pytest.warns(UserWarning, match="not shown to be better than a ridge regression"):
        found = sdr.models.distill("pca", adata, **QUICK)
    table = found.fidelity_df()
    assert found.fidelity["verdict"] == "NOT_BETTER_THAN_RIDGE"
    assert table.loc["student", "cosine"] > 0.9
    assert table.loc["student", "cosine"] >= table.loc["ridge", "cosine"] - 1e-3
    assert table.loc["pca", "neighbors_kept"] == pytest.approx(1.0, abs=0.02)
    # Labels are there: the difference of heads has an interval that holds 0.
    assert table.loc["student", "auroc_difference"] == pytest.approx(0, abs=0.1)
    assert table.loc["student", "difference_low"] <= 0 <= table.loc["student", "difference_high"]
    assert found.fidelity["teacher_auroc"] == pytest.approx(
        table.loc["student", "auroc"] - table.loc["student", "auroc_difference"]
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_gives_the_same_student(bent, threads):
    before, state = torch.get_num_threads(), torch.random.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()
    torch.set_num_threads(threads)
    try:
        first, second = (sdr.models.distill("mine", bent, use_rep="X_bent", **QUICK) for _ in range(2))
        other = sdr.models.distill("mine", bent, use_rep="X_bent", **QUICK, rng=1)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert first.checkpoint["sha256"] == second.checkpoint["sha256"] != other.checkpoint["sha256"]
    assert first.fidelity == second.fidelity
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])


def test_a_cell_depends_on_its_counts_alone(bent, student):
    expected = student.embed(bent)
    order = np.random.default_rng(0).permutation(bent.n_obs)
    np.testing.assert_allclose(student.embed(bent[order].copy()), expected[order], atol=1e-6)
    np.testing.assert_allclose(student.embed(bent[7:8].copy()), expected[7:8], atol=1e-6)
    with sdr.settings.override(block_cells=13):
        np.testing.assert_allclose(student.embed(bent), expected, atol=1e-6)
    columns = np.random.default_rng(1).permutation(bent.n_vars)
    turned = bent[:, columns].copy()
    turned.X = csc_matrix(turned.X)
    np.testing.assert_allclose(student.embed(turned), expected, atol=1e-5)


def test_a_cell_without_known_genes_has_no_embedding(bent, student):
    empty = bent[:5].copy()
    x = empty.X.toarray()
    x[2] = 0
    empty.X = csr_matrix(x)
    found = student.embed(empty)
    assert np.isnan(found[2]).all()
    assert np.isfinite(np.delete(found, 2, axis=0)).all()


def test_unknown_genes_are_told(bent, student, tmp_path):
    student.save(tmp_path / "student")
    part = bent[:, :20].copy()
    part.var_names = [*part.var_names[:2], *(f"other{i}" for i in range(18))]
    with pytest.warns(UserWarning, match=r"of the counts lie in genes that 'student\(mine\)' knows"):
        sdr.tl.embed(part, "student", checkpoint=tmp_path / "student")
    part.var_names = [f"other{i}" for i in range(20)]
    with pytest.raises(ValueError, match=r"student\(mine\)"):
        sdr.tl.embed(part, "student", checkpoint=tmp_path / "student")


@pytest.mark.parametrize("model", ["scgpt", "cellplm"])
def test_a_student_carries_the_terms_of_its_teacher(model, tmp_path):
    encoder, adata = toy_with_genes_of(model)
    found = sdr.models.distill(encoder, adata, **QUICK)
    row = sdr.models.table().loc[encoder.name]
    assert found.teacher["name"] == encoder.name
    assert found.teacher["sha256"] == encoder.checkpoint["sha256"]
    assert found.teacher["license"] == row["weights_license"]
    assert found.teacher["commercial"] == "not stated"
    assert found.name == f"student({encoder.name})"
    assert set(found.genes) <= set(encoder.vocab.names)
    found.save(tmp_path / "s")
    sdr.tl.embed(adata, "student", checkpoint=tmp_path / "s")
    (slot,) = adata.obsm
    assert slot == "X_student_" + encoder.name.replace(".", "_").replace("-", "_")
    note = adata.uns[slot.removeprefix("X_")]
    assert note["teacher"]["license"] == row["weights_license"]
    assert note["teacher"]["verdict"] == found.fidelity["verdict"]
    assert note["checkpoint"]["teacher_sha256"] == encoder.checkpoint["sha256"]
    assert note["genes"]["counts_covered"] == pytest.approx(1.0)
    np.testing.assert_array_equal(adata.obsm[slot], found.embed(adata))
    sdr.tl.train_response(adata, use_rep=slot, group_key="sample")
    adata.write_h5ad(tmp_path / "written.h5ad")
    text = sdr.report(ad.read_h5ad(tmp_path / "written.h5ad"), tmp_path / "page.html").read_text()
    assert "student of " in text
    assert html.escape(row["weights_license"]) in text


def test_the_embedding_that_is_there_gives_the_same_student():
    encoder, adata = toy_with_genes_of("scgpt")
    computed = sdr.models.distill(encoder, adata, **QUICK, n_genes=5_000)
    sdr.tl.embed(adata, "scgpt", checkpoint=golden("scgpt").weights)
    given = sdr.models.distill("scgpt", adata, use_rep="X_scgpt", **QUICK, n_genes=5_000)
    assert {key: given.teacher[key] for key in ("name", "sha256", "license")} == {
        key: computed.teacher[key] for key in ("name", "sha256", "license")
    }
    assert given.fidelity["rows"]["student"]["cosine"] == pytest.approx(
        computed.fidelity["rows"]["student"]["cosine"], abs=0.02
    )


def test_students_train_and_predict(bent, student, tmp_path):
    adata = bent.copy()
    adata.obs["response"] = np.where(adata.obs["sample"].isin(["S0", "S1", "S2", "S3", "S4"]), "sensitive", "resistant")
    student.save(tmp_path / "s")
    recipe = sdr.tl.Recipe("student", checkpoint=tmp_path / "s")
    sdr.tl.embed(adata, "student", checkpoint=tmp_path / "s")
    model = sdr.tl.train_response(adata, use_rep="X_student_mine", group_key="sample")
    assert model.representation["checkpoint"]["sha256"] == student.checkpoint["sha256"]
    model.save(tmp_path / "model")
    fresh = bent.copy()
    sdr.tl.predict_response(fresh, sdr.models.ResponseModel.load(tmp_path / "model"), checkpoint=tmp_path / "s")
    assert fresh.obs["predicted_response_prob"].notna().all()
    options = sdr.tl.EvaluationOptions(baselines=False, n_boot=5, n_permutations=0, n_pairings=1)
    sdr.tl.evaluate(adata, model=recipe, group_key="sample", options=options)
    assert "student" in set(sdr.get.metrics_df(adata)["model"])


# What is refused ------------------------------------------------------------------------------------------------------


def slots(adata: ad.AnnData) -> list[list[str]]:
    return [sorted(adata.obsm), sorted(adata.uns), sorted(adata.obs), sorted(adata.layers)]


@pytest.mark.parametrize(
    ("teacher", "options", "error", "words"),
    [
        ("no such", {}, ValueError, "`teacher`: Unknown model name"),
        ("pca", {"use_rep": "X_none"}, KeyError, "X_none"),
        ("pca", {"use_rep": "X_sdr_pca"}, ValueError, "was fitted to these cells"),
        ("", {"use_rep": "X_bent"}, ValueError, "`teacher` must name"),
        ("pca", {"group_key": "two"}, ValueError, "at least 3 samples"),
        ("pca", {"group_key": "none"}, KeyError, "none"),
        ("pca", {"n_genes": 1}, ValueError, "n_genes"),
        ("pca", {"held_out": 1.0}, ValueError, "held_out"),
        ("student", {}, ValueError, "`checkpoint` must name the folder"),
        (3, {}, TypeError, "teacher"),
    ],
)
def test_what_cannot_work_is_refused_and_nothing_changes(bent, teacher, options, error, words):
    adata = bent.copy()
    adata.obs["two"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    sdr.tl.embed(adata, "pca", n_comps=3)
    before = slots(adata)
    with pytest.raises(error, match=words):
        sdr.models.distill(teacher, adata, **{**QUICK, **options})
    assert slots(adata) == before


def test_an_embedding_of_another_model_is_refused():
    _, adata = toy_with_genes_of("scgpt")
    sdr.tl.embed(adata, "scgpt", checkpoint=golden("scgpt").weights)
    with pytest.raises(ValueError, match=r"was made by 'scgpt\.whole-human', but `teacher` is 'geneformer'"):
        sdr.models.distill("geneformer", adata, use_rep="X_scgpt", **QUICK)


def test_normalized_values_and_tuned_teachers_are_refused(bent):
    adata = bent.copy()
    adata.X = csr_matrix(np.random.default_rng(0).random(adata.shape).astype(np.float32))
    with pytest.raises(ValueError, match="Raw counts are needed"):
        sdr.models.distill("pca", adata, **QUICK)
    with pytest.raises(ValueError, match="`teacher` must not be trained further"):
        sdr.models.distill(sdr.tl.Recipe("scgpt", mode="lora"), bent, **QUICK)


# Samples --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 4, 7, 20])
def test_every_part_has_whole_samples(n):
    groups = np.repeat([f"S{i}" for i in range(n)], 5)
    part = deal_samples(groups, None, held_out=0.3, validation=0.15, seed=0)
    assert set(part) == {LEARN, STOP, JUDGE}
    assert all(len(set(part[groups == group])) == 1 for group in groups)


def test_both_classes_are_held_out():
    groups = np.repeat([f"S{i}" for i in range(12)], 4)
    y = np.repeat(np.arange(12) % 2, 4)
    for seed in range(20):
        part = deal_samples(groups, y, held_out=0.3, validation=0.2, seed=seed)
        assert len(np.unique(y[part == JUDGE])) == 2
        assert len(np.unique(groups[part == JUDGE])) == 4


def test_a_choice_of_cells_takes_from_every_sample():
    groups = np.repeat(["a", "b", "c"], [100, 200, 700])
    rows = choose_cells(groups, np.ones(1000, dtype=bool), 100, seed=0)
    assert len(rows) == len(set(rows)) == 100
    assert (np.diff(rows) > 0).all()
    assert [int((groups[rows] == name).sum()) for name in "abc"] == pytest.approx([10, 20, 70], abs=1)


def test_a_limit_of_cells_is_kept(bent):
    found = sdr.models.distill("mine", bent, use_rep="X_shuffled", **QUICK, max_cells=100)
    assert found.data["n_cells"] == 100


def test_copied_cells_teach_nothing(bent):
    adata = bent.copy()
    x = adata.X.toarray()
    x[60:70] = x[0:10]  # in the next sample
    adata.X = csr_matrix(x)
    with pytest.warns(UserWarning, match="20 cells are copies of cells of another sample"):
        found = sdr.models.distill("mine", adata, use_rep="X_bent", **QUICK)
    assert found.data["n_cells"] == bent.n_obs - 20
