"""`tl.predict_response(drug=)`: answers without labels, when they are refused, and what is written."""

from __future__ import annotations

import warnings
from functools import cache

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import spearmanr
from screens import toy_reference, toy_screen

import sc_drugresp as sdr
from sc_drugresp._core.keys import CALL_CLASSES, PredictionKeys

WHO = {"groupby": "cell_line", "malignant_key": "tumor", "chemistry": "dropseq"}


def cells() -> ad.AnnData:
    """Cells of 30 lines that the toy reference has not seen; all of them are known to be malignant."""
    adata = toy_reference()[2].copy()
    adata.obs["tumor"] = True
    return adata


def ask(adata, drug="seen", **options):
    return sdr.tl.predict_response(adata, drug=drug, reference=toy_reference()[0], **{**WHO, **options})


@cache
def answered() -> ad.AnnData:
    adata = cells()
    ask(adata)
    return adata


def groups(adata, key="predicted_response") -> pd.DataFrame:
    return adata.uns[key]["groups"].set_index("group")


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No answer for", UserWarning)
        yield


# ------------------------------------------------------------------------------------------------- the answer


def test_probability_follows_the_measured_response() -> None:
    _, response, _ = toy_screen()
    truth = response[response["drug"] == "seen"].set_index("line")["value"]
    found = groups(answered())
    both = found.index.intersection(truth.index)
    assert len(both) > 20
    assert spearmanr(found.loc[both, "z"], truth[both]).statistic > 0.6
    assert spearmanr(found.loc[both, "P"], truth[both]).statistic < -0.6
    assert found["P"].between(0, 1).all()


def test_cells_get_the_answer_of_their_group_and_nothing_else_is_written() -> None:
    before, adata, keys = cells(), answered(), PredictionKeys()
    found = groups(adata).loc[adata.obs["cell_line"]]
    np.testing.assert_array_equal(adata.obs[keys.prob], found["P"])
    np.testing.assert_array_equal(adata.obs[keys.low], found["P_low"])
    np.testing.assert_array_equal(adata.obs[keys.high], found["P_high"])
    assert adata.obs[keys.call].tolist() == found["call"].tolist()
    assert tuple(adata.obs[keys.call].cat.categories) == CALL_CLASSES
    assert not adata.obs[keys.ood].any()
    new = set(adata.obs) - set(before.obs)
    assert new == {keys.call, keys.prob, keys.low, keys.high, keys.ood}
    assert set(adata.uns) == {keys.uns, "predicted_response_colors"}
    assert not set(adata.obsm)
    told = adata.uns[keys.uns]
    assert (told["kind"], told["drug"], told["calibrated"]) == ("reference", "seen", True)
    assert "Not for clinical use" in told["statement"]


def test_interval_of_the_cells_holds_the_probability() -> None:
    found = groups(answered())
    assert (found["P_low"] <= found["P_high"]).all()
    inside = (found["P_low"] - 0.02 <= found["P"]) & (found["P"] <= found["P_high"] + 0.02)
    assert inside.mean() > 0.9
    assert (found["z_low"] < found["z"]).all()
    assert (found["z"] < found["z_high"]).all()


def test_calls_follow_the_interval_of_z() -> None:
    reference, found = toy_reference()[0], groups(answered())
    card = reference.drugs.loc["seen"]
    limit = (card["sensitive_below"] - card["mean"]) / card["spread"]
    np.testing.assert_array_equal(found["call"] == "sensitive", found["z_high"] < limit)
    np.testing.assert_array_equal(found["call"] == "resistant", found["z_low"] > limit)
    assert (found["call"] == "resistant").any()


def test_answer_depends_neither_on_the_order_nor_on_the_other_groups() -> None:
    adata, whole = cells(), groups(answered())
    mixed = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    ask(mixed)
    pd.testing.assert_series_equal(groups(mixed)["P"], whole["P"])
    pd.testing.assert_series_equal(groups(mixed)["z"], whole["z"])
    few = adata[adata.obs["cell_line"].isin(whole.index[:2])].copy()
    ask(few)
    np.testing.assert_allclose(groups(few)["z"], whole["z"].iloc[:2], rtol=1e-6)
    np.testing.assert_allclose(groups(few)["P"], whole["P"].iloc[:2], rtol=1e-6)


def test_brand_names_find_the_drug() -> None:
    adata = cells()
    ask(adata, "Tarceva")
    assert adata.uns["predicted_response"]["drug"] == "Erlotinib"


def test_threshold_replaces_the_calls() -> None:
    adata = cells()
    ask(adata, threshold=0.3)
    prob = adata.obs["predicted_response_prob"]
    assert (adata.obs["predicted_response"] == np.where(prob >= 0.3, "sensitive", "resistant")).all()


def test_clusters_are_found_where_no_groups_are_named() -> None:
    adata = cells()[:200].copy()
    adata.obs["sample"] = np.where(np.arange(200) < 100, "A", "B")
    del adata.obs["cell_line"]
    ask(adata, groupby=None)
    found = groups(adata)
    assert set(found["sample"]) == {"A", "B"}
    assert found["n_cells"].sum() == 200
    assert (found["n_cells"] >= 10).all()
    assert not [name for name in adata.obs if "leiden" in name]


def test_single_cells_are_scored_on_request_with_their_reliability() -> None:
    adata = cells()
    with pytest.warns(UserWarning, match="split-half reliability"):
        ask(adata, per_cell=True)
    assert 0 < adata.uns["predicted_response"]["cell_reliability"] < 1
    means = adata.obs.groupby("cell_line", observed=True)["predicted_response_cell_score"].mean()
    assert spearmanr(means, groups(adata)["z"].loc[means.index]).statistic > 0.8
    assert "predicted_response_cell_score" not in answered().obs


# ------------------------------------------------------------------------------------------------- abstentions


def test_unknown_platform_gives_ranks_only() -> None:
    adata = cells()
    with pytest.warns(UserWarning, match=r"'drop-net' is not one .* knows: 'dropseq'") as caught:
        ask(adata, chemistry="drop-net")
    told = next(str(warning.message) for warning in caught if "drop-net" in str(warning.message))
    assert "sdr.models.platform_shift(lines, 'cell_line', chemistry='drop-net', reference=reference)" in told
    assert "reference.with_shift(shift)" in told
    assert adata.obs["predicted_response_prob"].isna().all()
    assert (adata.obs["predicted_response"] == "uncertain").all()
    assert groups(adata)["z"].notna().all()
    assert not adata.uns["predicted_response"]["calibrated"]
    assert "no probability" in adata.uns["predicted_response"]["warnings"][0]


def test_platform_is_read_from_the_metadata() -> None:
    adata = cells()
    adata.obs["platform"] = "Drop-seq"
    ask(adata, chemistry=None)
    np.testing.assert_array_equal(groups(adata)["P"], groups(answered())["P"])


def test_another_lineage_gets_no_answer() -> None:
    adata, tissue = cells(), toy_screen()[2]
    blood = adata[[tissue[line].startswith("haem") for line in adata.obs["cell_line"]]].copy()
    with pytest.warns(UserWarning, match=r"No answer for 'seen'.*lineage"):
        ask(blood, cancer="breast cancer")
    found = groups(blood)
    assert found["abstain_reason"].str.contains("looks like blood").all()
    assert found[["z", "P", "P_low", "P_high"]].isna().all(axis=None)
    assert (found["call"] == "uncertain").all()
    assert blood.obs["predicted_response_ood"].all()
    with pytest.raises(ValueError, match="cancer"):
        ask(blood, cancer="no such thing")


def test_immune_cells_are_refused_unless_said_to_be_malignant() -> None:
    adata = cells()
    dense = adata.X.toarray()
    dense[:20, adata.var_names.isin(["PTPRC", "CD3D", "CD3E", "CD2"])] = 300
    adata.X = dense
    first = adata.obs["cell_line"].iloc[0]
    ask(adata, malignant_key=None)
    assert "not tumor cells" in groups(adata).loc[first, "abstain_reason"]
    assert "malignant_key" in groups(adata).loc[first, "abstain_reason"]
    ask(adata)
    assert "not tumor cells" not in groups(adata).loc[first, "abstain_reason"]


def test_few_cells_get_no_answer() -> None:
    adata = cells()[5:].copy()  # 15 cells of the first line
    first = adata.obs["cell_line"].iloc[0]
    small = adata[6:].copy()  # 9
    ask(adata)
    assert groups(adata).loc[first, "abstain_reason"] == ""
    ask(small)
    assert "too few cells: 9, 10 needed" in groups(small).loc[first, "abstain_reason"]
    assert groups(small)["z"].isna().sum() == 1


def test_few_genes_give_no_answer() -> None:
    adata = cells()[:, :50].copy()
    ask(adata)
    assert groups(adata)["abstain_reason"].str.contains("too few genes: 42%").all()


@pytest.mark.parametrize(("drug", "reason"), [("unseen", "not predictable"), ("osimertinib", "needs mutation: EGFR")])
def test_drugs_that_expression_cannot_tell_get_no_number(drug, reason) -> None:
    adata = cells()
    with pytest.warns(UserWarning, match=reason):
        ask(adata, drug)
    assert groups(adata)["abstain_reason"].str.contains(reason).all()
    assert adata.obs["predicted_response_prob"].isna().all()


def test_cells_that_are_not_malignant_are_left_out() -> None:
    adata = cells()
    adata.obs["kind"] = np.where(np.arange(adata.n_obs) % 20 < 12, "tumor", "normal")
    ask(adata, malignant_key="kind")
    normal = adata.obs["kind"] == "normal"
    assert adata.obs.loc[normal, "predicted_response_prob"].isna().all()
    assert adata.obs.loc[~normal, "predicted_response_prob"].notna().all()
    assert (groups(adata)["n_cells"] == 12).all()
    adata.obs["none"] = False
    with pytest.raises(ValueError, match="calls no cell malignant"):
        ask(adata, malignant_key="none")


def test_treated_cells_are_warned_about() -> None:
    adata = cells()
    adata.obs["timepoint"] = "day 3 post-treatment"
    with pytest.warns(UserWarning, match=r"state\), not how they would have responded"):
        ask(adata)
    assert (groups(adata)["treated"] == 1).all()
    assert any("under or after treatment" in text for text in adata.uns["predicted_response"]["warnings"])


# ------------------------------------------------------------------------------------------------- errors, containers


def test_unknown_drug_suggests_names() -> None:
    with pytest.raises(ValueError, match=r"No drug 'erlotinb'.*Did you mean 'Erlotinib'"):
        ask(cells(), "erlotinb")


def test_without_labels_both_ways_are_named() -> None:
    with pytest.raises(ValueError, match=r"(?s)drug=.*tl\.rank_drugs.*label"):
        sdr.tl.predict_response(cells())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"drug": None}, ValueError, "pass drug="),
        ({"groupby": "absent"}, KeyError, "absent"),
        ({"malignant_key": "absent"}, KeyError, "absent"),
        ({"reference": 3}, TypeError, "reference"),
        ({"reference": "no_such_reference"}, FileNotFoundError, "no_such_reference"),
    ],
)
def test_nothing_is_written_on_failure(options, error, message) -> None:
    adata = cells()
    before = adata.copy()
    arguments = {"drug": "seen", "reference": toy_reference()[0], **WHO, **options}
    with pytest.raises(error, match=message):
        sdr.tl.predict_response(adata, **arguments)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert not adata.uns
    assert not adata.obsm


@pytest.mark.parametrize("rename", [str.capitalize, lambda name: f"x{name}"], ids=["mouse", "unknown"])
def test_genes_of_another_kind_are_an_error(rename) -> None:
    adata = cells()
    adata.var_names = [rename(name) for name in adata.var_names]
    with pytest.raises(ValueError, match=r"None of the 120 genes of the reference.*human genes"):
        ask(adata)
    assert "predicted_response" not in adata.obs


@pytest.mark.parametrize("container", ["backed", "MuData", "view", "copy"])
def test_containers_and_names_of_slots(container, tmp_path) -> None:
    adata, expected = cells(), answered().obs["predicted_response_prob"]
    if container == "backed":
        adata.write_h5ad(tmp_path / "x.h5ad")
        data = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    else:
        data = {"MuData": lambda: mudata.MuData({"rna": adata}), "view": lambda: adata[:, :], "copy": lambda: adata}[
            container
        ]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about views that become copies
        out = ask(data, key_added="mine", copy=container == "copy")
    found = out if container == "copy" else data.mod["rna"] if container == "MuData" else data
    np.testing.assert_array_equal(found.obs["mine_prob"], expected)
    assert found.uns["mine"]["drug"] == "seen"
    assert "predicted_response" not in found.uns
    if container == "copy":
        assert "mine" not in adata.uns


def test_model_and_reference_are_fused() -> None:
    adata, alone, both = cells(), cells(), cells()
    response = groups(answered())["z"]
    label = np.where(adata.obs["cell_line"].map(response) < response.median(), "sensitive", "resistant")
    for data in (adata, alone, both):
        data.obs["response"] = label
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sdr.tl.train_response(adata, model="pca", group_key="cell_line", n_comps=10)
        sdr.tl.predict_response(alone, model)
        ask(both, model=model)
    first, second = (data.obs["predicted_response_prob"].clip(1e-6, 1 - 1e-6) for data in (alone, answered()))
    mean = expit((logit(first) + logit(second)) / 2)
    inner = second.between(0.01, 0.99)
    np.testing.assert_allclose(both.obs.loc[inner, "predicted_response_prob"], mean[inner], atol=1e-3)
    np.testing.assert_allclose(both.obs["predicted_response_disagreement"], (first - second).abs() / 2, atol=1e-3)
    told = both.uns["predicted_response"]
    assert told["fused_with"]["models"].keys() == told["models"].keys() != set()
    calls = [data.obs["predicted_response"].astype(str) for data in (alone, answered(), both)]
    against = (calls[0] != calls[1]) & (calls[0] != "uncertain") & (calls[1] != "uncertain")
    assert (calls[2][against] == "uncertain").all()


def test_samples_of_reference_predictions_have_the_interval_of_their_groups() -> None:
    adata = answered().copy()
    sdr.tl.aggregate(adata, "cell_line")
    table, found = adata.uns["predicted_response"]["samples"], groups(adata)
    np.testing.assert_allclose(table["mean_low"], found["P_low"].reindex(table.index))
    assert (table["interval"] == "redrawn groups").all()


def test_prediction_is_drawn_and_reported(tmp_path) -> None:
    adata = cells()[:100].copy()  # 5 lines
    adata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(100, 2))
    small = adata[11:].copy()  # 9 cells of the first line
    ask(small)
    assert sdr.pl.response(small, color="prob").get_xlabel() == "dimension 1 of X_umap"
    page = sdr.report(small, tmp_path / "r.html").read_text(encoding="utf-8")
    for text in (
        "Not for clinical use",
        "too few cells: 9, 10 needed",
        "no answer",
        "Tissue mean",
        "errors of the drug",
    ):
        assert text in page
    with pytest.warns(UserWarning, match="platform"):
        ask(small, chemistry="other")
    assert "No probability is given" in sdr.report(small, tmp_path / "r.html").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------- real cells


def check_t_cells_of_melanoma_get_no_answer(shared) -> None:
    adata = ad.read_h5ad(shared / "data" / "GSE120575_melanoma_ICB_partA.h5ad")
    sdr.tl.predict_response(adata, drug="dabrafenib", groupby="patient")
    reasons = groups(adata)["abstain_reason"]
    assert reasons.str.contains("lineage: looks like").all()
    assert reasons.str.contains("stated is skin").all()
    assert adata.obs["predicted_response_ood"].all()
    assert adata.obs["predicted_response_prob"].isna().all()


def check_lung_lines_are_ranked_for_afatinib(shared) -> None:
    adata = ad.read_h5ad(shared / "data" / "GSE118767_lung5_afatinib_celseq2.h5ad")
    sdr.tl.predict_response(adata, drug="afatinib", groupby="cell_line")
    assert groups(adata)["z"].idxmin() == "HCC827"
    assert (groups(adata)["stated_lineage"] == "lung").all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The platform")
def test_unseen_lung_lines_are_ranked_by_another_screen(shared) -> None:
    """The five lines and their relatives are left out of the reference."""
    bulk = shared / "data" / "bulk2"
    expression = pd.read_parquet(bulk / "gdsc_expression_rowz_x100_6163genes.parquet") / 100
    response = pd.read_parquet(bulk / "gdsc12_response.parquet")
    response = response[(response["screen"] == "GDSC2") & response["drug"].isin(["Afatinib", "Erlotinib"])]
    response = response[["line", "drug", "auc"]].rename(columns={"auc": "value"})
    adata = ad.read_h5ad(shared / "data" / "GSE118767_lung5_afatinib_celseq2.h5ad")
    lines = adata.obs["cell_line"].unique().tolist()
    reference = sdr.models.build_reference("gdsc", expression=expression, response=response, exclude_lines=lines)
    assert not {"HCC827", "NCIH1975", "A549"} & set(reference.lines.index)
    sdr.tl.predict_response(adata, drug="afatinib", groupby="cell_line", reference=reference)
    order = groups(adata)["z"].sort_values().index.tolist()
    assert order[0] == "HCC827"
    assert order[-1] == "H838"


def check_survivors_of_treatment_are_warned_about(shared) -> None:
    adata = ad.read_h5ad(shared / "data" / "GSE149214_PC9_erlotinib.h5ad")
    with pytest.warns(UserWarning, match=r"1 of 2 groups seem to come from under or after treatment"):
        sdr.tl.predict_response(adata, drug="erlotinib", groupby="sample")
    assert groups(adata).loc["D11_erlotinib", "treated"] == 1
    assert groups(adata).loc["D11_vehicle", "treated"] == 0
    assert adata.obs["predicted_response_prob"].notna().all()


@pytest.mark.filterwarnings("ignore:The platform")
def test_real_cells(shared) -> None:
    check_t_cells_of_melanoma_get_no_answer(shared)
    check_lung_lines_are_ranked_for_afatinib(shared)
    check_survivors_of_treatment_are_warned_about(shared)
