"""What is right without reading the question: a guess among the options, and one constant for each family.

An accuracy on questions that can be guessed says little without them. They come as samples of two more models,
`CHANCE`, with decoding "none", so that every table and figure has them on the same items as the models.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from finr1.evaluation.samples import DECISIONS, Sample, about, grade_text
from finr1.records import Problem, messages, render_completion

_UNGUESSABLE = ("code", "text")  # no constant is an answer to these


def chance_samples(
    problems: Sequence[Problem], known: Sequence[Problem], ask: Callable[[Problem], list[dict]] = messages
) -> list[Sample]:
    """For each problem a "guess", and where its family has golds to learn from, a "constant".

    The guess answers once with each option, and one of these is right; a question without options is guessed once and
    wrongly. The constant is the commonest gold (of equals the first by alphabet) of the training problems in `known` of
    the same source and family, graded as any answer; it never sees a gold of the problems asked.
    """
    golds, samples = defaultdict(Counter), []
    for problem in known:
        if problem.split == "train" and problem.answer_kind not in _UNGUESSABLE:
            golds[problem.source, problem.family][problem.gold] += 1
    for problem in problems:
        fixed = about(problem, ask(problem)) | {"decoding": "none", "tokens": None, "finish_reason": "stop"}
        guess = grade_text(problem, "") | {"model": "guess", "text": "", "format": True}
        for option in range(max(1, options_of(problem))):
            right = option == 0 and problem.answer_kind in DECISIONS
            samples.append(Sample(**fixed, **guess | {"correct": right, "lenient_correct": right}, sample=option))
        if counts := golds[problem.source, problem.family]:
            text = render_completion("As most often.", max(sorted(counts), key=counts.get))
            samples.append(Sample(**fixed, model="constant", sample=0, text=text, **grade_text(problem, text)))
    return samples


def options_of(problem: Problem) -> int:
    """How many answers a question offers: its labels or choices, two where it is yes or no; 0 for none."""
    of_kind = {"boolean": 2, "label": len(problem.labels or {}), "choice": len(problem.choices or {})}
    return of_kind.get(problem.answer_kind, 0)
