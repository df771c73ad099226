"""Solutions of exercises_03: filtering. The name of each is that of its exercise."""

import re

from checks import audited, counts

from finr1 import judge, records

# What sound steps of the synthetic families say without a word of their question.
PHRASES = {"rule", "emissions", "concerns", "good", "bad", "signal"}


def words(text: str) -> set[str]:
    """Longer words in lower case without those that say nothing, and pairs of Chinese characters."""
    found = {*re.findall(r"[a-z]{3,}", text.lower()), *re.findall(r"(?=([\u4e00-\u9fff]{2}))", text)}
    return found - {"the", "and", "for", "was"}


def eighth(trace: records.Trace) -> bool:
    """Whether each step but the last has a number, or a word of the question or of an earlier step."""
    known = words(records.render_question(trace.problem)) | PHRASES
    for step in judge.split_steps(trace.reasoning)[:-1]:
        if not re.search(r"\d", step) and not words(step) & known:
            return False
        known |= words(step)
    return True


table = counts(audited())
spoiled = table.drop("none").sum()
audit = {
    "precision": spoiled["rejected"] / table["rejected"].sum(),
    "recall": spoiled["rejected"] / spoiled["planted"],
    "sound kept": 1 - table.loc["none", "rejected"] / table.loc["none", "planted"],
}

# Stars do no harm, a thought does not count, and a line with another word in it is no verdict.
verdicts = [True, True, None, False, None]
