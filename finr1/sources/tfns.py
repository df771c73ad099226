"""TFNS: tweets about companies and markets, labelled bearish, bullish or neutral.

https://huggingface.co/datasets/zeroshot/twitter-financial-news-sentiment; a record is {"text": ..., "label": 0|1|2}.
The published `validation` split is the test set here; `dev` is a tenth of `train`, chosen by a hash of the tweet, so
that it is the same tenth everywhere. Tweets that differ only in their link count as one, and test wins over train.

`reference` is a rationale BY RULE, not a teacher's: the cue words of `cues.yaml`, the meaning we give them, and the
label. It exists only where the rule agrees with the gold label. A tweet without any cue is neutral by rule.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import yaml

from finr1.records import Problem, hash_share
from finr1.sources.files import Files, Results, key_of, problem_of, read_each, require, split_in_name

LABELS = {"0": "bearish", "1": "bullish", "2": "neutral"}
QUESTION = "What is the sentiment of this tweet for the stock or market: bearish, bullish or neutral?"
DEV_SHARE, DEV_SEED = 0.1, 0


def read_files(files: Files) -> Results:
    """The results, the files of the test set first: of two copies of a tweet the first stays."""
    return read_each(read, {name: files[name] for name in sorted(files, key=lambda n: split_in_name(n) == "train")})


def read(record: dict, file: str) -> Problem:
    """A tweet as a `Problem`."""
    tweet, gold = " ".join(record["text"].split()), LABELS.get(str(record["label"]))
    text = " ".join(re.sub(r"https?://\S+", " ", tweet.lower()).split())  # two tweets that share it are the same
    key, split = key_of(text), split_in_name(file)
    require({"unknown split": split, "unreadable gold": gold, "no text but a link": text})
    if split == "dev":
        split = "test"
    elif split == "train" and hash_share(key, DEV_SEED) < DEV_SHARE:
        split = "dev"
    fields = {"capability": "sentiment", "answer_kind": "label", "labels": LABELS, "question": QUESTION}
    return problem_of("tfns", key, context=tweet, gold=gold, split=split, reference=rationale(text, gold), **fields)


@cache
def lexicon() -> list[tuple[str, str, re.Pattern]]:
    """(label, meaning for the stock, pattern) of each cue of `cues.yaml`, over lower-case text, in the file's order."""
    content = yaml.safe_load(Path(__file__).with_name("cues.yaml").read_text(encoding="utf8"))
    cues = []
    for label in LABELS.values():
        for meaning, pattern in content[label].items():
            whole = re.sub("<(.+?)>", lambda part: content["parts"][part[1]], pattern)
            cues.append((label, meaning, re.compile(rf"(?<![\w$-])(?:{whole})(?![\w%-])")))
    return cues


def rationale(text: str, gold: str) -> str:
    """Three short sentences for `gold` by rule from a tweet in lower case without links; "" where the rule disagrees.

    The rule's label is the one that all cues of the text point to, neutral if there are none; routine words yield to a
    cue of good or bad news.
    """
    matches = [(label, meaning, pattern.search(text.replace("’", "'"))) for label, meaning, pattern in lexicon()]
    cues = [(label, meaning, match[0]) for label, meaning, match in matches if match]
    labels = {label for label, *_ in cues}
    if (labels - {"neutral"} or labels or {"neutral"}) != {gold}:
        return ""
    told = "The tweet names no rise or fall, no beat or miss, no upgrade or downgrade.\nThat moves no stock."
    for label, meaning, words in reversed(cues):
        if label == gold:
            told = f'The tweet says "{words}".\n{meaning} for the stock.'
    return f"{told}\nSo the sentiment is {gold}."
