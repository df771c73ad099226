"""The last step: one HTML file that says what the run found, how sure that is, and how it was made.

Self-contained (figures are inlined, no script, nothing is fetched), so that it can be mailed and still opens in ten
years. The sentences are written from the numbers: a difference whose interval contains zero is called noise, and
what a gain owes to the format is said beside it. Every text of a model or a data set is escaped by the template.
"""

from __future__ import annotations

import base64
import math
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from finr1 import reported
from finr1.evaluation import Sample, paired_table, percent, points, results_table
from finr1.records import read_jsonl

TEMPLATE = "report.html.j2"
BENCHMARK, GRPO = "06_benchmark", "05_grpo"
SECTIONS = {  # stage folder -> heading, in the order of the report
    "01_data": "The data",
    "02_distillation": "Distillation",
    "03_filtering": "Filtering and its audit",
    "04_sft": "Supervised fine-tuning",
    "05_grpo": "GRPO",
    "06_benchmark": "The benchmark in figures",
}
NAMES = {"base": "base", "sft": "SFT", "grpo": "SFT + GRPO"}
MAX_TEXT = 1500  # characters of a sample text that the report shows


def build_report(
    stages: Mapping[str, Path], path: Path, seed: int = 0, measured_on: str = "this run's problems"
) -> Path:
    """Write the report of a run to `path` and return it.

    `stages`: stage name ("01_data" ... "06_benchmark") -> its folder. A stage that is missing or incomplete is shown as
    such, and a folder without figures is fine. `seed` is that of the bootstrap. `measured_on`: what the benchmark's
    problems are, in words ("synthetic problems", "FinQA test").
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folders = {name: Path(stages[name]) for name in SECTIONS if name in stages}
    samples = read_samples(folders.get(BENCHMARK))
    rows, steps = results_table(samples), paired_table(samples, seed)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": percent, "points": points, "cell": show, "shorten": shorten}
    html = environment.get_template(TEMPLATE).render(
        summary=summary_sentences(rows, steps, measured_on),
        measured_on=measured_on,
        rows=rows,
        steps=steps,
        names=NAMES,
        by_capability=results_table(samples, by="capability"),
        answers=sample_answers(samples),
        rollouts=early_and_late(folders[GRPO]) if GRPO in folders else [],
        sections=[section(name, title, folders.get(name)) for name, title in SECTIONS.items()],
        reported=reported,
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf8")
    return path


def read_samples(folder: Path | None) -> list[Sample]:
    """The benchmark's samples; none when the stage did not run."""
    file = folder / "samples.jsonl" if folder else None
    return list(read_jsonl(file, Sample)) if file and file.exists() else []


# ---- what it says ---------------------------------------------------------------------------------------------------


def summary_text(rows: Sequence[dict], steps: Sequence[dict], measured_on: str = "this run's problems") -> str:
    """The summary as plain text for a terminal, 100 columns wide."""
    return "\n".join(textwrap.fill(sentence, 100) for sentence in summary_sentences(rows, steps, measured_on))


def summary_sentences(rows: Sequence[dict], steps: Sequence[dict], measured_on: str) -> list[str]:
    """Five sentences on `results_table` and `paired_table`: levels, the two steps, the format's share, the limits."""
    greedy = [row for row in rows if row["decoding"] == "greedy"] or list(rows)
    if not greedy:
        return ["The benchmark has not run, so nothing is measured yet."]
    decoding = greedy[0]["decoding"]
    levels = ", ".join(f"{NAMES[row['model']]} {_level(row)}" for row in greedy)
    sentences = [f"On {greedy[0]['n']} held-out problems ({measured_on}), {decoding} accuracy is: {levels}."]
    own = [step for step in steps if step["decoding"] == decoding]
    sentences += [_step_sentence(step, steps) for step in own[:2]]
    if own:
        sentences.append(_format_sentence(own[-1], greedy))
    sentences.append(_limits_sentence(own))
    return sentences


def _level(row: dict) -> str:
    return f"{percent(row['accuracy'])} % (95 % interval {percent(row['low'])} to {percent(row['high'])})"


def _interval(step: dict) -> str:
    return f"{points(step['difference'])} points (paired 95 % interval {points(step['low'])} to {points(step['high'])})"


def _from_to(step: dict) -> str:
    return f"{NAMES[step['before']]} to {NAMES[step['after']]}"


def _noise(step: dict) -> str:
    return ", which is inside the noise" if step["inside_noise"] else ""


def _step_sentence(step: dict, steps: Sequence[dict]) -> str:
    """What one step of the recipe changed, in its own decoding and in the other one."""
    same = ("before", "after")
    other = [s for s in steps if all(s[k] == step[k] for k in same) and s["decoding"] != step["decoding"]]
    also = "".join(f"; with {s['decoding']} decoding {_interval(s)}{_noise(s)}" for s in other)
    return f"From {_from_to(step)} accuracy changes by {_interval(step)}{_noise(step)}{also}."


def _format_sentence(step: dict, rows: Sequence[dict]) -> str:
    """How much of a change is obedience; a share of it only where there is a gain to share."""
    parts = (f"{points(step['format_part'])} points come from more answers in the format, "
             f"{points(step['given_format_part'])} from better answers within it and "
             f"{points(step['without_format_part'])} from better answers outside it")  # fmt: skip
    share = ""
    if step["low"] > 0 and 0 <= step["format_part"] <= step["difference"]:
        share = f" (so the format alone is {100 * step['format_part'] / step['difference']:.0f} % of the gain)"
    by_model = {row["model"]: row for row in rows}
    before, after = by_model[step["before"]], by_model[step["after"]]
    return (
        f"Of the whole change from {_from_to(step)} ({points(step['difference'])}), {parts}{share}; with answers read "
        f"leniently, the format left aside, accuracy goes from {percent(before['lenient'])} to "
        f"{percent(after['lenient'])} %."
    )


def _limits_sentence(steps: Sequence[dict]) -> str:
    """What the intervals do not cover, and how small a difference could have gone unseen."""
    smallest = ""
    if steps:
        size = 100 * max(step["detectable"] for step in steps)
        smallest = (
            f"a true difference below about {size:.0f} points would be missed in one of five such comparisons or more, "
        )
    return (
        "The intervals cover the choice of problems, not another training seed or another wording of the prompt; "
        f"{smallest}and none of these numbers may be compared with the paper's (7B, other tasks, another protocol)."
    )


# ---- what it shows --------------------------------------------------------------------------------------------------


def section(name: str, title: str, folder: Path | None) -> dict:
    """One stage: its manifest (None = not complete), its metrics as tables, its figures."""
    manifest = _manifest(folder)
    # The benchmark's own metrics are left out: the report has better tables of them.
    metrics = manifest["metrics"] if manifest and name != BENCHMARK else {}
    return {
        "name": name,
        "title": title,
        "manifest": manifest,
        "scalars": _scalars(metrics),
        "tables": {key: value for key, value in metrics.items() if _is_table(value)},
        "figures": figures(folder) if folder else [],
        "seconds": _seconds(manifest) if manifest else None,
    }


def _manifest(folder: Path | None) -> dict | None:
    from finr1.run import read_manifest

    try:
        return read_manifest(folder) if folder else None
    except FileNotFoundError:
        return None


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _scalars(metrics: Mapping, prefix: str = "") -> dict[str, object]:
    """Nested metrics as one flat {name: value}; tables are left out."""
    flat: dict[str, object] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= _scalars(value, f"{prefix}{key} / ")
        elif not _is_table(value):
            flat[f"{prefix}{key}"] = value
    return flat


def _seconds(manifest: Mapping) -> float:
    """Wall time: the sum of the timed phases, or from start to finish where none was timed."""
    phases = manifest.get("phases_s") or {}
    if phases:
        return sum(phases.values())
    return (datetime.fromisoformat(manifest["finished"]) - datetime.fromisoformat(manifest["started"])).total_seconds()


def figures(folder: Path) -> list[dict[str, str]]:
    """The PNGs in `<folder>/figures`, in the order of their names, as data URIs with a caption."""
    return [
        {
            "caption": file.stem.replace("_", " "),
            "uri": "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode(),
        }
        for file in sorted((folder / "figures").glob("*.png"))
    ]


def show(value: object) -> str:
    """A table's cell: numbers short, missing values a dash, the rest as text."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(show(item) for item in value) or "-"
    return str(value)


def shorten(text: str) -> str:
    """`text` as far as the report shows it; a cut says so."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} ... ({len(text) - MAX_TEXT:,} more characters)"


def sample_answers(samples: Sequence[Sample], problems: int = 3) -> list[dict]:
    """What each model wrote on a few items of different families, chosen by id and never by result."""
    shown = [s for s in samples if s.decoding == "greedy"] or [s for s in samples if s.sample == 0]
    first = {s.family: s for s in sorted(shown, key=lambda s: s.problem_id, reverse=True)}  # lowest id of a family
    chosen = sorted(first.values(), key=lambda s: s.problem_id)[:problems]
    return [
        {"problem": one.problem_id, "question": one.question, "gold": one.gold,
         "answers": [s for s in shown if s.problem_id == one.problem_id]}
        for one in chosen
    ]  # fmt: skip


def early_and_late(folder: Path, count: int = 3) -> list[dict]:
    """Completions of the first and of the last logged GRPO step, one each of `count` problems, with their rewards.

    Reads the Parquet files that TRL writes with `log_completions` (`<stage>/completions/*.parquet`).
    """
    files = sorted((folder / "completions").glob("*.parquet"))
    if not files:
        return []
    import pandas

    steps = {"early": files[0], "late": files[-1]} if len(files) > 1 else {"only step": files[0]}
    found = []
    for when, file in steps.items():
        rows = pandas.read_parquet(file).to_dict("records")
        one_each = {_content(row["prompt"]): _rollout(row) for row in reversed(rows)}  # a group shares its prompt
        found.append({"when": when, "step": int(rows[0]["step"]), "texts": list(one_each.values())[::-1][:count]})
    return found


def _rollout(row: Mapping) -> dict:
    """One line of TRL's log: the last user turn, the completion, and every reward."""
    numbers = {key: value for key, value in row.items() if isinstance(value, float | int) and key != "step"}
    rewards = {key.replace("_", " "): None if math.isnan(value) else float(value) for key, value in numbers.items()}
    return {"prompt": _content(row["prompt"]), "text": _content(row["completion"]), "rewards": rewards}


def _content(chat: object) -> str:
    """The text of a completion or prompt, which is a string or a list of turns."""
    return shorten(chat if isinstance(chat, str) else list(chat)[-1]["content"])
