"""One HTTP transfer into a partial file: resumed where that is safe, refused early, cut off when it drags on."""

from __future__ import annotations

import re
import shutil
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from .expected import HEAD, Expected, wrong_content
from .progress import progress_bar

if TYPE_CHECKING:
    from pathlib import Path

    import requests

CHUNK = 1 << 20
CONNECT = 10.0
"""Seconds to wait for a connection."""
WINDOW = 30.0
"""Seconds after which the first bytes must have come, and over which speed is judged."""
SLOWEST = 1_000
"""Bytes per second below which a transfer is given up."""
LONGEST = 24 * 3600.0
"""Seconds that one transfer may take."""
GONE = frozenset({400, 401, 403, 404, 405, 410, 451})
"""HTTP statuses that a retry cannot fix."""


class TransferError(Exception):
    """A transfer that did not bring the file; `again`: another try could help; `wrong`: something else was offered."""

    def __init__(self, text: str, *, again: bool = False, wrong: bool = False) -> None:
        super().__init__(text)
        self.again, self.wrong = again, wrong


class Watch:
    """Shuts the connections of a transfer that is too slow or too long: a socket's own timeout ends with every byte."""

    def __init__(self) -> None:
        self.received = 0
        self.reason = ""
        self._connections: list[Any] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="sc_drugresp download watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def add(self, connection: Any) -> None:
        """Note a connection, or its socket, to shut."""
        self._connections.append(connection)

    def _run(self) -> None:
        start, last = time.monotonic(), 0
        while not self._done.wait(min(WINDOW, max(start + LONGEST - time.monotonic(), 0))):
            received = self.received
            if time.monotonic() - start >= LONGEST:
                self.reason = f"it took longer than {LONGEST:,.0f} seconds"
            elif received - last < SLOWEST * WINDOW:
                self.reason = f"the server sent {received - last:,} bytes in {WINDOW:g} seconds"
            last = received
            while self.reason and not self._done.wait(0.05):  # a redirect may open another one meanwhile
                for item in list(self._connections):
                    with suppress(OSError):
                        if (sock := getattr(item, "sock", item)) is not None:
                            sock.shutdown(socket.SHUT_RDWR)


def transfer(url: str, part: Path, name: str, expected: Expected) -> str | None:
    """Bring the rest of the file to `part`, to which nobody else writes meanwhile.

    Returns
    -------
    SHA-256 that the Hugging Face Hub states for the file, where it does.

    Raises
    ------
    TransferError
        The file did not come.
    OSError
        The disk is full, read-only, ...
    """
    import requests
    import urllib3

    with Watch() as watch:
        try:
            address, headers = _address(url)
            with _session(watch) as session:
                return _receive(session, address, headers, part, name, expected, watch)
        except (requests.RequestException, urllib3.exceptions.HTTPError, EOFError, OSError) as error:
            if watch.reason:
                raise TransferError(watch.reason, again=watch.received >= CHUNK) from error
            if _unreachable(error):
                text = "the server cannot be reached; is there a network?"
                raise TransferError(text) from error
            if not isinstance(error, requests.RequestException) and isinstance(error, OSError) and error.errno:
                raise  # the disk, not the network
            text = f"{type(error).__name__}: {error}"
            raise TransferError(text, again=not isinstance(error, ValueError)) from error  # ValueError: a bad address


def tag_of(part: Path) -> Path:
    """Where the version of the file that a partial one belongs to is noted."""
    return part.with_name(f"{part.name}.tag")


def discard(part: Path) -> None:
    """Remove a partial file."""
    part.unlink(missing_ok=True)
    tag_of(part).unlink(missing_ok=True)


def _receive(
    session: requests.Session, address: str, headers: dict[str, str], part: Path, name: str, expected: Expected, watch: Watch
) -> str | None:  # fmt: skip
    have = _resumable(part, expected)
    if have:
        headers = headers | {"Range": f"bytes={have}-"}
        if not expected.hashed:
            headers["If-Range"] = tag_of(part).read_text(encoding="utf-8")
    with session.get(address, headers=headers, stream=True, timeout=(CONNECT, WINDOW)) as response:
        if watch.reason:  # headers that were cut off look like headers that ended
            raise TransferError(watch.reason)
        _check_status(response, part)
        start = have if response.status_code == 206 else 0
        length = _length(response)
        total = None if length is None else start + length
        _check_headers(response, part, name, expected, start, total)
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified", "")
        if not start:
            discard(part)
            if tag and not tag.startswith("W/"):
                tag_of(part).write_text(tag, encoding="utf-8")
        _write(response, part, name, expected, start, total, watch)
    linked = [reply.headers.get("X-Linked-Etag", "").strip('"') for reply in (*response.history, response)]
    return next((text for text in linked if re.fullmatch("[0-9a-f]{64}", text)), None)


def _resumable(part: Path, expected: Expected) -> int:
    """Bytes that need not come again: only where a checksum or the server can tell whether the parts fit."""
    if part.is_symlink() or not part.is_file() or not (expected.hashed or tag_of(part).is_file()):
        discard(part)
        return 0
    return part.stat().st_size


def _check_status(response: requests.Response, part: Path) -> None:
    status = response.status_code
    if status == 416:  # nothing beyond what we have: what we have is wrong
        discard(part)
        text = "the partial file does not fit; starting again"
        raise TransferError(text, again=True)
    if status not in {200, 206}:
        said = response.headers.get("X-Error-Message", "")[:300]
        text = f"the server answered {status}" + (f" ({said})" if said else "")
        if status in {401, 403} and response.headers.get("X-Error-Code") == "GatedRepo":
            text += "; accept its terms on the Hugging Face Hub and log in with `hf auth login`"
        raise TransferError(text, again=status >= 400 and status not in GONE)
    if response.request.url.startswith("http:") and any(reply.url.startswith("https:") for reply in response.history):
        text = f"the server redirects to {response.request.url[:100]}, which is not encrypted"
        raise TransferError(text)


def _check_headers(
    response: requests.Response, part: Path, name: str, expected: Expected, start: int, total: int | None
) -> None:
    """Refuse before the body comes."""
    headers = response.headers
    if response.status_code == 206:
        found = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
        fits = int(found[1]) == start if found else expected.hashed
        if not start or not fits:
            discard(part)
            text = f"the server sent another part of the file than bytes {start:,} and on"
            raise TransferError(text, again=bool(start))
    encoding = headers.get("Content-Encoding", "identity").lower()
    if encoding not in {"identity", ""} and not expected.hashed and not name.endswith((".gz", ".tgz")):
        text = f"the server compressed the file ({encoding}) though it was asked not to"
        raise TransferError(text)
    kind = headers.get("Content-Type", "").lower()
    if kind.startswith("text/html") and not expected.hashed and not name.endswith((".html", ".htm")):
        text = "it is a web page, perhaps one to log in"
        raise TransferError(text, wrong=True)
    if total is None:
        if expected.size is None and not expected.hashed and "chunked" not in headers.get("Transfer-Encoding", ""):
            text = "the server does not say how long the file is, so that nobody could tell if it is cut short"
            raise TransferError(text)
        return
    if expected.size is not None and total != expected.size:
        text = f"it has {total:,} bytes instead of {expected.size:,}"
        raise TransferError(text, again=True, wrong=True)
    if total > expected.most:
        text = f"it has {total:,} bytes, at most {expected.most:,} were expected"
        raise TransferError(text, wrong=True)
    if total - start > (free := shutil.disk_usage(part.parent).free):
        text = f"it needs {total - start:,} bytes, {free:,} are free in {part.parent}"
        raise TransferError(text)


def _write(
    response: requests.Response, part: Path, name: str, expected: Expected, start: int, total: int | None, watch: Watch
) -> None:
    most = expected.most if total is None else total
    have, looked = start, start > 0
    with progress_bar(total=total, desc=name, unit="B") as bar, part.open("ab" if start else "wb") as file:
        # Not `iter_content`, which drops what had arrived when a connection breaks; `read1` gives it at once.
        while chunk := response.raw.read1(CHUNK, decode_content=False):
            have += len(chunk)
            watch.received += len(chunk)
            if have > most:
                text = f"the server sends more than {most:,} bytes"
                raise TransferError(text, wrong=True)
            file.write(chunk)
            bar.update(len(chunk))
            if not looked and have >= HEAD:
                looked = True
                file.flush()
                with part.open("rb") as begun:
                    if problem := wrong_content(name, begun.read(HEAD)):
                        raise TransferError(problem, wrong=True)
    if watch.reason:
        raise TransferError(watch.reason, again=watch.received >= CHUNK)
    if total is not None and have != total:
        text = f"IncompleteRead: the connection ended after {have:,} of {total:,} bytes"
        raise TransferError(text, again=True)


def _length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,18}", text) else None


def _session(watch: Watch) -> requests.Session:
    import requests
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        """Shows the watch every connection, those behind proxies and redirects too."""

        def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
            pool = super().get_connection_with_tls_context(*args, **kwargs)
            plain = pool.ConnectionCls

            class Connection(plain):  # type: ignore[misc, valid-type]
                def connect(self) -> None:
                    watch.add(self)
                    super().connect()
                    watch.add(self.sock)  # http.client forgets it once the answer has begun

            if not hasattr(pool, "watched"):
                pool.ConnectionCls, pool.watched = Connection, True
            return pool

    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, Adapter())
    return session


def _address(url: str) -> tuple[str, dict[str, str]]:
    """Web address and headers; `hf://owner/repo@revision/folder/file` becomes an address on the user's hub."""
    headers = {"Accept-Encoding": "identity"}  # a .gz file must arrive as it is
    if not url.startswith("hf://"):
        return url, headers
    import huggingface_hub
    import huggingface_hub.constants

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        text = "HF_HUB_OFFLINE is set"
        raise TransferError(text)
    try:
        owner, repo, name = url.removeprefix("hf://").split("/", 2)
        repo, _, revision = repo.partition("@")
        if token := huggingface_hub.get_token():
            headers["Authorization"] = f"Bearer {token}"
        return huggingface_hub.hf_hub_url(f"{owner}/{repo}", name, revision=revision or None), headers
    except (ValueError, OSError) as error:  # HFValidationError among them; a token file that cannot be read
        text = f"the address cannot be resolved on the hub ({type(error).__name__}: {error})"
        raise TransferError(text) from error


def _unreachable(error: BaseException | None) -> bool:
    """Whether no connection was made at all: no network, an unknown host, or nobody who listens there."""
    from urllib3.exceptions import NewConnectionError

    while error is not None and not isinstance(error, NewConnectionError):
        error = getattr(error, "original_error", None) or error.__cause__ or error.__context__
    return error is not None
