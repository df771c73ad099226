"""FSDP2 without a GPU: accelerate splits models over GPUs only; gloo's processes pass for them."""

from __future__ import annotations

from accelerate import PartialState
from accelerate.utils import DistributedType


def pass_for_gpus() -> None:
    """To be called once the configuration is made, before the trainer is."""
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
