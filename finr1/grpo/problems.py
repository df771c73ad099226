"""Which problems are worth a group: those that the policy sometimes solves."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finr1 import rewards
from finr1.judge.verifier import Verifier, make_verifier
from finr1.params import GRPOParams

if TYPE_CHECKING:
    from trl import GRPOTrainer

Group = dict[str, list[float]]  # problem -> accuracy of each of its completions, NaN where nobody could tell
REWARD_COLUMNS = ("solution", "answer_kind", "alternatives", "choices", "labels")  # of an RL row, for `accuracy_reward`


def check_rewards(params: GRPOParams, rows: Sequence[dict], stage_dir: Path) -> Verifier | None:
    """The verifier that `params` names (None: rules alone), once all that the rewards of `rows` need is known to work.

    Raises `GenerationError` for a verifier that can't be reached or gives no verdict, `ValueError` for a missing key,
    `SandboxUnavailable` for rows with unit tests where no sandbox can be had.
    """
    rewards.check_rows(rows)
    verifier = make_verifier(params, stage_dir)
    if verifier is not None:
        verifier.check()
    elif free := sum(row["answer_kind"] == "text" for row in rows):
        warnings.warn(
            f"{free} of {len(rows)} problems have free text as answer: what rules can't decide teaches nothing without "
            "a verifier (verifier_backend)",
            stacklevel=2,
        )
    return verifier


def pass_rates(rows: list[dict], texts: list[str], verifier: Verifier | None = None) -> list[float | None]:
    """Share of right answers for each RL row; `texts` holds the same number of answers for each, in the rows' order.

    None where neither the rules nor `verifier` could grade one of them: such a row has no reward to learn from.
    """
    tries = len(texts) // max(len(rows), 1)
    repeated = {name: [row[name] for row in rows for _ in range(tries)] for name in REWARD_COLUMNS}
    judged = rewards.judge_by_rules(texts, **repeated) if rows else []
    if verifier is not None:
        prompts = [row["prompt"] for row in rows for _ in range(tries)]
        judged = rewards.ask(verifier, judged, texts, prompts=prompts, **repeated)
    verdicts = [row.correct for row in judged]
    groups = [[v for v in verdicts[i * tries : (i + 1) * tries] if v is not None] for i in range(len(rows))]
    return [sum(group) / len(group) if group else None for group in groups]


def check_enough(rows: list[dict], params: GRPOParams) -> None:
    """Raise `ValueError` when `rows` can't fill one step: a step draws that many different problems."""
    needed = params.batch_size // params.num_generations
    if len(rows) < needed:
        raise ValueError(
            f"{len(rows)} problems are left, a step needs {needed}: raise pass_rate_candidates (now "
            f"{params.pass_rate_candidates}) or pass_rate_samples (now {params.pass_rate_samples}), "
            "or train the SFT model longer"
        )


def by_problem(ids: Iterable[str], accuracies: Iterable[float]) -> Group:
    """The accuracies of a batch, gathered by problem."""
    groups: Group = defaultdict(list)
    for problem, accuracy in zip(ids, accuracies, strict=True):
        groups[problem].append(accuracy)
    return dict(groups)


def settled(groups: Iterable[Group]) -> set[str]:
    """The problems that were answered all right or all wrong; one that nobody could judge is not settled."""
    answers: Group = defaultdict(list)
    for group in groups:
        for problem, accuracies in group.items():
            answers[problem] += [accuracy for accuracy in accuracies if not math.isnan(accuracy)]
    return {problem for problem, accuracies in answers.items() if len(set(accuracies)) == 1}


class UnsettledSampler:
    """Sampler of a GRPO trainer, in place of TRL's `RepeatSampler`: the same order of copies, other problems.

    The first epoch takes all rows; each later one leaves out those that are `settled` by the groups of the epoch before
    (all come back in the epoch after that: the policy has moved). When fewer than one step needs would be left, the
    epoch takes all. The groups of an epoch's last generation are not counted: the data loader fetches ahead.
    A resumed run reads the groups of steps before its checkpoint from the Parquet files that TRL has written, so that
    the order is the one of an unbroken run.
    """

    def __init__(self, trainer: GRPOTrainer):
        self.trainer = trainer
        args = trainer.args
        self.problems = list(trainer.train_dataset["id"])
        self.per_generation = args.generation_batch_size // args.num_generations
        self.uses = trainer.num_iterations  # optimiser steps on one generation
        self.repeats = self.uses * args.steps_per_generation
        self.generations = math.ceil(args.max_steps / self.uses)
        if len(self.problems) < self.per_generation:
            raise ValueError(f"{len(self.problems)} problems, a generation needs {self.per_generation}")
        self._left_out: dict[int, int] = {}  # first step of an epoch -> rows that it leaves out

    def __len__(self) -> int:
        return self.generations * self.repeats * self.trainer.args.generation_batch_size

    def __iter__(self) -> Iterator[int]:
        import torch

        generator = torch.Generator().manual_seed(self.trainer.args.seed)
        done, first = 0, 0
        while done < self.generations:
            rows = self._epoch(range(first, done - 1), done)
            order = [rows[i] for i in torch.randperm(len(rows), generator=generator).tolist()]
            first = done
            chunks = min(len(order) // self.per_generation, self.generations - done)
            for start in range(0, chunks * self.per_generation, self.per_generation):
                chunk = order[start : start + self.per_generation]
                for _ in range(self.repeats):
                    yield from (row for row in chunk for _ in range(self.trainer.num_generations))
                done += 1

    def left_out_at(self, step: int) -> int:
        """How many rows the epoch of `step` leaves out."""
        return self._left_out[max(first for first in self._left_out if first <= step)]

    def _epoch(self, counted: range, done: int) -> list[int]:
        """Rows of the epoch that starts after `done` generations, by the groups of the generations `counted`."""
        gone = settled(self._group(generation * self.uses + 1) for generation in counted)
        rows = [row for row, problem in enumerate(self.problems) if problem not in gone]
        if len(rows) < self.per_generation:
            rows = list(range(len(self.problems)))
        self._left_out[done * self.uses + 1] = len(self.problems) - len(rows)
        return rows

    def _group(self, step: int) -> Group:
        groups = self.trainer.groups
        if step not in groups:  # sampled before this process started
            import pandas as pd

            file = Path(self.trainer.args.output_dir) / "completions" / f"completions_{step:05d}.parquet"
            table = pd.read_parquet(file)
            names = self.trainer.reward_func_names
            groups[step] = by_problem(table["id"], table[names[accuracy_column(names)]])
        return groups[step]


def accuracy_column(names: list[str]) -> int:
    """Which of the reward functions says whether the answer is right: the first that judges neither form nor length."""
    return next(i for i, name in enumerate(names) if name not in ("format_reward", "soft_overlong_punishment_reward"))
