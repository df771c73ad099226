"""Code that a model has written, run where it can do no harm, and graded by unit tests where it can't cheat.

    tests = read_tests('{"function": "double", "tests": [{"call": [2], "returns": 4}]}')
    run_tests("def double(x):\\n    return 2 * x", tests).passed

The answer's code runs in a process of its own (`inside`), which may only compute. The kernel, not Python, holds it: a
seccomp filter lets some twenty system calls through, among them none that opens a file or a socket, starts a process
or a thread, sends a signal or changes a limit; resource limits bound memory, CPU time and output, and a timer bounds
the wall time. That takes neither root nor a namespace nor a package, and it holds for root, too. `check` tries the ways
out once and refuses a platform that leaves one open (Linux on x86-64 closes them, and should on ARM64, not tested).
There is no folder to write to, not even a temporary one, and nothing to import but the standard library's modules that
compute (`inside.MODULES`): no numpy.

The verdict is made out here: the code gets arguments and returns values as JSON; what is expected of them never enters
its process. So there is no checker to patch, no expected value to read, no exit code to fake: the one way to pass is to
return the right values. They are compared as plain JSON, so an object that claims to equal everything is none.

What this does not stop: bugs in the kernel's own code for those calls, side channels (timing, caches), and answers that
are right for these tests alone, such as a table of returns for arguments that the prompt shows.
"""

from finr1.sandbox.outside import (
    LIMITS,
    Limits,
    SandboxUnavailable,
    Tests,
    Verdict,
    check,
    code_of,
    read_tests,
    run_tests,
)

__all__ = [
    "LIMITS",
    "Limits",
    "SandboxUnavailable",
    "Tests",
    "Verdict",
    "check",
    "code_of",
    "read_tests",
    "run_tests",
]
