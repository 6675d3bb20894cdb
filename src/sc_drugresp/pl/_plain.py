"""Names of samples, drugs and genes are drawn as they are: no plot takes a `$` or `_` in them for a formula."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def plain_text(plot: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a plot: every text that it writes is plain, also on axes that were there before."""

    @functools.wraps(plot)
    def drawn(*args: Any, **kwargs: Any) -> Any:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.text import Text

        with mpl.rc_context({"text.parse_math": False, "text.usetex": False}):
            found = plot(*args, **kwargs)
        for ax in found.axes if isinstance(found, Figure) else [found]:
            titles = [item for item in ax.get_children() if isinstance(item, Text) and item not in ax.texts]
            for text in (*titles, ax.xaxis.label, ax.yaxis.label):
                text.set_parse_math(False)
        return found

    return drawn
