"""Signs that a policy pleases the reward and nobody else, in the completions of each step.

The demo's GRPO once did: it found that the grader took a question's two words repeated for an answer. No sign proves
anything; each says where to look, and `finr1.rollouts` shows the texts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from statistics import fmean

from finr1 import grading

NGRAM = 3  # tokens
MIN_REASONING = 10  # characters; "<think>Yes.</think>" is no reasoning
_THINK = re.compile(r"<think>(.*?)(?:</think>|<answer>|$)", re.DOTALL)
_OR = re.compile(r"\bor\b|还是|或|/|、|,|\band\b|\bvs\b")
WINDOW = 3  # steps: a sign is the mean of the last ones, against that of the first ones


def signs(
    rows: Sequence[Mapping],
    texts: Sequence[str],
    completion_ids: Sequence[Sequence[int]],
    shapes: Sequence[float],
    accuracies: Sequence[float],
) -> dict[str, float]:
    """Shares of one batch of completions, each 0 to 1; those with nothing to be a share of are left out.

    `rows`: the RL row of each completion; `shapes`: its format reward; `accuracies`: its accuracy, NaN where nobody
    could tell. `repetition`: repeated 3-grams of tokens (as TRL's `get_repetition_penalty_reward` counts them);
    `no_reasoning`: answers without reasoning, of all answers; `options`: answers that repeat the question's options,
    of all answers; `agreement`: format and accuracy both there or both missing, of what could be judged.
    """
    from trl.rewards import get_repetition_penalty_reward

    repeated = [-x for x in get_repetition_penalty_reward(NGRAM)(completion_ids)]
    answers = [grading.extract_answer(text) for text in texts]
    answered = [i for i, answer in enumerate(answers) if answer]
    judged = [i for i, accuracy in enumerate(accuracies) if accuracy == accuracy]  # NaN is not itself
    found = {
        "repetition": repeated,
        "no_reasoning": [not _reasons(texts[i]) for i in answered],
        "options": [repeats_options(answers[i], rows[i]) for i in answered],
        "agreement": [(shapes[i] > 0) == (accuracies[i] > 0) for i in judged],
    }
    return {name: fmean(values) for name, values in found.items() if values}


def _reasons(text: str) -> bool:
    return sum(len("".join(thought.split())) for thought in _THINK.findall(text)) >= MIN_REASONING


def repeats_options(answer: str, row: Mapping) -> bool:
    """Whether `answer` names two labels, every choice, or a piece of the question with an "or" inside."""
    answer = answer.strip().lower()
    if row.get("labels"):
        return _named(answer, json.loads(row["labels"]).values()) > 1
    if row.get("choices"):
        letters = json.loads(row["choices"])
        return len(letters) > 1 and all(
            re.search(rf"(?<![A-Za-z]){re.escape(k.lower())}(?![a-z])", answer) for k in letters
        )
    question = row["prompt"][-1]["content"].lower()
    return row["answer_kind"] == "boolean" and bool(_OR.search(answer)) and answer.rstrip("?？.。") in question


def _named(answer: str, names) -> int:
    """How many of `names` stand in `answer`, the longest first: "non-compliant" does not name "compliant" as well."""
    found = 0
    for name in sorted({name.lower() for name in names}, key=len, reverse=True):
        if name in answer:
            found += 1
            answer = answer.replace(name, " ")
    return found


# Sign -> (key of metrics.jsonl, has it gone wrong: start and now -> bool, what to say).
_RULES = {
    "repetition": ("watch/repetition", lambda start, now: now > max(0.3, 2 * start),
                   "{now:.0%} of the 3-grams in the completions are repeats: lower learning_rate or raise beta"),
    "no reasoning": ("watch/no_reasoning", lambda start, now: now > max(0.3, start + 0.2),
                     "{now:.0%} of the answers come without reasoning: the reward does not ask for any; raise beta"),
    "options": ("watch/options", lambda start, now: now > max(0.05, start + 0.05),
                "{now:.0%} of the answers repeat the question's options: look whether the grader pays for them"),
    "agreement": ("watch/agreement", lambda start, now: now < start - 0.2,
                  'format and accuracy agree in {now:.0%} ({start:.0%} at first): reward = "gated" pays both or none'),
    "longer": ("completions/mean_length", lambda start, now: now > 2 * start,
               "the completions grew from {start:.0f} to {now:.0f} tokens: does length pay? soft_punish_cache"),
    "shorter": ("completions/mean_length", lambda start, now: now < 0.5 * start,
                "the completions shrank from {start:.0f} to {now:.0f} tokens: loss_type = \"grpo\" favours short ones"),
}  # fmt: skip


def hacking_warnings(log: Sequence[Mapping]) -> list[str]:
    """A line with its step for each sign, where it first appears in `log` (rows of metrics.jsonl, in order)."""
    found = []
    for key, is_wrong, words in _RULES.values():
        rows = [row for row in log if row.get(key) is not None]
        start = fmean([row[key] for row in rows[:WINDOW]]) if rows else 0.0
        for i in range(WINDOW, len(rows)):
            now = fmean([row[key] for row in rows[i - WINDOW + 1 : i + 1]])
            if is_wrong(start, now):
                found.append((rows[i]["step"], f"step {rows[i]['step']}: {words.format(start=start, now=now)}"))
                break
    return [line for _, line in sorted(found)]


def warnings(log: list[dict]) -> list[str]:
    """What in `log` (rows of metrics.jsonl) deserves a look, each with what to do about it.

    `hacking_warnings`, then what holds in the last quarter of the run.
    """
    steps = [row for row in log if "reward" in row]
    late = steps[-max(1, len(steps) // 4) :]

    def mean(key: str, rows: list[dict]) -> float:
        values = [row[key] for row in rows if row.get(key) is not None]  # TRL logs None for a mean of nothing
        return fmean(values) if values else math.nan  # which is neither above nor below anything

    found = hacking_warnings(log)
    if (dead := mean("frac_reward_zero_std", late)) > 0.6:
        found.append(
            f"{dead:.0%} of the groups have no spread, so they teach nothing: choose other problems or more generations"
        )
    if (cut := mean("completions/clipped_ratio", late)) > 0.3:
        found.append(f"{cut:.0%} of the completions are cut off: raise max_completion_length")
    if (failed := mean("verifier/failed", late)) > 0.1 * mean("verifier/undecided", late):
        found.append(
            f"the verifier gave no verdict on {failed:.0%} of the completions, which then teach nothing: the "
            "column `verifier` of completions/ says why"
        )
    if (entropy := mean("entropy", late)) < 0.1 * mean("entropy", steps[:1]):
        found.append(
            f"entropy fell to {entropy:.3f}: the policy has nearly stopped exploring; lower learning_rate or raise beta"
        )
    if mean("reward", late) < 0.5 * mean("reward", steps[:1]):
        found.append("the reward fell to less than half of its start: lower learning_rate or raise beta")
    return found
