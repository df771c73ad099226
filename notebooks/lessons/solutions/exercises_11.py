"""Solutions of exercises_11: machine. The name of each is that of its exercise."""

from checks import GPU_FLOPS, LENGTH, PARAMETERS, PROCESSES, ROWS, SHARE

memory = PARAMETERS * (4 + 4 + 8) / 2**30 / PROCESSES  # 13.0 GiB: weights, gradients, two moments

hours = 6 * PARAMETERS * ROWS * LENGTH / (PROCESSES * GPU_FLOPS * SHARE) / 3600  # 0.22

fits = {"qlora"}  # 3.4 GiB of weights
