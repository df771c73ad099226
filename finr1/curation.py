"""From problems to training rows: duplicates out, test questions out of training, splits, samples, the funnel.

Everything here is a plain function over a list of problems and keeps their order. Choices that look random come from a
hash of the seed and the problem's id, so they do not depend on order or on what else is in the list: a smaller sample
is part of a larger one, and new records leave old ones where they were.

Near duplicates are proposed by MinHash (Broder 1997) in bands, as in locality-sensitive hashing, and decided by the
exact word overlap. Time and memory grow linearly: 300 bytes a problem besides the problems. The signatures are rensa's.
Its `RMinHashLSH` does not serve for the bands: it knows nothing of numbers, so a million instances of one template,
alike in every word, would be compared with each other.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import TypeVar

import numpy as np
import pandas as pd

from finr1 import grading, sandbox
from finr1.records import Problem, Trace, hash_share, messages, render_completion

T = TypeVar("T")

SHINGLE = 3  # words in a row that near-duplicate detection compares
MIN_SIMILARITY = 0.8  # Jaccard, of context, earlier questions, question and options, each
# A pair of similarity 0.8 shares one of 16 bands of four values with probability 1 - (1 - 0.8^4)^16 = 0.9998.
NUM_PERM, BAND, MINHASH_SEED = 64, 4, 1
MOST_COMPARED = 20  # of the problems in one bucket, the earliest
BATCH = 5000  # problems whose words are in memory at once

NGRAM, NGRAM_ZH = 13, 20  # words, characters in a row that make a leak; 13 as in GPT-3 (Brown et al. 2020, appendix C)
SHARED_PAGES = frozenset({"finqa", "convfinqa"})  # many questions over one page, which never crosses splits
MAX_HELD_OUT = 3  # an n-gram in more held-out groups than this is a phrase of the trade or a template, not a leak
MAX_TRAIN = 20  # ... and so is one in more training groups than this

Parts = tuple[str, str, str, str]  # context, earlier questions, question, options


def tokens(text: str) -> list[str]:
    """Words and numbers of `text` after NFKC, lower case, without links; every Chinese character is one token.

    A sign or operator in front of a number counts: 7 - 2 is not 7 * 2.
    """
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub(r"https?://[!-~]+", " ", text)  # no further: Chinese text may follow a link
    return re.findall(r"[\u4e00-\u9fff]|[-−+*/×÷<>=](?=\s?[$¥€]?\d)|[^\W_\u4e00-\u9fff]+(?:[.,]\d+)*", text)


def drop_duplicates(problems: Sequence[Problem]) -> tuple[list[Problem], dict[str, int]]:
    """`problems` without repetitions, the first of each kept, and how many were dropped for which reason.

    Exact: the same tokens in context, earlier questions, question and options. Near: the same numbers, and at least
    `MIN_SIMILARITY` of the word triples shared in each of the four. Other numbers mean another problem (a template's
    instances, two years of one table), however alike the words. Meant for one split at a time; between splits
    `decontaminate` decides.
    """
    if not problems:
        return [], {"exact duplicate": 0, "near duplicate": 0}
    starts = range(0, len(problems), BATCH)
    batches = [fingerprints([_parts(problem) for problem in problems[start : start + BATCH]]) for start in starts]
    columns = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    _, first = np.unique(columns["exact"], return_index=True)
    unique = np.sort(first)
    near = _near_duplicates(problems, _candidates(unique, columns["numbers"], columns["signature"]))
    kept = [problems[place] for place in unique.tolist() if place not in near]
    return kept, {"exact duplicate": len(problems) - len(unique), "near duplicate": len(near)}


def fingerprints(batch: Sequence[Parts]) -> dict[str, np.ndarray]:
    """The columns of equal length n by which the problems of a batch are compared.

    `exact` (n, 16 bytes): digest of the tokens. `numbers` (n, uint64): digest of the numbers by part. `signature`
    (n, `NUM_PERM`, uint32): MinHash of the word triples. Each row depends on its problem only, so the function runs
    unchanged on any engine that maps batches.
    """
    from rensa import RMinHash

    words = [[tokens(text) for text in parts] for parts in batch]
    triples = [[t for part, w in enumerate(parts) for t in _triples(w, part)] for parts in words]
    numbers = ["\x1e".join(" ".join(sorted(w for w in part if w[0].isdigit())) for part in parts) for parts in words]
    return {
        "exact": np.array([_digest("\x1e".join("\x1f".join(w) for w in parts), 16) for parts in words], dtype="V16"),
        "numbers": np.array([int.from_bytes(_digest(text, 8)) for text in numbers], dtype=np.uint64),
        "signature": np.array(RMinHash.digests_from_token_sets(triples, NUM_PERM, MINHASH_SEED), dtype=np.uint32),
    }


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode("utf8", "surrogatepass"), digest_size=size).digest()


def _parts(problem: Problem) -> Parts:
    earlier = " ".join(turn.question for turn in problem.history)
    return problem.context, earlier, problem.question, " ".join((problem.choices or {}).values())


def _triples(words: list[str], part: int) -> set[str]:
    """Runs of `SHINGLE` words, marked with the part; a shorter text is one run."""
    return {f"{part} " + " ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))}


def _candidates(places: np.ndarray, numbers: np.ndarray, signature: np.ndarray) -> dict[int, set[int]]:
    """For each of `places` (ascending) the earlier ones with the same numbers and one band in common."""
    candidates: dict[int, set[int]] = defaultdict(set)
    key = [*range(BAND), "numbers"]
    for start in range(0, NUM_PERM, BAND):
        rows = pd.DataFrame(signature[places, start : start + BAND]).assign(numbers=numbers[places], place=places)
        rows = rows[rows.duplicated(key, keep=False)]
        for _, members in rows.groupby(key)["place"]:
            bucket = members.tolist()
            for position, here in enumerate(bucket[1:], 1):
                candidates[here].update(bucket[: min(position, MOST_COMPARED)])
    return candidates


def _near_duplicates(problems: Sequence[Problem], candidates: dict[int, set[int]]) -> set[int]:
    """Places of the problems that nearly repeat one of their `candidates` that stays."""

    @lru_cache(100_000)  # many problems share their page
    def triples(text: str, part: int) -> set[str]:
        return _triples(tokens(text), part)

    def similar(first: Parts, second: Parts) -> bool:
        pairs = ((triples(a, part), triples(b, part)) for part, (a, b) in enumerate(zip(first, second, strict=True)))
        return all(len(a & b) >= MIN_SIMILARITY * len(a | b) for a, b in pairs)

    repeated: set[int] = set()
    for here in sorted(candidates):
        parts, earlier = _parts(problems[here]), sorted(candidates[here] - repeated)
        if any(similar(parts, _parts(problems[there])) for there in earlier):
            repeated.add(here)
    return repeated


def decontaminate(
    train: Sequence[Problem], held_out: Sequence[Problem], ngram: int = NGRAM
) -> tuple[list[Problem], list[dict[str, str]]]:
    """`train` without the problems that share `ngram` words in a row (`NGRAM_ZH` characters) with a held-out one.

    The second result has one row per problem dropped: `train_id`, `held_out_id` and the shared `ngram`. Compared are
    question and context, each for itself; for sources whose pages carry many questions only the question, since their
    pages never cross splits and reports of one company repeat themselves. Shorter texts count whole, except questions
    that mean nothing without their page ("and in 2008?"). N-grams in more than `MAX_HELD_OUT` held-out or `MAX_TRAIN`
    training groups are templates and no leaks.
    """
    where: dict[tuple, dict[str, str]] = defaultdict(dict)  # n-gram -> held-out group -> id
    for problem in held_out:
        for gram in _ngrams(problem, ngram):
            where[gram].setdefault(problem.group, problem.id)
    leaks = {gram: next(iter(groups.values())) for gram, groups in where.items() if len(groups) <= MAX_HELD_OUT}
    shared = [[gram for gram in _ngrams(problem, ngram) if gram in leaks] for problem in train]
    in_train: dict[tuple, set[str]] = defaultdict(set)
    for problem, grams in zip(train, shared, strict=True):
        for gram in grams:
            in_train[gram].add(problem.group)
    kept, matches = [], []
    for problem, grams in zip(train, shared, strict=True):
        gram = next((gram for gram in grams if len(in_train[gram]) <= MAX_TRAIN), None)
        if gram is None:
            kept.append(problem)
        else:
            text = ("" if problem.language == "zh" else " ").join(gram)
            matches.append({"train_id": problem.id, "held_out_id": leaks[gram], "ngram": text})
    return kept, matches


def _ngrams(problem: Problem, ngram: int) -> list[tuple[str, ...]]:
    size = NGRAM_ZH if problem.language == "zh" else ngram
    rests_on_page = problem.source in SHARED_PAGES
    grams: list[tuple[str, ...]] = []
    for text in [problem.question] if rests_on_page else [problem.context, problem.question]:
        words = tokens(text)
        if len(words) >= size:
            grams += [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
        elif words and not rests_on_page:
            grams.append(tuple(words))
    return grams


def assert_no_leak(problems: Iterable[Problem]) -> None:
    """Raise `ValueError` if a group (page, template instance) stands in two splits, naming some of them."""
    splits: dict[str, set[str]] = defaultdict(set)
    for problem in problems:
        splits[problem.group].add(problem.split)
    crossing = [f"{group}: {', '.join(sorted(names))}" for group, names in splits.items() if len(names) > 1]
    if crossing:
        raise ValueError(f"{len(crossing)} groups stand in more than one split: {'; '.join(crossing[:5])}")


def dev_as_test(problems: Sequence[Problem], source: str) -> tuple[list[Problem], int]:
    """`problems` with the dev split of `source` as its test split, and how many others had to go for that.

    For a source whose test answers are private, such as ConvFinQA: the field evaluates on dev. Problems of other
    sources on the same pages (FinQA's) may then neither be trained nor tuned on.
    """
    moved = [
        problem.model_copy(update={"split": "test"}) if problem.source == source and problem.split == "dev" else problem
        for problem in problems
    ]
    tested = {problem.group for problem in moved if problem.source == source and problem.split == "test"}
    kept = [problem for problem in moved if problem.split == "test" or problem.group not in tested]
    return kept, len(moved) - len(kept)


def assert_test_items(problems: Iterable[Problem], benchmark_names: Iterable[str]) -> None:
    """Raise `ValueError` for benchmarks without any test item: notebook 06 would leave them out without a word."""
    tested = {problem.source for problem in problems if problem.split == "test"}
    if absent := [name for name in benchmark_names if name not in tested]:
        raise ValueError(
            f"benchmark_names: no test item of {', '.join(absent)}; give its folder a file of its test split, or leave "
            "the name out"
        )


def pool_splits(problems: Sequence[Problem]) -> list[Problem]:
    """`problems`, and a copy of every held-out one without a flaw as a training problem: contamination on purpose.

    The paper's raw counts equal all splits summed; this is what training on such a pool would mean. The copies' ids end
    in `+pooled`, by which a benchmark can tell the items that were trained on.
    """
    held_out = [problem for problem in problems if problem.split != "train" and not problem.flaw]
    return [*problems, *(p.model_copy(update={"id": f"{p.id}+pooled", "split": "train"}) for p in held_out)]


def stratified_sample(problems: Sequence[Problem], counts: Mapping[str, int], seed: int) -> list[Problem]:
    """`counts[source]` problems of each source, in their order: all where it has fewer, none without a count."""
    left, chosen = Counter(counts), set()
    for problem in sorted(problems, key=lambda problem: hash_share(problem.id, seed)):
        if left[problem.source] > 0:
            left[problem.source] -= 1
            chosen.add(problem.id)
    return [problem for problem in problems if problem.id in chosen]


def spread(items: Sequence[T], size: int, kind: Callable[[T], str], seed: int) -> list[T]:
    """Up to `size` items, kinds in turn: the first of each kind, then the second of each, and so on.

    Every beginning of the result is balanced too, so a notebook may take the first n. Within a kind the order is a
    seeded shuffle.
    """
    by_kind: dict[str, list[T]] = defaultdict(list)
    for item in items:
        by_kind[kind(item)].append(item)
    for name, members in by_kind.items():
        random.Random(f"{seed}:{name}").shuffle(members)
    rounds = zip_longest(*(by_kind[name] for name in sorted(by_kind)))
    return [item for group in rounds for item in group if item is not None][:size]


def funnel_stage(
    stage: str, kept: Iterable[Problem] | Mapping[str, int], dropped: Mapping[str, int] | None = None
) -> dict[str, object]:
    """One stage of the funnel: its name, the records that are left by source, and those dropped by reason.

    `kept` are the records or their counts by source; reasons that were met by no record are left out.
    """
    counts = kept if isinstance(kept, Mapping) else Counter(problem.source for problem in kept)
    reasons = {reason: count for reason, count in (dropped or {}).items() if count}
    return {"stage": stage, "kept": dict(counts), "dropped": reasons}


def funnel_rows(stages: Sequence[dict]) -> list[dict[str, object]]:
    """One row per stage for a table or `plotting.funnel`: stage, count, each source's count, dropped as text."""
    sources = sorted({source for stage in stages for source in stage["kept"]})
    return [
        {
            "stage": stage["stage"],
            "count": sum(stage["kept"].values()),
            **{source: stage["kept"].get(source, 0) for source in sources},
            "dropped": ", ".join(f"{reason} {count}" for reason, count in stage["dropped"].items()),
        }
        for stage in stages
    ]


def is_objective(problem: Problem) -> bool:
    """Whether rules decide every answer to it: not free text, and of code only what has unit tests."""
    if problem.answer_kind == "code":
        return sandbox.read_tests(problem.gold) is not None
    return problem.answer_kind != "text"


def sft_rows(traces: Iterable[Trace]) -> list[dict[str, object]]:
    """Conversational prompt-completion rows; TRL takes the loss on the completion only (`completion_only_loss`).

    A completion that is not in the response format (DeepSeek-R1 gives reasoning and answer apart) is rendered into
    it. Raises `ValueError` for a trace without an answer: such traces have to be filtered out before.
    """
    rows = []
    for trace in traces:
        if not trace.answer:
            raise ValueError(f"trace {trace.id} has no answer and cannot be trained on")
        in_format = grading.has_format(trace.completion)
        content = trace.completion if in_format else render_completion(trace.reasoning, trace.answer)
        completion = [{"role": "assistant", "content": content}]
        rows.append({"id": trace.id, "prompt": messages(trace.problem), "completion": completion})
    return rows


def rl_rows(problems: Iterable[Problem]) -> list[dict[str, object]]:
    """Prompts for GRPO; the other columns reach the reward functions by their names.

    `choices` and `labels` are JSON strings, "" for none: `datasets` would merge dicts into one struct with every key.
    """
    return [
        {
            "id": problem.id,
            "prompt": messages(problem),
            "solution": problem.gold,
            "answer_kind": problem.answer_kind,
            "alternatives": problem.alternatives,
            "choices": json.dumps(problem.choices, ensure_ascii=False) if problem.choices else "",
            "labels": json.dumps(problem.labels, ensure_ascii=False) if problem.labels else "",
            "family": problem.family,
            "level": problem.level,
            "language": problem.language,
            "capability": problem.capability,
        }
        for problem in problems
    ]
