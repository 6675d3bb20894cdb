"""What is done when memory runs out: half as much at once, from then on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

import torch

from .._core.log import warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

Rows = TypeVar("Rows", "np.ndarray", torch.Tensor)
Result = TypeVar("Result")

_SAID = re.compile(
    r"out of memory|not enough memory|can't allocate memory|cannot allocate memory|alloc_failed|bad_alloc",
    re.IGNORECASE,
)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out: on a GPU, of Metal, of the allocator on the CPU, of NumPy or of Python."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_SAID.search(str(error)))


class Limit:
    """Most tokens or cells computed at once in one run. It shrinks when memory runs out, and stays so.

    Parameters
    ----------
    most
        Where to start.
    device
        Whose cached memory is given back before another try.
    """

    def __init__(self, most: int, device: torch.device) -> None:
        self.now, self.device, self.shrunk = most, device, False

    def attempt(self, compute: Callable[[Rows], Result], rows: Rows) -> Result | None:
        """The result, or `None` if memory ran out; then nothing of the attempt is held any more."""
        try:
            return compute(rows)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()
        return None

    def shrink(self, n_cells: int, longest: int = 1) -> None:
        """Take half of a batch of `n_cells` cells of `longest` tokens from now on.

        Raises
        ------
        MemoryError
            It was a single cell.
        """
        if n_cells < 2:
            of = f" of {longest:,} tokens" if longest > 1 else ""
            self.give_up(f"a single cell{of}")
        self.now = min(self.now - 1, n_cells // 2 * longest)
        if not self.shrunk:
            warn(
                f"Memory ran out on {str(self.device)!r} with {n_cells:,} cells in a batch; going on with half as many. "
                f"The result is the same. `batch_tokens={self.now}` avoids the attempt."
            )
        self.shrunk = True

    def give_up(self, what: str) -> None:
        """Say that nothing smaller can be computed.

        Raises
        ------
        MemoryError
            Always.
        """
        msg = (
            f"Memory ran out on {str(self.device)!r} with {what} in a batch, which cannot be made smaller. Free memory, "
            "take a smaller checkpoint or shorter sequences, or choose another `device` in sc_drugresp.settings."
        )
        raise MemoryError(msg) from None

    def pieces(self, rows: Rows, compute: Callable[[Rows], Result]) -> Iterator[tuple[Rows, Result]]:
        """Yield consecutive pieces of at most `now` rows and their results, which must not be `None`."""
        start = 0
        while start < len(rows):
            piece = rows[start : start + self.now]
            result = self.attempt(compute, piece)
            if result is None:
                self.shrink(len(piece))
                continue
            start += len(piece)
            yield piece, result
