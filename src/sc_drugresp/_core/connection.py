"""Connections to servers: addresses on the Hugging Face Hub, redirects, and what a watch can shut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

if TYPE_CHECKING:
    import requests

    from .watch import Watch

REDIRECTS = 10


class TransferError(Exception):
    """A transfer that did not bring the file; `again`: another try could help; `wrong`: something else was offered."""

    def __init__(self, text: str, *, again: bool = False, wrong: bool = False) -> None:
        super().__init__(text)
        self.again, self.wrong = again, wrong


def address_of(url: str) -> tuple[str, dict[str, str]]:
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


def unreachable(error: BaseException | None) -> bool:
    """Whether no connection was made at all: no network, an unknown host, or nobody who listens there."""
    from urllib3.exceptions import NewConnectionError

    while error is not None and not isinstance(error, NewConnectionError):
        error = getattr(error, "original_error", None) or error.__cause__ or error.__context__
    return error is not None


def session_for(watch: Watch) -> requests.Session:
    """A session whose connections can be shut by the watch, and that leaves redirects to `answer`."""
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

    class Session(requests.Session):
        def get_redirect_target(self, resp: requests.Response) -> str | None:
            return None

    session = Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, Adapter())
    return session


def answer(
    session: requests.Session, address: str, headers: dict[str, str], *, timeout: tuple[float, float]
) -> tuple[requests.Response, list[str]]:
    """The answer at the end of all redirects, and the checksums that the hub stated on the way.

    Not left to requests, which reads the whole body of a redirect into memory, even of one that it does not follow.
    """
    import requests

    linked = []
    for _ in range(REDIRECTS):
        response = session.get(address, headers=headers, stream=True, allow_redirects=False, timeout=timeout)
        linked.append(response.headers.get("X-Linked-Etag", "").strip('"'))
        target = requests.Session.get_redirect_target(session, response)
        if not target:
            return response, linked
        response.close()
        target = urljoin(address, target)
        if address.startswith("https:") and not target.startswith("https:"):
            text = f"the server redirects to {target[:100]}, which is not encrypted"
            raise TransferError(text)
        if session.should_strip_auth(address, target):
            headers = {name: value for name, value in headers.items() if name != "Authorization"}
        address = target
    text = f"the server redirects more than {REDIRECTS} times"
    raise TransferError(text)
