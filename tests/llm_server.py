"""A server on this machine that speaks chat completions, answers as it is told to, and notes everything that it is asked."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from anndata import AnnData

import sc_drugresp as sdr


@dataclass
class Asked:
    """One request."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        return "\n".join(message["content"] for message in self.body["messages"])

    @property
    def records(self) -> list[str]:
        """Text of each record, without its number."""
        return re.split(r"\n?Record \d+\n", self.prompt.split("An earlier reply did not")[0].strip())[1:]

    @property
    def again(self) -> bool:
        return "An earlier reply did not" in self.prompt


@dataclass
class Answering:
    """What is sent back: a text as the message, or a whole body, a status, headers, or nothing but a broken connection."""

    content: str | None = None
    finish: str = "stop"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    reset: bool = False
    wait: float = 0.0
    usage: tuple[int, int] | None = (100, 20)


def record(number: int, call: str = "sensitive", reason: str = "EGFR is high") -> dict[str, Any]:
    return {"id": number, "call": call, "confidence": "low", "reason": reason}


def good(asked: Asked) -> Answering:
    """A call for each record, which depends on its text alone."""
    calls = ["sensitive" if sum(map(ord, text)) % 2 else "resistant" for text in asked.records]
    return Answering(json.dumps({"records": [record(i, call) for i, call in enumerate(calls, 1)]}))


@dataclass
class ChatServer:
    """Where it listens, and what it was asked."""

    url: str
    answer: Callable[[Asked], Answering]
    log: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def records(self) -> list[str]:
        """Every record of every request."""
        return [text for asked in self.log for text in asked.records]


@contextmanager
def chat_server(answer: Callable[[Asked], Answering] = good) -> Iterator[ChatServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(text or b"{}"))
            with server.lock:
                server.log.append(asked)
            told = server.answer(asked)
            if told.wait:
                threading.Event().wait(told.wait)
            if told.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            message = {"role": "assistant", "content": told.content}
            body = {
                "id": "x", "object": "chat.completion", "created": 0, "model": asked.body.get("model", ""),
                "choices": [{"index": 0, "message": message, "finish_reason": told.finish}],
            }  # fmt: skip
            if told.usage is not None:
                n_in, n_out = told.usage
                body["usage"] = {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out}
            out = json.dumps(body).encode() if told.raw is None else told.raw
            self.send_response(told.status)
            for name, value in {"Content-Type": "application/json", **told.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        def handle(self) -> None:
            with suppress(OSError):  # the client is gone
                super().handle()

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = ChatServer(f"http://127.0.0.1:{http.server_port}/v1", answer)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def cohort(n_samples: int = 6, cells: int = 4, n_genes: int = 60) -> AnnData:
    """Samples whose names and accession would be told from their text."""
    adata = sdr.datasets.toy(n_samples, cells, n_genes)
    adata.obs["sample"] = ("GSM99000" + adata.obs["sample"].astype(str)).astype("category")
    adata.obs["patient"] = ("Mustermann-" + adata.obs["sample"].astype(str)).astype("category")
    adata.obs["tissue"] = np.where(np.arange(adata.n_obs) % 2, "lung", "skin")
    return adata
