"""A comparison as text for a terminal and as one HTML file that needs nothing else."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finr1 import report
from finr1.compare.metrics import ALL, graded_otherwise, stage_numbers
from finr1.compare.runs import GRADED_BY, KINDS, ComparedRun, graders, same_outputs, setting_rows
from finr1.evaluation.rendering import render_rows

TEMPLATE = "compare.html.j2"
LONGEST = 44  # characters of a parameter's value in the terminal
PLURALS = {"parameter": "parameters", "seed": "seeds", "input": "inputs", "code": "code", "version": "package versions",
           "hardware": "hardware"}  # fmt: skip


def text_page(a: ComparedRun, b: ComparedRun, rows: Sequence[dict[str, Any]]) -> str:
    """All of the comparison as plain text; `rows` are those of `compare_metrics`."""
    settings, numbers = setting_rows(a, b), stage_numbers(a, b)
    parts = [
        "\n".join(f"{side}: {run.label} ({made(run)})" for side, run in (("A", a), ("B", b))),
        "What went in differently\n" + (_settings_text(settings) or "  nothing"),
        "The same in both: " + "; ".join(agreements(a, b, settings)),
        "What came out: the benchmark, B minus A\n" + _metrics_text(rows),
        "\n".join(f"- {note}" for note in notes(a, b, rows)),
    ]
    if numbers:
        header = ("stage", "", "A", "B")
        lines = [(row["stage"], row["name"], number(row["a"]), number(row["b"])) for row in numbers]
        parts.append(
            "Other numbers (one a run, so nothing says how sure a difference is)\n" + _columns(header, lines, 2)
        )
    return "\n\n".join(parts)


def html_page(a: ComparedRun, b: ComparedRun, rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """Write the same as HTML to `path` and return it: no script, nothing is fetched, all texts escaped."""
    environment = report.environment()
    environment.filters |= {"number": number, "p_value": p_value}
    settings = setting_rows(a, b)
    html = environment.get_template(f"compare/{TEMPLATE}").render(
        a=a, b=b, made=made, rows=rows, level=level, change=change, bar=_bar, reach=_reach(rows), settings=settings,
        by_source=any(row["source"] != ALL for row in rows), agreements=agreements(a, b, settings),
        notes=notes(a, b, rows), numbers=stage_numbers(a, b),
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf8")
    return path


def made(run: ComparedRun) -> str:
    """Seed, commit and date of a run's benchmark."""
    code = run.benchmark["code"]
    commit = f"commit {code['commit'][:10]}" if code["commit"] else "no commit known"
    dirty = " with uncommitted changes" if code["dirty"] else ""
    return f"benchmark: seed {run.benchmark['seed']}, {commit}{dirty}, finished {run.benchmark['finished']}"


def agreements(a: ComparedRun, b: ComparedRun, settings: Sequence[dict]) -> list[str]:
    """What is the same in both, in words."""
    differing = {row["kind"] for row in settings}
    kinds = [PLURALS[kind] for kind in KINDS if kind not in differing]
    stages = same_outputs(a, b)
    return [*kinds, f"outputs, byte for byte, of {', '.join(stages) or 'no stage'}"]


def notes(a: ComparedRun, b: ComparedRun, rows: Sequence[dict]) -> list[str]:
    """How the numbers were compared, and what they do not say."""
    found = []
    if paired := [row for row in rows if row["paired"]]:
        n = max(row["shared"] for row in paired)
        found.append(f"paired: both runs were asked the same {n} prompts (by hash); intervals by bootstrap over items")
    if other := [row for row in rows if not row["paired"]]:
        n = max(row["shared"] for row in other)
        common = f" ({n} prompts are in both; counted as independent, which can only widen the interval)" if n else ""
        found.append(
            "unpaired: the runs were asked different items, so the interval covers the choice of both sets and is wide"
            f"{common}; Newcombe's interval for shares, Welch's for tokens"
        )
    asked = [{sample["source"] for sample in run.samples} for run in (a, b)]
    for run, only in ((a, asked[0] - asked[1]), (b, asked[1] - asked[0])):
        if only:
            found.append(f"only {run.label} was asked {', '.join(sorted(only))}: left out")
    models = [{(sample["model"], sample["decoding"]) for sample in run.samples} for run in (a, b)]
    for run, only in ((a, models[0] - models[1]), (b, models[1] - models[0])):
        if only:
            found.append(f"only {run.label} has {', '.join(sorted(' '.join(key) for key in only))}: left out")
    samples = [*a.samples, *b.samples]
    if graded_otherwise(a, b, samples):
        found.append(
            f"accuracy is left out where a judge graded in one run as it did not in the other (A: {graders(a)}; "
            f"B: {graders(b)}); the difference would be the judge's"
        )
    elif any(sample[GRADED_BY] == "judge" for sample in samples):
        found.append("accuracies are as judged: the error of the judge, the same in both, is not taken out")
    return [
        *found,
        f"inside the noise: the 95 % interval contains zero; once corrected: it does not, but p, by Holm over all "
        f"{len(rows)} rows, is above 0.05",
        "the intervals cover the choice of items, not another seed of the training: one run a side cannot tell a "
        "better recipe from a luckier seed",
    ]


def level(row: dict, side: str) -> str:
    """The metric in one run: percent, or tokens."""
    return f"{row[side]:.1f}" if row["metric"] == "tokens" else f"{100 * row[side]:.1f}"


def change(row: dict) -> str:
    """`+3.1 [-0.8, +7.0]`, in percentage points or tokens."""
    scale = 1 if row["metric"] == "tokens" else 100
    difference, low, high = (scale * row[key] for key in ("difference", "low", "high"))
    return f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]"


def p_value(p: float) -> str:
    """Three digits at the most; what a permutation test cannot resolve is a bound."""
    return f"{p:.2g}" if p >= 0.001 else "<0.001"


def number(value: float) -> str:
    """A count in full, a fraction in four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _reach(rows: Sequence[dict]) -> int:
    """Half the width of the drawn axis: the farthest end of a share's interval, in points, up to the next 5."""
    ends = [abs(row[key]) for row in rows if row["metric"] != "tokens" for key in ("low", "high")]
    return 5 * math.ceil(20 * max(ends, default=0.05)) or 5


def _bar(row: dict, reach: int, width: int = 140) -> dict[str, float] | None:
    """Where interval and difference lie on an axis of -reach to +reach points, `width` pixels wide; None for tokens."""
    if row["metric"] == "tokens":
        return None
    return {key: round(width * (0.5 + 50 * row[key] / reach), 1) for key in ("low", "difference", "high")}


def _settings_text(rows: Sequence[dict]) -> str:
    lines = [(row["kind"], row["name"], _cut(row["a"]), _cut(row["b"]), ", ".join(row["stages"])) for row in rows]
    return _columns(("", "", "A", "B", "stages"), lines, 5) if lines else ""


def _metrics_text(rows: Sequence[dict]) -> str:
    by_source = any(row["source"] != ALL for row in rows)
    header = (
        "model",
        "decoding",
        *(("source",) if by_source else ()),
        "metric",
        "",
        "A",
        "B",
        "B - A [95 %]",
        "p",
        "Holm",
        "items",
        "",
    )
    lines = [
        (row["model"], row["decoding"], *((row["source"],) if by_source else ()), row["metric"], row["verdict"],
         level(row, "a"), level(row, "b"), change(row), p_value(row["p"]), p_value(row["p_holm"]),
         str(row["n_a"]) if row["paired"] else f"{row['n_a']}, {row['n_b']}", "paired" if row["paired"] else "unpaired")
        for row in rows
    ]  # fmt: skip
    return _columns(header, lines, 4 + by_source)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _columns(header: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> str:
    return textwrap.indent(render_rows(header, lines, left), "  ")
