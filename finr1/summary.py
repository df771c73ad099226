"""What a run found: a headline and five sentences that are written from its numbers.

A difference whose interval contains zero is called noise, and so is one that Holm's correction for all comparisons
takes away; what a gain owes to the format is said beside it.
"""

from collections.abc import Mapping, Sequence

from finr1.evaluation import Sample, change_text, paired_row, percent, points, remark
from finr1.evaluation.tables import PARTS
from finr1.judge import TAKEN_OUT
from finr1.records import CHANCE, RECIPE


def above_the_constant(samples: Sequence[Sample], chance: Sequence[Sample], seed: int) -> dict | None:
    """`paired_row` from the best constant to GRPO's greedy answers, over the items that have a constant."""
    grpo = {s.problem_id: s for s in samples if (s.model, s.decoding) == ("grpo", "greedy")}
    constant = [s for s in chance if s.model == "constant" and s.problem_id in grpo]
    return paired_row(constant, [grpo[s.problem_id] for s in constant], seed) if constant else None


def headline(rows: Sequence[Mapping], steps: Sequence[Mapping], above: Mapping | None, seed: int) -> str:
    """The step from SFT to GRPO in each decoding, and how far GRPO lies above the best constant; empty without it.

    `rows` with those of `CHANCE`, where there are some; `above`: of `above_the_constant`.
    """
    own = [step for step in steps if (step["before"], step["after"]) == ("sft", "grpo")]
    if not own:
        return ""
    changes = "; ".join(f"{step['decoding']} {_change(step)}" for step in own)
    told = f"GRPO after SFT, seed {seed}: {changes}."
    worth = {row["model"]: percent(row["accuracy"]) for row in rows if row["decoding"] == "none"}
    if above and "constant" in worth:
        where = "not clearly apart from" if above["inside_noise"] else "above" if above["low"] > 0 else "below"
        told += (f" One constant answer for each family is worth {worth['constant']} %, a uniform guess "
                 f"{worth['guess']} %: SFT + GRPO is {where} the constant, {change_text(above)} points.")  # fmt: skip
    return told


def sentences(rows: Sequence[Mapping], steps: Sequence[Mapping], measured_on: str, apart: str) -> list[str]:
    """Five sentences on `results_table` and `paired_table`: levels, the two steps, the format's share, the limits.

    `measured_on`: what the problems are; `apart`: why none of this may be held against the paper
    (`reported.why_apart`), or nothing.
    """
    greedy = [row for row in rows if row["decoding"] == "greedy"] or rows
    decoding = greedy[0]["decoding"]
    levels = ", ".join(f"{name_of(row['model'])} {_level(row)}" for row in greedy)
    judge = ""
    if graded := {row["judge_error"] for row in greedy if "judge_error" in row}:
        judge = "; as judged, with the judge's error"
        if graded == {TAKEN_OUT}:
            judge = "; a judge graded, and its error is taken out of these, not of the changes"
    told = [f"On {greedy[0]['n']} held-out problems ({measured_on}), {decoding} accuracy is: {levels}{judge}."]
    own = [step for step in steps if step["decoding"] == decoding]
    for step in own[:2]:
        pair = (step["before"], step["after"])
        others = [s for s in steps if (s["before"], s["after"]) == pair and s["decoding"] != decoding]
        also = "".join(f"; with {other['decoding']} decoding {_change(other)}" for other in others)
        told.append(f"From {name_of(pair[0])} to {name_of(pair[1])} accuracy changes by {_change(step)}{also}.")
    missed = ""
    if own:
        whole = [step for step in own if (step["before"], step["after"]) == ("base", "grpo")] or own[-1:]
        told.append(_format_sentence(whole[0], {row["model"]: row["lenient"] for row in greedy}))
        size = 100 * max(step["detectable"] for step in own)
        missed = f"a true difference below about {size:.0f} points would be missed in one of five such comparisons "
        missed += "or more, "
    paper = f"none of these numbers may be compared with the paper's ({apart})"
    if not apart:
        paper = "these numbers may be compared with the paper's only where the replication ledger does"
    covered = "The intervals cover the choice of problems, not another training seed or another wording of the prompt; "
    return [*told, f"{covered}{missed}and {paper}."]


def name_of(model: str) -> str:
    """A model as a reader knows it."""
    return (RECIPE | CHANCE).get(model, model)


def _level(row: Mapping) -> str:
    if row["accuracy"] is None:
        return "not known (no answer could be graded)"
    graded = row["samples"] - row["undecided"]
    rest = f", of the {graded} of {row['samples']} answers that could be graded" if row["undecided"] else ""
    return f"{percent(row['accuracy'])} % (95 % interval {percent(row['low'])} to {percent(row['high'])}{rest})"


def _change(step: Mapping) -> str:
    """A difference with its interval, the problems that it is of where these are not all, and whether it is noise."""
    on = ""
    if step["n"] < step["asked"]:
        on = f" on the {step['n']} of {step['asked']} problems that could be graded"
    noise = remark(step) and f", which is {remark(step)}{'' if step['inside_noise'] else ' comparisons'}"
    return f"{change_text(step)} points (paired 95 % interval){on}{noise}"


def _format_sentence(step: Mapping, lenient: Mapping[str, float]) -> str:
    """How much of a change is obedience; a share of it only where there is a gain to share. Parts are as judged."""
    whole = step["difference"]
    parts = ", ".join(f"{points(step[part])} from {name}" for part, name in PARTS.items())
    share = ""
    if step["low"] > 0 and not remark(step) and 0 <= step["format_part"] <= whole:
        share = f" (so the format alone is {100 * step['format_part'] / whole:.0f} % of the gain)"
    return (
        f"The whole change from {name_of(step['before'])} to {name_of(step['after'])}, {points(whole)} points, is "
        f"{parts}{share}; with answers read leniently, the format left aside, accuracy goes from "
        f"{percent(lenient[step['before']])} to {percent(lenient[step['after']])} %."
    )
