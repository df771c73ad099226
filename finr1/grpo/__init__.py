"""Group relative policy optimisation with TRL's `GRPOTrainer`, rewards from `finr1.rewards`.

Fin-R1's objective is TRL's `loss_type="grpo"` with `beta > 0`, a symmetric clip and R = R_format + R_accuracy; TRL's
own defaults differ (`loss_type="dapo"`, `beta=0`), so every preset states them, and its KL is multiplied by the
probability ratio unless `use_bias_correction_kl=False`, which is set here. The paper gives no value for any of
them. `launch("finr1.grpo", run)` starts this module in a process of its own; by hand it is
`python -m finr1.grpo outputs/demo/05_grpo`.
"""

from finr1.grpo.monitor import warnings
from finr1.grpo.problems import check_enough, check_rewards, pass_rates
from finr1.grpo.stopping import stopped
from finr1.grpo.trainer import (
    TRAIN_FILE,
    grpo_config,
    make_trainer,
    reward_functions,
    start_model,
    train,
)

__all__ = [
    "TRAIN_FILE",
    "check_enough",
    "check_rewards",
    "grpo_config",
    "make_trainer",
    "pass_rates",
    "reward_functions",
    "start_model",
    "stopped",
    "train",
    "warnings",
]
