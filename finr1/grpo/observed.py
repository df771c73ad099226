"""TRL's trainer, watched: seconds by phase, signs of reward hacking, and what each problem's group came to.

TRL times its own methods (`trl.extras.profiling`), but sends the times to W&B, MLflow and Trackio alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from finr1 import rewards
from finr1.grpo.callbacks import Monitor, PhaseTimes
from finr1.grpo.monitor import signs
from finr1.grpo.problems import Group, UnsettledSampler, accuracy_column, by_problem

if TYPE_CHECKING:
    from trl import GRPOTrainer


def observed(trainer_class: type[GRPOTrainer], skip_settled: bool = False) -> type[GRPOTrainer]:
    """`trainer_class` with "time/*" and "watch/*" in its logs, and no advantage where nobody could judge the answer.

    With `skip_settled` an epoch leaves out the problems whose groups were all right or all wrong in the one before.
    Phases: `generate` is sampling (and passing the weights to vLLM), `score` the log-probabilities of the policy that
    sampled and of the reference, `reward` the reward functions, `update` the rest: forward, backward, optimiser.
    """

    from accelerate.utils import gather_object

    class Observed(trainer_class):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.phases = PhaseTimes(self._metrics["train"])
            self.add_callback(self.phases)
            self.add_callback(Monitor())
            self.groups: dict[int, Group] = {}  # by step

        def _get_train_sampler(self, dataset=None):
            if not skip_settled:
                return super()._get_train_sampler(dataset)
            self.unsettled = UnsettledSampler(self)
            return self.unsettled

        def _generate(self, prompts):
            with self.phases.measure("generate"):
                return super()._generate(prompts)

        def _generate_and_score_completions(self, inputs):
            with self.phases.measure("score"):
                return super()._generate_and_score_completions(inputs)

        def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
            with self.phases.measure("reward"):
                scores = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            column = accuracy_column(self.reward_func_names)
            # TRL sums what is there, so format alone would count as format + 0. A row without any reward is left out
            # of its group's mean and spread and gets no advantage.
            scores[scores[:, column].isnan()] = math.nan
            mine = slice(
                self.accelerator.process_index * len(inputs), (self.accelerator.process_index + 1) * len(inputs)
            )
            texts = [completion[0]["content"] for completion in completions]
            shapes = rewards.format_reward(texts)
            for name, value in signs(inputs, texts, completion_ids_list, shapes, scores[mine, column].tolist()).items():
                self._log_metric(f"watch/{name}", value)
            ids = [row["id"] for row in inputs]
            self._log_completion_extra("id", ids)
            if skip_settled:
                step = self.state.global_step + 1  # as it will be logged
                self.groups[step] = by_problem(gather_object(ids), scores[:, column].tolist())
                self._metrics["train"]["problems_left_out"].append(self.unsettled.left_out_at(step))
            return scores

    return Observed
