"""Tables and sentences for a reader, each number with its interval: shares in percent, differences in points."""

from collections.abc import Mapping, Sequence

import pandas as pd

from finr1.evaluation.samples import Sample
from finr1.evaluation.tables import PARTS, paired_row
from finr1.judge import TAKEN_OUT
from finr1.records import CHANCE, GROUPS, RECIPE

# Columns of `result_cells` and `step_cells` that a notebook shows at first.
SHOWN = ("model", "step", "decoding", *GROUPS, "accuracy [95 %]", "format [95 %]", "lenient [95 %]", "Holm", "")


def percent(value: float | None, digits: int = 1) -> str:
    """0.125 -> "12.5"; a missing value is a dash."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def points(value: float | None) -> str:
    """A difference in percentage points with its sign: 0.125 -> "+12.5"; a missing one is a dash."""
    return "-" if value is None else f"{100 * value:+.1f}"


def estimate(value: float | None, low: float | None, high: float | None, digits: int = 1) -> str:
    """A share in percent with its interval, whose ends have `digits` decimals: "20.2 [16.9, 24.0]"; a dash for None."""
    return percent(value) if low is None else f"{percent(value)} [{percent(low, digits)}, {percent(high, digits)}]"


def change_text(row: Mapping) -> str:
    """The difference of a paired row with its interval, in percentage points: "+4.4 [+0.6, +8.1]"."""
    return f"{points(row['difference'])} [{points(row['low'])}, {points(row['high'])}]"


def remark(row: Mapping) -> str:
    """The reason why a row shows no difference (zero is in its interval, or Holm's p is 0.05 or more); else empty."""
    return "inside the noise" if row["inside_noise"] else "noise among so many" if row["p_holm"] >= 0.05 else ""


def result_cells(rows: Sequence[Mapping]) -> list[dict]:
    """`results_table` as texts by the names of their columns; all intervals but the accuracy's are rounded."""
    cells, undecided = [], any(row["undecided"] for row in rows)
    for row in rows:
        line = {key: row[key] for key in ("model", "decoding", *GROUPS) if key in row}
        line |= {"items": row["n"], "answers": row["samples"]} | ({"undecided": row["undecided"]} if undecided else {})
        line["accuracy [95 %]"] = estimate(row["accuracy"], row["low"], row["high"])
        if row["decoding"] != "none":
            given = estimate(row["accuracy_given_format"], row["given_format_low"], row["given_format_high"], 0)
            line |= {
                "cut off": percent(row["truncated"]),
                "no answer": percent(row["missing"]),
                "format [95 %]": estimate(row["format"], row["format_low"], row["format_high"], 0),
                "right in format [95 %]": f"{given} of {row['in_format']}" if row["in_format"] else "-",
                "lenient [95 %]": estimate(row["lenient"], row["lenient_low"], row["lenient_high"], 0),
                "tokens": "-" if row["mean_tokens"] is None else f"{row['mean_tokens']:.0f}",
                "false step": f"{percent(row['false_step'])} of {row['right']}" if row["right"] else "-",
            }
        cells.append(line)
    return cells


def step_cells(steps: Sequence[Mapping]) -> list[dict]:
    """`paired_table` in the same way, in percentage points; the intervals of the parts are in its rows alone."""
    names = dict(zip(PARTS, ("by format", "in format", "outside"), strict=True))
    return [
        {"step": f"{row['before']} -> {row['after']}", "decoding": row["decoding"],
         "items": row["n"] if row["n"] == row["asked"] else f"{row['n']} of {row['asked']}",
         "accuracy [95 %]": change_text(row), **{name: points(row[part]) for part, name in names.items()},
         "lenient": points(row["lenient_difference"]), "p": f"{row['p']:.3g}", "Holm": f"{row['p_holm']:.3g}",
         "": remark(row)}
        for row in steps
    ]  # fmt: skip


def render_table(rows: Sequence[Mapping], steps: Sequence[Mapping] = ()) -> str:
    """Plain text for a terminal: the rows of `results_table`, notes on them, and the rows of `paired_table`."""
    left = ["model", "decoding", *(key for key in GROUPS if key in rows[0])]
    lines = [pd.DataFrame(result_cells(rows)).set_index(left).fillna("").to_string(sparsify=False), *table_notes(rows)]
    if steps:
        lines += ["", pd.DataFrame(step_cells(steps)).set_index(["step", "decoding"]).to_string(sparsify=False)]
        lines.append("The intervals of the parts are in the figure `decomposition` of notebook 06 and in metrics.json.")
    return "\n".join(lines)


def table_notes(rows: Sequence[Mapping]) -> list[str]:
    """A sentence for each reason to read the accuracies of `rows` with care: undecided answers, a judge."""
    notes = []
    if undecided := sum(row["undecided"] for row in rows):
        notes.append(f"{undecided} answers could not be graded. The accuracies leave them out. Missing answers, which "
                     "are wrong, weigh more in the rest.")  # fmt: skip
    for reason in dict.fromkeys(row["judge_error"] for row in rows if "judge_error" in row):
        what = f"{reason} of accuracies and their intervals, not of differences" if reason == TAKEN_OUT else reason
        notes.append(f"A judge graded; its error is {what}.")
    return notes


def shares_by(rows: Sequence[Mapping], column: str, lines: Sequence[str] = ("model", "decoding")) -> pd.DataFrame:
    """Accuracies of `results_table` with interval and n: a column for each value of `column`, a row for each line."""
    cells = [row | {"text": f"{estimate(row['accuracy'], row['low'], row['high'])} n={row['n']}"} for row in rows]
    return pd.DataFrame(cells).set_index([*lines, column])["text"].unstack(column, sort=False)


def above_the_constant(samples: Sequence[Sample], chance: Sequence[Sample], seed: int) -> dict | None:
    """`paired_row` from the best constant to GRPO's greedy answers, over the items that have a constant."""
    grpo = {s.problem_id: s for s in samples if (s.model, s.decoding) == ("grpo", "greedy")}
    constant = [s for s in chance if s.model == "constant" and s.problem_id in grpo]
    return paired_row(constant, [grpo[s.problem_id] for s in constant], seed) if constant else None


def headline_sentence(rows: Sequence[Mapping], steps: Sequence[Mapping], above: Mapping | None, seed: int) -> str:
    """The step from SFT to GRPO in each decoding, and GRPO beside the best constant; empty without such a step."""
    own = [step for step in steps if (step["before"], step["after"]) == ("sft", "grpo")]
    if not own:
        return ""
    changes = "; ".join(f"{step['decoding']} {change_said(step)}" for step in own)
    told = f"GRPO after SFT, seed {seed}: {changes}."
    worth = {row["model"]: percent(row["accuracy"]) for row in rows if row["decoding"] == "none"}
    if above and "constant" in worth:
        where = "not clearly apart from" if above["inside_noise"] else "above" if above["low"] > 0 else "below"
        told += (f" One constant answer for each family is worth {worth['constant']} %, a uniform guess "
                 f"{worth['guess']} %: SFT + GRPO is {where} the constant, {change_text(above)} points.")  # fmt: skip
    return told


def name_of(model: str) -> str:
    """A model as a reader knows it."""
    return (RECIPE | CHANCE).get(model, model)


def change_said(step: Mapping) -> str:
    """A difference with its interval, and whether it is noise; also the number of problems where some drop out."""
    left = step["n"] < step["asked"]
    on = f" on the {step['n']} of {step['asked']} problems that could be graded" if left else ""
    noise = remark(step) and f", which is {remark(step)}{'' if step['inside_noise'] else ' comparisons'}"
    return f"{change_text(step)} points (paired 95 % interval){on}{noise}"


def score_guesses(guesses: Mapping[str, float], *measured: Sequence[float | None]) -> str:
    """A line for each guess, against (value, low, high) of each; those are shares where its unit is (%) or (points)."""
    lines = []
    for (name, guess), found in zip(guesses.items(), measured, strict=True):
        told, size = "not measured", 100 if name.endswith(("(%)", "(points)")) else 1
        if None not in found:
            value, low, high = (size * end for end in found)
            where = "too low" if guess < low else "too high" if guess > high else "inside the interval"
            told = f"measured {value:.1f} [{low:.1f}, {high:.1f}]: {where}"
        lines.append(f"{name}: guessed {guess:g}, {told}")
    return "\n".join(lines)
