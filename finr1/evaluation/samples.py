"""The benchmark loop: every problem to one model, every answer graded and kept.

An accuracy alone can neither be checked nor be graded again under another protocol, so a `Sample` keeps the text as it
came, next to each verdict on it. The verdicts differ in what they ask:

- `correct`: the answer as `grading.extract_answer` reads it is right. This is the headline, `grading.is_correct`.
- `format`: the text is one think block, then one answer block, and nothing else. Asked apart from `correct`.
- `lenient_correct`: the answer is right when read wherever it stands (`grading.lenient_answer`: last number, last
  option letter, ...), so that a model which was never taught the format is not called ignorant for disobeying it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from finr1 import grading
from finr1.evaluation.items import suite_of
from finr1.params import RECIPE
from finr1.records import Capability, Problem, Record, messages

if TYPE_CHECKING:
    from finr1.generation import AnswerStore, Backend, Completion, Progress, SamplingParams

Decoding = Literal["greedy", "sampled"]
MODELS = RECIPE  # in the order in which the recipe makes them; other models stand behind them


class Sample(Record):
    """One answer of one model to one problem, with every verdict on it."""

    model: str  # one of `MODELS`, or the name of another model
    decoding: Decoding
    problem_id: str
    sample: int  # 0 for greedy decoding
    source: str
    family: str
    capability: Capability
    language: Literal["en", "zh"]
    question: str  # the last turn without its context, to read the file by itself
    gold: str
    flaw: str = ""  # what is known to be wrong with the gold
    history: Literal["gold", "own"] = "gold"  # whose answers the earlier turns of a conversation hold
    own_turns: list[str] | None = None  # the model's own earlier answers, where the history is its own
    prompt_sha256: str  # of the chat as JSON, own answers apart: equal hashes were asked the same
    text: str
    tokens: int | None  # completion tokens; None where the backend does not count
    finish_reason: str  # "length" = cut off at the token limit
    answer: str | None
    lenient_answer: str | None
    format: bool
    correct: bool | None  # None: rules cannot decide; such a sample is counted and left out of the accuracy
    lenient_correct: bool | None
    graded_by: Literal["rules", "judge"] = "rules"

    @property
    def suite(self) -> str | None:
        """The capability suite that the item belongs to."""
        return suite_of(self.capability, self.language)


def evaluate(
    problems: Sequence[Problem],
    backend: Backend,
    sampling: SamplingParams,
    model: str,
    store: AnswerStore | None = None,
    ask: Callable[[Problem], list[dict]] = messages,
    history: Literal["gold", "own"] = "gold",
    on_progress: Callable[[Progress], object] | None = None,
) -> list[Sample]:
    """Ask `backend` every problem `sampling.num_samples` times and grade the answers; in the order of the problems.

    `ask` makes the chat (see `evaluation.prompts`). With `history="own"` the earlier turns of a conversation are asked
    first and the model's answers to them become its turns, see `evaluation.conversations`; hashes of prompts leave them
    out, since each model has its own. Answers that `store` holds are not asked again, so a benchmark that was killed
    goes on by running it again. Temperature 0 is recorded as greedy decoding. Raises `GenerationError` when a request
    fails for good, and `ValueError` for a gold answer that cannot be read.
    """
    from finr1.evaluation.conversations import complete, complete_own

    decoding = "greedy" if sampling.temperature == 0 else "sampled"
    answers = (complete if history == "gold" else complete_own)(problems, backend, sampling, store, ask, on_progress)
    samples = []
    for problem, completion, own in answers:
        chat = [turn for turn in ask(problem) if history == "gold" or turn["role"] != "assistant"]
        sample = grade_sample(problem, completion, model, decoding, chat_sha256(chat))
        samples.append(sample.model_copy(update={"history": history, "own_turns": own}))
    return samples


def grade_sample(
    problem: Problem, completion: Completion, model: str, decoding: Decoding, prompt_sha256: str
) -> Sample:
    """`completion` as a graded `Sample`; raises `ValueError` for a gold answer that cannot be read."""
    text = completion.tagged
    answer = grading.extract_answer(text)
    lenient = grading.lenient_answer(text, answer_kind=problem.answer_kind, labels=problem.labels)
    return Sample(
        model=model,
        decoding=decoding,
        problem_id=problem.id,
        sample=completion.sample,
        source=problem.source,
        family=problem.family,
        capability=problem.capability,
        language=problem.language,
        question=problem.question,
        gold=problem.gold,
        flaw=problem.flaw,
        prompt_sha256=prompt_sha256,
        text=text,
        tokens=completion.usage.completion_tokens,
        finish_reason=completion.finish_reason,
        answer=answer,
        lenient_answer=lenient,
        format=grading.has_format(text),
        correct=grade_answer(problem, answer),
        lenient_correct=grade_answer(problem, lenient),
    )


def grade_answer(problem: Problem, answer: str | None) -> bool | None:
    """`grading.grade` of an extracted answer against all that `problem` accepts."""
    return grading.grade(
        answer,
        problem.gold,
        problem.answer_kind,
        alternatives=problem.alternatives,
        choices=problem.choices,
        labels=problem.labels,
    )


def chat_sha256(chat: list[dict]) -> str:
    """What `Sample.prompt_sha256` holds: SHA-256 (hex) of a chat as JSON."""
    return hashlib.sha256(json.dumps(chat, sort_keys=True).encode()).hexdigest()
