"""The teacher's side of notebook 02: how it is asked, what its answers become, and a scripted one with planted faults.

The faults are known, and some are subtle: a slip in words, a repetition in other words, a stray sentence on finance.
Neither teacher need be of one mind: a share of the problems with two worked solutions is solved by parts.
"""

import random
import re
from collections.abc import Iterable, Mapping

from finr1 import grading
from finr1.generation import Completion, Request, ScriptedBackend
from finr1.records import Problem, Trace, messages, render_completion
from finr1.ways import way_of

FAULTS = ("wrong_answer", "arithmetic_slip", "skipped_steps", "repetition", "off_domain", "missing_format")
OFF_DOMAIN = {
    "en": ["The goalkeeper saved a penalty late in the match.", "Stir the soup and add some fresh basil.",
           "It rained all night in the mountains.", "Her cat sleeps on the piano.", "The train to the coast was late.",
           "The stock market was closed for a holiday."],
    "zh": ["昨晚的球赛非常精彩。", "把面条煮熟再放点葱花。", "山里下了一夜的雨。", "她家的猫睡在钢琴上。",
           "去海边的火车晚点了。", "今天股票市场休市。"],
}  # fmt: skip
OPPOSITES = {"yes": "no", "compliant": "non-compliant", "合规": "不合规"}
OPPOSITES |= {wrong: right for right, wrong in OPPOSITES.items()}
EQUATION = re.compile(r"= (\d+(?:\.\d+)?)")
STATEMENT = re.compile(r"(?:=|\bis) (\d+(?:\.\d+)?)")  # an equation, or one in words: "20% is 0.2"
SENTENCE = re.compile(r"(?<=。)|(?<=\.)\s+")


def requests(problems: Iterable[Problem]) -> list[Request]:
    """One request per problem, as the paper asks DeepSeek-R1: no system prompt, a note at the end of the user turn."""
    made = []
    for problem in problems:
        chat = messages(problem, system_prompt="")
        chat[-1]["content"] += "\n\nReason step by step and put the final answer in \\boxed{}."
        made.append(Request(id=problem.id, messages=chat))
    return made


def scripted_teacher(
    problems: Iterable[Problem], fault_rate: float, seed: int, by_parts_share: float = 0.0
) -> ScriptedBackend:
    """A backend that answers the requests of synthetic `problems` from their worked solutions, some of them spoiled."""
    by_id = {problem.id: problem for problem in problems}

    def answer(request: Request, sampling, sample: int) -> str:
        problem = by_id[request.id]
        fault = planted_fault(problem, sample, fault_rate, seed)
        solution = _solution(problem, sample, seed, by_parts_share)
        return write_answer(problem, solution, fault, _rng("text", problem, sample, seed))

    name = f"scripted-teacher:fault_rate={fault_rate}:by_parts_share={by_parts_share}:seed={seed}"
    return ScriptedBackend(answer, name=name)


def _solution(problem: Problem, sample: int, seed: int, by_parts_share: float) -> str:
    """The worked solution that is told; a larger share keeps what a smaller one tells by parts."""
    by_parts = problem.reference_by_parts and _rng("way", problem, sample, seed).random() < by_parts_share
    return problem.reference_by_parts if by_parts else problem.reference


def planted_fault(problem: Problem, sample: int, fault_rate: float, seed: int) -> str | None:
    """The fault that `scripted_teacher` plants into this answer, or None; the truth the audit compares with."""
    rng = _rng("fault", problem, sample, seed)
    if rng.random() >= fault_rate:
        return None
    return rng.choice([f for f in FAULTS if f != "arithmetic_slip" or EQUATION.search(problem.reference)])


def _rng(purpose: str, problem: Problem, sample: int, seed: int) -> random.Random:
    # From what is asked, not from the id: answers are stored by chat, and an id may move to another problem.
    return random.Random(f"{purpose}:{seed}:{sample}:{messages(problem, system_prompt='')}")


def write_answer(problem: Problem, solution: str, fault: str | None, rng: random.Random) -> str:
    """A worked `solution` of `problem` in the response format, with `fault` planted."""
    steps, answer = [step for step in SENTENCE.split(solution) if step], problem.gold
    chinese = problem.language == "zh"
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
        again = rng.choice(["", "", "", "再说一遍：" if chinese else "That is to say, "])
        steps[slot + 1 : slot + 1] = [again + steps[slot]] * rng.choice([1, 2, 3])
    elif fault == "off_domain":
        count = 1 if len(steps) < 5 else 2  # a share of the text, long or short
        for stray in rng.sample(OFF_DOMAIN[problem.language], count):
            steps.insert(rng.randrange(len(steps)), stray)
    reasoning = ("" if chinese else " ").join(steps)
    text = render_completion(reasoning, answer)
    if fault == "missing_format":
        chatty = f"{text} Let me know if you have questions."
        text = rng.choice([f"{reasoning} {answer}", text.replace("</think>", ""), text.replace("<answer>", ""), chatty])
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
    if problem.gold in OPPOSITES:
        return OPPOSITES[problem.gold]
    number = problem.gold.rstrip("%")
    return _other_number(number, rng) + problem.gold[len(number) :]


def traces(
    problems: Iterable[Problem], completions: Iterable[Completion], teacher: str, faults: Mapping[tuple[str, int], str]
) -> list[Trace]:
    """One `Trace` per completion; `faults` maps (problem id, sample) to what was planted, empty for a real teacher."""
    by_id, made = {problem.id: problem for problem in problems}, []
    for c in completions:
        known = {"finish_reason": c.finish_reason, "tokens": c.usage.completion_tokens}
        known["fault"] = faults.get((c.id, c.sample))
        made.append(_trace(by_id[c.id], c.sample, teacher, c.tagged, c.reasoning or "", **known))
    return made


def derived_traces(problems: Iterable[Problem], seed: int = 0, by_parts_share: float = 0.0) -> list[Trace]:
    """Traces from the worked solution where there is one: FinQA's gold program in words, TFNS's rationale by rule."""
    told = [(problem, _solution(problem, 0, seed, by_parts_share)) for problem in problems if problem.reference]
    return [_trace(problem, 0, "derived", render_completion(text, problem.gold), text) for problem, text in told]


def _trace(problem: Problem, sample: int, teacher: str, text: str, reasoning: str, **known) -> Trace:
    said = {"completion": text, "reasoning": reasoning, "answer": grading.extract_answer(text)}
    way = way_of(problem, reasoning or text)
    return Trace(id=f"{problem.id}#{sample}", problem=problem, teacher=teacher, way=way, **said, **known)
