"""Exact and near duplicates, by the words of question and context.

Near duplicates are proposed by MinHash (Broder 1997; the signatures are rensa's) in bands, as in locality-sensitive
hashing, and decided by the exact word overlap. Time and memory grow linearly: 300 bytes a problem besides the problems.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from itertools import chain, islice
from multiprocessing import get_context

import numpy as np

from finr1.records import Problem

SHINGLE = 3  # words in a row that near-duplicate detection compares
MIN_SIMILARITY = 0.8  # Jaccard, of context, earlier questions and question, each
# A pair of similarity 0.8 shares one of 16 bands of four values with probability 1 - (1 - 0.8^4)^16 = 0.9998.
NUM_PERM, BAND, MINHASH_SEED = 64, 4, 1
MOST_COMPARED = 20  # of those in one bucket, the earliest
CHUNK = 5000  # problems that a worker takes at once

Parts = tuple[str, str, str, str]


def tokens(text: str) -> list[str]:
    """Words and numbers of `text` after NFKC, lower case, without links; every Chinese character is one token.

    A sign or operator in front of a number counts: 7 - 2 is not 7 * 2.
    """
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub(r"https?://[!-~]+", " ", text)  # no further: Chinese text may follow a link
    return re.findall(r"[\u4e00-\u9fff]|[-−+*/×÷<>=](?=\s?[$¥€]?\d)|[^\W_\u4e00-\u9fff]+(?:[.,]\d+)*", text)


def drop_duplicates(
    problems: Sequence[Problem], min_similarity: float = MIN_SIMILARITY, workers: int = 1
) -> tuple[list[Problem], dict[str, int]]:
    """`problems` without repetitions, the first of each kept, and how many went for which reason.

    Exact: the same tokens in context, earlier questions, question and options. Near: the same numbers, and at least
    `min_similarity` of the word triples shared in each of them. Other numbers mean another problem (a template's
    instances, two years of one table), however alike the words. `min_similarity` above 1 leaves near duplicates in.
    Meant for one split at a time; between splits `decontaminate` decides. `workers` processes compute the fingerprints.
    """
    if not problems:
        return [], {"exact duplicate": 0, "near duplicate": 0}
    found = _fingerprints_of(problems, workers)
    _, first = np.unique(found["exact"], return_index=True)
    unique = np.sort(first)
    near: set[int] = set()
    if min_similarity <= 1:
        near = _near_duplicates(problems, unique, found["numbers"], found["signature"], min_similarity)
    kept = [problems[place] for place in unique.tolist() if place not in near]
    return kept, {"exact duplicate": len(problems) - len(unique), "near duplicate": len(near)}


def fingerprints(batch: Sequence[Parts]) -> dict[str, np.ndarray]:
    """What is compared of each problem of a batch, columns of equal length n.

    `exact` (n, 16 bytes): digest of its tokens. `numbers` (n, uint64): digest of its numbers by part. `signature`
    (n, `NUM_PERM`, uint32): MinHash of its word triples. Depends on nothing else, so it runs unchanged on any engine
    that maps batches.
    """
    from rensa import RMinHash

    words = [[tokens(text) for text in parts] for parts in batch]
    triples = [list(chain.from_iterable(_triples(w, part) for part, w in enumerate(parts))) for parts in words]
    numbers = ["\x1e".join(" ".join(_numbers(w)) for w in parts) for parts in words]
    return {
        "exact": np.array([_digest("\x1e".join("\x1f".join(w) for w in parts), 16) for parts in words], dtype="V16"),
        "numbers": np.array([int.from_bytes(_digest(text, 8)) for text in numbers], dtype=np.uint64),
        "signature": np.array(RMinHash.digests_from_token_sets(triples, NUM_PERM, MINHASH_SEED), dtype=np.uint32),
    }


def _fingerprints_of(problems: Sequence[Problem], workers: int) -> dict[str, np.ndarray]:
    starts = range(0, len(problems), CHUNK)
    chunks = ([_parts(problems[i]) for i in range(s, min(s + CHUNK, len(problems)))] for s in starts)
    if workers == 1:
        results = [fingerprints(chunk) for chunk in chunks]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            results = []
            while some := list(islice(chunks, 2 * workers)):  # `map` alone would read all chunks at once
                results += pool.map(fingerprints, some)
    return {name: np.concatenate([result[name] for result in results]) for name in results[0]}


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode("utf8", "surrogatepass"), digest_size=size).digest()


def _parts(problem: Problem) -> Parts:
    """What a problem rests on, what was asked before, what it asks, and among what one may choose."""
    earlier = " ".join(turn.question for turn in problem.history)
    return problem.context, earlier, problem.question, " ".join((problem.choices or {}).values())


def _triples(words: list[str], part: int) -> set[str]:
    """Runs of `SHINGLE` words, marked with the part; a shorter text is one run."""
    return {f"{part} " + " ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))}


def _numbers(words: list[str]) -> list[str]:
    return sorted(word for word in words if word[0].isdigit())


def _near_duplicates(
    problems: Sequence[Problem], places: np.ndarray, numbers: np.ndarray, signature: np.ndarray, min_similarity: float
) -> set[int]:
    """Those of `places` (ascending) whose problem nearly repeats an earlier one that stays."""
    candidates: dict[int, set[int]] = defaultdict(set)
    for bucket in _buckets(places, numbers, signature):
        for position, here in enumerate(bucket[1:], 1):
            candidates[here].update(bucket[: min(position, MOST_COMPARED)])

    @lru_cache(100_000)  # many problems share their page
    def triples(text: str, part: int) -> set[str]:
        return _triples(tokens(text), part)

    def similar(first: Parts, second: Parts) -> bool:
        pairs = ((triples(a, part), triples(b, part)) for part, (a, b) in enumerate(zip(first, second, strict=True)))
        return all(len(a & b) >= min_similarity * len(a | b) for a, b in pairs)

    repeated: set[int] = set()
    for here in sorted(candidates):
        earlier = (there for there in sorted(candidates[here]) if there not in repeated)
        if any(similar(_parts(problems[here]), _parts(problems[there])) for there in earlier):
            repeated.add(here)
    return repeated


def _buckets(places: np.ndarray, numbers: np.ndarray, signature: np.ndarray) -> Iterator[list[int]]:
    """Places, ascending, of problems with the same numbers and one band in common; only buckets of two or more."""
    for start in range(0, NUM_PERM, BAND):
        band = np.ascontiguousarray(signature[places, start : start + BAND])
        keys = np.empty(len(places), dtype=[("numbers", "u8"), ("low", "u8"), ("high", "u8")])
        keys["numbers"] = numbers[places]
        keys["low"], keys["high"] = band.view(np.uint64).T
        order = np.lexsort((places, keys["high"], keys["low"], keys["numbers"]))
        changes = np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1
        edges = np.concatenate([[0], changes, [len(order)]])
        for left in np.flatnonzero(np.diff(edges) > 1):
            yield places[order[edges[left] : edges[left + 1]]].tolist()
