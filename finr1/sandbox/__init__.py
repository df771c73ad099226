"""Code that a model has written, run where it can do no harm, and graded by unit tests where it can't cheat.

Its process (`inside`) may only compute: seccomp and resource limits hold it, for root, too. Return values come out as
JSON and are judged out here, so there is no checker to patch and no exit code to fake. Not stopped: bugs in the
kernel's code for the calls let through, side channels, and a table of returns for arguments that the prompt shows.
"""

import contextlib
import functools
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from finr1.paths import MessageAlone, data_beside

_CHILD = Path(__file__).with_name("inside.py")
ALLOWED = data_beside(__file__, "allowed.yaml")  # modules and calls
LIMITS: dict[str, float] = ALLOWED.pop("limits")  # of one answer's process
_PROBE: str = ALLOWED.pop("probe")
MAX_CODE = 20_000  # characters
MAX_TESTS = 100
_START_S = 30  # seconds that a busy machine may need to start the process, whose own clock begins after that
REL_TOL, ABS_TOL = 1e-6, 1e-9  # of floats; whole numbers, texts and truth values have to be equal


class SandboxUnavailable(MessageAlone, RuntimeError):
    """This platform can't lock a process in, so no code of a model is run on it."""


class Tests(NamedTuple):
    """Unit tests of one function: its name, the arguments of each call, and what each has to return."""

    function: str
    calls: list[list[Any]]
    returns: list[Any]


def read_tests(gold: str) -> Tests | None:
    """The tests in a problem's gold: `{"function": "npv", "tests": [{"call": [0.1, [1, 2]], "returns": 2.56}, ...]}`.

    None for any other gold: that is code to compare with. Raises `ValueError` for a function without valid tests.
    """
    data = None
    with contextlib.suppress(ValueError, RecursionError):
        data = json.loads(gold) if gold.lstrip().startswith("{") else None
    if not isinstance(data, dict) or "function" not in data:
        return None
    name, tests = data["function"], data.get("tests")
    if not (isinstance(name, str) and name.isidentifier() and isinstance(tests, list) and 0 < len(tests) <= MAX_TESTS):
        raise ValueError(f"the gold answer {gold[:80]!r} has no function name with 1 to {MAX_TESTS} tests")
    if not all(isinstance(t, dict) and t.keys() == {"call", "returns"} and isinstance(t["call"], list) for t in tests):
        raise ValueError(f'the gold answer {gold[:80]!r} has a test that is no {{"call": [...], "returns": ...}}')
    return Tests(name, [test["call"] for test in tests], [test["returns"] for test in tests])


def first_failure(answer: str, tests: Tests) -> str:
    """Why the code of `answer` fails one of `tests`; empty when it passes all of them.

    The code is the last fenced block that defines the function, else the last block, or all of it. Threads may call
    this at once. Raises `SandboxUnavailable` where the platform can't lock code in.
    """
    check()
    if len(answer) > MAX_CODE:
        return f"more than {MAX_CODE} characters of code"
    blocks = [textwrap.dedent(block.partition("\n")[2]) for block in answer.split("```")[1::2]]
    definition = re.compile(rf"^[ \t]*def {re.escape(tests.function)}\b|^{re.escape(tests.function)} =", re.M)
    return _run(([block for block in blocks if definition.search(block)] or blocks or [answer])[-1].strip(), tests)


@functools.cache
def check() -> None:
    """Raise `SandboxUnavailable` unless code runs here and each way out that `_PROBE` tries is closed."""
    failure = "only Linux has what it takes"
    if sys.platform == "linux":
        failure = _run(_PROBE, Tests("open_ways", [[]], [[]]))
    if failure:
        instead = "leave problems with unit tests out, or use Linux (x86-64; ARM64 is not tested) with seccomp"
        raise SandboxUnavailable(f"no sandbox for the code that a model writes: {failure}; {instead}")


def _run(code: str, tests: Tests) -> str:
    """Run `code` in a locked-in process and compare what that wrote: see `first_failure`."""
    task = {"code": code, "function": tests.function, "arguments": tests.calls, "limits": LIMITS} | ALLOWED
    environment = {"PYTHONHASHSEED": "0"} | {k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"}
    # Files, not pipes: nobody has to read while it runs, and the kernel bounds what it can write.
    with tempfile.TemporaryFile() as answers, tempfile.TemporaryFile() as errors:
        # Without site-packages and with an empty environment: no path, no key, no setting of the host's.
        with contextlib.suppress(subprocess.TimeoutExpired):  # it is dead; what it has returned before counts
            subprocess.run(
                [sys.executable, "-s", "-P", "-S", "-B", "-X", "utf8", str(_CHILD)],
                input=json.dumps(task).encode(), stdout=answers, stderr=errors, env=environment, cwd="/",
                timeout=LIMITS["wall"] + _START_S, check=False,
            )  # fmt: skip
        answers.seek(0)
        errors.seek(0)
        written = answers.read(LIMITS["output"]) or errors.read()[-400:]
    first, *lines = written.split(b"\n")
    if first != b'"locked"':
        raise SandboxUnavailable(f"the process could not be locked in: {written.decode('utf8', 'replace').strip()}")
    lines += [b""] * len(tests.calls)  # of calls that it did not get to
    for call, expected, line in zip(tests.calls, tests.returns, lines, strict=False):
        with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):  # an error, no JSON, nothing
            if equal_values(json.loads(line)["value"], expected):
                continue
        called = f"{tests.function}({', '.join(map(repr, call))})"[:200]
        return f"{called}: {line[:200].decode('utf8', 'replace') or 'nothing came back'}"
    return ""


def equal_values(value: Any, expected: Any) -> bool:
    """Whether two JSON values are equal; numbers against a float within `REL_TOL`. `true` is not 1, 5.0 is 5."""
    if isinstance(expected, bool) or isinstance(value, bool) or expected is None:
        return value is expected
    if isinstance(expected, float) and isinstance(value, int | float):
        with contextlib.suppress(OverflowError):  # an int that no float can hold
            return math.isclose(value, expected, rel_tol=REL_TOL, abs_tol=ABS_TOL)
    if isinstance(expected, dict) and isinstance(value, dict) and value.keys() == expected.keys():
        return all(equal_values(value[key], expected[key]) for key in expected)
    if isinstance(expected, list) and isinstance(value, list) and len(value) == len(expected):
        return all(map(equal_values, value, expected))
    return value == expected
