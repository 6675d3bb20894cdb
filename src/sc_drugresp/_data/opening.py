"""Files with cells, opened so that the matrices stay on disk."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

SUFFIXES = (".h5ad", ".h5mu", ".zarr")
_FRAMES = frozenset({"obs", "var"})
_SPARSE = frozenset({"csr_matrix", "csc_matrix"})
_READERS = "scanpy.read_10x_h5, scanpy.read_10x_mtx, anndata.io.read_loom, anndata.io.read_csv"


def is_path(data: object) -> bool:
    """Whether this names a file instead of being an object."""
    return isinstance(data, str | PathLike)


def open_cells(path: str | PathLike[str]) -> AnnData | MuData:
    """Open a file for reading: `.obs`, `.var`, `.uns` and `.obsm` are read, matrices stay on disk.

    The file stays open, and unchanged, for as long as the object lives.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is no `.h5ad`, `.h5mu` or `.zarr`, or holds no annotated data.
    """
    place = Path(fspath(path)).expanduser()
    if place.suffix not in SUFFIXES:
        msg = (
            f"Expected a file {', '.join(SUFFIXES)} with cells, found {str(path)!r}. Read other formats with "
            f"{_READERS}, and pass the object."
        )
        raise ValueError(msg)
    if not place.exists():
        msg = f"There is no file {str(path)!r}; the working directory is {str(Path.cwd())!r}."
        raise FileNotFoundError(msg)
    group = _root(place)
    kind = group.attrs.get("encoding-type", "")
    if kind == "MuData" or "mod" in group:
        return _open_modalities(group)
    if not _FRAMES.issubset(group):
        msg = f"{str(path)!r} holds no annotated data: expected groups such as 'X', 'obs' and 'var', found {sorted(group)}."
        raise ValueError(msg)
    return _open_modality(group)


def _root(place: Path) -> Any:
    try:
        if place.suffix == ".zarr":
            import zarr

            return zarr.open_group(place, mode="r")
        import h5py

        return h5py.File(place, mode="r")
    except (OSError, ValueError, KeyError) as error:
        msg = f"{str(place)!r} cannot be opened as {place.suffix}: {error}. Is the file whole?"
        raise ValueError(msg) from error


def _open_modality(group: Any) -> AnnData:
    import anndata
    from anndata.io import read_elem

    parts: dict[str, Any] = {}
    for name in group:
        if name == "X":
            parts[name] = _matrix(group[name])
        elif name in {"layers", "obsp", "varp"}:
            parts[name] = {key: _matrix(group[name][key]) for key in group[name]}
        elif name == "raw":
            raw = group[name]
            parts[name] = {"X": _matrix(raw["X"])} | {key: read_elem(raw[key]) for key in ("var", "varm") if key in raw}
        elif name in {"obs", "var", "obsm", "varm", "uns"}:
            parts[name] = read_elem(group[name])
    return anndata.AnnData(**parts)


def _open_modalities(group: Any) -> MuData:
    from anndata.io import read_elem
    from mudata import MuData

    data = MuData({name: _open_modality(group["mod"][name]) for name in _modalities(group["mod"])})
    data.obs = read_elem(group["obs"]).loc[data.obs_names]
    data.uns.update(read_elem(group["uns"]) if "uns" in group else {})
    return data


def _modalities(group: Any) -> list[str]:
    """Names of modalities in the order of the object that was written."""
    order = group.attrs.get("mod-order")
    return sorted(group) if order is None else [str(name) for name in order]


def _matrix(element: Any) -> Any:
    """A matrix on disk; anything else is read."""
    from anndata.io import read_elem, sparse_dataset

    kind = element.attrs.get("encoding-type", "")
    if kind in _SPARSE:
        return sparse_dataset(element)
    return element if kind == "array" else read_elem(element)
