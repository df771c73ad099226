"""finr1: the Fin-R1 recipe, told by numbered notebooks; this package holds what more than one of them uses."""

import logging

# Where its kernels from the hub are missing, it warns at each import; it has its own.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
