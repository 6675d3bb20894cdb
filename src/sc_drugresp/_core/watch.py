"""What ends a transfer that is too slow or too long."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Any, Self

CONNECT = 10.0
"""Seconds to wait for a connection."""
WINDOW = 30.0
"""Seconds after which the first bytes must have come, and over which speed is judged."""
SLOWEST = 1_000
"""Bytes per second below which a transfer is given up."""
LONGEST = 24 * 3600.0
"""Seconds that one transfer may take."""


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

    @property
    def timeout(self) -> tuple[float, float]:
        """Seconds to wait for a connection and for the next bytes."""
        return CONNECT, WINDOW

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
