"""TFNS: tweets about companies and markets, labelled bearish, bullish or neutral.

https://huggingface.co/datasets/zeroshot/twitter-financial-news-sentiment; a record is {"text": ..., "label": 0|1|2}.
The published `validation` split is the test set here; `dev` is a tenth of `train`, chosen by a hash of the tweet, so
that it is the same tenth everywhere. Tweets that differ only in their link count as one, and test wins over train.

`reference` is a rationale BY RULE, not a teacher's: the cue words of `cues.yaml`, the meaning we give them, and the
label. It exists only where the rule agrees with the gold label; it says what the words say, and no more. A tweet
without any cue is neutral by rule, and its rationale says that no cue was found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from finr1.records import Problem, hash_share
from finr1.sources.files import Files, NoProblem, key_of, read_each, require, split_in_name

LABELS = {"0": "bearish", "1": "bullish", "2": "neutral"}
QUESTION = "What is the sentiment of this tweet for the stock or market: bearish, bullish or neutral?"
DEV_SHARE, DEV_SEED = 0.1, 0
SPLITS = {"train": "train", "dev": "test", "test": "test"}  # the split in a file's name -> ours


def read_files(files: Files) -> Iterator[tuple[str, int, Problem | str]]:
    """(file, number, problem or reason), the files of the test set first: of two copies of a tweet the first stays."""
    ordered = sorted(files, key=lambda name: SPLITS.get(split_in_name(name) or "") != "test")
    return read_each(read, {name: files[name] for name in ordered})


def read(record: Any, file: str) -> Problem:
    """A tweet as a `Problem`."""
    if not isinstance(record, dict):
        raise NoProblem("unknown schema")
    if "target" in record and not {"text", "label"} <= record.keys():
        raise NoProblem("words in place of labels")  # one re-upload calls label 1 neutral and 2 positive: wrong
    tweet, gold = " ".join(record["text"].split()), LABELS.get(str(record["label"]))
    split, text = SPLITS.get(split_in_name(file) or ""), text_without_links(tweet)
    require({"unknown split": split, "unreadable gold": gold, "no text but a link": text})
    key = key_of(text)
    if split == "train" and hash_share(key, DEV_SEED) < DEV_SHARE:
        split = "dev"
    return Problem(
        id=f"tfns/{key}",
        source="tfns",
        module="reasoning business knowledge",
        language="en",
        capability="sentiment",
        answer_kind="label",
        context=tweet,
        question=QUESTION,
        labels=LABELS,
        gold=gold,
        split=split,
        group=f"tfns/{key}",
        reference=rationale(text, gold),
    )


def text_without_links(tweet: str) -> str:
    """`tweet` without links, case and white space: two tweets that share it are the same."""
    return " ".join(re.sub(r"https?://\S+", " ", tweet.lower()).split())


@cache
def lexicon() -> list[tuple[str, str, re.Pattern]]:
    """(label, meaning for the stock, pattern) of each cue of `cues.yaml`, over lower-case text, in the file's order."""
    content = yaml.safe_load(Path(__file__).with_name("cues.yaml").read_text(encoding="utf8"))
    cues = []
    for label in LABELS.values():
        for meaning, pattern in content[label].items():
            for name, part in content["parts"].items():
                pattern = pattern.replace(f"<{name}>", part)
            cues.append((label, meaning, re.compile(rf"(?<![\w$-])(?:{pattern})(?![\w%-])")))
    return cues


def rationale(text: str, gold: str) -> str:
    """Three short sentences for `gold` by rule from a tweet in lower case without links; "" where the rule disagrees.

    The rule's label is the one that all cues of the text point to, neutral if there are none; routine words yield to a
    cue of good or bad news.
    """
    text = text.replace("’", "'")
    matches = [(label, meaning, pattern.search(text)) for label, meaning, pattern in lexicon()]
    cues = [(label, meaning, match[0]) for label, meaning, match in matches if match]
    labels = {label for label, *_ in cues}
    if (labels - {"neutral"} or labels or {"neutral"}) != {gold}:
        return ""
    told = "The tweet names no rise or fall, no beat or miss, no upgrade or downgrade.\nThat moves no stock."
    for label, meaning, words in cues:
        if label == gold:
            told = f'The tweet says "{words}".\n{meaning} for the stock.'
            break
    return f"{told}\nSo the sentiment is {gold}."
