"""FinCUGE: Chinese financial news and forum tasks of BBT-CFLEB, https://github.com/ssymmetry/BBT-FinCUGE-Applications.

A file is one task, its records are positional lists, see `TASKS`. "NaN" is a string there and means none.
`finne` has no published meaning of its three values and is left out. The files `*_eval` are `test`.

Labels are closed sets and graded by rules; entities and short answers are `text`: right when equal, else a case for
a judge.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any, NamedTuple

from finr1.records import AnswerKind, Capability, Problem
from finr1.sources.files import Files, Results, code_of, key_of, problem_of, read_each, require, split_in_name
from finr1.sources.golds import CONTRADICTORY

RELATIONS = (
    "unknown 自己 合作 竞争 拥有 被拥有 持股 被持股 分析 被分析 签约 增持 被增持 纠纷 减持 被减持 收购 "
    "被收购 重组 交易 发行 被发行 合资 合并 订单 拟收购 被拟收购 注资 被注资 商讨 帮助 被帮助 入股 被入股 "
    "成立 被成立 买资 被买资 转让 被转让 借壳 被借壳"
).split()


class Task(NamedTuple):
    """How a task's list becomes a problem."""

    columns: str
    question: str = ""  # a template, filled with the columns; else it ends at the text's first question mark
    context: str = "text"  # the columns that it consists of
    golds: dict[str, str] | None = None  # a closed set: value in the list -> gold
    kind: AnswerKind = "text"
    capability: Capability = "knowledge"


TASKS = {
    "finfe": Task("text gold", "这条股吧发言的情绪是消极、中性还是积极？", kind="label", capability="sentiment",
                  golds={"0": "消极", "1": "中性", "2": "积极"}),
    "finnl": Task("text gold", "这条新闻属于哪些类别？先写地区（中国、外国、国际），再写主题（公司、行业、大盘、经济、"
                  "政策、政治、期货、债券、房地产、外汇、虚拟货币、新冠、能源），用空格分开。"),
    "finre": Task("head tail gold text", f"文中“{{head}}”对“{{tail}}”是什么关系？从下列选一：{'、'.join(RELATIONS)}。",
                  kind="label", golds={relation: relation for relation in RELATIONS}),
    "finese": Task("id text event gold", "文中“{event}”事件的主体是谁？", capability="risk"),
    "finnsp": Task("id title text names gold subject", context="title text",
                   question="这条新闻对其中的金融主体（{names}）是负面的吗？请回答“是”或“否”。",
                   kind="boolean", capability="risk", golds={"0": "否", "1": "是"}),
    "finqa": Task("text gold"),
    "fincqa": Task("text gold"),
    "finna": Task("gold text", "请用一句话为这条新闻写一个标题。"),
}  # fmt: skip


def read_files(files: Files) -> Results:
    """The results, with questions that stand there with several answers as one.

    A pair of companies has several relations, an event several subjects: their answers become alternatives. A forum
    post with two sentiments is flawed. Training texts that stand in an eval file, too, are left out.
    """
    results = list(read_each(read, files))
    problems = [result for *_, result in results if isinstance(result, Problem)]
    tested = {problem.group for problem in problems if problem.split == "test"}
    golds: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)  # those of a question, in order
    for problem in problems:
        golds[problem.split, problem.id][problem.gold] = None
    done: set[str] = set()
    for file, number, result in results:
        if isinstance(result, Problem):
            first, *others = golds[result.split, result.id]
            if result.split != "test" and result.group in tested:
                result = "text of the test split"
            elif result.id in done:
                result = "duplicate id" if result.gold == first else "a further answer to a question"
            else:
                done.add(result.id)
                flaw = CONTRADICTORY if others and result.capability == "sentiment" else ""
                result = result.model_copy(update={"alternatives": others, "flaw": flaw})
        yield file, number, result


def read(record: Any, file: str) -> Problem:
    """A record of the task that the file's path names as a `Problem`."""
    name = re.search(r"(?<![a-z])(fin(?:cqa|ese|fe|na|ne|nl|nsp|qa|re))(?![a-z])", file.lower())
    require({"unknown task": name, "unknown schema": isinstance(record, list)})
    family, task = name[1], TASKS.get(name[1])
    require({"values without a published meaning": task})
    columns = dict(zip(task.columns.split(), record, strict=True))
    context = "\n".join(columns[name] for name in task.context.split()).strip()
    question, gold = task.question.format(**columns), columns["gold"]
    if not task.question:
        question, mark, context = (part.strip() for part in columns["text"].replace("?", "？", 1).partition("？"))
        question += mark
    if task.golds:
        require({"unreadable gold": code_of(gold) in task.golds})
        gold = task.golds[code_of(gold)]
    question, gold = question.strip(), " ".join(gold.split()) if family == "finnl" else gold.strip()
    require({"no question": question, "no gold": gold and gold != "NaN"})
    labels = task.golds if task.kind == "label" else None
    asked = {"context": context, "question": question, "gold": gold, "labels": labels, "answer_kind": task.kind}
    split = "test" if "eval" in file.lower() else split_in_name(file) or "train"
    place = {"split": split, "group": f"fincuge/{key_of(context or question)}", "family": family}
    return problem_of("fincuge", key_of(question, context), capability=task.capability, **asked, **place)
