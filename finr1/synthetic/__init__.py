"""Seeded financial problems with exact answers, of all of Fin-R1's capabilities. SYNTHETIC, not real records.

With them the whole recipe runs offline in minutes, and every fault is known because we planted it. A number measured on
them tells how the machinery works on a small model, and nothing about real financial skill. Sentiment and ESG topics
rest on some ten events in each split, so their items are less independent than an interval assumes.
"""

import hashlib
import random
import re
from collections import Counter, deque
from collections.abc import Collection

from finr1.paths import data_beside
from finr1.records import Problem, Split, Turn
from finr1.synthetic.families import CODE_FAMILIES, FAMILIES, WORDS, Family, unit_tests

__all__ = ["CODE_FAMILIES", "FAMILIES", "WORDS", "generate_problems", "in_english", "instance_of"]
_ENGLISH = data_beside(__file__, "english.yaml")


def instance_of(problem: Problem) -> tuple[str, ...]:
    """The identity of an instance in its family: all its numbers (not the 2 of CO2), and each clause with its state."""
    text = " ".join([problem.context, *(turn.question for turn in problem.history), problem.question])
    return tuple(sorted(re.findall(r"(?<![A-Z])\d+|\w+: (?:yes|no)\b|[已未]\w\w", text)))


def in_english(text: str) -> str:
    """`text` of a Chinese family, translated by its templates; what no template has stays Chinese."""
    for chinese, english in _ENGLISH:
        text = re.sub(chinese, english, text)
    return text.strip()


def generate_problems(
    count: int, split: Split, seed: int, families: Collection[str] = (), partial: bool = False, code: bool = False
) -> list[Problem]:
    """`count` distinct problems of `split`, families in turn. In training some families have their turn less often.

    Splits share no instance, no wording and no name: a hash of an instance decides its split (60 % train, 20 % dev, 20 %
    test). The same arguments give the same problems, and a smaller `count` gives the first of them. `families`: only
    these. `code`: functions to write; their golds are unit tests for `sandbox.read_tests`. A family that runs out of
    instances raises `ValueError`; with `partial` it is left out, and the list may be shorter than `count`.
    """
    among = CODE_FAMILIES if code else FAMILIES
    chosen = {name: family for name, family in among.items() if not families or name in families}
    rng = random.Random(f"{'code:' if code else ''}{seed}:{split}")
    prefix = f"synthetic/{'code/' if code else ''}{split}"  # of the ids
    problems: list[Problem] = []
    seen: set[tuple[str, tuple[str, ...]]] = set()
    turns: Counter[str] = Counter()
    rounds = range(max((f.train_every for f in chosen.values()), default=1) if split == "train" else 1)
    waiting = deque(name for k in rounds for name, family in chosen.items() if k % family.train_every == 0)
    while waiting and len(problems) < count:
        name = waiting[0]
        for _ in range(2000):
            drawn = chosen[name].draw(rng, split, turns[name])
            problem = _problem(name, chosen[name], drawn, split, rng, f"{prefix}/{len(problems):05d}")
            instance = instance_of(problem)
            place = hashlib.sha256(f"{name}:{','.join(instance)}".encode()).digest()[0]
            if (name, instance) not in seen and split == ("train" if place < 154 else "dev" if place < 205 else "test"):
                seen.add((name, instance))
                turns[name] += 1
                problems.append(problem)
                waiting.rotate(-1)
                break
        else:
            if not partial:
                raise ValueError(f"family {name!r} has no further instance for {split} after {len(problems)} problems")
            waiting = deque(other for other in waiting if other != name)
    return problems


def _problem(name: str, family: Family, drawn: dict, split: Split, rng: random.Random, identifier: str) -> Problem:
    """One instance of `family`: its texts filled with what was drawn."""
    gap, stop = ("", "。") if family.language == "zh" else (" ", ".")

    def solution(steps: list[str]) -> str:
        parts = gap.join(f"{part}{stop}" for part in drawn.get("parts", ()))
        return gap.join(parts if step == "{parts}" else step.format_map(drawn) for step in steps)

    gold, worked = family.gold.format_map(drawn), solution(family.at_once)
    history = [(family.earlier[split], family.earlier_answer)] if family.earlier else []
    texts = {
        "context": family.context.format_map(drawn),
        "history": [Turn(question=q.format_map(drawn), answer=a.format_map(drawn)) for q, a in history],
        "question": rng.choice(family.questions[split]).format_map(drawn) + family.ending,
        "gold": unit_tests(gold, worked, drawn["calls"]) if family.answer_kind == "code" else gold,
        "reference": worked,
        "reference_by_parts": solution(family.by_parts),
        "labels": {label: label for label in family.labels} or None,
    }
    made = {"id": identifier, "group": identifier, "family": name, "split": split}
    kind = {name: getattr(family, name) for name in ("language", "capability", "answer_kind")}
    # rel_tol: the numbers are made to come out even
    return Problem(source="synthetic", module="synthetic", rel_tol=0.0, **kind, **texts, **made)
