"""Every group that GRPO sampled: what was asked, what was answered, what it earned, and how that changed over training.

Read from the Parquet files that TRL writes with `log_completions` (`<stage>/completions/completions_<step>.parquet`): a
row a completion, with one column for each reward function, the advantage, and whatever a reward function logged with
TRL's `log_extra` (a verifier's reason, say). `show` is the viewer of notebook 05; the report takes `selection`. Every
text goes through a template that escapes it: completions hold whatever a policy found to be worth a reward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipywidgets import VBox

TEMPLATE = "rollouts.html.j2"
_OWN = ("step", "prompt", "completion", "advantage", "id")  # TRL's columns besides rewards and extras
_LABEL = 45  # characters of a question's start, and of its end, in the viewer's list


@dataclass(frozen=True)
class Answer:
    """One completion. Rewards of None: nobody could judge it, so it was left out of its group."""

    text: str
    rewards: dict[str, float | None]
    advantage: float | None
    notes: dict[str, str]  # further columns, such as a verifier's reason

    @property
    def total(self) -> float:
        return sum(reward for reward in self.rewards.values() if reward is not None)

    @property
    def is_judged(self) -> bool:
        return any(reward is not None for reward in self.rewards.values())


@dataclass(frozen=True)
class Group:
    """The completions that were sampled for one question at one step, in TRL's order."""

    step: int
    question: str  # the prompt without its system turn
    answers: tuple[Answer, ...]

    @property
    def mean_reward(self) -> float:
        """Over the answers that were judged; 0 where none was."""
        totals = [answer.total for answer in self.answers if answer.is_judged]
        return sum(totals) / max(len(totals), 1)

    @property
    def parts(self) -> dict[str, float | None]:
        """Mean of each reward over the answers that it could judge; None where it could judge none."""
        given = {name: [a.rewards[name] for a in self.answers if a.rewards[name] is not None] for name in self.names}
        return {name: sum(values) / len(values) if values else None for name, values in given.items()}

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


@dataclass(frozen=True)
class Change:
    """Every visit to one question, first to last."""

    visits: Sequence[Group]

    @property
    def question(self) -> str:
        return self.visits[0].question

    @property
    def ends(self) -> Sequence[Group]:
        """First and last visit; one group where there was one visit."""
        return self.visits if len(self.visits) < 2 else (self.visits[0], self.visits[-1])

    @property
    def difference(self) -> float:
        """Mean reward of the last visit less that of the first."""
        return self.visits[-1].mean_reward - self.visits[0].mean_reward


def read_groups(stage_dir: Path, num_generations: int) -> list[Group]:
    """All groups below `stage_dir`, by step. Empty where nothing was kept.

    A generation batch that is used for several steps (`num_iterations`) is logged at each of them; only its first step
    is taken. All texts are held in memory. Raises `ValueError` when a file's rows are no whole number of groups.
    """
    import pandas as pd

    groups, previous = [], None
    for file in sorted((Path(stage_dir) / "completions").glob("*.parquet")):
        rows = pd.read_parquet(file).to_dict("records")
        if len(rows) % num_generations:
            raise ValueError(f"{file.name}: {len(rows)} rows are no whole number of groups of {num_generations}")
        said = [(_asked(row["prompt"]), _content(row["completion"])) for row in rows]
        if said != previous:
            groups += [_group(rows[i : i + num_generations]) for i in range(0, len(rows), num_generations)]
        previous = said
    return groups


def _group(rows: Sequence[Mapping]) -> Group:
    return Group(int(rows[0]["step"]), _asked(rows[0]["prompt"]), tuple(_answer(row) for row in rows))


def _answer(row: Mapping) -> Answer:
    """TRL calls a reward's column by the function's name, which ends in `_reward`; other columns are notes."""
    rewards = {name: _number(value) for name, value in row.items() if name.endswith("_reward")}
    others = {name: value for name, value in row.items() if name not in rewards and name not in _OWN}
    notes = {name: str(value) for name, value in others.items() if not _missing(value)}
    return Answer(_content(row["completion"]), rewards, _number(row["advantage"]), notes)


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


def _number(value: float | None) -> float | None:
    return None if _missing(value) else float(value)


# ---- the same question over training --------------------------------------------------------------------------------


def by_question(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Question -> its groups in the order of the steps."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.question, []).append(group)
    return found


def changes(groups: Sequence[Group]) -> list[Change]:
    """The questions that were met, and judged, at two different steps, largest gain in mean reward first."""
    judged = [group for group in groups if any(answer.is_judged for answer in group.answers)]
    visits = [found for found in by_question(judged).values() if found[0].step != found[-1].step]
    return sorted((Change(found) for found in visits), key=lambda change: -change.difference)


def selection(groups: Sequence[Group], count: int = 1) -> list[tuple[str, Change]]:
    """What stands in a static page: the `count` largest gains and the `count` largest losses, each with its heading.

    Extremes are chosen by result, so they say nothing about the average: show `average_change` beside them. Where no
    question came back it is the first and the last group.
    """
    found = changes(groups)
    if not found:
        return [("the first group", Change(groups[:1])), ("the last group", Change(groups[-1:]))] if groups else []
    gains = [("the largest gain", change) for change in found[:count] if change.difference > 0]
    losses = [("the largest loss", change) for change in found[::-1][:count] if change.difference < 0]
    return gains + losses or [("no change", change) for change in found[:count]]


def average_change(groups: Sequence[Group], seed: int) -> str:
    """One sentence: the mean change in reward over all questions that came back, with its paired 95 % interval."""
    from finr1.evaluation import paired_bootstrap

    found = changes(groups)
    asked = len(by_question(groups))
    if len(found) < 2:
        return f"Of {asked} questions {len(found)} came back at a later step, too few for an average change."
    first, last = ([change.ends[i].mean_reward for change in found] for i in (0, -1))
    mean = paired_bootstrap(first, last, seed)
    noise = ", which is inside the noise" if mean.inside_noise else ""
    return (
        f"{len(found)} of {asked} questions came back at a later step: from their first visit to their last the mean "
        f"reward changed by {mean.difference:+.2f} (95 % interval {mean.low:+.2f} to {mean.high:+.2f}, paired by "
        f"question){noise}. Questions shown below are the extremes of these, chosen by result."
    )


# ---- shown ----------------------------------------------------------------------------------------------------------


def visits_html(visits: Sequence[Group], shown: Sequence[Group] | None = None) -> str:
    """One question: a line for each visit, then every completion of the `shown` visits (None: of all)."""
    macros = _template().module
    return str(macros.styles()) + str(macros.visits(visits, visits if shown is None else shown))


def static_html(groups: Sequence[Group], seed: int, count: int = 1) -> str:
    """What a page without a kernel shows: the average change, then first and last visit of the extremes."""
    macros = _template().module
    return str(macros.styles()) + str(macros.static(average_change(groups, seed), selection(groups, count)))


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

    if not groups:
        return
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
