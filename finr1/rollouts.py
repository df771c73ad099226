"""Every group that GRPO sampled: what was asked, what was answered, what it earned, and how that changed over training.

Read from the Parquet files that TRL writes with `log_completions` (`<stage>/completions/completions_<step>.parquet`).
Every text goes through a template that escapes it: completions hold whatever a policy found to be worth a reward.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import ipywidgets as widgets
import pandas as pd
from IPython.display import HTML, display

from finr1 import grading
from finr1.evaluation import paired_bootstrap
from finr1.manifest import making
from finr1.params import read_flat_yaml
from finr1.paths import shown
from finr1.plotting.tables import template
from finr1.records import read_jsonl
from finr1.synthetic import in_english


def read_rollouts(stage_dir: Path, num_generations: int) -> pd.DataFrame:
    """One row for each completion below `stage_dir`, in TRL's order; empty where nothing was kept.

    Columns: group (counted over the run), step, question (the prompt without its system turn), completion,
    "rewards/NAME" (missing: it could not be judged), reward (their weighted sum; missing where none could), advantage,
    "notes/NAME" for what a reward function logged with TRL's `log_extra` (a verifier's reason), answer (read out of the
    completion), gold and kind (missing without the stage's RL rows). Of `num_iterations` steps the first is taken.
    """
    path = stage_dir / "params.yaml"
    values = read_flat_yaml(path).values if path.exists() else {}
    weights = dict(zip(values.get("reward_funcs", ()), values.get("reward_weights", ()), strict=True))
    files = []
    for file in sorted((stage_dir / "completions").glob("*.parquet")):
        try:
            rows = pd.read_parquet(file)
        except (OSError, ValueError) as error:  # pyarrow's errors are of these
            way = f"without the file its step is not shown{making(stage_dir, force=True)}"
            raise ValueError(f"{shown(file.absolute())} can't be read ({error}); {way}") from None
        if len(rows) % num_generations:
            raise ValueError(f"{file.name}: {len(rows)} rows are no whole number of groups of {num_generations}")
        rows["question"], rows["completion"] = rows["prompt"].map(_text), rows["completion"].map(_text)
        said = ["question", "completion"]
        if not (files and rows[said].equals(files[-1][said])):
            files.append(rows)
    if not files:
        return pd.DataFrame()
    table = pd.concat(files, ignore_index=True)
    rewards = [name for name in table if name in weights or name.endswith("_reward")]
    notes = table.columns.difference([*rewards, *"step prompt completion advantage id question".split()], sort=False)
    table[rewards] = table[rewards].astype(float)
    table["reward"] = table[rewards].mul([weights.get(name, 1.0) for name in rewards]).sum(axis=1, min_count=1)
    table["group"] = table.index // num_generations
    table[notes] = table[notes].mask(table[notes].eq(""))
    names = {name: f"rewards/{name}" for name in rewards} | {name: f"notes/{name}" for name in notes}
    table = table.drop(columns="prompt").rename(columns=names)
    table["answer"] = table["completion"].map(grading.extract_answer)
    path = stage_dir / "train.jsonl"  # the rows that notebook 05 has chosen
    golds = {row["id"]: row for row in read_jsonl(path)} if "id" in table and path.exists() else {}
    for name, key in {"gold": "solution", "kind": "answer_kind"}.items():
        table[name] = [golds[of][key] if of in golds else None for of in table.get("id", table.index)]
    return table


def _text(chat: object) -> str:
    """A string as it is; of a chat every turn but the system's, as turns may differ only above."""
    if isinstance(chat, str):
        return chat
    turns = [turn for turn in chat if turn["role"] != "system"]
    return turns[0]["content"] if len(turns) == 1 else "\n\n".join(f"[{t['role']}] {t['content']}" for t in turns)


def visits(table: pd.DataFrame) -> pd.DataFrame:
    """By group: step, question, mean rewards of what was judged, completions (how many), spread (of the advantages)."""
    means = ["reward", *table.filter(like="rewards/")]
    groups = table.assign(spread=table["advantage"].fillna(0).ne(0)).groupby("group")
    made = groups[["step", "question"]].first().join(groups[means].mean())
    return made.assign(completions=groups.size(), spread=groups["spread"].any()).reset_index()


def changes(visited: pd.DataFrame) -> pd.DataFrame:
    """By question that was judged at two different steps: what it earned first and last, the gain, largest first."""
    visits_of = visited.dropna(subset="reward").groupby("question", sort=False)
    ends = visits_of.agg(first=("reward", "first"), last=("reward", "last"), steps=("step", "nunique"),
                         first_group=("group", "first"), last_group=("group", "last"))  # fmt: skip
    ends["gain"] = ends["last"] - ends["first"]
    return ends[ends["steps"] > 1].sort_values("gain", ascending=False, kind="stable")


def selection(visited: pd.DataFrame) -> list[tuple[str, str, list[int]]]:
    """(heading, question, groups) for a static page: the largest gain and loss, else the first and the last group."""
    ends = list(changes(visited).itertuples())
    if not ends:
        return [(f"The {name} group", visited["question"].iloc[place], [visited["group"].iloc[place]])
                for name, place in (("first", 0), ("last", -1))]  # fmt: skip
    extremes = [("The largest gain", ends[0])] if ends[0].gain > 0 else []
    extremes += [("The largest loss", ends[-1])] if ends[-1].gain < 0 else []
    return [(f"{heading}: {end.gain:+.2f} in mean reward", end.Index, [end.first_group, end.last_group])
            for heading, end in extremes or [("No change", ends[0])]]  # fmt: skip


def average_change(visited: pd.DataFrame, seed: int) -> str:
    """The mean change in reward over all questions that came back, with its paired 95 % interval."""
    ends = changes(visited)
    back = f"{len(ends)} of {visited['question'].nunique()} questions came back at a later step"
    if len(ends) < 2:
        return f"{back}, too few for an average change."
    mean = paired_bootstrap(ends["first"], ends["last"], seed)
    noise = ", which is inside the noise" if mean.inside_noise else ""
    change = f"{mean.difference:+.2f} (95 % interval {mean.low:+.2f} to {mean.high:+.2f}, paired by question){noise}"
    told = f"{back}: from their first visit to their last the mean reward changed by {change}."
    return f"{told} Questions shown below are the extremes of these, chosen by result."


def html(table: pd.DataFrame, parts: Sequence[tuple[str, str, Sequence[int]]], said: str = "") -> str:
    """`parts`: (heading, question, groups); of each a line for every visit, then every completion of those groups."""
    shown = table[table["group"].isin({number for _, _, groups in parts for number in groups})]
    shown = shown.sort_values("reward", ascending=False, kind="stable")
    rewards, notes = table.filter(like="rewards/"), shown.filter(like="notes/").dropna(axis=1, how="all")
    frames = {"visits": visits(table), "completions": shown}
    rows = {name: frame.astype(object).where(frame.notna(), None).to_dict("records") for name, frame in frames.items()}
    known = {"rewards": list(rewards), "notes": list(notes), "in_english": in_english}
    return template("rollouts.html.j2").render(parts=parts, said=said, **known, **rows)


def static_html(table: pd.DataFrame, seed: int) -> str:
    """What a page without a kernel shows: the average change, then first and last visit of the extremes."""
    visited = visits(table)
    return html(table, selection(visited), average_change(visited, seed))


def explorer(table: pd.DataFrame) -> widgets.VBox:
    """Choose a step and a question, read its group, and what the same question got at other steps."""
    wide, visited = widgets.Layout(width="98%"), visits(table)
    step = widgets.Dropdown(options={"all": 0} | {str(n): n for n in visited["step"]}, description="Step")
    question = widgets.Dropdown(options=_labels(visited, 0), description="Question", layout=wide)
    page = widgets.HTML(layout=wide)
    lists = {"step": step, "question": question}  # JupyterLab takes the arrow keys away from a list, but not Enter
    buttons = {name: [widgets.Button(description=f"{way} {name}") for way in ("Previous", "Next")] for name in lists}

    def draw(_=None) -> None:
        if question.value is not None:  # while the list is being replaced nothing is chosen
            chosen = visited["question"].eq(question.value) & (visited["step"].eq(step.value) | (step.value == 0))
            page.value = html(table, [("", question.value, visited.loc[chosen, "group"])])

    def list_questions(_) -> None:
        kept, question.options = question.value, _labels(visited, step.value)  # the first one is chosen
        if kept in dict(question.options).values():
            question.value = kept
        draw()

    def turn(button: widgets.Button) -> None:
        way, name = button.description.split()
        lists[name].index = (lists[name].index + (1 if way == "Next" else -1)) % len(lists[name].options)

    step.observe(list_questions, "value")
    question.observe(draw, "value")
    for button in sum(buttons.values(), []):
        button.on_click(turn)
    draw()
    return widgets.VBox([widgets.HBox([*buttons["step"], step]), widgets.HBox(buttons["question"]), question, page])


def show(table: pd.DataFrame, seed: int) -> None:
    """Display `static_html`; in JupyterLab the explorer, too, which hides it for as long as a kernel stands behind."""
    if len(table):
        display(HTML(static_html(table, seed)))
        if os.environ.get("JPY_SESSION_NAME"):
            display(explorer(table)._repr_mimebundle_() | {"text/html": ""}, raw=True)


def _labels(visited: pd.DataFrame, step: int) -> list[tuple[str, str]]:
    """(text, question) of those met at `step` (0: at any), with the mean reward at each of their steps."""
    labels = []
    for question, rows in visited.groupby("question", sort=False):
        if step == 0 or step in rows["step"].to_list():
            history = ", ".join(f"{at}: {mean:.2f}" for at, mean in zip(rows["step"], rows["reward"], strict=True))
            short = " ".join(question.split())
            short = f"{short[:45]} ... {short[-45:]}" if len(short) > 90 else short  # what is asked may stand last
            labels.append((f"{short}  [{history}]", question))
    return labels
