"""The two ways of a teacher that is not of one mind: a solution at once, and one by parts."""

from finr1.judge.steps import split_steps
from finr1.records import Problem, Way


def way_of(problem: Problem, text: str) -> Way | None:
    """Which of the problem's two worked solutions `text` is like: the one whose number of steps is nearer.

    None where the problem has one solution only. At a tie it is the shorter one.
    """
    if not problem.reference_by_parts:
        return None
    at_once, by_parts = (len(split_steps(told)) for told in (problem.reference, problem.reference_by_parts))
    steps = len(split_steps(text.partition("</think>")[0].removeprefix("<think>")))
    return "by_parts" if steps > (at_once + by_parts) / 2 else "at_once"
