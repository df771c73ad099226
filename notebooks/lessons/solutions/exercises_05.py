"""Solutions of exercises_05: GRPO. The name of each is that of its exercise."""

from finr1 import grading


def two_zeros(completions, solution, answer_kind, **columns):
    """The format is worth half of a right answer: right without tags 1, wrong with tags 0.5."""
    texts = [completion[0]["content"] for completion in completions]
    rights = [grading.is_correct(text, gold=gold, answer_kind=kind)
              for text, gold, kind in zip(texts, solution, answer_kind, strict=True)]  # fmt: skip
    return [float(right or 0) + 0.5 * grading.has_format(text) for right, text in zip(rights, texts, strict=True)]


by_hand = [1.22, 0.0, 0.0, -1.22]  # mean 1, spread sqrt(2 / 3) = 0.816

dead = {"a", "c", "e"}  # e has one reward that is known; the others are left out

clipped = [False, True, False, False, True]  # better and already above 1.2, or worse and already below 0.8
