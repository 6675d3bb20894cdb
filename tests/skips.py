"""Plug-in that prints why tests were skipped, and fails a run that skips more than a few.

A skipped test proves nothing. Tests of hardware that a machine may lack carry the mark `gpu` and do not count.
"""

from __future__ import annotations

from collections import Counter

import pytest

MOST = 20


def reasons(config: pytest.Config) -> Counter[str]:
    """How many tests were skipped for each reason, optional hardware apart."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = [] if reporter is None else reporter.stats.get("skipped", [])
    texts = (report.longrepr[2] for report in skipped if "gpu" not in report.keywords)
    return Counter(text.removeprefix("Skipped: ") for text in texts)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus == pytest.ExitCode.OK and reasons(session.config).total() > MOST:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = reasons(config)
    terminalreporter.section(f"{found.total()} tests skipped (at most {MOST})")
    for reason, count in found.most_common():
        terminalreporter.line(f"{count:4} {reason}")
    if found.total() > MOST:
        terminalreporter.line("Too many tests were skipped: this run does not count as passed.", red=True)
