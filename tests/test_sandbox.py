"""The code reward: honest solutions pass, every attack scores 0, and the host stays as it was.

The tests expect `f(2)` to return a secret that no formula gives, so an attack has to get hold of it somewhere.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from finr1 import grading, sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's seccomp")

SECRET = 481516.2342
GOLD = json.dumps({"function": "f", "tests": [{"call": [2], "returns": SECRET}]})
LIMITS = {"wall": 1.0, "cpu": 1, "memory": 256 << 20, "output": 1 << 16}  # of the attacks

HONEST = {
    "plain": "def f(x):\n    return 481514.2342 + x",
    "fenced": "Here it is:\n```python\ndef f(x):\n    return 481514.2342 + x\n```\nIt adds.",
    "indented fence": "  ```python\n  def f(x):\n      return 481514.2342 + x\n  ```",
    "example behind": "```python\ndef f(x):\n    return 481514.2342 + x\n```\n```python\nprint(f(2))\n```",
    "lambda": "f = lambda x: 481514.2342 + x",
    "prints": "print('hello' * 10000)\ndef f(x):\n    print(x)\n    return 481514.2342 + x",
    "imports": (
        "import math, statistics, datetime, decimal, time, random, re, json\nfrom dataclasses import dataclass\n"
        "def f(x):\n    datetime.datetime.strptime('2024-02-29', '%Y-%m-%d')\n    datetime.datetime.now()\n"
        "    time.localtime()\n    random.random()\n    time.sleep(0.001)\n    statistics.NormalDist().cdf(1)\n"
        "    return decimal.Decimal('481514.2342') + x"
    ),
    "rounding": "def f(x):\n    return 481516.23420001",
    "recursion": "def g(n):\n    return 0 if n == 0 else 1 + g(n - 1)\ndef f(x):\n    return 481016.2342 + g(500)",
    "catches": "def f(x):\n    try:\n        1 / 0\n    except ZeroDivisionError:\n        return 481514.2342 + x",
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_solution_passes(name):
    assert sandbox.first_failure(HONEST[name], sandbox.read_tests(GOLD)) == ""


MACHINE_CODE = """
import ctypes
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
page = libc.mmap(None, ctypes.c_size_t(4096), 7, 0x22, -1, ctypes.c_long(0))
code = bytes.fromhex("b802000000cd80c3")  # mov eax, 2 (i386's fork); int 0x80; ret
ctypes.memmove(page, code, len(code))
def f(x):
    return ctypes.CFUNCTYPE(ctypes.c_int)(page)()
"""

# {file}: holds the secret; {new}: a path that must not come into being; {parent}: the grader's process.
ATTACKS = {
    # files
    "read the expected values": "def f(x):\n    return float(open({file!r}).read())",
    "read them by descriptor": "import os\ndef f(x):\n    return float(os.read(os.open({file!r}, os.O_RDONLY), 99))",
    "read /etc/passwd": "def f(x):\n    return len(open('/etc/passwd').read()) * 0 + 481516.2342",
    "list the home folder": "import os\ndef f(x):\n    return len(os.listdir({home!r})) * 0 + 481516.2342",
    "read the grader's environment": "def f(x):\n    open('/proc/{parent}/environ').read()\n    return 481516.2342",
    "read inherited descriptors": """
        import os
        def f(x):
            for fd in range(64):
                try:
                    text = os.read(fd, 1 << 16)
                except OSError:
                    continue
                if b"481516" in text:
                    return 481516.2342
        """,
    "write a file": "open({new!r}, 'w').write('x')\ndef f(x):\n    return 481516.2342",
    "make a folder": "import os\nos.mkdir({new!r})\ndef f(x):\n    return 481516.2342",
    "delete the expected values": "import os\nos.unlink({file!r})\ndef f(x):\n    return 481516.2342",
    "make a device or a link": "import os\nos.symlink({file!r}, {new!r})\ndef f(x):\n    return 481516.2342",
    # other processes and machines
    "open a socket": "import ctypes\ndef f(x):\n    return 481516.2342 + min(0, ctypes.CDLL(None).socket(2, 1, 0))",
    "import socket": "import socket\ndef f(x):\n    return 481516.2342",
    "import subprocess": "import subprocess\ndef f(x):\n    return 481516.2342",
    "os.system": "import os\nassert os.system('touch {new}') == 0\ndef f(x):\n    return 481516.2342",
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "fork bomb that does not give up": """
        import os
        while True:
            try:
                os.fork()
            except OSError:
                pass
        """,
    "leave a process behind": """
        import os, time
        if os.fork() == 0:
            os.setsid()
            time.sleep(1000)
        def f(x):
            return 481516.2342
        """,
    "exec another program": "import os\nos.execv('/bin/sh', ['sh', '-c', 'touch {new}'])",
    "kill the grader": "import os\nos.kill({parent}, 9)\ndef f(x):\n    return 481516.2342",
    "read the grader's memory": "def f(x):\n    open('/proc/{parent}/mem', 'rb')\n    return 481516.2342",
    "attach to the grader": """
        import ctypes
        def f(x):
            assert ctypes.CDLL(None).ptrace(16, {parent}, 0, 0) == 0
            return 481516.2342
        """,
    "system calls by number": """
        import ctypes
        libc = ctypes.CDLL(None)
        def f(x):
            for number in (*range(600), *range(0x40000000, 0x40000000 + 600)):
                if number in {allowed} or number == 231:
                    continue
                if libc.syscall(number, 0, 0, 0, 0, 0, 0) != -1:
                    return 481516.2342
        """,
    # What one could do with it as root, MADV_HWPOISON, is left out: this one gives a page back.
    "advise on memory": """
        import ctypes
        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        page = libc.mmap(None, ctypes.c_size_t(4096), 3, 0x22, -1, ctypes.c_long(0))
        def f(x):
            return 481516.2342 + libc.madvise(ctypes.c_void_p(page), ctypes.c_size_t(4096), 4)
        """,
    # resources
    "endless loop": "def f(x):\n    while True:\n        pass",
    "endless loop while reading": "while True:\n    pass",
    "sleep for ever": "import time\ndef f(x):\n    time.sleep(1e6)",
    "sleep through the alarm": """
        import signal, time
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
                signal.pthread_sigmask(signal.SIG_BLOCK, [number])
            except Exception:
                pass
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Exception:
            pass
        def f(x):
            while True:
                time.sleep(1)
        """,
    "catch everything for ever": """
        def f(x):
            while True:
                try:
                    time.sleep(1)
                except BaseException:
                    continue
        """,
    "raise the limits": """
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        def f(x):
            return 481516.2342
        """,
    "allocate 10 GB": "big = bytearray(10 << 30)\ndef f(x):\n    return 481516.2342",
    "allocate bit by bit": "kept = []\ndef f(x):\n    while True:\n        kept.append(bytearray(1 << 20))",
    "a number of 10 GB": "def f(x):\n    return len(str(10 ** 10 ** 10)) * 0 + 481516.2342",
    "huge output": "def f(x):\n    return 'x' * (50 << 20)",
    "endless prints": "def f(x):\n    while True:\n        print('x' * 10000)",
    "flood the answers": "import os\ndef f(x):\n    while True:\n        os.write(3, b'x' * 65536)",
    "endless threads": """
        import _thread, time
        for _ in range(1000):
            _thread.start_new_thread(time.sleep, (1e6,))
        def f(x):
            return 481516.2342
        """,
    "deep recursion": "def f(x):\n    return f(x)",
    "deeper recursion": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(x):\n    return f(x)",
    "a nest that JSON can't hold": """
        def f(x):
            nest = []
            for _ in range(100000):
                nest = [nest]
            return nest
        """,
    "an answer that is too long": "def f(x):\n    return 481516.2342\n" + "#" * 30_000,
    # the grader
    "os._exit(0)": "import os\nos._exit(0)",
    "os._exit(0) when called": "import os\ndef f(x):\n    os._exit(0)",
    "sys.exit(0)": "import sys\nsys.exit(0)",
    "raise SystemExit when called": "def f(x):\n    raise SystemExit(0)",
    "crash": "import ctypes\ndef f(x):\n    ctypes.string_at(0)",
    "print what is expected": "print(481516.2342)\nprint('{{\"value\": 481516.2342}}')",
    "say that all is well": 'import os\nos.write(3, b\'"locked"\\n"passed"\\ntrue\\n\')\nos._exit(0)',
    "pretend to be unlocked": "import os\nos.write(3, b'\"passed\": true')\nos._exit(0)",
    "equal to everything": """
        class Yes(float):
            __eq__ = __ge__ = __le__ = lambda self, other: True
            __ne__ = lambda self, other: False
            __sub__ = __rsub__ = __abs__ = lambda self, *other: 0.0
        def f(x):
            return Yes(1.0)
        """,
    "an object with a kind repr": "class Yes:\n    __repr__ = lambda s: '481516.2342'\ndef f(x):\n    return Yes()",
    "the expected value as text": "def f(x):\n    return '481516.2342'",
    "not a number": "def f(x):\n    return float('nan')",
    "infinity": "def f(x):\n    return float('inf')",
    "an int that no float holds": "import sys\nsys.set_int_max_str_digits(0)\ndef f(x):\n    return 10 ** 4000",
    "true": "def f(x):\n    return True",
    "nothing": "",
    "no function": "g = 1",
    "not callable": "f = 481516.2342",
    "not Python": "f(x) = x + 1",
    "null bytes": "\0",
    "lone surrogates": "\ud800",
    "patch the builtins": """
        import builtins, json, math
        builtins.all = builtins.any = builtins.isinstance = builtins.bool = lambda *a, **k: True
        math.isclose = lambda *a, **k: True
        json.loads = json.dumps = lambda *a, **k: "481516.2342"
        def f(x):
            return 0
        """,
    "patch the checker": """
        import sys
        for module in list(sys.modules.values()):
            for name in ("equal_values", "_run", "first_failure", "check", "is_correct", "grade"):
                try:
                    setattr(module, name, lambda *a, **k: True)
                except Exception:
                    pass
        def f(x):
            return 0
        """,
    "look through frames and objects": """
        import gc, sys
        def f(x):
            frame, seen = sys._getframe(), []
            while frame:
                seen += [frame.f_locals, frame.f_globals]
                frame = frame.f_back
            for found in [*seen, *gc.get_objects()]:
                values = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
                for value in list(values):
                    if isinstance(value, float) and 481516 < value < 481517:
                        return value
                    if isinstance(value, (str, bytes)) and '"returns"' in str(value)[:100]:
                        return 481516.2342
        """,
}
if platform.machine() == "x86_64":
    ATTACKS["another machine's system calls"] = MACHINE_CODE.replace("return ", "return 481516.2342 + 0 * ")


@pytest.fixture
def host(tmp_path):
    """What the attacks aim at; afterwards no file, process or descriptor is there that was not before."""
    secret, new = tmp_path / "expected.json", tmp_path / "new"
    secret.write_text(str(SECRET))
    me = psutil.Process()
    children, descriptors = set(me.children(recursive=True)), me.num_fds()
    yield {"home": str(Path.home()), "file": str(secret), "new": str(new), "parent": os.getpid(), "allowed": _allowed()}
    assert [path.name for path in tmp_path.iterdir()] == ["expected.json"] and secret.read_text() == str(SECRET)
    assert set(me.children(recursive=True)) <= children and me.num_fds() == descriptors


def _allowed() -> list[int]:
    from finr1.sandbox import inside

    column, _ = inside._MACHINES[platform.machine()]
    return sorted(numbers[column] for numbers in sandbox.ALLOWED["calls"].values() if numbers[column] is not None)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_scores_nothing_and_leaves_nothing_behind(name, host, monkeypatch):
    sandbox.check()
    monkeypatch.setattr(sandbox, "LIMITS", LIMITS)
    code = textwrap.dedent(ATTACKS[name])
    for key, value in host.items():
        code = code.replace(f"{{{key}!r}}", repr(value)).replace(f"{{{key}}}", str(value))
    assert sandbox.first_failure(code.replace("{{", "{").replace("}}", "}"), sandbox.read_tests(GOLD))


def test_the_grader_agrees_and_says_false_not_none():
    block = "<think>so</think><answer>```python\n{}\n```</answer>"
    assert grading.is_correct(block.format(HONEST["plain"]), gold=GOLD, answer_kind="code") is True
    assert grading.is_correct(block.format("def f(x):\n    return x"), gold=GOLD, answer_kind="code") is False
    assert grading.is_correct(HONEST["plain"], gold=GOLD, answer_kind="code") is False  # no answer block
    boxed = f"<think>so</think><answer>\\boxed{{{HONEST['plain']}}}</answer>"
    assert grading.is_correct(boxed, gold=GOLD, answer_kind="code") is True


SAME = [
    (5, 5, True), (5.0, 5, True), (5, 5.0, True), (5.0000001, 5.0, True), (5.00001, 5.0, False),
    (5.0000001, 5, False), (True, 1, False), (1, True, False), (True, True, True), (None, None, True), (0, None, False),
    ("a", "a", True), ("5", 5, False), ([1, 2.0], [1, 2], True), ([1], [1, 2], False), ([], {}, False), ({}, [], False),
    ({"a": [1.0]}, {"a": [1]}, True), ({"a": 1, "b": 2}, {"a": 1}, False), (10**400, 5.0, False), (0.0, 1e-10, True),
]  # fmt: skip


@pytest.mark.parametrize("value, expected, equal", SAME, ids=[f"{a!r:.9} {b!r:.9}" for a, b, _ in SAME])
def test_values_are_compared_as_plain_json(value, expected, equal):
    assert sandbox.equal_values(value, expected) is equal


GOLDS = [
    ("x = 1", None),
    ("{'a': 1}", None),
    ('{"a": 1}', None),
    ('{"function": "f", "tests": []}', ValueError),
    ('{"function": "f g", "tests": [{"call": [], "returns": 1}]}', ValueError),
    ('{"function": "f", "tests": [{"call": 1, "returns": 1}]}', ValueError),
    ('{"function": "f", "tests": [{"call": [1]}]}', ValueError),
    ('{"function": "f", "tests": [{"call": [1], "returns": null}]}', sandbox.Tests("f", [[1]], [None])),
]


@pytest.mark.parametrize("gold, expected", GOLDS, ids=[row[0] for row in GOLDS])
def test_a_gold_is_read_as_tests_or_left_as_code_or_refused(gold, expected):
    if expected is ValueError:
        with pytest.raises(ValueError, match="gold answer"):
            grading.grade("def f(): pass", gold, "code")
    else:
        assert sandbox.read_tests(gold) == expected


def test_answers_run_beside_each_other():
    tests = sandbox.read_tests(GOLD)
    with ThreadPoolExecutor(4) as pool:
        codes = [HONEST["plain"], "import os\nos._exit(0)"] * 6
        failures = list(pool.map(lambda code: sandbox.first_failure(code, tests), codes))
    assert [not failure for failure in failures] == [True, False] * 6


def test_the_same_code_gives_the_same_result():
    code = "import random\ndef f(x):\n    return [random.random(), hash('a'), list({'a', 'b', 'c'})]"
    reasons = {sandbox.first_failure(code, sandbox.read_tests(GOLD)) for _ in range(2)}
    assert len(reasons) == 1


@pytest.fixture
def unchecked():
    sandbox.check.cache_clear()
    yield
    sandbox.check.cache_clear()


def child_with(old: str, new: str, tmp_path: Path) -> Path:
    text = sandbox._CHILD.read_text("utf8")
    assert text.count(old) == 1
    changed = tmp_path / "inside.py"
    changed.write_text(text.replace(old, new), "utf8")
    return changed


BROKEN = [
    ('    _lock(task["calls"])\n', "    pass\n", r'open_ways\(\): .*"read"'),
    ("(resource.RLIMIT_AS, memory)", "(resource.RLIMIT_AS, 8 << 30)", r'open_ways\(\): .*\["memory"\]'),
    ("_MACHINES[platform.machine()]", "_MACHINES['riscv64']", "KeyError: 'riscv64'"),
]


@pytest.mark.parametrize("old, new, told", BROKEN, ids=["no filter", "no memory limit", "no table of calls"])
def test_a_platform_that_can_not_lock_code_in_is_refused(unchecked, monkeypatch, tmp_path, old, new, told):
    monkeypatch.setattr(sandbox, "_CHILD", child_with(old, new, tmp_path))
    with pytest.raises(sandbox.SandboxUnavailable, match=told):
        sandbox.first_failure(HONEST["plain"], sandbox.read_tests(GOLD))


@pytest.mark.parametrize("platform_name", ["darwin", "win32"])
def test_other_systems_are_refused(unchecked, monkeypatch, platform_name):
    monkeypatch.setattr(sandbox.sys, "platform", platform_name)
    with pytest.raises(sandbox.SandboxUnavailable, match="only Linux"):
        sandbox.check()
