"""docs/reliability.md: each promise names tests, and they are there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest
from conftest import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text("utf8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", PAGE)))


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_a_promise_names_is_there(name):
    file, _, test = name.partition("::")
    functions = {
        node.name for node in ast.parse((ROOT / file).read_text("utf8")).body if isinstance(node, ast.FunctionDef)
    }
    assert not test or test in functions


def test_every_promise_names_a_test():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) > 15 and all("test" in row.rpartition("|")[0].rpartition("|")[2] for row in rows)


@pytest.mark.parametrize("workers", [["-p", "no:xdist"], ["-n", "2"]], ids=["alone", "two workers"])
def test_the_summary_counts_the_faults_of_each_part(workers):
    this = "tests/faults/test_promises.py::test_every_promise_names_a_test"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, this]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120).stdout
    assert re.search(r"^promises +1 of 1 passed, 0 skipped$", told, re.MULTILINE), told
