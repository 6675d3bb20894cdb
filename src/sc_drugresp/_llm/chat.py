"""One request to a chat-completions server through the `openai` client, and what its errors mean in words of ours.

Texts of the server never enter a message: they may repeat the question or the key.
"""

from __future__ import annotations

import email.utils
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._core.imports import require
from .replies import SCHEMA
from .retry import ServerError, TransientError

if TYPE_CHECKING:
    from .options import LLMOptions
    from .prompts import Messages
    from .server import Server

_OURS = frozenset(
    {"host", "accept", "accept-encoding", "connection", "content-type", "content-length", "user-agent", "authorization"}
)
_AGAIN = frozenset({408, 409, 425, 429})
_STRANGE = "a reply that is no chat completion"
_HINTS = {
    400: "it does not take such a request; servers without JSON schemas need LLMOptions(response_format='none')",
    401: "it does not accept the key; pass `api_key`",
    402: "it wants to be paid first",
    403: "it does not accept the key; pass `api_key`",
    404: "there is no such model, or the address lacks its '/v1' (`model`, `base_url`)",
    413: "the request is too long; lower `per_request` or `n_genes`",
    422: "it does not take such a request; servers without JSON schemas need LLMOptions(response_format='none')",
}


@dataclass(frozen=True)
class Said:
    """What came back: text, how it ended, and tokens in and out where the server counts them."""

    content: str | None
    finish: str | None
    tokens_in: int | None
    tokens_out: int | None


class Chat:
    """A connection to one server. Redirects are not followed; on this machine neither proxies nor `.netrc` are used.

    Parameters
    ----------
    server, key
        Where to, and what to show there.
    model, options
        Who is asked, and how.
    """

    def __init__(self, server: Server, key: str, model: str, options: LLMOptions) -> None:
        openai = require("openai", extra="llm")
        self._openai, self._server, self._model, self._options = openai, server, model, options
        hooks = {"request": [_strip]} if server.loopback else {}
        http = openai.DefaultHttpxClient(
            trust_env=not server.loopback, follow_redirects=False, event_hooks=hooks, timeout=options.timeout
        )
        self._client = openai.OpenAI(
            api_key=key, base_url=server.url, max_retries=0, timeout=options.timeout, http_client=http
        )

    def ask(self, messages: Messages, n: int) -> Said:
        """Send one request about `n` records.

        Raises
        ------
        TransientError
            Another try could help.
        ServerError
            It could not.
        """
        options = self._options
        how: dict[str, Any] = {"seed": options.seed, "max_tokens": options.max_tokens * n}
        if options.temperature is not None:
            how["temperature"] = options.temperature
        if options.response_format == "json_schema":
            schema = {"name": "records", "strict": True, "schema": SCHEMA}
            how["response_format"] = {"type": "json_schema", "json_schema": schema}
        problem: Exception
        try:
            found = self._client.chat.completions.create(model=self._model, messages=messages, stream=False, **how)
        except self._openai.APITimeoutError:
            problem = TransientError("no reply in time", lost=True)
        except self._openai.APIConnectionError as error:
            refused = type(error.__cause__).__name__ == "ConnectError"
            problem = TransientError("no connection" if refused else "the connection broke", lost=not refused)
        except self._openai.APIStatusError as error:
            problem = self._status(int(error.status_code), error.response.headers)
        except (self._openai.OpenAIError, ValueError, TypeError) as error:
            problem = TransientError(f"{_STRANGE} ({type(error).__name__})", lost=True)
        else:
            said = _said(found)
            if said is not None:
                return said
            problem = TransientError(_STRANGE, lost=True)
        raise problem  # outside of `except`, so that no text of the server hangs on it

    def _status(self, status: int, headers: Any) -> Exception:
        if status in _AGAIN or status >= 500:
            return TransientError(f"HTTP {status}", wait=_wait(headers), busy=status == 429)
        if 300 <= status < 400:
            return ServerError(
                f"it redirects to another address, which is not followed (HTTP {status}); name it as `base_url`"
            )
        return ServerError(f"HTTP {status}: {_HINTS.get(status, 'it refuses the request')}")

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()


def _strip(request: Any) -> None:
    """Leave out headers that the client takes from the environment."""
    for name in [name for name in request.headers if name.lower() not in _OURS]:
        del request.headers[name]


def _wait(headers: Any) -> float | None:
    """Seconds of `Retry-After`, which is a number or a date."""
    text = str(headers.get("retry-after", "")).strip()
    try:
        seconds = float(text)
    except ValueError:
        date = email.utils.parsedate_tz(text)
        seconds = math.nan if date is None else email.utils.mktime_tz(date) - time.time()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _said(found: Any) -> Said | None:
    """The parts of a chat completion, each of which a server may get wrong; `None` for something else."""
    try:
        choice = found.choices[0]
        content, finish, refusal = (
            choice.message.content,
            choice.finish_reason,
            getattr(choice.message, "refusal", None),
        )
    except (AttributeError, IndexError, TypeError, KeyError):
        return None
    usage = getattr(found, "usage", None)
    tokens = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    tokens_in, tokens_out = (n if isinstance(n, int) and n >= 0 else None for n in tokens)
    text = content if isinstance(content, str) and not refusal else None
    return Said(text, finish if isinstance(finish, str) else None, tokens_in, tokens_out)
