"""`Reference`: drug response of cell lines as a function of expression, and how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.arguments import checked
from .align import Scale

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    import pandas as pd

    from .shift import PlatformShift


@dataclass(frozen=True, eq=False)
class Reference:
    """Ridge regressions of drug response on the expression of cell lines, one per drug, and what is known of their errors.

    Made by :func:`~sc_drugresp.models.build_reference`. A predicted response is on the scale of the screen, and a higher one
    means more resistant; `z` divides its distance from the mean of the drug by the spread of the drug over lines, so that
    drugs can be compared: the lowest `z` is the most sensitive. `sensitive` means a response in the lowest quarter of the
    lines of the screen.

    Parameters
    ----------
    name
        Name of the screen.
    genes
        Symbols that the model reads.
    mean, spread
        Of each gene over lines, after standardization within the line; shape `(n_genes,)`, float32.
    weights
        Shape `(n_genes, n_drugs)`, float32, for standardized genes.
    intercept
        Shape `(n_drugs,)`, float32.
    drugs
        One row per drug: its card (see :func:`~sc_drugresp.models.build_reference`).
    lines
        One row per line of the training data: `lineage`, `family`.
    errors
        Quantiles of the held-out errors of each drug, shape `(n_drugs, 101)`, float32.
    recalibration
        P(sensitive) at equally spaced shares of errors, shape `(41,)`.
    lineages
        Lineages that have a mean of their own.
    tissue_means
        Mean response per lineage, shape `(n_drugs, n_lineages)`, float32, NaN where too few lines were measured.
    centroids
        Mean standardized expression per lineage, shape `(n_lineages, n_genes)`, float32.
    gaps
        How much less than the nearest lineage the lines of a lineage may resemble their own, shape `(n_lineages,)`.
    shifts
        Shifts of platforms that are known, by chemistry.
    programs
        Scores of the gene programs of treated cells that 5 % of the (untreated) lines exceed.
    info
        Provenance: release, license, citation, hashes, lines left out, settings, package versions.
    """

    name: str
    genes: list[str]
    mean: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    intercept: np.ndarray
    drugs: pd.DataFrame
    lines: pd.DataFrame
    errors: np.ndarray
    recalibration: np.ndarray
    lineages: list[str]
    tissue_means: np.ndarray
    centroids: np.ndarray
    gaps: np.ndarray
    shifts: Mapping[str, PlatformShift] = field(default_factory=dict)
    programs: Mapping[str, float] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scale(self) -> Scale:
        """Mean and spread of genes over lines."""
        return Scale(np.asarray(self.mean, dtype=np.float64), np.asarray(self.spread, dtype=np.float64))

    @checked
    def predict(self, Z: np.ndarray) -> np.ndarray:
        """Response of samples to every drug.

        Parameters
        ----------
        Z
            Aligned and standardized expression, shape `(n, n_genes)`.

        Returns
        -------
        Shape `(n, n_drugs)`, float64, on the scale of the screen; higher means more resistant.

        Raises
        ------
        ValueError
            There is not one number for each gene.
        """
        _check_rows("Z", Z, len(self.genes), "genes")
        return Z @ self.weights + self.intercept

    @checked
    def errors_on(self, shift: PlatformShift) -> np.ndarray:
        """Quantiles of the errors of each drug for samples on a platform, shape `(n_drugs, 101)`.

        They are wider than those of bulk profiles by what the shift leaves in lines that it was not measured in.

        Parameters
        ----------
        shift
            Of the platform.
        """
        from .chance import with_platform

        if shift.deviations is None:
            return self.errors
        rest = np.nan_to_num(shift.deviations / self.spread, nan=0.0)
        return with_platform(self.errors, rest @ self.weights)

    @checked
    def z(self, response: np.ndarray) -> np.ndarray:
        """Responses, last axis drugs, in units of the spread of each drug over lines; 0 is the mean of the drug."""
        _check_rows("response", response, len(self.drugs), "drugs")
        return (response - self.drugs["mean"].to_numpy()) / self.drugs["spread"].to_numpy()

    @checked
    def match(self, drug: str) -> str:
        """Name of a drug in this reference, from a generic name, a brand or a code.

        Parameters
        ----------
        drug
            Name in any spelling.

        Raises
        ------
        ValueError
            No such drug; the message holds near names.
        """
        from ..names import match_drug

        return match_drug(drug, self.drugs)

    @checked
    def with_shift(self, shift: PlatformShift) -> Reference:
        """The same model, which also knows a platform.

        Parameters
        ----------
        shift
            From :func:`~sc_drugresp.models.platform_shift` with this reference.

        Raises
        ------
        ValueError
            The shift belongs to other genes.
        """
        from dataclasses import replace

        if shift.values.shape != (len(self.genes),):
            msg = f"The shift of {shift.chemistry!r} has {len(shift.values)} genes, this reference {len(self.genes)}."
            raise ValueError(msg)
        return replace(self, shifts={**self.shifts, shift.chemistry: shift})

    @checked
    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write a folder: numbers in one safetensors file, cards of drugs and lines as JSON; nothing is pickled.

        The tables are small (hundreds of rows), so that a third format such as parquet would only add a dependency. The
        folder appears complete or not at all.

        Parameters
        ----------
        path
            Folder to make.
        overwrite
            Replace a folder that holds a reference.

        Raises
        ------
        FileExistsError
            The path exists and `overwrite` is false, or it is not a saved reference.
        """
        from .storage import write_reference

        write_reference(vars(self), path, overwrite=overwrite)

    @classmethod
    @checked
    def load(cls, path: str | PathLike[str] | None = None) -> Reference:
        """Read a reference; nothing in its files is executed.

        Parameters
        ----------
        path
            Folder written by :meth:`save`, or the name of a reference that was built on this machine (see
            :func:`~sc_drugresp.models.reference_table`). `None` reads the one that comes with the package.

        Returns
        -------
        The reference.

        Raises
        ------
        FileNotFoundError
            There is no such folder, or it is incomplete.
        ValueError
            A file is damaged or was written by another version.
        """
        from .storage import locate, read_reference

        return cls(**read_reference(locate(path)))

    def __repr__(self) -> str:
        return (
            f"Reference({self.name!r}, {len(self.drugs)} drugs, {len(self.lines)} lines, {len(self.genes)} genes, "
            f"median r {self.drugs['r'].median():.2f}, platforms {sorted(self.shifts)})"
        )


def _check_rows(argument: str, values: np.ndarray, width: int, what: str) -> None:
    """Refuse an array that does not hold a number for each gene or drug in its last axis."""
    shape = values.shape
    if np.asarray(values).dtype.kind not in "buif" or shape[-1:] != (width,):
        msg = f"`{argument}` must hold a number for each of {width} {what} in its last axis, found the shape {shape}."
        raise ValueError(msg)
