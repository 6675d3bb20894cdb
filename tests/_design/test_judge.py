from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from sc_drugresp._design.judge import assess
from sc_drugresp._design.verdict import Verdict

CELLS = 5


def cells(labels, **columns):
    """`.obs` and labels with one entry per patient, repeated over its cells."""
    names = [f"P{i}" for i in range(len(labels))]
    obs = pd.DataFrame({"patient": names, **columns})
    return obs.loc[obs.index.repeat(CELLS)].reset_index(drop=True), np.repeat(labels, CELLS)


def test_enough_patients_of_each_class():
    verdict = assess(*cells([0, 1] * 6), group_key=None).verdict
    assert verdict.code == "OK"
    assert "6 sensitive and 6 resistant" in verdict.reason


def test_group_key_says_what_a_unit_is():
    obs, y = cells([0, 1] * 6)
    obs["pool"] = np.repeat(["a", "b"], len(obs) // 2)
    obs = obs.drop(columns="patient")
    assert assess(obs, y, group_key="pool").verdict.code == "UNDERPOWERED"  # two pools with both classes
    with pytest.raises(KeyError, match="nowhere"):
        assess(obs, y, group_key="nowhere")


def test_verdict_goes_through_json():
    verdict = Verdict("ALIASED", "because", ("add data",), ("careful", "very"))
    assert Verdict.from_dict(json.loads(json.dumps(verdict.to_dict()))) == verdict
    assert str(verdict) == "ALIASED: because"
