"""Fixtures that every test may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch load: xdist workers must not fight for cores

import pytest
from skips import pytest_sessionfinish, pytest_terminal_summary  # noqa: F401

# Data of others, which this repository cannot ship: real cells, whole published vocabularies, gene tables.
SHARED = Path(os.environ.get("SC_DRUGRESP_SHARED") or Path(__file__).resolve().parents[2] / "shared")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The read-only folder with data of others, beside the checkout or at `$SC_DRUGRESP_SHARED`."""
    if not SHARED.is_dir():
        pytest.skip("needs data of others, which are not part of the repository ('../shared' or $SC_DRUGRESP_SHARED)")
    return SHARED


@pytest.fixture(autouse=True)
def _isolated_settings(tmp_path: Path):
    """No test reads the user's cache, uses the network or leaves a changed setting behind."""
    import sc_drugresp as sdr

    threads = _torch_threads()
    with sdr.settings.override(cache_dir=tmp_path / "cache", data_dir=None, offline=True, progress=False, device="cpu"):
        yield
    if threads not in (
        None,
        _torch_threads(),
    ):  # numba, which scanpy calls, sets the threads of the OpenMP that both load
        sys.modules["torch"].set_num_threads(threads)


def _torch_threads() -> int | None:
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if hasattr(torch, "get_num_threads") else None


class FileServer:
    """Serves bytes on localhost and misbehaves on demand; `log` holds (path, Range header) of every request."""

    def __init__(self) -> None:
        import http.server
        import threading

        self.files: dict[str, bytes] = {}
        self.status: dict[str, list[int]] = {}
        self.cut: dict[str, list[int]] = {}
        self.ranges = True
        self.log: list[tuple[str, str | None]] = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                owner.log.append((self.path, wanted))
                status = owner.status[self.path].pop(0) if owner.status.get(self.path) else 200
                body = owner.files.get(self.path)
                if status != 200 or body is None:
                    self.send_error(status if status != 200 else 404)
                    return
                start = int(wanted.split("=")[1].rstrip("-")) if wanted and owner.ranges else 0
                if start >= len(body) > 0:
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                stop = owner.cut[self.path].pop(0) if owner.cut.get(self.path) else len(body)
                self.wfile.write(body[start:stop])

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def file_server(monkeypatch: pytest.MonkeyPatch):
    """A local HTTP server with faults; the network is allowed while it runs and proxies are not used for it."""
    import sc_drugresp as sdr

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = FileServer()
    with sdr.settings.override(offline=False):
        yield server
    server.close()
