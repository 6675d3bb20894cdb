"""Kill a process at random moments of what it does, again and again, and look at what it leaves.

Run as a script by the tests: `fork` copies a process that has loaded everything, so that a kill costs milliseconds.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable


def kill_often(action: Callable[[int], object], check: Callable[[int], object], *, n: int, longest: float) -> None:
    """Let a child do `action(i)` over and over and kill it within `longest` seconds, `n` times; then `check(i)`."""
    moments = random.Random(0)  # noqa: S311 (no secret)
    for i in range(n):
        child = os.fork()
        if not child:
            try:
                while True:
                    action(i)
            except BaseException:  # noqa: BLE001
                import traceback

                traceback.print_exc()
                os._exit(1)
        time.sleep(moments.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the child failed by itself"
        check(i)
    print(f"killed {n} times")
