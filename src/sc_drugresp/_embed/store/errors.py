"""What stops a run."""

from __future__ import annotations

import errno
from typing import ClassVar

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The disk is full, or the user's share of it."""


class RunStoppedError(OSError):
    """A run of :func:`~sc_drugresp.tl.embed` into a store cannot go on; blocks that were finished are safe.

    The disk is full or failed, or another process computes the same blocks. The message says what to do; then the same call
    goes on where it stopped.

    Attributes
    ----------
    exit_code
        With which a program should end.
    """

    exit_code: ClassVar[int] = 2


def stopped(error: OSError, msg: str) -> RunStoppedError:
    """The error to raise for one of the disk, with its number."""
    out = RunStoppedError(msg)
    out.errno = error.errno
    return out
