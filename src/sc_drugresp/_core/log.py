"""The library logger and warnings; nothing here touches the root logger."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

logger = logging.getLogger("sc_drugresp")
_PACKAGE_DIR = str(Path(__file__).parents[1])
_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


class _StderrHandler(logging.StreamHandler[Any]):
    """Writes to today's `sys.stderr`, so that notebooks and test captures see the text."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


logger.addHandler(_StderrHandler())


def set_verbosity(level: int) -> None:
    """Show messages of our logger: 0 errors, 1 warnings, 2 info, 3 debug."""
    logger.setLevel(_LEVELS[level])


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the user's own line, however deep in this package we are."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE_DIR):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
