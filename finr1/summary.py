"""What a run found: five sentences that are written from its numbers, and the rows of the tables on its page.

A difference whose interval contains zero is called noise, and so is one that Holm's correction for all comparisons
takes away; what a gain owes to the format is said beside it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from finr1 import ledger
from finr1.evaluation import change_text, decided, estimate, percent, points, remark
from finr1.judge import TAKEN_OUT
from finr1.plotting import MODEL_COLOURS, MODEL_NAMES

PARTS = {
    "format_part": "more answers in the format",
    "given_format_part": "better answers within it",
    "without_format_part": "better answers outside it",
}


def text(rows: Sequence[Mapping], steps: Sequence[Mapping], measured_on: str, apart: str) -> str:
    """`sentences` as plain text for a terminal, 100 columns wide."""
    return "\n".join(textwrap.fill(sentence, 100) for sentence in sentences(rows, steps, measured_on, apart))


def sentences(rows: Sequence[Mapping], steps: Sequence[Mapping], measured_on: str, apart: str) -> list[str]:
    """Five sentences on `results_table` and `paired_table`: levels, the two steps, the format's share, the limits.

    `measured_on`: what the problems are; `apart`: why none of this may be held against the paper
    (`reported.why_apart`), or nothing.
    """
    greedy = [row for row in rows if row["decoding"] == "greedy"] or list(rows)
    if not greedy:
        return ["The benchmark has not run, so nothing is measured yet."]
    decoding = greedy[0]["decoding"]
    levels = ", ".join(f"{_name(row['model'])} {_level(row)}" for row in greedy)
    graded = {row["judge_error"] for row in greedy if "judge_error" in row}
    judge = "; a judge graded, and its error is taken out of these, not of the changes" if graded == {TAKEN_OUT} else ""
    if graded and not judge:
        judge = "; as judged, with the judge's error"
    on = f"On {greedy[0]['n']} held-out problems ({measured_on}), {decoding} accuracy is"
    own = [step for step in steps if step["decoding"] == decoding]
    told = [f"{on}: {levels}{judge}.", *(_step_sentence(step, steps) for step in own[:2])]
    if own:
        whole = [step for step in own if (step["before"], step["after"]) == ("base", "grpo")] or own[-1:]
        told.append(_format_sentence(whole[0], {row["model"]: row for row in greedy}))
    return [*told, _limits_sentence(own, apart)]


def _name(model: str) -> str:
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


def _step_sentence(step: Mapping, steps: Sequence[Mapping]) -> str:
    """What one step of the recipe changed, in its own decoding and in the other one."""
    pair = (step["before"], step["after"])
    others = [s for s in steps if (s["before"], s["after"]) == pair and s["decoding"] != step["decoding"]]
    also = "".join(f"; with {other['decoding']} decoding {_change(other)}" for other in others)
    on = f" on the {decided(step)} problems that could be graded" if step["n"] < step.get("asked", 0) else ""
    return f"From {_name(pair[0])} to {_name(pair[1])} accuracy changes by {_change(step, on)}{also}."


def _format_sentence(step: Mapping, by_model: Mapping[str, Mapping]) -> str:
    """How much of a change is obedience; a share of it only where there is a gain to share. Parts are as judged."""
    whole = step.get("as_judged", step["difference"])
    first, second, third = (f"{points(step[part])} {'points come ' * (i == 0)}from {name}"
                            for i, (part, name) in enumerate(PARTS.items()))  # fmt: skip
    share = ""
    if step["low"] > 0 and not remark(step) and 0 <= step["format_part"] <= whole:
        share = f" (so the format alone is {100 * step['format_part'] / whole:.0f} % of the gain)"
    before, after = (by_model[step[key]]["lenient"] for key in ("before", "after"))
    size = f"{points(whole)}{', as judged' * ('as_judged' in step)}"
    return (
        f"Of the whole change from {_name(step['before'])} to {_name(step['after'])} ({size}), {first}, {second} and "
        f"{third}{share}; with answers read leniently, the format left aside, accuracy goes from {percent(before)} to "
        f"{percent(after)} %."
    )


def _limits_sentence(steps: Sequence[Mapping], apart: str) -> str:
    """What the intervals do not cover, and how small a difference could have gone unseen."""
    smallest = ""
    if steps:
        size = 100 * max(step["detectable"] for step in steps)
        smallest = f"a true difference below about {size:.0f} points would be missed in one of five such comparisons "
        smallest += "or more, "
    paper = f"none of these numbers may be compared with the paper's ({apart})"
    if not apart:
        paper = "these numbers may be compared with the paper's only where the replication ledger does"
    return (
        "The intervals cover the choice of problems, not another training seed or another wording of the prompt; "
        f"{smallest}and {paper}."
    )


# ---- rows of the tables on the page ---------------------------------------------------------------------------------


def dotted(model: str) -> Markup:
    """A model's name behind a dot of its colour."""
    dot = Markup('<span class="swatch" style="--tile: {}"></span>{}')
    return dot.format(MODEL_COLOURS.get(model, "#56606f"), _name(model))


def headline(rows: Sequence[Mapping]) -> list[dict]:
    """A tile for each model, see `report.tiles`: its greedy accuracy (else whatever there is) with interval and n."""
    tiles = []
    for row in [row for row in rows if row["decoding"] == "greedy"] or rows:
        notes = [f"95 % interval {percent(row['low'])} to {percent(row['high'])}", f"{row['decoding']}, n = {row['n']}"]
        notes += [f"{row['undecided']} of {row['samples']} answers undecided"] if row["undecided"] else []
        tile = {"name": _name(row["model"]), "value": f"{percent(row['accuracy'])} %", "notes": notes}
        tiles.append(tile | {"colour": MODEL_COLOURS.get(row["model"], "#56606f")})
    return tiles


def result_rows(rows: Sequence[Mapping], by: str | None = None) -> list[dict]:
    """`evaluation.results_table`: shares in percent with their 95 % intervals, which a bar draws from 0 to 100."""
    ends = '<i style="left: {}%; width: {}%"></i><b style="left: {}%"></b>'
    bar = Markup(f'<span class="bar" style="--tile: {{}}">{ends}</span>')
    undecided, table = any(row["undecided"] for row in rows), []
    for row in rows:
        cells = {by: row[by].replace("_", " ")} if by else {}
        cells |= {"model": dotted(row["model"]), "decoding": row["decoding"], "items": row["n"]}
        cells |= {"answers": row["samples"]} | ({"undecided": row["undecided"]} if undecided else {})
        cells |= {"accuracy": estimate(row["accuracy"], row["low"], row["high"]), "0 to 100": ""}
        if row["accuracy"] is not None:
            places = percent(row["low"]), percent(row["high"] - row["low"]), percent(row["accuracy"])
            cells["0 to 100"] = bar.format(MODEL_COLOURS.get(row["model"], "#56606f"), *places)
        cells["in the format"] = estimate(row["format"], row["format_low"], row["format_high"])
        cells["accuracy in the format"] = f"{percent(row['accuracy_given_format'])} of {row['in_format']}"
        cells["lenient accuracy"] = estimate(row["lenient"], row["lenient_low"], row["lenient_high"])
        cells |= {"no answer": percent(row["missing"]), "cut off": percent(row["truncated"])}
        cells["mean tokens"] = None if row["mean_tokens"] is None else round(row["mean_tokens"])
        table.append(cells)
    return table


def _pair(step: Mapping) -> dict:
    return {"step": f"{_name(step['before'])} → {_name(step['after'])}", "decoding": step["decoding"]}


def _points(step: Mapping, name: str, stem: str) -> str:
    return f"{points(step[name])} [{points(step[f'{stem}_low'])}, {points(step[f'{stem}_high'])}]"


def step_rows(steps: Sequence[Mapping]) -> list[dict]:
    """`evaluation.paired_table`: differences in percentage points with their paired 95 % intervals."""
    return [
        _pair(step)
        | {"items": decided(step), "difference in accuracy": change_text(step), "": remark(step)}
        | {"p": f"{step['p']:.2g}", "p (Holm)": f"{step['p_holm']:.2g}"}
        | {"turned right / wrong": None if step["gained"] is None else f"{step['gained']} / {step['lost']}"}
        | {"difference in lenient accuracy": _points(step, "lenient_difference", "lenient")}
        for step in steps
    ]


def part_rows(steps: Sequence[Mapping]) -> list[dict]:
    """Where each difference comes from: three parts that sum to it, in percentage points."""
    return [
        _pair(step)
        | {"difference in accuracy": points(step.get("as_judged", step["difference"]))}
        | {name: _points(step, part, part) for part, name in PARTS.items()}
        for step in steps
    ]


def protocol_rows(protocols: Sequence[Mapping]) -> list[dict]:
    """The same answers under each protocol that 06 tried, one column each."""
    rows: dict[tuple, dict] = {}
    for row in protocols:
        first = {"model": dotted(row["model"]), "decoding": row["decoding"], "items": row["n"]}
        cells = rows.setdefault((row["model"], row["decoding"]), first)
        cells[row["protocol"]] = estimate(row["accuracy"], row["low"], row["high"])
    return list(rows.values())


def ledger_rows(entries: Sequence[ledger.Entry]) -> list[dict]:
    """Each claim with its status and place, each finding with its reason."""
    small, pill, rows = Markup('{}<span class="small">{}</span>'), Markup('<span class="finding {}">{}</span>'), []
    for entry in entries:
        claim, css = entry.claim, entry.finding.replace(" ", "-")
        source = "; ".join(filter(None, (f"{claim.status}, {claim.place}", claim.note)))
        cells = {"claim": small.format(claim.says, source), "number or setting": claim.shown, "this run": entry.did}
        finding = small.format(pill.format(css, entry.finding), entry.why)
        rows.append(cells | {"got": entry.got, "finding": finding})
    return rows
