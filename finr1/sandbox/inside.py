"""The child's side: lock this process in, then run what stands on standard input. Started by `sandbox` as a script.

It needs the standard library alone. From `_lock` on, the process can compute, read the clock and write to the files
that it already has; every other system call fails with EPERM.
"""

import contextlib
import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of a call, name in <linux/audit.h>
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 4, 22, 38, 2
_KILL, _EPERM, _ALLOW = 0x80000000, 0x00050001, 0x7FFF0000  # <linux/seccomp.h>: kill the process, fail with errno 1
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # <linux/bpf_common.h>: LD|W|ABS, JMP|JEQ|K, RET|K


def main() -> None:
    """Read the task as one JSON object, write a line for each call: {"value": ...}, or {"error": "..."} and no more."""
    task, answers, nothing = json.loads(sys.stdin.buffer.read()), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):  # what the code prints is not its answer
        os.dup2(nothing, descriptor)
    for name in task["modules"]:
        with contextlib.suppress(ImportError):  # _pydatetime came with Python 3.12
            __import__(name)
    sys.path, sys.meta_path = [], sys.meta_path[:2]  # built-in and frozen ones; others are at once "not found"
    sys.modules["random"].seed(0)  # the same answer gets the same reward
    _limit(**task["limits"])
    _lock(task["calls"])
    sys.stderr = sys.stdout  # until here it told the grader why this process could not be locked in
    _answer(answers, task["code"], task["function"], task["arguments"])
    os._exit(0)  # what the code left for the interpreter's end is not run


def _limit(wall: float, cpu: int, memory: int, output: int) -> None:
    """Seconds, seconds, bytes, bytes. Soft equals hard: nothing is left to raise, and the CPU's signal is SIGKILL."""
    for number, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, output),  # the answers go to a file: the kernel, not a reader, bounds them
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),  # not for root; the filter is
    ):
        resource.setrlimit(number, (most, most))
    # Ends us even where the parent has died. The filter takes away what could stop or ignore it.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, wall)


def _lock(calls: dict[str, list]) -> None:
    """Let only `calls` through; `OSError` where the kernel refuses, `KeyError` for a machine without a column."""
    column, architecture = _MACHINES[platform.machine()]
    program = [
        (_LOAD, 0, 0, 4),  # seccomp_data.arch: another one's calls have other numbers
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # seccomp_data.nr; x32's are above 0x40000000 and equal none of ours
    ]
    for numbers in calls.values():
        if numbers[column] is not None:
            program += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ALLOW)]
    program.append((_RETURN, 0, 0, _EPERM))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_DUMPABLE, 0, 0, 0, 0),  # no core file, and nobody attaches
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(header), 0, 0),
    ):
        if libc.prctl(arguments[0], *map(ctypes.c_ulong, arguments[1:])) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {arguments[0]}: {os.strerror(ctypes.get_errno())}")


def _answer(descriptor: int, code: str, function: str, calls: list) -> None:
    def tell(said: dict) -> None:
        write(descriptor, dumps(said, default=lambda number: float(number + 0)).encode() + b"\n")  # Decimal, Fraction

    write, dumps = os.write, json.dumps  # the code may put others in their places
    write(descriptor, b'"locked"\n')
    try:
        space = {"__name__": "answer"}
        exec(compile(code, "answer.py", "exec"), space)
        for arguments in calls:
            tell({"value": space[function](*arguments)})
    except BaseException as error:
        tell({"error": f"{type(error).__name__}: {error}"[:200]})


if __name__ == "__main__":
    main()
