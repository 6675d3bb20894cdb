"""`get.reliability`: how far to trust what a reference says of a drug."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.arguments import checked
from .._core.docs import doc_params

if TYPE_CHECKING:
    from .._response.reference_answers import ReferenceLike

_CLEAR, _FAIR = 0.6, 0.5
"""Held-out correlation of a drug from which it transferred to single cells well or fairly; see the benchmark."""


@dataclass(frozen=True)
class DrugReliability:
    """The card of one drug; prints as text."""

    drug: str
    reference: str
    release: str
    targets: str
    n_lines: int
    r: float
    r_within_tissue: float
    r_tissue_mean: float
    gain_over_tissue: float
    half_width_90: float
    screen_agreement: float
    abstain_reason: str

    @property
    def abstains(self) -> bool:
        """Whether the reference refuses to predict the drug."""
        return bool(self.abstain_reason)

    @property
    def verdict(self) -> str:
        """What the numbers mean, in a sentence."""
        if self.abstains:
            return f"No answer: {self.abstain_reason}."
        level = "well" if self.r >= _CLEAR else "fairly" if self.r >= _FAIR else "weakly"
        beside = (
            f"the mean of the tissue alone reaches {self.r_tissue_mean:.2f}"
            if np.isfinite(self.r_tissue_mean)
            else "what the tissue alone reaches is not known"
        )
        return f"Predicted {level}: r {self.r:.2f} in held-out lines; {beside}."

    def __str__(self) -> str:
        rows = {
            "targets": self.targets.replace(";", ", "),
            "lines": f"{self.n_lines}",
            "r": f"{_number(self.r)}  held-out lines",
            "r within tissue": f"{_number(self.r_within_tissue)}  held-out lines, without the means of tissues",
            "r of the tissue mean": f"{_number(self.r_tissue_mean)}  naive prediction",
            "gain over tissue": f"{_number(self.gain_over_tissue, '+.2f')}  r beyond that of the tissue mean",
            "half width": f"{_number(self.half_width_90)}  of the 90 % interval, in units of z",
            "screen agreement": f"{_number(self.screen_agreement)}  with another screen of the same lines",
        }
        width = max(map(len, rows))
        told = f"{self.drug} in {self.reference}" + (f" ({self.release})" if self.release else "")
        lines = [f"  {name:<{width}}  {text}" for name, text in rows.items() if text]
        return "\n".join([told, self.verdict, *lines])

    __repr__ = __str__


def _number(value: float, form: str = ".2f") -> str:
    return format(value, form) if np.isfinite(value) else "unknown"


@doc_params()
@checked
def reliability(drug: str, reference: ReferenceLike = None) -> DrugReliability:
    """Get what is known of how well a reference predicts a drug.

    Parameters
    ----------
    drug
        Generic name, brand or code of the drug.
    {reference}

    Returns
    -------
    An object that prints as text. Attributes: `drug`, `reference`, `release`, `targets`, `n_lines`, `r`, `r_within_tissue` and
    `r_tissue_mean` (correlations in held-out lines; the last is that of the mean of the tissue), `gain_over_tissue`,
    `half_width_90` (of the interval, in units of `z`), `screen_agreement` (NaN if unknown), `abstains`, `abstain_reason` and
    `verdict`. How the correlations are computed: :func:`~sc_drugresp.models.build_reference`.

    Raises
    ------
    ValueError
        There is no such drug; the message holds near names.
    FileNotFoundError
        There is no such reference.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> card = sdr.get.reliability("Gilotrif")
    >>> card.drug, card.abstains
    ('afatinib', False)
    """
    from .._reference.abstain import drug_reasons
    from .._response.reference_answers import open_reference

    model = open_reference(reference)
    name = model.match(drug)
    card: Any = model.drugs.loc[name].to_dict()
    numbers = ("r", "r_within_tissue", "r_tissue_mean", "gain_over_tissue", "screen_agreement")
    return DrugReliability(
        drug=name,
        reference=model.name,
        release=str(model.info.get("release", "")),
        targets=str(card["targets"]),
        n_lines=int(card["n_lines"]),
        half_width_90=float(card["half_width_90"] / card["spread"]),
        abstain_reason=drug_reasons(model.drugs.loc[[name]])[0],
        **{key: float(card[key]) for key in numbers},
    )
