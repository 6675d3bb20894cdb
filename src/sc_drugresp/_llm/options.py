"""The numbers and switches of a question to a language model that are rarely changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from .._core.arguments import check_fields
from .._core.calls import dataclass_text
from .._core.kinds import Range

if TYPE_CHECKING:
    from .._core.kinds import PositiveFloat, PositiveInt, Seed

Unit = Literal["sample", "cluster", "cell"]
Genes = Literal["expressed", "specific"]
ReplyFormat = Literal["json_schema", "none"]
TemplateName = Literal["call-1"]


@dataclass(frozen=True)
class LLMOptions:
    """How :func:`~sc_drugresp.tl.ask_llm` words its questions and treats the server. The defaults suit most servers.

    Parameters
    ----------
    template
        Wording of the questions, see :func:`~sc_drugresp.get.prompt`.
    n_genes
        Genes that are listed of each record.
    genes
        `'expressed'` lists the genes with the highest expression, so that a record does not depend on the others;
        `'specific'` those that exceed the mean of the other records most. Mitochondrial and ribosomal genes are left out.
    per_request
        Records in one request. More of them cost less, and their answers are less independent.
    temperature
        0 asks for the most likely answer; `None` leaves it to the server, for models that refuse a temperature.
    seed
        Sent to the server, and used for the order of the records.
    max_tokens
        Most tokens in the answer to one record. What is cut off counts as missing.
    response_format
        `'json_schema'` asks the server to keep to the schema; `'none'` is for servers that refuse that. Replies are checked
        in either case.
    n_threads
        Requests that are open at the same time.
    timeout
        Seconds without a sign of the server after which a request is given up.
    max_seconds
        Longest time that one request is tried again and waited for.
    most_errors
        Errors in a row after which the whole run stops; what was answered is kept.

    Raises
    ------
    ValueError
        A number is out of range.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> sdr.tl.LLMOptions(n_genes=50)
    sdr.tl.LLMOptions(n_genes=50)
    """

    template: TemplateName = "call-1"
    n_genes: Annotated[int, Range(least=1, most=2000)] = 100
    genes: Genes = "expressed"
    per_request: Annotated[int, Range(least=1, most=50)] = 1
    temperature: Annotated[float, Range(least=0, most=2)] | None = 0.0
    seed: Seed = 0
    max_tokens: PositiveInt = 200
    response_format: ReplyFormat = "json_schema"
    n_threads: Annotated[int, Range(least=1, most=64)] = 4
    timeout: PositiveFloat = 120.0
    max_seconds: PositiveFloat = 600.0
    most_errors: PositiveInt = 10

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        return dataclass_text("sdr.tl.LLMOptions", self)
