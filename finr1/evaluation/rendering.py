"""The tables as plain text for a terminal, each number with its interval; shares in percent, differences in points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finr1.evaluation.samples import Sample
from finr1.evaluation.tables import GROUPS, PARTS, results_table
from finr1.judge import TAKEN_OUT


def percent(value: float | None, digits: int = 1) -> str:
    """0.125 -> "12.5"; a missing value is a dash."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def points(value: float | None) -> str:
    """A difference in percentage points with its sign: 0.125 -> "+12.5"; a missing one is a dash."""
    return "-" if value is None else f"{100 * value:+.1f}"


def estimate(value: float | None, low: float | None, high: float | None, digits: int = 1) -> str:
    """A share in percent with its interval, whose ends have `digits` decimals: "20.2 [16.9, 24.0]"; a dash for None."""
    return "-" if value is None else f"{percent(value)} [{percent(low, digits)}, {percent(high, digits)}]"


def share_text(row: Mapping) -> str:
    """Accuracy of a row of `results_table` with its interval and n, for a cell of a wider table."""
    return f"{estimate(row['accuracy'], row['low'], row['high'])} n={row['n']}"


def change_text(row: Mapping) -> str:
    """The difference of a paired row with its interval, in percentage points: "+4.4 [+0.6, +8.1]"."""
    return f"{points(row['difference'])} [{points(row['low'])}, {points(row['high'])}]"


def decided(row: Mapping) -> str:
    """The items of a row of `paired_table` as text: "40 of 60" where 20 are undecided for one model or the other."""
    asked = row.get("asked") or row["n"]
    return str(row["n"]) if row["n"] == asked else f"{row['n']} of {asked}"


def remark(row: Mapping) -> str:
    """Why a row shows no difference: zero is in its interval, or p corrected by Holm is 0.05 or more; else empty."""
    if row["inside_noise"]:
        return "inside the noise"
    return "noise among so many" if (row.get("p_holm") or 0) >= 0.05 else ""


def render_rows(cells: Sequence[Mapping[str, object]], left: int) -> str:
    """A text table of lines that name their columns; the first `left` are aligned to the left, the others to the right.

    `DataFrame.to_string` was tried: it aligns all columns one way, or puts the left ones' names on a line of their own.
    """
    lines = [[*cells[0]], *([str(cell) for cell in line.values()] for line in cells)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(widths[i]) if i < left else cell.rjust(widths[i]) for i, cell in enumerate(line)).rstrip()
        for line in lines
    )


def render_table(rows: Sequence[dict], steps: Sequence[dict] = ()) -> str:
    """`results_table`, and `paired_table` below it, as plain text; all intervals but the accuracy's are rounded."""
    by = [key for key in GROUPS if key in rows[0]]
    cells = []
    for row in rows:
        line = {key: row[key] for key in ("model", "decoding", *by)} | {"items": row["n"], "answers": row["samples"]}
        if any(row["undecided"] for row in rows):
            line["undecided"] = row["undecided"]
        given = estimate(row["accuracy_given_format"], row["given_format_low"], row["given_format_high"], 0)
        cells.append(line | {
            "accuracy [95 %]": estimate(row["accuracy"], row["low"], row["high"]),
            "cut off": percent(row["truncated"]),
            "no answer": percent(row["missing"]),
            "format [95 %]": estimate(row["format"], row["format_low"], row["format_high"], 0),
            "right in format [95 %]": f"{given} of {row['in_format']}" if row["in_format"] else "-",
            "lenient [95 %]": estimate(row["lenient"], row["lenient_low"], row["lenient_high"], 0),
            "tokens": "-" if row["mean_tokens"] is None else f"{row['mean_tokens']:.0f}",
        })  # fmt: skip
    text = "\n".join([render_rows(cells, 2 + len(by)), *table_notes(rows)])
    return f"{text}\n\n{render_steps(steps)}" if steps else text


def table_notes(rows: Sequence[dict]) -> list[str]:
    """What keeps the accuracies of `rows` from being plain ones, a sentence each: undecided answers, a judge."""
    notes = []
    if undecided := sum(row["undecided"] for row in rows):
        rest = (
            "The accuracies beside them are of the rest alone, in which missing answers, which are wrong, weigh more."
        )
        notes.append(f"{undecided} answers could not be graded. {rest}")
    reasons = dict.fromkeys(row["judge_error"] for row in rows if "judge_error" in row)
    if TAKEN_OUT in reasons:
        notes.append("A judge graded; its error is taken out of accuracies and their intervals, not of differences.")
    return notes + [f"A judge graded; its error is {reason}." for reason in reasons if reason != TAKEN_OUT]


def render_steps(steps: Sequence[dict]) -> str:
    """`paired_table` as plain text, in percentage points; the intervals of the parts are in the rows alone."""
    names = dict(zip(PARTS, ("by format", "in format", "outside"), strict=True))
    cells = [
        {
            "step": f"{row['before']} -> {row['after']}",
            "decoding": row["decoding"],
            "items": decided(row),
            "accuracy [95 %]": change_text(row),
            **{name: points(row[part]) for part, name in names.items()},
            "lenient": points(row["lenient_difference"]),
            "p": f"{row['p']:.3g}",
            "Holm": f"{row['p_holm']:.3g}",
            "": remark(row),
        }
        for row in steps
    ]
    where = "The intervals of the parts are in the figure `decomposition` of notebook 06 and in its metrics.json."
    return f"{render_rows(cells, 2)}\n{where}"


def protocol_table(graded: Mapping[str, Sequence[Sample]]) -> str:
    """Accuracy in percent with its 95 % interval: one row per model and decoding, one column per protocol.

    The last column is the distance of the highest from the lowest, in points: the worth of the protocol by itself.
    """
    tables, cells = {name: results_table(samples) for name, samples in graded.items()}, []
    for rows in zip(*tables.values(), strict=True):
        most = max(row["n"] for row in rows)
        line = {"model": rows[0]["model"], "decoding": rows[0]["decoding"], "items": most}
        for name, row in zip(tables, rows, strict=True):
            text = estimate(row["accuracy"], row["low"], row["high"])
            line[f"{name} [95 %]"] = text if row["n"] == most else f"{text} n={row['n']}"
        scores = [row["accuracy"] for row in rows if row["n"]]
        cells.append(line | {"spread": percent(max(scores) - min(scores)) if scores else "-"})
    return render_rows(cells, 2)
