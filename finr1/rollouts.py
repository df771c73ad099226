"""Every group that GRPO sampled: what was asked, what was answered, what it earned, and how that changed over training.

Read from the Parquet files that TRL writes with `log_completions` (`<stage>/completions/completions_<step>.parquet`):
one row per completion, with one column for each reward function, the advantage, and whatever a reward function logged
with TRL's `log_extra` (a verifier's reason, say). `show` is the viewer of notebook 05; the report takes `static_html`.
Every text goes through a template that escapes it: completions hold whatever a policy found to be worth a reward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from finr1.params import read_flat_yaml

if TYPE_CHECKING:
    from ipywidgets import VBox

TEMPLATE = "rollouts.html.j2"
_OWN = ("step", "prompt", "completion", "advantage", "id")  # TRL's columns besides rewards and extras
_LABEL = 45  # characters of a question's start, and of its end, in the viewer's list


@dataclass(frozen=True)
class Answer:
    """One completion."""

    text: str
    rewards: dict[str, float | None]  # None: this reward could not be judged
    total: float | None  # their weighted sum; None where none could be judged: it was left out of its group
    advantage: float | None
    notes: dict[str, str]  # further columns, such as a verifier's reason


@dataclass(frozen=True)
class Group:
    """The completions that were sampled for one question at one step, in TRL's order."""

    step: int
    question: str  # the prompt without its system turn
    answers: tuple[Answer, ...]

    @property
    def mean_reward(self) -> float:
        """Over the answers that were judged; 0 where none was."""
        totals = [answer.total for answer in self.answers if answer.total is not None]
        return fmean(totals) if totals else 0.0

    @property
    def parts(self) -> dict[str, float | None]:
        """Mean of each reward over the answers that it could judge; None where it could judge none."""
        given = {name: [a.rewards[name] for a in self.answers if a.rewards[name] is not None] for name in self.names}
        return {name: fmean(values) if values else None for name, values in given.items()}

    @property
    def has_spread(self) -> bool:
        """Whether any advantage differs from 0; without, the group taught nothing."""
        return any(answer.advantage for answer in self.answers)

    @property
    def names(self) -> list[str]:
        return list(self.answers[0].rewards)

    @property
    def notes(self) -> list[str]:
        return list(dict.fromkeys(name for answer in self.answers for name in answer.notes))


def read_groups(stage_dir: Path, num_generations: int) -> list[Group]:
    """All groups below `stage_dir`, by step. Empty where nothing was kept.

    A generation batch that is used for several steps (`num_iterations`) is logged at each of them; only its first step
    is taken. All texts are held in memory. Raises `ValueError` when a file's rows are no whole number of groups.
    """
    import pandas as pd

    path = Path(stage_dir) / "params.yaml"
    values = read_flat_yaml(path).values if path.exists() else {}
    weights = dict(zip(values.get("reward_funcs", ()), values.get("reward_weights", ()), strict=True))
    groups, previous = [], None
    for file in sorted((Path(stage_dir) / "completions").glob("*.parquet")):
        rows = pd.read_parquet(file).to_dict("records")
        if len(rows) % num_generations:
            raise ValueError(f"{file.name}: {len(rows)} rows are no whole number of groups of {num_generations}")
        said = [(_asked(row["prompt"]), _content(row["completion"])) for row in rows]
        if said != previous:
            for start in range(0, len(rows), num_generations):
                answers = tuple(_answer(row, weights) for row in rows[start : start + num_generations])
                groups.append(Group(int(rows[start]["step"]), said[start][0], answers))
        previous = said
    return groups


def _answer(row: Mapping[str, Any], weights: Mapping[str, float]) -> Answer:
    """TRL names the column of a reward by its function; columns that are not its own and no reward are notes."""
    names = [name for name in row if name in weights or name.endswith("_reward")]
    rewards = {name: None if _missing(row[name]) else float(row[name]) for name in names}
    judged = [weights.get(name, 1.0) * reward for name, reward in rewards.items() if reward is not None]
    notes = {name: str(value) for name, value in row.items() if name not in (*names, *_OWN) and not _missing(value)}
    advantage = None if _missing(row["advantage"]) else float(row["advantage"])
    return Answer(_content(row["completion"]), rewards, sum(judged) if judged else None, advantage, notes)


def _content(chat: object) -> str:
    """The text of a completion, which is a string or a list of turns."""
    return chat if isinstance(chat, str) else str(list(chat)[-1]["content"])


def _asked(prompt: object) -> str:
    """A prompt as text: a string as it is; of a chat every turn but the system's, as turns may differ only above."""
    if isinstance(prompt, str):
        return prompt
    turns = [turn for turn in prompt if turn["role"] != "system"]
    return turns[0]["content"] if len(turns) == 1 else "\n\n".join(f"[{t['role']}] {t['content']}" for t in turns)


def _missing(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


# ---- the same question over training --------------------------------------------------------------------------------


def by_question(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Question -> its groups in the order of the steps."""
    visits: dict[str, list[Group]] = {}
    for group in groups:
        visits.setdefault(group.question, []).append(group)
    return visits


def gain(visits: Sequence[Group]) -> float:
    """Mean reward of the last visit to a question less that of the first."""
    return visits[-1].mean_reward - visits[0].mean_reward


def came_back(groups: Sequence[Group]) -> list[list[Group]]:
    """The visits to each question that was met, and judged, at two different steps, largest gain first."""
    judged = [group for group in groups if any(answer.total is not None for answer in group.answers)]
    visited = [visits for visits in by_question(judged).values() if visits[0].step != visits[-1].step]
    return sorted(visited, key=lambda visits: -gain(visits))


def selection(groups: Sequence[Group]) -> list[tuple[str, list[Group]]]:
    """(heading, visits) for a static page: the largest gain and the largest loss.

    Extremes are chosen by result, so they say nothing about the average: show `average_change` beside them. Where no
    question came back these are the first and the last group.
    """
    visited = came_back(groups)
    if not visited:
        return [("the first group", [groups[0]]), ("the last group", [groups[-1]])] if groups else []
    gains = [("the largest gain", visited[0])] if gain(visited[0]) > 0 else []
    losses = [("the largest loss", visited[-1])] if gain(visited[-1]) < 0 else []
    return gains + losses or [("no change", visited[0])]


def average_change(groups: Sequence[Group], seed: int) -> str:
    """One sentence: the mean change in reward over all questions that came back, with its paired 95 % interval."""
    from finr1.evaluation import paired_bootstrap

    visited, asked = came_back(groups), len(by_question(groups))
    if len(visited) < 2:
        return f"Of {asked} questions {len(visited)} came back at a later step, too few for an average change."
    first, last = ([visits[end].mean_reward for visits in visited] for end in (0, -1))
    mean = paired_bootstrap(first, last, seed)
    noise = ", which is inside the noise" if mean.inside_noise else ""
    return (
        f"{len(visited)} of {asked} questions came back at a later step: from their first visit to their last the mean "
        f"reward changed by {mean.difference:+.2f} (95 % interval {mean.low:+.2f} to {mean.high:+.2f}, paired by "
        f"question){noise}. Questions shown below are the extremes of these, chosen by result."
    )


# ---- shown ----------------------------------------------------------------------------------------------------------


def visits_html(visits: Sequence[Group], shown: Sequence[Group]) -> str:
    """One question: a line for each visit, then every completion of the `shown` visits."""
    macros = _template().module
    return str(macros.styles()) + str(macros.visits(visits, shown))


def static_html(groups: Sequence[Group], seed: int) -> str:
    """What a page without a kernel shows: the average change, then first and last visit of the extremes."""
    macros = _template().module
    extremes = [(heading, visits, gain(visits)) for heading, visits in selection(groups)]
    return str(macros.styles()) + str(macros.static(average_change(groups, seed), extremes))


def explorer(groups: Sequence[Group]) -> VBox:
    """The viewer: choose a step and a question, read its group, and what the same question got at other steps."""
    import ipywidgets as widgets

    wide = widgets.Layout(width="98%")
    steps = sorted({group.step for group in groups})
    step = widgets.Dropdown(options=[("all", None), *((str(s), s) for s in steps)], description="Step")
    question = widgets.Dropdown(options=_labels(groups, None), description="Question", layout=wide)
    page = widgets.HTML(layout=wide)
    histories = by_question(groups)

    def draw(_=None) -> None:
        if question.value is not None:  # while the list is being replaced nothing is chosen
            visits = histories[question.value]
            page.value = visits_html(visits, [g for g in visits if step.value in (None, g.step)])

    def list_questions(_) -> None:
        kept, question.options = question.value, _labels(groups, step.value)
        values = [value for _, value in question.options]
        question.value = kept if kept in values else values[0]
        draw()

    step.observe(list_questions, "value")
    question.observe(draw, "value")
    draw()
    return widgets.VBox([step, question, page])


def show(groups: Sequence[Group], seed: int) -> None:
    """Display the viewer; a front end that has no widgets (GitHub, nbconvert) shows `static_html` in its place."""
    from IPython.display import display

    if groups:
        display(explorer(groups)._repr_mimebundle_() | {"text/html": static_html(groups, seed)}, raw=True)


def _labels(groups: Sequence[Group], step: int | None) -> list[tuple[str, str]]:
    """The questions met at `step` (None: at any), each with its steps and its mean reward at them."""
    labels = []
    for question, visits in by_question(groups).items():
        if any(step in (None, group.step) for group in visits):
            history = ", ".join(f"{group.step}: {group.mean_reward:.2f}" for group in visits)
            short = " ".join(question.split())
            short = short if len(short) <= 2 * _LABEL else f"{short[:_LABEL]} ... {short[-_LABEL:]}"
            labels.append((f"{short}  [{history}]", question))
    return labels


def _template():
    from finr1.report import environment

    return environment().get_template(TEMPLATE)
