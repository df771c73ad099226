"""How a problem is put to a model: as in training, or with instructions by benchmark and language.

`training` is the chat that the recipe's own models were trained on. A model that never saw it has to be told what kind
of answer is read, or it is graded for guessing the contract: `benchmark` says it, in the question's language. The
wording is ours; the paper states only that mathematical questions ask for the final answer in a box.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from finr1.records import SYSTEM_PROMPT, Problem, messages

SYSTEM = {"en": SYSTEM_PROMPT, "zh": "请在<think></think>中逐步推理，然后在<answer>\\boxed{}</answer>中给出结果。"}
BOX = {"en": "Put the final answer in \\boxed{}.", "zh": "请把最终答案写在\\boxed{}中。"}
BY_BENCHMARK = {  # what its questions leave open
    "finqa": "Answer from the page above. Compute with the numbers as they are printed, and round at the end if at "
    "all. Write percentages with the % sign; answer questions of yes or no with yes or no.",
    "convfinqa": "Answer the last question from the page and the conversation. Give a single number (percentages with "
    "the % sign), or yes or no.",
    "tfns": "Answer with one word.",
    "ant_finance": "这是一道单项选择题或判断题，请只给出选项字母，判断题只回答“是”或“否”。",
    "finance_instruct_500k": "Answer completely and to the point.",
}
BY_KIND = {
    ("number", "en"): "Give a single number.",
    ("number", "zh"): "请只给出一个数值。",
    ("percent", "en"): "Give a single percentage with the % sign.",
    ("percent", "zh"): "请给出带百分号的数值。",
    ("boolean", "en"): "Answer with one word.",
    ("boolean", "zh"): "请只用一个词回答。",
    ("choice", "en"): "Give the letter of the right option; if several are right, all their letters.",
    ("choice", "zh"): "请给出正确选项的字母；如有多个，请全部写出。",
    ("label", "en"): "Answer with one of the words named.",
    ("label", "zh"): "请从给出的词中选一个回答。",
    ("text", "en"): "Answer briefly.",
    ("text", "zh"): "请简要回答。",
    ("code", "en"): "Give the code alone.",
    ("code", "zh"): "请只给出代码。",
}


def instruction(problem: Problem) -> str:
    """What the prompt `benchmark` adds to the question: by benchmark where that has its own, else by answer kind."""
    own = (
        BY_BENCHMARK.get(problem.source)
        if problem.source != "finance_instruct_500k" or problem.language == "en"
        else None
    )
    told = own or BY_KIND[problem.answer_kind, problem.language]
    return told if problem.answer_kind == "code" else f"{told} {BOX[problem.language]}"


def asks(style: Literal["training", "benchmark"]) -> Callable[[Problem], list[dict[str, str]]]:
    """The function that turns a problem into a chat under this style of prompts."""
    return messages if style == "training" else benchmark_messages


def benchmark_messages(problem: Problem) -> list[dict[str, str]]:
    """The chat of `problem` with its instruction behind the question, and the system turn in the problem's language."""
    *before, last = messages(problem, SYSTEM[problem.language])
    return [*before, {**last, "content": f"{last['content']}\n\n{instruction(problem)}"}]
