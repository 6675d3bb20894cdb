"""What a language model is asked about: the records of an object and the question about each, whoever is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._data.counts import read_counts
from .examples import read_pool
from .metadata import check_metadata, describe
from .profiles import gene_lists
from .prompts import Question, example_text
from .units import read_units

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

    from .options import LLMOptions, Unit
    from .units import Units

_LONGEST_NAME = 200


@dataclass(frozen=True, eq=False)
class Records:
    """Samples, clusters or cells, and the question about each.

    Parameters
    ----------
    units, questions
        What is asked about, and the question about each.
    shown
        Names of the samples that are shown as examples with each question.
    params
        What was asked for.
    """

    units: Units
    questions: list[Question]
    shown: list[list[str]]
    params: dict[str, Any]

    @classmethod
    def read(
        cls,
        adata: AnnData,
        obs: pd.DataFrame,
        *,
        unit: Unit,
        groupby: str | None,
        group_key: str | None,
        mask_obs: str | None,
        metadata: Sequence[str],
        examples: int,
        label_key: str,
        options: LLMOptions,
        layer: str | None,
    ) -> Records:
        """Find the records and word the questions."""
        units = read_units(obs, unit, groupby=groupby, group_key=group_key, mask_obs=mask_obs)
        check_metadata(obs, metadata, units, label_key, groupby)
        pool = read_pool(obs, units, label_key, examples, options.seed) if examples else None
        source = read_counts(adata, layer=layer, expect="any")

        def texts(codes: np.ndarray, n: int) -> list[str]:
            listed = gene_lists(source, codes, n, n_genes=options.n_genes, genes=options.genes)
            told = describe(obs, metadata, codes, n)
            return ["\n".join(filter(None, (note, "Genes: " + " ".join(part)))) for note, part in zip(told, listed)]

        shown: list[list[int]] = [[] for _ in units.names]
        known: list[str] = []
        if pool is not None:
            parts = texts(pool.codes, len(pool.names))
            known = [example_text(options.template, text, pool.label(i)) for i, text in enumerate(parts)]
            shown = [pool.choose(examples, sample) for sample in units.samples]
        questions = [
            Question(text, "\n\n".join(known[i] for i in own))
            for text, own in zip(texts(units.codes, len(units.names)), shown)
        ]
        params = {
            "unit": unit,
            "groupby": groupby or "",
            "group_key": units.sample_key,
            "mask_obs": mask_obs or "",
            "metadata": np.array(list(metadata), dtype=str),
            "examples": examples,
            "label_key": label_key if examples else "",
            "layer": source.origin,
            "options": repr(options),
        }
        names = [] if pool is None else pool.names
        return cls(units, questions, [[names[i] for i in own] for own in shown], params)

    def table(self) -> dict[str, Any]:
        """Columns that say what was asked about."""
        return {
            "record": self.units.names,
            "sample": self.units.samples,
            "n_cells": self.units.sizes,
            "examples": ["\t".join(names) for names in self.shown],
        }


def check_name(name: str, value: str) -> None:
    """Refuse a name that is empty, very long or not printable.

    Raises
    ------
    ValueError
        It is.
    """
    if not value.strip() or len(value) > _LONGEST_NAME or not value.isprintable():
        msg = f"`{name}` must be a name of at most {_LONGEST_NAME} printable characters, found {value[:60]!r}."
        raise ValueError(msg)
