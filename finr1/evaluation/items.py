"""The items: the benchmarks with the paper's sampling, six capability suites, and the words in which they are asked.

The paper (arXiv 2503.16252) asks 1,000 random questions of FinQA, ConvFinQA, Ant_Finance and TFNS each, all where there
are fewer, and "a stratified 10 %" of Finance-Instruct-500k by strata that it does not name. Here that tenth is the part
that the source's reader has put aside by hash (`sources.questions`), which keeps every stratum's share up to chance.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from finr1 import sandbox, synthetic
from finr1.records import SYSTEM_PROMPT, Capability, Problem, hash_share, messages

WHOLE = {"finance_instruct_500k"}  # benchmarks of which `num_items` is no limit
SUITES: dict[str, tuple[Capability, str | None]] = {  # name -> capability, and the language where it matters
    "code": ("code", None),
    "calculation (en)": ("calculation", "en"),
    "calculation (zh)": ("calculation", "zh"),
    "compliance": ("compliance", None),
    "risk": ("risk", None),
    "ESG": ("esg", None),
    "multi-turn": ("multi_turn", None),
}

# `training` is the chat that the recipe's own models were trained on. A model that never saw it has to be told what
# kind of answer is read, or it is graded for guessing the contract: `benchmark` says it, in the question's language.
# The wording is ours; the paper states only that mathematical questions ask for the final answer in a box.
SYSTEM = {"en": SYSTEM_PROMPT, "zh": "请在<think></think>中逐步推理，然后在<answer>\\boxed{}</answer>中给出结果。"}
BOX = {"en": "Put the final answer in \\boxed{}.", "zh": "请把最终答案写在\\boxed{}中。"}
BY_BENCHMARK = {  # for the details that its questions leave open
    "finqa": "Answer from the page above. Compute with the numbers as they are printed, and round at the end if at "
    "all. Write percentages with the % sign; answer questions of yes or no with yes or no.",
    "convfinqa": "Answer the last question from the page and the conversation. Give a single number (percentages with "
    "the % sign), or yes or no.",
    "tfns": "Answer with one word.",
    "ant_finance": "这是一道单项选择题或判断题，请只给出选项字母，判断题只回答“是”或“否”。",
    "finance_instruct_500k": "Answer completely and to the point.",
}
BY_KIND = {
    "number": {"en": "Give a single number.", "zh": "请只给出一个数值。"},
    "percent": {"en": "Give a single percentage with the % sign.", "zh": "请给出带百分号的数值。"},
    "boolean": {"en": "Answer with one word.", "zh": "请只用一个词回答。"},
    "choice": {
        "en": "Give the letter of the right option; if several are right, all their letters.",
        "zh": "请给出正确选项的字母；如有多个，请全部写出。",
    },
    "label": {"en": "Answer with one of the words named.", "zh": "请从给出的词中选一个回答。"},
    "text": {"en": "Answer briefly.", "zh": "请简要回答。"},
    "code": {"en": "Give the code alone.", "zh": "请只给出代码。"},
}


def suite_of(capability: str, language: str) -> str | None:
    """The suite that questions of `capability` in `language` belong to; None for sentiment and knowledge."""
    suites = (name for name, (kind, tongue) in SUITES.items() if kind == capability and tongue in (None, language))
    return next(suites, None)


def select_items(
    problems: Sequence[Problem], sampling: Literal["balanced", "paper"], num_items: int, seed: int
) -> list[Problem]:
    """The test problems to ask; the same for the same problems and `seed`.

    "balanced": the first `num_items`, as notebook 01 has put its kinds in turn. "paper": `num_items` of each source,
    drawn by `seed`, all where it has fewer; of those in `WHOLE`, all.
    """
    test = [problem for problem in problems if problem.split == "test"]
    if sampling == "balanced":
        return test[:num_items]
    chosen: list[Problem] = []
    for source in sorted({problem.source for problem in test}):
        members = _by_hash([problem for problem in test if problem.source == source], seed)
        chosen += members if source in WHOLE else members[:num_items]
    return chosen


def suite_items(items: Sequence[Problem], problems: Sequence[Problem], size: int, seed: int) -> list[Problem]:
    """Further test problems, so that each of `SUITES` has `size` questions where the benchmarks have fewer.

    Real records of `problems` come first. Missing ones are generated, and their `source` is "synthetic": a number on
    those says that a model can do the form, not that it knows finance. Their answers are exact, and none repeats a
    question of `items` or `problems`. A suite whose templates have fewer instances than `size` gets those it has.
    """
    chosen: list[Problem] = []
    taken = {problem.id for problem in items}
    spare = [problem for problem in problems if problem.split == "test" and problem.id not in taken]
    real = [problem for problem in spare if problem.source != "synthetic"]
    spare = [*_by_hash(real, seed), *(problem for problem in spare if problem.source == "synthetic")]
    counts = Counter(suite_of(problem.capability, problem.language) for problem in items)
    for name in SUITES:
        missing = max(0, size - counts[name])
        members = [p for p in spare if suite_of(p.capability, p.language) == name][:missing]
        chosen += members + _generated(name, missing - len(members), seed, [*items, *problems])
    return chosen


def _by_hash(problems: Sequence[Problem], seed: int) -> list[Problem]:
    return sorted(problems, key=lambda problem: hash_share(problem.id, seed))


def _generated(suite: str, count: int, seed: int, known: Sequence[Problem]) -> list[Problem]:
    """Up to `count` synthetic test problems of one suite, none asked in `known`; code is graded by unit tests.

    Their ids are their own. A run's problems may come from the same seed, so as many more are drawn as may be known.
    """
    if count <= 0:
        return []

    def asked(problem: Problem) -> tuple:  # equal for problems that are the same question to a model
        return problem.question, problem.context, *(turn.question for turn in problem.history)

    known = {asked(p) for p in known if p.source == "synthetic" and suite_of(p.capability, p.language) == suite}
    size = count + len(known)
    if suite == "code":
        sandbox.check()  # an error now, not when all answers are there
        members = synthetic.generate_code_problems(size, "test", seed, partial=True)
        return [p for p in members if asked(p) not in known][:count]
    families = [name for name, f in synthetic.FAMILIES.items() if suite_of(f.capability, f.language) == suite]
    members = synthetic.generate_problems(size, "test", seed, families=families, partial=True)
    members = [p for p in members if asked(p) not in known][:count]
    return [p.model_copy(update={"id": f"synthetic/suite/{p.family}/{p.id.rpartition('/')[2]}"}) for p in members]


def items_record(items: Sequence[Problem], suites: Sequence[Problem], seed: int) -> dict:
    """The list of items to keep beside the answers: ids by source, and a hash that is equal for equal lists.

    `sha256` is over the whole records, so an edited question is another list.
    """
    lines = [json.dumps(p.model_dump(mode="json"), sort_keys=True, ensure_ascii=False) for p in (*items, *suites)]
    by_source: dict[str, list[str]] = {}
    for problem in items:
        by_source.setdefault(problem.source, []).append(problem.id)
    return {
        "seed": seed,
        "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "benchmarks": by_source,
        "suites": [problem.id for problem in suites],
    }


def item_counts(items: Sequence[Problem], suites: Sequence[Problem]) -> list[dict]:
    """One row per benchmark and suite: questions, how many are synthetic, how many have a known bad gold."""
    groups = {("benchmark", name): [p for p in items if p.source == name] for name in sorted({p.source for p in items})}
    for name in SUITES:
        groups["suite", name] = [p for p in (*items, *suites) if suite_of(p.capability, p.language) == name]
    return [
        {"part": part, "name": name, "items": len(members), "synthetic": sum(p.source == "synthetic" for p in members),
         "bad golds": sum(bool(p.flaw) for p in members), "languages": " ".join(sorted({p.language for p in members}))}
        for (part, name), members in groups.items()
    ]  # fmt: skip


def asks(style: Literal["training", "benchmark"]) -> Callable[[Problem], list[dict[str, str]]]:
    """The function that turns a problem into a chat under this style of prompts."""
    return messages if style == "training" else benchmark_messages


def benchmark_messages(problem: Problem) -> list[dict[str, str]]:
    """The chat of `problem` with an instruction behind the question, and the system turn in the problem's language.

    The instruction is that of its benchmark where that has its own, else of its answer kind. That of
    Finance-Instruct-500k is English, and so are not all of its questions.
    """
    kind, language = problem.answer_kind, problem.language
    told = BY_BENCHMARK.get(problem.source, BY_KIND[kind][language])
    if problem.source == "finance_instruct_500k" and language != "en":
        told = BY_KIND[kind][language]
    if kind != "code":
        told = f"{told} {BOX[language]}"
    *before, last = messages(problem, SYSTEM[language])
    return [*before, {**last, "content": f"{last['content']}\n\n{told}"}]
