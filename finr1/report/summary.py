"""What a run found, in five sentences that are written from its numbers.

A difference whose interval contains zero is called noise, and so is one that Holm's correction for all comparisons
takes away; what a gain owes to the format is said beside it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from finr1.evaluation import decided, percent, points, remark
from finr1.judge import TAKEN_OUT
from finr1.plotting import MODEL_NAMES


def summary_text(
    rows: Sequence[dict], steps: Sequence[dict], measured_on: str = "this run's problems", apart: str = ""
) -> str:
    """The summary as plain text for a terminal, 100 columns wide."""
    return "\n".join(textwrap.fill(sentence, 100) for sentence in summary_sentences(rows, steps, measured_on, apart))


def summary_sentences(rows: Sequence[dict], steps: Sequence[dict], measured_on: str, apart: str = "") -> list[str]:
    """Five sentences on `results_table` and `paired_table`: levels, the two steps, the format's share, the limits.

    `apart`: why none of this may be held against the paper, see `reported.why_apart`.
    """
    greedy = [row for row in rows if row["decoding"] == "greedy"] or list(rows)
    if not greedy:
        return ["The benchmark has not run, so nothing is measured yet."]
    decoding = greedy[0]["decoding"]
    levels = ", ".join(f"{_name(row['model'])} {_level(row)}" for row in greedy)
    on = f"On {greedy[0]['n']} held-out problems ({measured_on}), {decoding} accuracy is: "
    sentences = [f"{on}{levels}{_judge(greedy)}."]
    own = [step for step in steps if step["decoding"] == decoding]
    sentences += [_step_sentence(step, steps) for step in own[:2]]
    if own:
        whole = [step for step in own if (step["before"], step["after"]) == ("base", "grpo")] or own[-1:]
        sentences.append(_format_sentence(whole[0], greedy))
    sentences.append(_limits_sentence(own, apart))
    return sentences


def _name(model: str) -> str:
    return MODEL_NAMES.get(model, model)


def _level(row: dict) -> str:
    if row["accuracy"] is None:
        return "not known (no answer could be graded)"
    graded = row["samples"] - row["undecided"]
    rest = f", of the {graded} of {row['samples']} answers that could be graded" if row["undecided"] else ""
    return f"{percent(row['accuracy'])} % (95 % interval {percent(row['low'])} to {percent(row['high'])}{rest})"


def _judge(rows: Sequence[dict]) -> str:
    """What a judge does to these accuracies; nothing where rules alone graded."""
    graded = {row["judge_error"] for row in rows if "judge_error" in row}
    if not graded:
        return ""
    taken_out = graded == {TAKEN_OUT}
    return "; a judge graded, and its error is taken out" if taken_out else "; as judged, with the judge's error"


def _interval(step: dict) -> str:
    return f"{points(step['difference'])} points (paired 95 % interval {points(step['low'])} to {points(step['high'])})"


def _from_to(step: dict) -> str:
    return f"{_name(step['before'])} to {_name(step['after'])}"


def _noise(step: dict) -> str:
    found = remark(step)
    return f", which is {found}{'' if step['inside_noise'] else ' comparisons'}" if found else ""


def _on(step: dict) -> str:
    """On how many problems, where not all are decided for both models."""
    return f" on the {decided(step)} problems that could be graded" if step["n"] < step.get("asked", 0) else ""


def _step_sentence(step: dict, steps: Sequence[dict]) -> str:
    """What one step of the recipe changed, in its own decoding and in the other one."""
    same = ("before", "after")
    other = [s for s in steps if all(s[k] == step[k] for k in same) and s["decoding"] != step["decoding"]]
    also = "".join(f"; with {s['decoding']} decoding {_interval(s)}{_noise(s)}" for s in other)
    return f"From {_from_to(step)} accuracy changes by {_interval(step)}{_on(step)}{_noise(step)}{also}."


def _format_sentence(step: dict, rows: Sequence[dict]) -> str:
    """How much of a change is obedience; a share of it only where there is a gain to share. Parts are as judged."""
    whole = step.get("as_judged", step["difference"])
    parts = (f"{points(step['format_part'])} points come from more answers in the format, "
             f"{points(step['given_format_part'])} from better answers within it and "
             f"{points(step['without_format_part'])} from better answers outside it")  # fmt: skip
    share = ""
    if step["low"] > 0 and not remark(step) and 0 <= step["format_part"] <= whole:
        share = f" (so the format alone is {100 * step['format_part'] / whole:.0f} % of the gain)"
    by_model = {row["model"]: row for row in rows}
    before, after = by_model[step["before"]], by_model[step["after"]]
    size = f"{points(whole)}{', as judged' * ('as_judged' in step)}"
    return (
        f"Of the whole change from {_from_to(step)} ({size}), {parts}{share}; with answers read "
        f"leniently, the format left aside, accuracy goes from {percent(before['lenient'])} to "
        f"{percent(after['lenient'])} %."
    )


def _limits_sentence(steps: Sequence[dict], apart: str) -> str:
    """What the intervals do not cover, and how small a difference could have gone unseen."""
    smallest = ""
    if steps:
        size = 100 * max(step["detectable"] for step in steps)
        smallest = (
            f"a true difference below about {size:.0f} points would be missed in one of five such comparisons or more, "
        )
    paper = (
        f"none of these numbers may be compared with the paper's ({apart})"
        if apart
        else "these numbers may be compared with the paper's only where the replication ledger does"
    )
    return (
        "The intervals cover the choice of problems, not another training seed or another wording of the prompt; "
        f"{smallest}and {paper}."
    )
