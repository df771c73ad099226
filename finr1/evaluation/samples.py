"""The benchmark loop: each model answers each problem, and each answer is graded and kept. Also: the worth of chance.

A `Sample` keeps the text as it came, next to each verdict on it. `correct`, the headline: the answer that
`grading.extract_answer` reads is right. `format`: `grading.has_format`. `lenient_correct`: the answer is right wherever
it stands; this shows the skill of a model that was never taught the format.
"""

import hashlib
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Literal

from finr1 import grading, sandbox, synthetic
from finr1.generation import AnswerStore, Backend, Request, SamplingParams, generate
from finr1.judge import checked_steps
from finr1.progress import ProgressLine
from finr1.records import AnswerKind, Capability, Problem, Record, Way, hash_share, messages, render_completion
from finr1.teacher import way_of

# Questions of one kind across benchmarks, with new ones where a run's benchmarks have too few.
SUITES = ("code", "calculation (en)", "calculation (zh)", "compliance", "risk", "ESG", "multi-turn")
DECISIONS = ("boolean", "choice", "label")  # kinds of answers that can be guessed


class Sample(Record):
    """One answer of one model to one problem, with every verdict on it."""

    model: str  # one of `RECIPE` or `CHANCE`, or the name of another model
    decoding: Literal["greedy", "sampled", "none"]  # none: of `CHANCE`
    problem_id: str
    sample: int  # 0 for greedy decoding
    source: str
    family: str  # of the problem; its source where it has none
    capability: Capability
    language: Literal["en", "zh"]
    answer_kind: AnswerKind = "number"
    question: str  # the last turn without its context, to read the file by itself
    gold: str
    flaw: str = ""  # what is known to be wrong with the gold
    prompt_sha256: str  # of the chat as JSON: equal hashes were asked the same
    text: str
    tokens: int | None  # completion tokens; None where the backend does not count
    finish_reason: str  # "length" = cut off at the token limit
    answer: str | None
    lenient_answer: str | None
    format: bool
    correct: bool | None  # None: rules cannot decide; such a sample is counted and left out of the accuracy
    lenient_correct: bool | None
    way: Way | None = None  # which of the problem's two solutions it is like; None: the problem has one
    false_steps: int = 0  # in its thought: equations that are not true, numbers that come from nowhere
    graded_by: Literal["rules", "judge"] = "rules"

    @property
    def suite(self) -> str | None:  # of the item
        return suite_of(self.capability, self.language)

    @property
    def kind(self) -> str:
        names = {"number": "numbers", "percent": "numbers"} | dict.fromkeys(DECISIONS, "decisions")
        return names.get(self.answer_kind, "open answers")


def evaluate(
    problems: Sequence[Problem],
    backend: Backend,
    sampling: SamplingParams,
    model: str,
    store: AnswerStore | None = None,
    ask: Callable[[Problem], list[dict]] = messages,
) -> list[Sample]:
    """Ask `backend` every problem `sampling.num_samples` times and grade the answers; in the order of the problems.

    `ask` makes the chat of a problem. Temperature 0 is recorded as greedy decoding. Raises as `generate` does,
    and `ValueError` for an unreadable gold.
    """
    decoding = "greedy" if sampling.temperature == 0 else "sampled"
    requests = [Request(id=problem.id, messages=ask(problem)) for problem in problems]
    line = ProgressLine(f"{model}, {decoding}: ", quiet=True)
    line.show(f"{len(requests)} problems")  # the first answers may take long
    completions, samples = generate(requests, sampling, backend, store, on_progress=line.show), []
    for at, problem, request in zip(range(0, len(completions), sampling.num_samples), problems, requests, strict=True):
        known = about(problem, request.messages) | {"model": model, "decoding": decoding}
        for completion in completions[at : at + sampling.num_samples]:
            said = {"sample": completion.sample, "text": completion.tagged, "finish_reason": completion.finish_reason}
            said["tokens"] = completion.usage.completion_tokens
            samples.append(Sample(**known, **said, **grade_text(problem, completion.tagged)))
    if lost := sum(completion.failed for completion in completions):
        warnings.warn(f"{model}, {decoding}: {lost} answers never came; they count as wrong", stacklevel=2)
    return samples


def about(problem: Problem, chat: list[dict]) -> dict:
    """What a sample says of its problem and of the chat that asked it, by the names of `Sample`'s fields."""
    names = {"source", "family", "capability", "language", "answer_kind", "question", "gold", "flaw"}
    known = problem.model_dump(include=names) | {"family": problem.family or problem.source}
    return known | {"problem_id": problem.id, "prompt_sha256": chat_sha256(chat)}


def grade_text(problem: Problem, text: str) -> dict:
    """Every verdict on an answer, by the names of `Sample`'s fields; raises `ValueError` for an unreadable gold."""
    answer = grading.extract_answer(text)
    steps = checked_steps(text, " ".join(turn["content"] for turn in messages(problem, "")))
    lenient = grading.lenient_answer(text, answer_kind=problem.answer_kind, labels=problem.labels)
    return {
        "answer": answer,
        "lenient_answer": lenient,
        "format": grading.has_format(text),
        "correct": grading.grade(answer, **problem.graded_against),
        "lenient_correct": grading.grade(lenient, **problem.graded_against),
        "way": way_of(problem, text),
        "false_steps": sum(not true for true in steps.values()),
    }


def chance_samples(
    problems: Sequence[Problem], known: Sequence[Problem], ask: Callable[[Problem], list[dict]] = messages
) -> list[Sample]:
    """For each problem a "guess", and where its family has golds to learn from, a "constant": two models of `CHANCE`.

    The guess answers once with each option, so one answer is right. Without options it answers once, wrongly. The
    constant is the commonest gold (of equals the first by alphabet) among the training problems in `known` of the same
    source and family. It is graded as any answer; code and open questions have none.
    """
    golds, samples = defaultdict(Counter), []
    for problem in known:
        if problem.split == "train" and problem.answer_kind not in ("code", "text"):
            golds[problem.source, problem.family][problem.gold] += 1
    for problem in problems:
        fixed = about(problem, ask(problem)) | {"decoding": "none", "tokens": None, "finish_reason": "stop"}
        of_kind = {"boolean": 2, "label": len(problem.labels or {}), "choice": len(problem.choices or {})}
        guess = grade_text(problem, "") | {"model": "guess", "text": ""}
        for option in range(max(1, of_kind.get(problem.answer_kind, 0))):
            right = option == 0 and problem.answer_kind in DECISIONS
            samples.append(Sample(**fixed, **guess | {"correct": right, "lenient_correct": right}, sample=option))
        if counts := golds[problem.source, problem.family]:
            text = render_completion("As most often.", max(sorted(counts), key=counts.get))
            samples.append(Sample(**fixed, model="constant", sample=0, text=text, **grade_text(problem, text)))
    return samples


def chat_sha256(chat: list[dict]) -> str:
    """What `Sample.prompt_sha256` holds of a chat."""
    return hashlib.sha256(json.dumps(chat, sort_keys=True).encode()).hexdigest()


def suite_of(capability: str, language: str) -> str | None:
    """The suite that questions of `capability` in `language` belong to; None for sentiment and knowledge."""
    suites = {"calculation": f"calculation ({language})", "esg": "ESG", "multi_turn": "multi-turn"}
    suite = suites.get(capability, capability)
    return suite if suite in SUITES else None


def suite_items(items: Sequence[Problem], problems: Sequence[Problem], size: int, seed: int) -> list[Problem]:
    """Further test problems, so that each of `SUITES` has `size` questions where the benchmarks have fewer.

    Real records of `problems` come first. The rest is generated, as far as there are instances; its `source` is
    "synthetic". A score on these says that a model masters the form, not finance. No question is asked twice.
    """

    def members(among: Sequence[Problem], suite: str) -> list[Problem]:
        return [problem for problem in among if suite_of(problem.capability, problem.language) == suite]

    taken = {problem.id for problem in items}
    spare = [problem for problem in problems if problem.split == "test" and problem.id not in taken]
    spare.sort(key=lambda problem: 1 if problem.source == "synthetic" else hash_share(problem.id, seed))
    chosen: list[Problem] = []
    for suite in SUITES:
        missing = max(0, size - len(members(items, suite)))
        kept = members(spare, suite)[:missing]
        chosen += kept
        if missing > len(kept):
            chosen += _generated(suite, missing - len(kept), seed, members([*items, *problems], suite))
    return chosen


def _generated(suite: str, count: int, seed: int, known: Sequence[Problem]) -> list[Problem]:
    """Up to `count` synthetic test problems of one suite, none asked in `known`; code is graded by unit tests."""

    def asked(problem: Problem) -> tuple:  # equal for problems that are the same question to a model
        return problem.question, problem.context, *(turn.question for turn in problem.history)

    known, code = {asked(problem) for problem in known if problem.source == "synthetic"}, suite == "code"
    if code:
        sandbox.check()  # an error now, not when all answers are there
    of_suite = [name for name, f in synthetic.FAMILIES.items() if suite_of(f.capability, f.language) == suite]
    size = count + len(known)  # a run's problems may come from the same seed
    members = synthetic.generate_problems(size, "test", seed, [] if code else of_suite, partial=True, code=code)
    members = [p for p in members if asked(p) not in known][:count]
    if code:
        return members
    return [p.model_copy(update={"id": f"synthetic/suite/{p.family}/{p.id.rpartition('/')[2]}"}) for p in members]
