"""What the reward functions of notebook 05 stand on: grading, a verifier for what rules leave open, and the watching.

The rewards are functions in the notebook, with TRL's signature `(completions, **columns) -> list of float or None`.
One of them may carry the mark `is_accuracy = True`: it says whether the answer is right. Where it gives None, nobody
could judge the answer, and the completion teaches nothing. (TRL itself would add up the other rewards.)
"""

import asyncio
import functools
import inspect
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from finr1 import grading, sandbox, watch
from finr1.judge import Verifier, make_verifier
from finr1.params import GRPOParams

TRAIN_FILE = "train.jsonl"  # the RL rows that notebook 05 has chosen
GOLD = ("solution", "answer_kind", "alternatives", "choices", "labels", "options", "rel_tol")  # of `curation.rl_rows`

Completions = list[list[dict[str, str]]]
Reward = Callable[..., list[float | None]]


def grade_completions(completions: Completions, **columns: Any) -> list[float | None]:
    """1.0 for each completion whose extracted answer is right, 0.0 for a wrong one, None where rules cannot tell.

    `columns` has `solution` and `answer_kind`, and may have the rest of `GOLD`. Code runs in the sandbox, on all cores.
    """

    def grade(i: int) -> float | None:
        with suppress(ValueError):  # the gold answer cannot be read
            right = grading.is_correct(completions[i][0]["content"], **_graded_against(columns, i))
            return None if right is None else float(right)

    with ThreadPoolExecutor(None if "code" in columns["answer_kind"] else 1) as pool:
        return list(pool.map(grade, range(len(completions))))


def _graded_against(columns: Mapping[str, Sequence], i: int) -> dict[str, Any]:
    """Row `i` as arguments of `grading.grade`."""
    row = {name: columns[name][i] for name in GOLD if name in columns and columns[name][i] is not None}
    decoded = {name: json.loads(row.pop(name, "") or "null") for name in ("choices", "labels")}
    return {"gold": row.pop("solution"), **row, **decoded}


def choose_rewards(names: Sequence[str], namespace: Mapping[str, Any]) -> list[Reward]:
    """The functions of `namespace` (`globals()`) with these names; `ValueError` for none, or for two `is_accuracy`."""
    functions = {name: namespace.get(name) for name in names}
    if missing := ", ".join(name for name in names if not callable(functions[name])):
        known = ", ".join(name for name, value in namespace.items() if name.endswith("_reward") and callable(value))
        raise ValueError(f"reward_funcs: no function {missing} in the cells of the recipe; there are {known}")
    if len(judges := [name for name in names if is_accuracy(functions[name])]) > 1:
        raise ValueError(f"reward_funcs: {' and '.join(judges)} both say whether an answer is right; one of them may")
    return [functions[name] for name in names]


def is_accuracy(reward: Reward) -> bool:
    """Whether this reward carries the mark `is_accuracy = True`: it says if the answer is right."""
    return getattr(reward, "is_accuracy", False)


def check_rewards(params: GRPOParams, rows: Sequence[Mapping], stage_dir: Path) -> Verifier | None:
    """The verifier that `params` names (None: rules only), after a check of all that grading `rows` needs.

    Raises `GenerationError` for a verifier that can't be reached or gives no verdict, `ValueError` for a missing key,
    `SandboxUnavailable` for rows with unit tests on a machine without a sandbox.
    """
    for row in rows:
        with suppress(ValueError):  # an unreadable gold pays nothing
            if row["answer_kind"] == "code" and sandbox.read_tests(row["solution"]) is not None:
                sandbox.check()
                break
    verifier = make_verifier(params, stage_dir)
    if verifier is not None:
        verifier.check()
    elif free := sum(row["answer_kind"] == "text" for row in rows):
        told = "without a verifier (verifier_backend) those that rules can't decide teach nothing"
        warnings.warn(f"{free} of {len(rows)} problems have free text as answer: {told}", stacklevel=2)
    return verifier


def verified(reward: Reward, verifier: Verifier | None) -> Reward:
    """`reward` under the same name and mark; `verifier` is asked about each completion for which it gives None.

    Each step logs two shares of completions: those that rules left undecided (`verifier/undecided`) and those that the
    verifier did, too (`verifier/failed`). Its words stand beside each completion. Without one it is `reward` itself.
    """
    if verifier is None:
        return reward

    @functools.wraps(reward)
    def with_verifier(
        completions: Completions, log_metric=None, log_extra=None, prompts: Sequence | None = None, **columns
    ) -> list[float | None]:
        scores = reward(completions, prompts=prompts, **columns)
        said, asked = [""] * len(scores), {}  # question, gold and answer of what is left open
        for i in [i for i, score in enumerate(scores) if score is None]:
            with suppress(ValueError):  # the gold answer cannot be read
                grading.grade("?", **(row := _graded_against(columns, i)))
                golds = " or ".join([row["gold"], *row.get("alternatives", ())])
                question = prompts[i][-1]["content"] if prompts else ""
                asked[i] = (question, golds, grading.extract_answer(completions[i][0]["content"]) or "")
        verdicts = verifier([*asked.values()]) if asked else []
        for i, (right, reason) in zip(asked, verdicts, strict=True):
            scores[i] = None if right is None else float(right)
            word = {True: "right", False: "wrong", None: "no verdict"}[right]
            said[i] = f"{word}: {reason}".rstrip(": ")
        if log_metric:
            log_metric("verifier/undecided", len(verdicts) / max(len(scores), 1))
            log_metric("verifier/failed", sum(right is None for right, _ in verdicts) / max(len(scores), 1))
        if log_extra:
            log_extra("verifier", said)
        return scores

    return with_verifier


def observed(rewards: Sequence[Reward], verifier: Verifier | None, opened: str = "") -> list[Reward]:
    """`rewards` for TRL, computed together: a completion whose accuracy is None gets None from each of them.

    The reward with the mark `is_accuracy` asks `verifier` where it gives None. Each batch logs `watch.signs` and the id
    of each completion's problem. Functions may be asynchronous. `opened`, the beginning of an answer that the chat
    template writes (`models.opened_thought`), is put before each completion, in TRL's record, too.
    """
    rewards = [verified(reward, verifier) if is_accuracy(reward) else reward for reward in rewards]
    batch: dict[str, Any] = {"completions": None, "scores": []}

    def score(completions: Completions, log_metric=None, log_extra=None, **columns) -> list[list[float | None]]:
        for completion in completions:
            completion[0]["content"] = opened + completion[0]["content"]
        logs = {"log_metric": log_metric, "log_extra": log_extra}
        made = [reward(completions=completions, **columns, **logs) for reward in rewards]
        with ThreadPoolExecutor(1) as pool:  # a notebook's kernel runs a loop of its own in this thread
            scores = [pool.submit(asyncio.run, m).result() if inspect.iscoroutine(m) else m for m in made]
        accuracy = next((values for reward, values in zip(rewards, scores, strict=True) if is_accuracy(reward)), None)
        if accuracy is not None:
            scores = [[None if accuracy[i] is None else value for i, value in enumerate(values)] for values in scores]
        if log_metric:
            texts = [completion[0]["content"] for completion in completions]
            for name, value in watch.signs(texts, accuracy, columns).items():
                log_metric(name, value)
        if log_extra and "id" in columns:
            log_extra("id", columns["id"])
        return scores

    def named(place: int) -> Reward:
        @functools.wraps(rewards[place])  # TRL names metrics and columns by it
        def reward(completions: Completions, **columns) -> list[float | None]:
            if batch["completions"] is not completions:  # TRL passes the same list to each function
                batch["completions"], batch["scores"] = completions, score(completions, **columns)
            return batch["scores"][place]

        return reward

    return [named(place) for place in range(len(rewards))]
