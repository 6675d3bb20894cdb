"""Where a question goes: the address of a server, whether it is this machine, and the consent to send data to another."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass

from .._core.log import warn
from .._core.settings import settings

_ADDRESS = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(:(?P<port>\d{1,5}))?"
    r"(?P<path>(/[A-Za-z0-9._~-]+)*)/?"
)
_KEY = re.compile(r"[\x21-\x7e]+")
KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Server:
    """An address, taken apart by one strict pattern and put together again, so that nobody reads it in another way.

    Parameters
    ----------
    url
        What is connected to. `localhost` stands as 127.0.0.1, so that no name service is asked.
    loopback
        Whether it is this machine.
    """

    url: str
    loopback: bool


def read_address(base_url: str) -> Server:
    """The server behind an address.

    Raises
    ------
    ValueError
        It is no plain address of a web server.
    """
    found = _ADDRESS.fullmatch(base_url)
    if found is None or int(found["port"] or 1) not in range(1, 65_536):
        msg = (
            "`base_url` must be an address such as 'http://127.0.0.1:8000/v1' or 'https://api.openai.com/v1', without user, "
            f"query or fragment, found {base_url[:80]!r}."
        )
        raise ValueError(msg)
    host = found["host"].lower()
    host = "127.0.0.1" if host == "localhost" else host
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name; so are short forms such as 127.1, which name services may read as they like
        loopback = False
    port = f":{found['port']}" if found["port"] else ""
    return Server(f"{found['scheme']}://{host}{port}{found['path']}", loopback)


def check_consent(server: Server, *, allow_remote: bool) -> None:
    """Refuse to send anything to another machine without consent.

    Raises
    ------
    PermissionError
        The user has not allowed it.
    ConnectionError
        The settings forbid the network.
    """
    if server.loopback:
        return
    if not allow_remote:
        msg = (
            f"Gene lists of your samples would be sent to {server.url} (`base_url`), which is not this machine. Look at what "
            "would be sent with dry_run=True, and pass allow_remote=True if the data may leave this machine."
        )
        raise PermissionError(msg)
    if settings.offline:
        msg = f"settings.offline is set, so that nothing is sent to {server.url} (`base_url`)."
        raise ConnectionError(msg)
    if server.url.startswith("http:"):
        warn(f"What is sent to {server.url} is not encrypted.")


def find_key(server: Server, api_key: str | None) -> str:
    """The key to show to the server. That of the environment is shown to servers elsewhere alone.

    Raises
    ------
    ValueError
        It cannot be sent in a header. The message does not show it.
    """
    key = api_key
    if key is None:
        key = "" if server.loopback else os.environ.get(KEY_VARIABLE, "")
    if key and not _KEY.fullmatch(key):
        msg = f"`api_key` (or {KEY_VARIABLE}) must be printable ASCII without spaces; found something else."
        raise ValueError(msg)
    return key or "none"
