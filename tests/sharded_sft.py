"""`finr1.sft` under FSDP2 without a GPU: accelerate splits models over GPUs only; gloo's processes pass for them."""

from __future__ import annotations

from accelerate import PartialState
from accelerate.utils import DistributedType

from finr1 import sft
from finr1.params import SFTParams
from finr1.run import child_main

sft_config = sft.sft_config


def passing_for_gpus(params: SFTParams, stage_dir):
    config = sft_config(params, stage_dir)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    return config


if __name__ == "__main__":
    sft.sft_config = passing_for_gpus
    child_main(sft.train, SFTParams)
