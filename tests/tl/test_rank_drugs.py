"""`tl.rank_drugs` and its readers: tables, samples, pairs, scores, files."""

from __future__ import annotations

import warnings
from functools import cache

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from screens import toy_reference

import sc_drugresp as sdr

WHO = {"groupby": "cell_line", "sample_key": "tumor", "malignant_key": "malignant", "chemistry": "dropseq"}
COLUMNS = [
    "drug", "targets", "group", "rank", "z", "P", "low", "high", "call", "tissue_mean_z", "gain_over_tissue", "drug_r",
    "screen_agreement", "abstain_reason",
]  # fmt: skip


def cells() -> ad.AnnData:
    """Two tumors whose clones are the cells of lines that the toy reference has not seen."""
    adata = toy_reference()[2][:300].copy()
    adata.obs["malignant"] = True
    adata.obs["tumor"] = np.where(np.arange(adata.n_obs) < 60, "T1", "T2")
    return adata


def rank(adata, **options):
    return sdr.tl.rank_drugs(adata, reference=toy_reference()[0], **{**WHO, **options})


@cache
def ranked() -> ad.AnnData:
    adata = cells()
    rank(adata, combine=2)
    return adata


def test_table_has_a_row_for_each_drug_and_group() -> None:
    table = ranked().uns["drug_ranking"]["table"]
    assert list(table) == COLUMNS
    assert len(table) == 4 * 15
    assert not table.duplicated(["drug", "group"]).any()


def test_abstentions_have_a_reason_and_no_number() -> None:
    table = ranked().uns["drug_ranking"]["table"]
    silent = table["abstain_reason"] != ""
    assert set(table.loc[silent, "drug"]) == {"unseen", "Osimertinib"}
    assert table.loc[silent, ["rank", "z", "P", "low", "high"]].isna().all(axis=None)
    assert (table.loc[silent, "call"] == "uncertain").all()
    assert table.loc[~silent, ["rank", "z", "P", "low", "high"]].notna().all(axis=None)


def test_mixtures_of_drugs_are_ranked_only_if_asked_for() -> None:
    adata, reference = sdr.datasets.toy(2, 40, 12_000), sdr.models.Reference.load()
    mixture = "navitoclax:PLX-4032 (1:1 mol/mol)"
    assert mixture in reference.drugs.index
    about = {"groupby": "sample", "malignant_key": "cell_type", "chemistry": "dropseq"}

    def drugs(**options) -> set[str]:
        sdr.tl.rank_drugs(adata, **about, **options)
        return set(adata.uns["drug_ranking"]["table"]["drug"])

    single = drugs()
    assert not any("mol/mol" in drug for drug in single)
    assert {"navitoclax", "PLX-4032"} <= single
    assert drugs(combinations=True) == set(reference.drugs.index)
    assert drugs(drugs=[mixture, "navitoclax"]) == {mixture, "navitoclax"}


def test_a_clone_is_reached_in_the_lowest_quarter_of_predictions_of_the_drug() -> None:
    from sc_drugresp.pl._clone_coverage import _limits

    stored = ranked().uns["drug_ranking"]
    skill = stored["table"].drop_duplicates("drug").set_index("drug")["drug_r"]
    np.testing.assert_allclose(_limits(stored, None), -0.6745 * skill)
    assert (_limits(stored, -0.1) == -0.1).all()
    assert "lowest quarter of predicted z" in sdr.pl.clone_coverage(ranked()).get_xlabel()
    assert "z below -0.1" in sdr.pl.clone_coverage(ranked(), below=-0.1).get_xlabel()


def test_scores_of_groups_are_no_embedding_to_draw_cells_on() -> None:
    adata = cells()
    rank(adata)
    rank(adata, key_added="mine")
    about = {name: WHO[name] for name in ("groupby", "malignant_key", "chemistry")}
    sdr.tl.predict_response(adata, drug="Erlotinib", reference=toy_reference()[0], **about)
    with pytest.raises(KeyError, match="no UMAP and no embedding"):
        sdr.pl.response(adata)


def test_ranks_follow_z_within_each_group() -> None:
    table = ranked().uns["drug_ranking"]["table"].dropna(subset="z")
    for _, part in table.groupby("group"):
        assert part["rank"].tolist() == list(range(1, len(part) + 1))
        assert part["z"].is_monotonic_increasing


def test_cells_get_the_scores_of_their_group() -> None:
    adata = ranked()
    stored, scores = adata.uns["drug_ranking"], adata.obsm["drug_scores"]
    assert scores.dtype == np.float32
    assert stored["drugs"].tolist() == ["Erlotinib", "seen"]
    wide = stored["table"].pivot(index="group", columns="drug", values="z")[stored["drugs"].tolist()]
    names = adata.obs["tumor"] + " | " + adata.obs["cell_line"]
    np.testing.assert_allclose(scores, wide.loc[names], rtol=1e-5)


def test_samples_are_means_over_clones_with_the_worst_beside() -> None:
    stored = ranked().uns["drug_ranking"]
    table = stored["table"].dropna(subset="z")
    for row in stored["samples"].itertuples():
        own = table[(table["drug"] == row.drug) & table["group"].str.startswith(row.sample)]
        assert row.n_groups == len(own)
        assert row.mean_z == pytest.approx(own["z"].mean())  # all lines have as many cells
        assert row.mean_z < row.worst_z < own["z"].max()
        assert row.worst_group == own.loc[own["z"].idxmax(), "group"]


def test_pairs_are_never_worse_than_their_better_drug() -> None:
    stored = ranked().uns["drug_ranking"]
    single = stored["samples"].groupby("sample")["mean_z"].min()
    for row in stored["pairs"].itertuples():
        assert row.mean_z <= single[row.sample] + 1e-9
        assert row.gain_over_best_single == pytest.approx(single[row.sample] - row.mean_z)
        assert "no synergy modelled" in row.note
    assert "pairs" not in rank(cells(), copy=True).uns["drug_ranking"]


def test_groups_that_are_samples_are_no_clones_of_one_tumor() -> None:
    adata = cells()
    rank(adata, groupby="cell_line", sample_key=None)
    samples = adata.uns["drug_ranking"]["samples"]
    assert (samples["n_groups"] == 1).all()
    assert set(samples["sample"]) == set(adata.obs["cell_line"])
    adata.obs["clone"] = adata.obs["cell_line"].astype(str)
    rank(adata, groupby="clone", sample_key=None)
    assert set(adata.uns["drug_ranking"]["samples"]["sample"]) == {"all cells"}


def test_chosen_drugs_are_named_in_any_spelling() -> None:
    adata = cells()
    rank(adata, drugs=["Tarceva", "unseen"])
    table = adata.uns["drug_ranking"]["table"]
    assert set(table["drug"]) == {"Erlotinib", "unseen"}
    assert (table.dropna(subset="z")["rank"] == 1).all()
    with pytest.raises(ValueError, match="Did you mean 'Erlotinib'"):
        rank(adata, drugs=["erlotinip"])


def test_order_of_cells_does_not_matter() -> None:
    adata = cells()
    mixed = adata[np.random.default_rng(1).permutation(adata.n_obs)].copy()
    rank(mixed)
    pd.testing.assert_frame_equal(mixed.uns["drug_ranking"]["table"], ranked().uns["drug_ranking"]["table"])


def test_groups_without_an_answer_are_left_out_and_counted() -> None:
    adata = cells()[12:].copy()  # 8 cells of the first line are left
    rank(adata)
    stored = adata.uns["drug_ranking"]
    first = stored["samples"].query("sample == 'T1'")
    assert (first["n_groups_left_out"] == 1).all()
    assert (first["n_groups"] == 2).all()
    assert np.isnan(adata.obsm["drug_scores"][:8]).all()
    assert np.isfinite(adata.obsm["drug_scores"][8:]).all()


@pytest.mark.parametrize("container", ["backed", "MuData"])
def test_containers_and_names_of_slots(container, tmp_path) -> None:
    adata = cells()
    if container == "backed":
        adata.write_h5ad(tmp_path / "x.h5ad")
        data = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    else:
        data = mudata.MuData({"rna": adata})
    rank(data, key_added="mine")
    found = data.mod["rna"] if container == "MuData" else data
    pd.testing.assert_frame_equal(found.uns["mine"]["table"], ranked().uns["drug_ranking"]["table"])
    np.testing.assert_array_equal(found.obsm["mine_scores"], ranked().obsm["drug_scores"])
    assert "drug_ranking" not in found.uns
    frame = sdr.get.drug_ranking_df(data, "T1 | " + adata.obs["cell_line"].iloc[0], key_added="mine")
    assert len(frame) == 4


@pytest.mark.parametrize("options", [{"combine": 3}, {"groupby": "absent"}, {"drugs": ["no drug"]}, {"cancer": "?"}])
def test_nothing_is_written_on_failure(options) -> None:
    adata = cells()
    with pytest.raises((ValueError, KeyError)):
        rank(adata, **options)
    assert not adata.uns
    assert not adata.obsm


# ------------------------------------------------------------------------------------------------- readers


def test_frame_of_a_group_and_of_the_first_drugs() -> None:
    adata = ranked()
    group = adata.uns["drug_ranking"]["groups"]["group"].iloc[0]
    assert sdr.get.drug_ranking_df(adata, group)["group"].unique().tolist() == [group]
    assert sdr.get.drug_ranking_df(adata, n=1)["rank"].eq(1).all()
    assert len(sdr.get.drug_ranking_df(adata, n=1)) == 15
    assert set(sdr.get.drug_ranking_df(adata, answered=True)["drug"]) == {"Erlotinib", "seen"}
    with pytest.raises(KeyError, match=r"No group 'nothing'.*T1 \| "):
        sdr.get.drug_ranking_df(adata, "nothing")
    with pytest.raises(ValueError, match="at least 1"):
        sdr.get.drug_ranking_df(adata, n=0)
    with pytest.raises(KeyError, match=r"tl\.rank_drugs"):
        sdr.get.drug_ranking_df(cells())


def test_frame_by_sample_weighs_limits_as_the_mean() -> None:
    adata = cells()[5:].copy()  # clones of T1: 15, 20 and 20 cells
    rank(adata)
    frame = sdr.get.drug_ranking_df(adata, "T1", level="sample").set_index("drug")
    table = adata.uns["drug_ranking"]["table"].query("drug == 'seen'").dropna(subset="z")
    own = table[table["group"].str.startswith("T1")]
    cells_of = adata.uns["drug_ranking"]["groups"].set_index("group")["n_cells"]
    for name in ("z", "low", "high"):
        assert frame.loc["seen", name] == pytest.approx(np.average(own[name], weights=cells_of[own["group"]]))
    assert frame["rank"].tolist() == [1.0, 2.0]
    agreed = set(own["call"].astype(str))
    assert frame.loc["seen", "call"] == (agreed.pop() if len(agreed) == 1 else "uncertain")


def test_card_of_a_drug_says_whether_it_can_be_predicted() -> None:
    reference = toy_reference()[0]
    card = sdr.get.reliability("tarceva", reference)
    assert card.drug == "Erlotinib"
    assert not card.abstains
    assert card.r == pytest.approx(reference.drugs.loc["Erlotinib", "r"])
    shown = str(card)
    assert f"r {card.r:.2f} in held-out lines" in shown
    assert "screen agreement      unknown" in shown
    assert "No answer: drug not predictable" in str(sdr.get.reliability("unseen", reference))
    assert sdr.get.reliability("osimertinib", reference).abstain_reason.startswith("needs mutation")
    with pytest.raises(ValueError, match="Did you mean 'erlotinib'"):
        sdr.get.reliability("erlotinb")


# ------------------------------------------------------------------------------------------------- real cells


def check_t_cells_of_melanoma_get_no_drug(shared, tmp_path) -> None:
    adata = ad.read_h5ad(shared / "data" / "GSE120575_melanoma_ICB_partA.h5ad")
    sdr.tl.rank_drugs(adata, groupby="patient", combine=2)
    stored = adata.uns["drug_ranking"]
    assert stored["table"]["abstain_reason"].str.contains("lineage").all()
    assert stored["table"]["z"].isna().all()
    assert adata.obsm["drug_scores"].shape == (adata.n_obs, 0)
    adata.write_h5ad(tmp_path / "x.h5ad")
    again = ad.read_h5ad(tmp_path / "x.h5ad")
    for plot in (sdr.pl.drug_ranking, sdr.pl.drug_heatmap, sdr.pl.clone_coverage):
        with pytest.raises(ValueError, match="has an answer"):
            plot(again)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        page = sdr.report(again, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "No answer: 0 of 13 groups and 0 of 489 drugs" in page


def check_breast_lines_are_ranked_beside_their_tissue(shared) -> None:
    adata = ad.read_h5ad(shared / "data" / "GSE173634_breast21_lines_dropseq.h5ad")
    sdr.tl.rank_drugs(adata, groupby="cell_line")
    wide = adata.uns["drug_ranking"]["table"].pivot(index="group", columns="drug", values="z")
    amplified, others = ["AU565", "BT474"], ["MDAMB436", "BT549", "HCC1937"]
    assert wide.loc[amplified, "lapatinib"].max() < wide.loc[others, "lapatinib"].min()  # ERBB2
    assert adata.uns["drug_ranking"]["table"]["tissue_mean_z"].notna().any()
    assert adata.uns["drug_ranking"]["reference"]["chemistry"] == "dropseq"


@pytest.mark.filterwarnings("ignore:The platform")
def test_real_cells(shared, tmp_path) -> None:
    check_t_cells_of_melanoma_get_no_drug(shared, tmp_path)
    check_breast_lines_are_ranked_beside_their_tissue(shared)
