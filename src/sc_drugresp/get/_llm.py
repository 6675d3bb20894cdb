"""Templates of the questions to language models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.arguments import checked
from .._llm.prompts import template_text

if TYPE_CHECKING:
    from .._llm.options import TemplateName


@checked
def prompt(template: TemplateName = "call-1") -> str:
    """Get a template of the questions that :func:`~sc_drugresp.tl.ask_llm` sends.

    Words behind a `$` are filled in. What would be sent about your data is shown by `tl.ask_llm(..., dry_run=True)`.

    Parameters
    ----------
    template
        Name and version. A version never changes.

    Returns
    -------
    The text of the file.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> "Drug: $drug" in sdr.get.prompt("call-1")
    True
    """
    return template_text(template)
