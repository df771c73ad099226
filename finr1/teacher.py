"""Who answers the problems first: a scripted teacher with planted faults, or what a source itself supports.

The scripted teacher writes the worked solution of a synthetic problem and, at a stated rate, spoils it with one of
six known faults; some of them are subtle (a slip in words, a repetition in other words, a stray sentence that sounds
like finance), as those of a real teacher would be. Because each fault is known, notebook 03 can say how many of each
kind the filter finds. A real teacher (DeepSeek-R1 behind an endpoint, or a local model) takes its place through the
same `generate`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from finr1 import grading
from finr1.generation import (
    AnswerStore,
    Budget,
    Completion,
    EndpointBackend,
    Request,
    SamplingParams,
    ScriptedBackend,
    TransformersBackend,
    VLLMBackend,
    generate,
)
from finr1.records import Problem, Trace, messages, render_completion

if TYPE_CHECKING:
    from finr1.params import DistillationParams

FAULTS = ("wrong_answer", "arithmetic_slip", "skipped_steps", "repetition", "off_domain", "missing_format")
OFF_DOMAIN = {
    "en": ["The goalkeeper saved a penalty late in the match.", "Stir the soup and add some fresh basil.",
           "It rained all night in the mountains.", "The stock market was closed for a holiday."],
    "zh": ["昨晚的球赛非常精彩。", "把面条煮熟再放点葱花。", "山里下了一夜的雨。", "今天股票市场休市。"],
}  # fmt: skip
EQUATION = re.compile(r"= (\d+(?:\.\d+)?)")
STATEMENT = re.compile(r"(?:=|\bis) (\d+(?:\.\d+)?)")  # an equation, or one in words: "20% is 0.2"
SENTENCE = re.compile(r"(?<=。)|(?<=\.)\s+")


def requests(problems: Iterable[Problem]) -> list[Request]:
    """One request a problem, without a system prompt, as the paper asks DeepSeek-R1.

    The normative note (reason first, final answer in `\\boxed{}`) stands at the end of the last user turn.
    """
    asked = []
    for problem in problems:
        chat = messages(problem, system_prompt="")
        chat[-1]["content"] += "\n\nReason step by step and put the final answer in \\boxed{}."
        asked.append(Request(id=problem.id, messages=chat))
    return asked


def scripted_teacher(problems: Iterable[Problem], fault_rate: float, seed: int) -> ScriptedBackend:
    """A backend that answers the requests of synthetic `problems` from their worked solutions."""
    by_id = {problem.id: problem for problem in problems}

    def answer(request: Request, sampling, sample: int) -> str:
        problem = by_id[request.id]
        return write_answer(
            problem, planted_fault(problem, sample, fault_rate, seed), _rng("text", problem, sample, seed)
        )

    return ScriptedBackend(answer, name=f"scripted-teacher:fault_rate={fault_rate}:seed={seed}")


def _rng(purpose: str, problem: Problem, sample: int, seed: int) -> random.Random:
    # From what is asked, not from the id: answers are stored by chat, and an id may move to another problem.
    return random.Random(f"{purpose}:{seed}:{sample}:{messages(problem, system_prompt='')}")


def planted_fault(problem: Problem, sample: int, fault_rate: float, seed: int) -> str | None:
    """The fault that `scripted_teacher` plants into this answer, or None; the truth the audit compares with."""
    rng = _rng("fault", problem, sample, seed)
    if rng.random() >= fault_rate:
        return None
    possible = [f for f in FAULTS if f != "arithmetic_slip" or EQUATION.search(problem.reference)]
    return rng.choice(possible)


def write_answer(problem: Problem, fault: str | None, rng: random.Random) -> str:
    """The worked solution of `problem` in the response format, with `fault` planted."""
    reasoning, answer = problem.reference, problem.gold
    steps = [step for step in SENTENCE.split(reasoning) if step]
    space = "" if problem.language == "zh" else " "
    if fault == "wrong_answer":
        answer = _another_answer(problem, rng)
        steps[-1] = steps[-1].replace(problem.gold.rstrip("%"), answer.rstrip("%"))
    elif fault == "arithmetic_slip":  # the equation is false, the answer stays right
        slot = rng.choice([i for i, step in enumerate(steps[:-1]) if STATEMENT.search(step)])
        steps[slot] = STATEMENT.sub(lambda m: m[0].replace(m[1], _other_number(m[1], rng)), steps[slot], count=1)
    elif fault == "skipped_steps":
        steps = steps[-rng.choice([1, 2]) :]
    elif fault == "repetition":
        slot = rng.randrange(len(steps))
        again = rng.choice(["", "", "", "再说一遍：" if problem.language == "zh" else "That is to say, "])
        steps[slot : slot + 1] = [steps[slot]] + [again + steps[slot]] * rng.choice([1, 2, 3])
    elif fault == "off_domain":
        steps.insert(rng.randrange(len(steps)), rng.choice(OFF_DOMAIN[problem.language]))
    text = render_completion(space.join(steps), answer)
    if fault == "missing_format":
        broken = [f"{space.join(steps)} {answer}", text.replace("</think>", ""), text.replace("<answer>", ""),
                  f"{text} Let me know if you have questions."]  # fmt: skip
        text = rng.choice(broken)
    return text


def _other_number(number: str, rng: random.Random) -> str:
    """A number more than 3 % away from `number`, with decimals only where it has some."""
    value = float(number)
    while True:
        other = value + rng.choice([-1, 1]) * max(1.0, round(abs(value) * rng.uniform(0.03, 0.5)))
        if other >= 0 and abs(other - value) > 0.03 * abs(value):
            return f"{other:g}" if "." in number else f"{other:.0f}"


def _another_answer(problem: Problem, rng: random.Random) -> str:
    """A wrong answer of the kind that `problem` asks for."""
    if problem.labels:
        return rng.choice([label for label in problem.labels.values() if label != problem.gold])
    opposites = {"yes": "no", "compliant": "non-compliant", "合规": "不合规"}
    opposites |= {wrong: right for right, wrong in opposites.items()}
    if problem.gold in opposites:
        return opposites[problem.gold]
    number = problem.gold.rstrip("%")
    return _other_number(number, rng) + problem.gold[len(number) :]


def traces(
    problems: Iterable[Problem],
    completions: Iterable[Completion],
    teacher: str,
    faults: dict[tuple[str, int], str | None],
) -> list[Trace]:
    """One `Trace` a completion; `faults` maps (problem id, sample) to what was planted, empty for a real teacher."""
    by_id = {problem.id: problem for problem in problems}
    made = []
    for completion in completions:
        text = completion.tagged
        made.append(
            Trace(
                id=f"{completion.id}#{completion.sample}",
                problem=by_id[completion.id],
                teacher=teacher,
                completion=text,
                reasoning=completion.reasoning or "",
                answer=grading.extract_answer(text),
                finish_reason=completion.finish_reason,
                tokens=completion.usage.completion_tokens,
                fault=faults.get((completion.id, completion.sample)),
            )
        )
    return made


def derived_traces(problems: Iterable[Problem]) -> list[Trace]:
    """Traces without a teacher: the reasoning that the source itself supports (`Problem.reference`), where it has one.

    For FinQA that is its gold program in words, for TFNS a rationale by rule. Nobody reasoned here; say so where it is
    shown.
    """
    return [
        Trace(
            id=f"{problem.id}#0",
            problem=problem,
            teacher="derived",
            completion=(text := render_completion(problem.reference, problem.gold)),
            reasoning=problem.reference,
            answer=grading.extract_answer(text),
        )
        for problem in problems
        if problem.reference
    ]


def distill(problems: Sequence[Problem], params: DistillationParams, store: AnswerStore) -> list[Trace]:
    """The traces of the teacher that `params` names; what `store` holds is not asked again.

    Problems whose answer is code get none where no model writes: a solution alone is no reasoning to learn from.
    """
    if params.teacher_backend in ("scripted", "derived"):
        asked, problems = problems, [problem for problem in problems if problem.answer_kind != "code"]
        if functions := len(asked) - len(problems):
            print(f"{functions} problems ask for code and get no trace; RL takes those that have unit tests")
    if params.teacher_backend == "derived":
        return derived_traces(problems)
    sampling = SamplingParams(
        temperature=params.temperature,
        top_p=params.top_p,
        max_tokens=params.max_tokens,
        num_samples=params.num_samples,
        seed=params.seed,
    )
    faults: dict[tuple[str, int], str | None] = {}
    if params.teacher_backend == "scripted":
        if without := [problem.id for problem in problems if not problem.reference]:
            raise ValueError(
                f"teacher_backend = 'scripted' writes worked solutions, and {len(without)} problems have none "
                f"(the first: {without[0]}); real records need 'derived', 'endpoint' or 'transformers'"
            )
        backend = scripted_teacher(problems, params.fault_rate, params.seed)
        faults = {
            (problem.id, sample): planted_fault(problem, sample, params.fault_rate, params.seed)
            for problem in problems
            for sample in range(params.num_samples)
        }
    elif params.teacher_backend == "endpoint":
        backend = EndpointBackend(
            params.teacher_base_url, params.teacher_model, api_key_env=params.key_env, concurrency=params.concurrency
        )
        backend.check()
    else:
        backend = (VLLMBackend if params.teacher_backend == "vllm" else TransformersBackend)(params.teacher_model)
    budget = Budget(params.max_cost, params.prompt_price, params.completion_price)
    completions = generate(requests(problems), sampling, backend, store, on_progress=print, budget=budget)
    return traces(problems, completions, params.teacher_model or params.teacher_backend, faults)
