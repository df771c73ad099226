"""What is right without reading the question, and what is answered whatever is asked.

An accuracy on questions that can be guessed says little alone. So a guess among the options and one constant for each
family come as samples of two more models, `CHANCE`, with decoding "none": every table and figure has them.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import pandas as pd

from finr1 import grading
from finr1.evaluation.samples import DECISIONS, Sample, about, grade_text
from finr1.records import Problem, messages, render_completion


def chance_samples(
    problems: Sequence[Problem], known: Sequence[Problem], ask: Callable[[Problem], list[dict]] = messages
) -> list[Sample]:
    """For each problem a "guess", and where its family has golds to learn from, a "constant".

    The guess answers once with each option, and one of these is right; a question without options is guessed once and
    wrongly. The constant is the commonest gold (of equals the first by alphabet) of the training problems in `known` of
    the same source and family, graded as any answer; code and open questions have none.
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


def given_answers(samples: Sequence[Sample], problems: Sequence[Problem]) -> pd.DataFrame:
    """A row for each of `samples`: its model, kind, source and family, and gold and answer as the grader reads them.

    The answer to a decision is the option that it is taken for, "other" where it is none; the options are the golds of
    the family in `problems`. Any other answer stands as it was given.
    """
    options, by_id = defaultdict(set), {problem.id: problem for problem in problems}
    for problem in problems:
        options[problem.source, problem.family].add(problem.gold)

    def read(problem: Problem, answer: str | None) -> str:
        if problem.answer_kind not in DECISIONS:
            return answer or "other"
        against, known = problem.graded_against | {"alternatives": []}, sorted(options[problem.source, problem.family])
        return next((option for option in known if grading.grade(answer, **against | {"gold": option})), "other")

    rows = [(s.model, s.kind, s.source, s.family, *(read(by_id[s.problem_id], of) for of in (s.gold, s.answer)))
            for s in samples]  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "kind", "source", "family", "gold", "given"])
