"""Results, paired differences and protocols as plain text for a terminal, each number with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from finr1.evaluation.judged import TAKEN_OUT
from finr1.evaluation.samples import Sample
from finr1.evaluation.statistics import CONFIDENCE, wilson_interval
from finr1.evaluation.tables import GROUPS, PARTS, by_values, item_scores, results_table

PART_INTERVALS = (
    "95 % intervals of the parts: 06's figure `decomposition`, and with that of lenient its metrics.json, `steps`."
)


def percent(value: float | None, digits: int = 1) -> str:
    """0.125 -> "12.5"; a missing value is a dash."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def estimate(value: float | None, low: float | None, high: float | None, digits: int = 1) -> str:
    """A share in percent with its interval, whose ends have `digits` decimals: "20.2 [16.9, 24.0]"; a dash for None."""
    if value is None:
        return "-"
    return f"{percent(value)} [{percent(low, digits)}, {percent(high, digits)}]"


def share_text(row: Mapping) -> str:
    """Accuracy of a row of `results_table` with its interval and n, for a cell of a wider table."""
    return f"{estimate(row['accuracy'], row['low'], row['high'])} n={row['n']}"


def change_text(row: Mapping) -> str:
    """The difference of a paired row with its interval, in percentage points: "+4.4 [+0.6, +8.1]"."""
    return f"{points(row['difference'])} [{points(row['low'])}, {points(row['high'])}]"


def points(value: float | None) -> str:
    """A difference in percentage points with its sign: 0.125 -> "+12.5"; a missing one is a dash."""
    return "-" if value is None else f"{100 * value:+.1f}"


def render_rows(header: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> str:
    """A text table; the first `left` columns to the left, the rest to the right."""
    widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header))]
    return "\n".join(
        "  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        .rstrip()
        for line in (header, *lines)
    )  # fmt: skip


def render_table(rows: Sequence[dict], steps: Sequence[dict] = ()) -> str:
    """Both tables as plain text for a terminal, in percent and percentage points.

    A column `undecided` is there where some answers are; notes below say what that and a judge do to an accuracy. The
    intervals of all but the accuracy are rounded, so that a row fits a line.
    """
    by = [key for key in rows[0] if key in GROUPS] if rows else []
    undecided = sum(row["undecided"] for row in rows)
    header = ["model", "decoding", *by, "items", "answers", *["undecided"] * bool(undecided), "accuracy [95 %]",
              "cut off", "no answer", "format [95 %]", "right in format [95 %]", "lenient [95 %]",
              "tokens"]  # fmt: skip
    lines = [
        [row["model"], row["decoding"], *(str(row[key]) for key in by), str(row["n"]), str(row["samples"]),
         *[str(row["undecided"])] * bool(undecided),
         estimate(row["accuracy"], row["low"], row["high"]), percent(row["truncated"]), percent(row["missing"]),
         estimate(row["format"], row["format_low"], row["format_high"], 0), _right_in_format(row),
         estimate(row["lenient"], row["lenient_low"], row["lenient_high"], 0),
         "-" if row["mean_tokens"] is None else f"{row['mean_tokens']:.0f}"]
        for row in rows
    ]  # fmt: skip
    text = "\n".join([render_rows(header, lines, 2 + len(by)), *table_notes(rows)])
    return text + ("\n\n" + render_steps(steps) if steps else "")


def _right_in_format(row: Mapping) -> str:
    if not row["in_format"]:
        return "-"
    ends = row["given_format_low"], row["given_format_high"]
    return f"{estimate(row['accuracy_given_format'], *ends, 0)} of {row['in_format']}"


def table_notes(rows: Sequence[dict]) -> list[str]:
    """What keeps the accuracies of `rows` from being plain ones, a sentence each: undecided answers, a judge."""
    notes = []
    if undecided := sum(row["undecided"] for row in rows):
        notes.append(
            f"{undecided} answers could not be graded. The accuracies beside them are of the rest alone, in which "
            "missing answers, which are wrong, weigh more."
        )
    reasons = dict.fromkeys(row["judge_error"] for row in rows if "judge_error" in row)
    if TAKEN_OUT in reasons:
        notes.append("A judge graded; its error is taken out of accuracies and intervals (Rogan and Gladen).")
    notes += [f"A judge graded; its error is {reason}." for reason in reasons if reason != TAKEN_OUT]
    return notes


def render_steps(steps: Sequence[dict]) -> str:
    """The paired differences as plain text, in percentage points.

    The last column says where an interval contains zero, and where Holm's correction leaves nothing of a difference.
    Seven intervals a row fit no line: those of the parts are in the rows and in `plotting.decomposition`.
    """
    header = ["step", "decoding", "items", "accuracy [95 %]", "by format", "in format", "outside", "lenient", "p",
              "Holm", ""]  # fmt: skip
    lines = [
        [f"{row['before']} -> {row['after']}", row["decoding"], decided(row),
         change_text(row),
         *(points(row[part]) for part in PARTS), points(row["lenient_difference"]),
         f"{row['p']:.3g}", f"{row['p_holm']:.3g}", remark(row)]
        for row in steps
    ]  # fmt: skip
    return f"{render_rows(header, lines, 2)}\n{PART_INTERVALS}"


def remark(row: Mapping) -> str:
    """Why a row of `paired_table` shows no difference, in words; empty where it does.

    Its interval contains zero, or p, corrected by Holm for the table's comparisons, is not below 0.05.
    """
    if row["inside_noise"]:
        return "inside the noise"
    p = row.get("p_holm")
    return "noise among so many" if p is not None and p >= 0.05 else ""


def decided(row: Mapping) -> str:
    """The items of a row of `paired_table` as text: "40 of 60" where 20 are undecided for one model or the other."""
    asked = row.get("asked") or row["n"]
    return str(row["n"]) if row["n"] == asked else f"{row['n']} of {asked}"


def protocol_table(graded: dict[str, list[Sample]]) -> str:
    """Accuracy in percent with its 95 % interval: a row a model and decoding, a column a protocol.

    The last column is the distance of the highest from the lowest: what the protocol alone is worth, in points, with
    Student's interval over the items that both decide (quick for 100,000 answers; it does not know that the two were
    picked for their distance).
    """
    tables = {protocol: results_table(samples) for protocol, samples in graded.items()}
    by_item = {
        protocol: {key: item_scores(members) for key, members in by_values(samples, "model", "decoding").items()}
        for protocol, samples in graded.items()
    }
    lines = []
    for rows in zip(*tables.values(), strict=True):
        cells = [estimate(r["accuracy"], r["low"], r["high"]) for r in rows]
        most = max(row["n"] for row in rows)
        cells = [cell + (f" n={r['n']}" if r["n"] < most else "") for cell, r in zip(cells, rows, strict=True)]
        key = rows[0]["model"], rows[0]["decoding"]
        spread = _spread([scores[key] for scores in by_item.values() if scores[key]])
        lines.append([*key, str(most), *cells, spread])
    return render_rows(
        ["model", "decoding", "items", *(f"{name} [95 %]" for name in tables), "spread [95 %]"], lines, 2
    )


def _spread(scores: Sequence[dict[str, float]]) -> str:
    """Highest minus lowest of the means of `scores` (item -> score, a dict a protocol) over the items of both."""
    from statsmodels.stats.weightstats import DescrStatsW

    ranked = sorted(scores, key=lambda by_item: np.mean(list(by_item.values())))
    change = [ranked[-1][item] - low for item, low in ranked[0].items() if item in ranked[-1]] if ranked else []
    if len(ranked) < 2 or len(change) < 2:
        return "-"
    if not any(change):  # Student's would be empty; no more items can differ than Wilson's upper end allows
        return estimate(0.0, *wilson_interval(0, len(change)))
    return estimate(float(np.mean(change)), *DescrStatsW(change).tconfint_mean(1 - CONFIDENCE))
