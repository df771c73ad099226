"""FinCUGE: Chinese financial news and forum tasks of BBT-CFLEB, https://github.com/ssymmetry/BBT-FinCUGE-Applications.

A file is one task, its records are positional lists: finfe `[text, 0|1|2]`, finnl `[text, "中国 公司"]`, finre
`[head, tail, relation, text]`, finese `[id, text, event, subject]`, finnsp `[id, title, text, candidates, negative?,
subject]`, finqa and fincqa `[question and text, answer]`, finna `[headline, text]`. "NaN" is a string there and means
none. FinCUGE-Instruction's `{instruction, input, output}` is read as well. `finne` has no published meaning of its
three values and is left out. The files `*_eval` are `test`.

Labels are closed sets and graded by rules; entities and short answers are `text`: right when equal, else a case for
a judge.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from finr1.records import Problem
from finr1.sources.files import Files, Reason, attempt, download, split_in_name, text_of
from finr1.sources.golds import CONTRADICTORY

HOME = "https://github.com/ssymmetry/BBT-FinCUGE-Applications/archive/refs/heads/main.zip"
MODULE = "reasoning business knowledge"
SENTIMENTS = {"0": "消极", "1": "中性", "2": "积极"}
RELATIONS = (
    "unknown 自己 合作 竞争 拥有 被拥有 持股 被持股 分析 被分析 签约 增持 被增持 纠纷 减持 被减持 收购 "
    "被收购 重组 交易 发行 被发行 合资 合并 订单 拟收购 被拟收购 注资 被注资 商讨 帮助 被帮助 入股 被入股 "
    "成立 被成立 买资 被买资 转让 被转让 借壳 被借壳"
).split()


def fetch(cache: Path) -> Files:
    """The repository's archive, kept in `cache`. Raises `SourceError` if it cannot be reached."""
    return download({"fincuge.zip": HOME}, cache)


def rows(files: Files) -> Iterator[tuple[str, int, Problem | Reason]]:
    """(file, number, problem or reason), questions that stand there with several answers as one.

    A pair of companies has several relations, an event several subjects: their answers become alternatives. A forum
    post with two sentiments is flawed. Training texts that stand in an eval file, too, are left out.
    """
    results = [
        (name, number, attempt(read, record, name))
        for name, records in files.items()
        for number, record in enumerate(records)
    ]
    tested = {r.group for *_, r in results if isinstance(r, Problem) and r.split == "test"}
    answers: dict[tuple[str, str], list[str]] = {}  # (split, id) -> golds
    for *_, result in results:
        if isinstance(result, Problem):
            answers.setdefault((result.split, result.id), []).append(result.gold)
    done: set[str] = set()
    for name, number, result in results:
        if isinstance(result, str):
            yield name, number, Reason(result)
        elif result.split != "test" and result.group in tested:
            yield name, number, Reason("text of the test split")
        elif result.id in done:
            first = answers[result.split, result.id][0]
            yield name, number, Reason("duplicate id" if result.gold == first else "a further answer to a question")
        else:
            done.add(result.id)
            others = list(dict.fromkeys(gold for gold in answers[result.split, result.id] if gold != result.gold))
            flaw = CONTRADICTORY if others and result.capability == "sentiment" else ""
            yield name, number, result.model_copy(update={"alternatives": others, "flaw": flaw})


def read(record: Any, file: str) -> Problem | str:
    """A record of the task that the file's path names as a `Problem`, or the reason why it is none."""
    task = re.search(r"(?<![a-z])(fin(?:cqa|ese|fe|na|ne|nl|nsp|qa|re))(?![a-z])", file.lower())
    if isinstance(record, dict):
        parts: Parts | str = _instruction(record)
    elif not task:
        return "unknown task"
    elif task[1] == "finne":
        return "values without a published meaning"
    elif not isinstance(record, list):
        return "unknown schema"
    else:
        parts = TASKS[task[1]](record)
    if isinstance(parts, str):
        return parts
    question, context, gold = parts["question"].strip(), parts.get("context", "").strip(), parts["gold"].strip()
    if not question or not gold or gold == "NaN":
        return "no gold" if question else "no question"
    key = hashlib.sha256("\n".join([question, context]).encode()).hexdigest()[:12]
    labels = parts.get("labels")
    return Problem(
        id=f"fincuge/{key}",
        source="fincuge",
        module=MODULE,
        language="zh",
        capability=parts.get("capability", "knowledge"),
        answer_kind=parts.get("kind", "text"),
        context=context,
        question=question,
        labels=labels,
        gold=gold,
        split="test" if "eval" in file.lower() else split_in_name(file) or "train",
        group=f"fincuge/{hashlib.sha256((context or question).encode()).hexdigest()[:12]}",
        family=task[1] if task else "instruction",
    )


Parts = dict[str, Any]  # question, context, gold and, where it is not a text, kind and labels


def _sentiment(record: list) -> Parts | str:
    text, value = record
    if str(value) not in SENTIMENTS:
        return "unreadable gold"
    ask = "这条股吧发言的情绪是消极、中性还是积极？"
    return {"context": text, "question": ask, "gold": SENTIMENTS[str(value)], "kind": "label", "labels": SENTIMENTS,
            "capability": "sentiment"}  # fmt: skip


def _topics(record: list) -> Parts:
    text, topics = record
    ask = (
        "这条新闻属于哪些类别？先写地区（中国、外国、国际），再写主题（公司、行业、大盘、经济、政策、政治、期货、债券、"
        "房地产、外汇、虚拟货币、新冠、能源），用空格分开。"
    )
    return {"context": text, "question": ask, "gold": " ".join(topics.split())}


def _relation(record: list) -> Parts | str:
    head, tail, relation, text = record
    if relation not in RELATIONS:
        return "unreadable gold"
    ask = f"文中“{head}”对“{tail}”是什么关系？从下列选一：{'、'.join(RELATIONS)}。"
    return {"context": text, "question": ask, "gold": relation, "kind": "label", "labels": {r: r for r in RELATIONS}}


def _event_subject(record: list) -> Parts:
    _, text, event, subject = record
    return {"context": text, "question": f"文中“{event}”事件的主体是谁？", "gold": subject, "capability": "risk"}


def _negative_news(record: list) -> Parts | str:
    _, title, text, candidates, negative, subject = record
    if str(negative) not in ("0", "1"):
        return "unreadable gold"
    about = f"{title}\n{text}".strip()
    ask = f"这条新闻对其中的金融主体（{candidates}）是负面的吗？请回答“是”或“否”。"
    return {"context": about, "question": ask, "gold": "是" if str(negative) == "1" else "否", "kind": "boolean",
            "capability": "risk"}  # fmt: skip


def _event_question(record: list) -> Parts:
    """Question and text are one string; the question ends at its first question mark."""
    both, gold = record
    question, mark, text = re.sub("[?]", "？", both, count=1).partition("？")
    return {"context": text if mark else "", "question": f"{question}{mark}", "gold": gold}


def _headline(record: list) -> Parts:
    headline, text = record
    return {"context": text, "question": "请用一句话为这条新闻写一个标题。", "gold": headline}


TASKS: dict[str, Callable[[list], Parts | str]] = {
    "finfe": _sentiment,
    "finnl": _topics,
    "finre": _relation,
    "finese": _event_subject,
    "finnsp": _negative_news,
    "finqa": _event_question,
    "fincqa": _event_question,
    "finna": _headline,
}


def _instruction(record: dict) -> Parts | str:
    if missing := {"instruction", "input", "output"} - record.keys():
        return f"missing column {min(missing)}"
    return {
        "context": text_of(record["input"]),
        "question": text_of(record["instruction"]),
        "gold": text_of(record["output"]),
    }
