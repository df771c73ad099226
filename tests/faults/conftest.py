"""How many random faults are tried, and the counts of each part of the matrix at the end."""

from __future__ import annotations

import os
from collections import Counter

import pytest

# `make faults` asks for more than a run of all tests does.
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "2"))
_COUNTS: dict[str, Counter] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    folder, _, module = report.nodeid.partition("::")[0].rpartition("/")
    if folder.endswith("tests/faults") and (report.when == "call" or not report.passed):
        part = module.removeprefix("test_").removesuffix(".py")
        _COUNTS.setdefault(part, Counter())[report.outcome] += 1


def pytest_terminal_summary(terminalreporter) -> None:
    if _COUNTS:
        terminalreporter.section("faults")
    for part, counts in _COUNTS.items():
        total = sum(counts.values())
        terminalreporter.line(f"{part:12} {counts['passed']:4} of {total} passed, {counts['skipped']} skipped")
