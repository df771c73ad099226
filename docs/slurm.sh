#!/bin/bash
# SFT and GRPO of the preset `paper` on two nodes with eight GPUs each: `sbatch docs/slurm.sh` from the clone.
# Not run by us. Stages 00 to 03 are made before: python -m finr1 run --preset paper --until 03_filtering
#SBATCH --job-name=finr1
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=48:00:00
set -euo pipefail

export NNODES=$SLURM_NNODES
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=29500

# 16 processes with half of the accumulation of 8: the batch stays the same.
CHANGES=(--set num_processes=16 --set 04_sft.gradient_accumulation_steps=8 --set 05_grpo.gradient_accumulation_steps=32)

srun bash -c '
  export NODE_RANK=$SLURM_NODEID
  if [ "$NODE_RANK" = 0 ]; then
    python -m finr1 run --preset paper "$@" --until 05_grpo
  else
    for stage in 04_sft 05_grpo; do
      until [ -e outputs/paper/$stage/params.yaml ]; do sleep 10; done
      python -m finr1 join outputs/paper/$stage
    done
  fi
' finr1 "${CHANGES[@]}"
