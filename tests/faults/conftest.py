"""How many random faults are tried."""

from __future__ import annotations

import os

# `make faults` asks for more than a run of all tests does.
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "2"))
