"""What a run found: five sentences that are written from its numbers, and the rows of the tables on its page.

A difference whose interval contains zero is called noise, and so is one that Holm's correction for all comparisons
takes away; what a gain owes to the format is said beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from finr1.evaluation import change_text, decided, estimate, percent, points, remark
from finr1.judge import TAKEN_OUT
from finr1.plotting import MODEL_COLOURS, MODEL_NAMES

PARTS = {
    "format_part": "more answers in the format",
    "given_format_part": "better answers within it",
    "without_format_part": "better answers outside it",
}


def sentences(rows: Sequence[Mapping], steps: Sequence[Mapping], measured_on: str, apart: str) -> list[str]:
    """Five sentences on `results_table` and `paired_table`: levels, the two steps, the format's share, the limits.

    `measured_on`: what the problems are; `apart`: why none of this may be held against the paper
    (`reported.why_apart`), or nothing.
    """
    greedy = [row for row in rows if row["decoding"] == "greedy"] or list(rows)
    if not greedy:
        return ["The benchmark has not run, so nothing is measured yet."]
    decoding = greedy[0]["decoding"]
    levels = ", ".join(f"{name_of(row['model'])} {_level(row)}" for row in greedy)
    graded, judge = {row["judge_error"] for row in greedy if "judge_error" in row}, ""
    if graded:
        judge = "; as judged, with the judge's error"
        if graded == {TAKEN_OUT}:
            judge = "; a judge graded, and its error is taken out of these, not of the changes"
    told = [f"On {greedy[0]['n']} held-out problems ({measured_on}), {decoding} accuracy is: {levels}{judge}."]
    own = [step for step in steps if step["decoding"] == decoding]
    for step in own[:2]:
        pair = (step["before"], step["after"])
        others = [s for s in steps if (s["before"], s["after"]) == pair and s["decoding"] != decoding]
        also = "".join(f"; with {other['decoding']} decoding {_change(other)}" for other in others)
        on = f" on the {decided(step)} problems that could be graded" if step["n"] < step.get("asked", 0) else ""
        told.append(f"From {name_of(pair[0])} to {name_of(pair[1])} accuracy changes by {_change(step, on)}{also}.")
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
    return MODEL_NAMES.get(model, model)


def _level(row: Mapping) -> str:
    if row["accuracy"] is None:
        return "not known (no answer could be graded)"
    graded = row["samples"] - row["undecided"]
    rest = f", of the {graded} of {row['samples']} answers that could be graded" if row["undecided"] else ""
    return f"{percent(row['accuracy'])} % (95 % interval {percent(row['low'])} to {percent(row['high'])}{rest})"


def _change(step: Mapping, on: str = "") -> str:
    """A difference with its interval, and whether it is noise."""
    ends = f"{points(step['low'])} to {points(step['high'])}"
    noise = remark(step) and f", which is {remark(step)}{'' if step['inside_noise'] else ' comparisons'}"
    return f"{points(step['difference'])} points (paired 95 % interval {ends}){on}{noise}"


def _format_sentence(step: Mapping, lenient: Mapping[str, float]) -> str:
    """How much of a change is obedience; a share of it only where there is a gain to share. Parts are as judged."""
    whole = step["difference"]
    first, second, third = (f"from {name}" for name in PARTS.values())
    gains = [points(step[part]) for part in PARTS]
    share = ""
    if step["low"] > 0 and not remark(step) and 0 <= step["format_part"] <= whole:
        share = f" (so the format alone is {100 * step['format_part'] / whole:.0f} % of the gain)"
    return (
        f"Of the whole change from {name_of(step['before'])} to {name_of(step['after'])} ({points(whole)}), "
        f"{gains[0]} points come {first}, {gains[1]} {second} and {gains[2]} {third}{share}; with answers read "
        f"leniently, the format left aside, accuracy goes from {percent(lenient[step['before']])} to "
        f"{percent(lenient[step['after']])} %."
    )


# ---- rows of the tables on the page ---------------------------------------------------------------------------------


def headline(rows: Sequence[Mapping]) -> list[dict]:
    """A tile for each model, see `report.tiles`: its greedy accuracy (else whatever there is) with interval and n."""
    tiles = []
    for row in [row for row in rows if row["decoding"] == "greedy"] or rows:
        notes = [f"95 % interval {percent(row['low'])} to {percent(row['high'])}", f"{row['decoding']}, n = {row['n']}"]
        notes += [f"{row['undecided']} of {row['samples']} answers undecided"] if row["undecided"] else []
        tile = {"name": name_of(row["model"]), "value": f"{percent(row['accuracy'])} %", "notes": notes}
        tiles.append(tile | {"colour": MODEL_COLOURS.get(row["model"], "#56606f")})
    return tiles


def result_rows(rows: Sequence[Mapping], by: str | None = None) -> list[dict]:
    """`evaluation.results_table`, split by `by` or not: shares in percent with their 95 % intervals."""
    table = []
    for row in rows:
        cells = {by: row[by].replace("_", " ")} if by else {}
        cells |= {"model": name_of(row["model"]), "decoding": row["decoding"], "items": row["n"]}
        cells |= {"answers": row["samples"], "undecided": row["undecided"]}
        cells["accuracy"] = estimate(row["accuracy"], row["low"], row["high"])
        cells["in the format"] = estimate(row["format"], row["format_low"], row["format_high"])
        cells["accuracy in the format"] = f"{percent(row['accuracy_given_format'])} of {row['in_format']}"
        cells["lenient accuracy"] = estimate(row["lenient"], row["lenient_low"], row["lenient_high"])
        cells |= {"no answer": percent(row["missing"]), "cut off": percent(row["truncated"])}
        cells["mean tokens"] = None if row["mean_tokens"] is None else round(row["mean_tokens"])
        table.append(cells)
    return table


def step_rows(steps: Sequence[Mapping]) -> tuple[list[dict], list[dict]]:
    """`evaluation.paired_table` in percentage points with paired 95 % intervals: the differences, and their parts."""
    differences, parts = [], []
    for step in steps:
        pair = {"step": f"{name_of(step['before'])} → {name_of(step['after'])}", "decoding": step["decoding"]}
        turned = None if step["gained"] is None else f"{step['gained']} / {step['lost']}"
        lenient = {"difference": step["lenient_difference"], "low": step["lenient_low"], "high": step["lenient_high"]}
        differences.append(
            pair
            | {"items": decided(step), "difference in accuracy": change_text(step), "": remark(step)}
            | {"p": f"{step['p']:.2g}", "p (Holm)": f"{step['p_holm']:.2g}", "turned right / wrong": turned}
            | {"difference in lenient accuracy": change_text(lenient)}
        )
        parts.append(pair | {"difference in accuracy": points(step["difference"])})
        for part, name in PARTS.items():
            own = {"difference": step[part], "low": step[f"{part}_low"], "high": step[f"{part}_high"]}
            parts[-1][name] = change_text(own)
    return differences, parts


def ledger_rows(entries: Sequence[Mapping]) -> list[dict]:
    """Entries of `ledger.hold`: each claim with its status and place, each finding with its reason."""
    small, pill = Markup('{}<span class="small">{}</span>'), Markup('<span class="finding {}">{}</span>')
    table = []
    for entry in entries:
        source = "; ".join(filter(None, (f"{entry['status']}, {entry['place']}", entry["note"])))
        finding = pill.format(entry["finding"].replace(" ", "-"), entry["finding"])
        table.append({"claim": small.format(entry["says"], source), "number or setting": entry["shown"],
                      "this run": entry["did"], "got": entry["got"],
                      "finding": small.format(finding, entry["why"])})  # fmt: skip
    return table
