"""Whose files these are: what a registry row states (sizes, hashes, names of files) against what was found. No torch."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

from .._core.hashing import sha256

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ._spec import Checkpoint, ModelSpec

Source = Literal["published", "unverified", "local"]
"""Published: every known hash agrees. Unverified: the sizes do, no hash is known. Local: of no registered checkpoint."""
_HUGE = 1_000_000_000
_TRUST = "Pass verify=False if you trust these files; they are then recorded as local."


def weights_digest(files: Mapping[str, Path]) -> str:
    """SHA-256 of the weights; of weights in several files (`weights`, `weights_2`, ...) that of their hashes."""
    digests = [sha256(path) for role, path in sorted(files.items()) if role.startswith("weights")]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def other_owner(
    spec: ModelSpec, row: Checkpoint, files: Mapping[str, Path], found: Mapping[str, Any]
) -> tuple[Checkpoint, str] | None:
    """The other registered checkpoint of the same model whose files these are, and by what it was recognized.

    Parameters
    ----------
    spec, row
        The model and the checkpoint that was asked for.
    files
        The files by role.
    found
        The fields of its configuration that the files gave.
    """
    others = [other for other in spec.checkpoints.values() if other is not row]
    hashed = {other.files["weights"].sha256: other for other in others if other.files["weights"].sha256}
    digest = sha256(files["weights"])
    if digest == row.files["weights"].sha256:
        return None
    if digest in hashed:
        return hashed[digest], f"SHA-256 {digest[:12]}..."
    if differences(row, found):
        for other in others:
            if other.sizes and not differences(other, found):
                return other, ", ".join(f"{name} = {found[name]}" for name in differences(row, found))
    for other in others:
        if place := _place_of(other, row, files["weights"]):
            return other, f"its name {place}"
    return None


def differences(row: Checkpoint, found: Mapping[str, Any]) -> list[str]:
    """The sizes in which the files differ from those of a registered checkpoint."""
    return [name for name, size in row.sizes.items() if name in found and found[name] != size]


def _place_of(other: Checkpoint, row: Checkpoint, weights: Path) -> str:
    """The folder or name that the weights have, if it is that of another checkpoint and not of this one."""
    ours, theirs = (checkpoint.files["weights"].path.split("/") for checkpoint in (row, other))
    part = -2 if len(theirs) > 1 else -1  # files of one name lie in folders that tell them apart
    here = weights.absolute().parts[part]
    return here if theirs[part] == here and ours[part:][0] != here else ""


def check_hashes(row: Checkpoint, files: Mapping[str, Path], name: str) -> Source:
    """Compare files with the published hashes.

    Raises
    ------
    ValueError
        A file is not the published one.
    """
    for role, path in files.items():
        file = row.files[role]
        huge = file.optional and (file.bytes or file.about_bytes or 0) > _HUGE  # read for what other files lack
        if file.sha256 and path.name == file.name and not huge and (digest := sha256(path)) != file.sha256.lower():
            msg = (
                f"{path} is not the file that {name} was published with: its SHA-256 is {digest}, expected "
                f"{file.sha256.lower()}. It is damaged, or of a network that was trained further: download it again. {_TRUST}"
            )
            raise ValueError(msg)
    weights = row.files["weights"]
    return "published" if weights.sha256 and files["weights"].name == weights.name else "unverified"


def check_identity(
    name: str,
    row: Checkpoint,
    files: Mapping[str, Path],
    found: Mapping[str, Any],
    *,
    given: bool,
    depth_known: bool,
) -> Source:
    """Say where files come from that belong to no other checkpoint of the model.

    Parameters
    ----------
    name, row
        The checkpoint that was asked for.
    files, found
        As for :func:`other_owner`.
    given
        Whether the user named the folder. Files in the cache must be the published ones.
    depth_known
        Whether a file, or the user, says how many layers there are.

    Raises
    ------
    ValueError
        A hash differs, sizes differ from those of published weights, or nothing says how many layers there should be.
    """
    wrong = differences(row, found)
    if not wrong:
        return check_hashes(row, files, name)
    what = ", ".join(f"{size} = {found[size]}, expected {row.sizes[size]}" for size in wrong)
    published = row.files["weights"].sha256 == sha256(files["weights"])
    if not given or published:
        also = "its weights are the published ones; another file of it is damaged" if published else "it is damaged"
        msg = f"{files['weights'].parent} is not {name}: found {what}; {also}. Download it again. {_TRUST}"
        raise ValueError(msg)
    if not depth_known and "layers" in wrong:
        msg = (
            f"{files['weights']} does not say how many layers it should have, so that nobody would notice if the last "
            f"one were missing: found {what} ({name}). Give `layers={found['layers']}` if that is right, or put the "
            f"configuration beside it. {_TRUST}"
        )
        raise ValueError(msg)
    return "local"
