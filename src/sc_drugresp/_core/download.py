"""Bring one published file to disk: verified, retried, atomic, and resumed where that is safe."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .log import logger
from .progress import progress_bar
from .settings import settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CHUNK = 1 << 20
TIMEOUT = (10, 60)
"""Seconds to wait for a connection and for the next bytes."""
GONE = frozenset({400, 401, 403, 404, 405, 410, 451})
"""HTTP statuses that a retry cannot fix."""


@dataclass(frozen=True)
class Expected:
    """What is known about a file before it is here."""

    size: int | None = None
    sha256: str | None = None
    md5: str | None = None

    @property
    def hashed(self) -> bool:
        """Whether a checksum is known."""
        return bool(self.sha256 or self.md5)

    def problem(self, path: Path, *, quick: bool = False) -> str | None:
        """Why the file is not the expected one; `quick` compares sizes alone."""
        import pooch

        found = path.stat().st_size
        if self.size is not None and found != self.size:
            return f"it has {found:,} bytes instead of {self.size:,}"
        if quick:
            return None
        for algorithm in ("sha256", "md5"):
            expected = getattr(self, algorithm)
            if expected and (actual := pooch.file_hash(str(path), alg=algorithm)) != expected.lower():
                return f"its {algorithm.upper()} is {actual} instead of {expected.lower()}"
        return None


def fetch(
    path: Path,
    urls: Sequence[str],
    expected: Expected | None = None,
    *,
    manual: str = "",
    attempts: int = 3,
    pause: float = 1.0,
) -> Path:
    """Download the first of `urls` that delivers the expected file, unless it is already there.

    Without a known checksum the first download is trusted: its SHA-256 is kept in `<path>.sha256` and every later
    download of that file must agree with it. A partial file is kept for resuming only where a checksum can tell whether
    the parts fit; otherwise nothing is left behind. A server that cannot be reached at all is asked once.

    Parameters
    ----------
    path
        Where the file goes. It appears there complete and verified, or not at all.
    urls
        `https://` or `hf://owner/repo@revision/file`.
    expected
        Size and checksums.
    manual
        What to do by hand, for the error messages.
    attempts
        Tries per URL.
    pause
        Seconds before the second try; doubled each time.

    Raises
    ------
    ConnectionError
        The network is off limits (`settings.offline`), or no URL answered.
    ValueError
        What arrived is not the expected file.
    """
    expected = expected or Expected()
    record = path.with_name(f"{path.name}.sha256")
    if not expected.hashed and record.is_file():
        expected = Expected(expected.size, record.read_text(encoding="utf-8").split()[0])
    hint = f"\nBy hand: {manual}" if manual else ""
    if path.is_file() and expected.problem(path, quick=True) is None:
        return path
    if settings.offline:
        msg = f"{path.name} is not in {path.parent} and settings.offline forbids the network.{hint}"
        raise ConnectionError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)
    keep, part = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.{os.getpid()}.part")
    with suppress(FileNotFoundError):  # renaming claims it: two processes never write to one partial file
        keep.replace(part)
    failures: list[str] = []
    damaged = False
    try:
        for url in urls:
            for attempt in range(attempts):
                if attempt:
                    time.sleep(pause * 2 ** (attempt - 1))
                logger.info("downloading %s from %s", path.name, url)
                failure, again = _try(url, part)
                if failure is None and (problem := expected.problem(part)) is not None:
                    part.unlink()
                    failure, again, damaged = f"the file is not the published one: {problem}", True, True
                if failure is None:
                    if not expected.hashed:
                        import pooch

                        record.write_text(f"{pooch.file_hash(str(part))}  {path.name}\n", encoding="utf-8")
                    part.replace(path)
                    return path
                failures.append(f"{url}: {failure}")
                if not again:
                    break
    finally:
        if part.exists():
            if expected.hashed:
                part.replace(keep)
            else:
                part.unlink()
    tried = "\n  ".join(dict.fromkeys(failures)) or "no address is known for it"
    msg = f"Could not download {path.name}:\n  {tried}{hint}"
    raise (ValueError if damaged else ConnectionError)(msg)


def _try(url: str, part: Path) -> tuple[str | None, bool]:
    """Run one download; return what went wrong and whether another try could help."""
    import huggingface_hub.constants
    import requests
    import urllib3

    if url.startswith("hf://") and huggingface_hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set", False
    try:
        _from_web(url, part)
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        return f"the server answered {status}", status not in GONE
    except (requests.RequestException, urllib3.exceptions.HTTPError, EOFError) as error:
        if _unreachable(error):
            return "the server cannot be reached; is there a network?", False
        return f"{type(error).__name__}: {error}", True
    except OSError as error:
        if error.errno is not None:  # the disk, not the network: full, read-only, ...
            raise
        return f"{type(error).__name__}: {error}", True
    return None, False


def _unreachable(error: BaseException | None) -> bool:
    """Whether no connection was made at all: no network, an unknown host, or nobody who listens there."""
    from urllib3.exceptions import NewConnectionError

    while error is not None and not isinstance(error, NewConnectionError):
        error = getattr(error, "original_error", None) or error.__cause__ or error.__context__
    return error is not None


def _address(url: str) -> tuple[str, dict[str, str]]:
    """Web address and headers; `hf://owner/repo@revision/folder/file` becomes an address on the user's hub."""
    headers = {"Accept-Encoding": "identity"}  # a .gz file must arrive as it is
    if not url.startswith("hf://"):
        return url, headers
    from huggingface_hub import get_token, hf_hub_url

    owner, repo, name = url.removeprefix("hf://").split("/", 2)
    repo, _, revision = repo.partition("@")
    if token := get_token():
        headers["Authorization"] = f"Bearer {token}"
    return hf_hub_url(f"{owner}/{repo}", name, revision=revision or None), headers


def _from_web(url: str, part: Path) -> None:
    import requests

    address, headers = _address(url)
    have = part.stat().st_size if part.exists() else 0
    if have:
        headers = headers | {"Range": f"bytes={have}-"}
    with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # nothing beyond what we have: what we have is wrong
            part.unlink()
            msg = "the partial file does not fit; starting again"
            raise requests.ConnectionError(msg)
        response.raise_for_status()
        resumed = response.status_code == 206
        length = int(response.headers.get("Content-Length", 0)) or None
        bar = progress_bar(total=length, desc=part.name.split(".")[1], unit="B")
        with bar, part.open("ab" if resumed else "wb") as file:
            # Not `iter_content`: it drops what had arrived when a connection breaks.
            while chunk := response.raw.read(CHUNK, decode_content=False):
                file.write(chunk)
                bar.update(len(chunk))
