"""finr1: the Fin-R1 recipe, told by numbered notebooks; this package holds what more than one of them uses."""

import logging
import sys

try:
    import fcntl  # noqa: F401
except ImportError:
    told = "finr1 runs on Linux and macOS. On Windows, run it inside WSL 2: `wsl --install`, then install it there."
    raise SystemExit(told) if sys.argv[:1] == ["-m"] else ImportError(told) from None

# Where its kernels from the hub are missing, it warns at each import; it has its own.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
