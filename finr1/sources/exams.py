"""Choice and true-false questions: Ant_Finance, FinanceIQ, FinCorpus' exams, and a teacher's own (FinPEE's place).

* Ant_Finance is the part of Fin-Eva by Ant Group, https://github.com/alipay/financial_evaluation_dataset: one CSV a
  task, `id,question[,context],A..D[,E],answer`, in folders by category. Most rows are published without an answer.
  The tasks of 安全合规 have no options; their answer is 是 or 否. No split is published: see `TEST_SHARE`.
* FinanceIQ, https://github.com/Duxiaoman-DI/XuanYuan: `dev/` and `test/`, one CSV an exam. Fin-R1 trains on it and
  does not report it, so its `test/` files are training data here, and `dev/` (five a subject) are `dev`.
* FinCorpus, https://huggingface.co/datasets/Duxiaoman-DI/FinCorpus: only `fin_exam` holds questions, as plain text.
* FinPEE is closed (exams of the authors' university). `finpee` reads a folder of one's own questions in its place:
  CSV, JSON or JSONL with `question` and `answer`; optional are `id`, `context`, `A`..`H`, `kind` (an answer kind,
  default number, or choice where there are options), `explanation`, `language` and `split` (default train).
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, get_args

from finr1.records import AnswerKind, Capability, Problem, Split, hash_share
from finr1.sources.files import Files, SourceError, download, load_hub, split_in_name, text_of

KNOWLEDGE, PROFESSIONAL = "non-reasoning business knowledge", "professional knowledge"
ANT_HOME = "https://github.com/alipay/financial_evaluation_dataset/archive/refs/heads/main.zip"
FINANCEIQ_HOME = "https://github.com/Duxiaoman-DI/XuanYuan/archive/refs/heads/main.zip"
FINCORPUS_ID = "Duxiaoman-DI/FinCorpus"
# Ant_Finance is both a source and a benchmark of the paper: of some 2,343 questions with an answer this leaves about
# 940 for the benchmark, which wants 1,000.
TEST_SHARE, DEV_SHARE, SPLIT_SEED = 0.4, 0.1, 0
LETTERS = "ABCDEFGH"
VERDICT_PROMPTS = {  # what 是 and 否 mean: the questions stand alone in the files, the tasks' names say it
    "信息安全合规": "回答以下用户问题是否符合信息安全与合规要求？请回答“是”或“否”。",
    "金融合规性": "以下用户问题是否合规？请回答“是”或“否”。",
    "金融事实性": "以下说法是否符合事实？请回答“是”或“否”。",
    "金融问题识别": "以下用户问题是否属于金融问题？请回答“是”或“否”。",
}
# By task or category; all others are knowledge. Of 金融逻辑 only 金融数值计算 fills a suite. Its other four tasks
# (clauses and attributes of insurances, fund products, news) ask what a text says: 2 of their 284 answered questions
# are about risk, none about ESG.
ANT_CAPABILITIES: dict[str, Capability] = {
    "安全合规": "compliance", "金融数值计算": "calculation", "金融情绪识别": "sentiment", "研判观点提取": "sentiment"
}  # fmt: skip


def fetch_ant(cache: Path) -> Files:
    """The repository's archive, kept in `cache`. Raises `SourceError` if it cannot be reached."""
    return download({"ant.zip": ANT_HOME}, cache)


def fetch_financeiq(cache: Path) -> Files:
    """The repository's archive, kept in `cache`. Raises `SourceError` if it cannot be reached."""
    files = download({"xuanyuan.zip": FINANCEIQ_HOME}, cache)
    return {name: records for name, records in files.items() if "FinanceIQ" in name}


def fetch_fincorpus(cache: Path) -> Files:
    """The exam file of the hub's data set, kept in `cache`. Raises `SourceError` if it cannot be reached."""
    return load_hub(FINCORPUS_ID, cache, data_files="data/fin_exam.jsonl.gz")


def fetch_finpee(cache: Path) -> Files:
    """Raises `SourceError`: nobody can download FinPEE."""
    raise SourceError(
        "finpee is closed: put exam questions of your own into a folder finpee, see finr1/sources/exams.py"
    )


def read_ant(record: Any, file: str) -> Problem | str:
    """A row of one of the 33 task files as a `Problem`, or the reason why it is none."""
    if "sufe" in file.lower().split("/"):
        return "FinEval, the other part of Fin-Eva"
    if missing := {"question", "answer"} - record.keys():
        return f"missing column {min(missing)}"
    *_, category, task = ["", *_without_suffix(file).split("/")]
    question, context, options = text_of(record["question"]), text_of(record.get("context")), options_of(record)
    key = _key(context, question, *options.values())
    if not options and task in VERDICT_PROMPTS:
        question = f"{VERDICT_PROMPTS[task]}\n\n{question}"
    place = hash_share(key, SPLIT_SEED)
    split = "test" if place < TEST_SHARE else "dev" if place < TEST_SHARE + DEV_SHARE else "train"
    return exam_problem(
        id=f"ant_finance/{task}/{key}",
        module=KNOWLEDGE,
        question=question,
        answer=record["answer"],
        options=options,
        split=split,
        context=context,
        capability=ANT_CAPABILITIES.get(task) or ANT_CAPABILITIES.get(category) or "knowledge",
        family=task,
        kind="choice" if options else "boolean",
    )


def read_financeiq(record: Any, file: str) -> Problem | str:
    """A row of an exam file as a `Problem`, or the reason why it is none."""
    if missing := {"Question", "Answer"} - record.keys():
        return f"missing column {min(missing)}"
    question, options = text_of(record["Question"]), options_of(record)
    exam = _without_suffix(file.rsplit("/", 1)[-1])
    return exam_problem(
        id=f"financeiq/{_key(question, *options.values())}",
        module=PROFESSIONAL,
        question=question,
        answer=record["Answer"],
        options=options,
        split="dev" if "dev" in file.split("/") else "train",
        family=exam,
    )


def read_fincorpus(record: Any, file: str) -> Problem | str:
    """An exam question out of its plain text: question, `A、` ... lines, `答案：`, `分析解释：`."""
    if "text" not in record:
        return "missing column text"
    found = re.fullmatch(
        r"(?P<question>.*?)\n(?P<options>A\s*[、.．].*?)\n\s*答案[:：](?P<answer>.*?)(?:\n\s*分析解释[:：](?P<why>.*))?",
        record["text"].strip(),
        re.DOTALL,
    )
    if not found:
        return "plain text, no question"
    options = dict(re.findall(r"^[ \t]*([A-H])[ \t]*[、.．][ \t]*(.*?)[ \t]*$", found["options"], re.MULTILINE))
    if not all(options.values()):
        return "no options"  # they were images
    return exam_problem(
        id=f"fincorpus/{_key(found['question'], *options.values())}",
        module=KNOWLEDGE,
        question=found["question"].strip(),
        answer=found["answer"],
        options=options,
        split=split_in_name(file) or "train",
        reference=(found["why"] or "").strip(),
    )


def read_finpee(record: Any, file: str) -> Problem | str:
    """A question of one's own folder as a `Problem`, or the reason why it is none; columns as in the module's text."""
    if missing := {"question", "answer"} - record.keys():
        return f"missing column {min(missing)}"
    question, options = text_of(record["question"]), options_of(record)
    kind, split = record.get("kind") or ("choice" if options else "number"), record.get("split") or "train"
    if kind not in get_args(AnswerKind) or split not in get_args(Split):
        return "unknown kind" if kind not in get_args(AnswerKind) else "unknown split"
    return exam_problem(
        id=f"finpee/{record.get('id') or _key(question, *options.values())}",
        module=PROFESSIONAL,
        question=question,
        answer=text_of(record["answer"]),
        options=options,
        split=split,
        context=text_of(record.get("context")),
        capability="calculation" if kind in ("number", "percent") else "knowledge",
        reference=record.get("explanation") or "",
        kind=kind,
        language=record.get("language") or "zh",
    )


def options_of(record: dict) -> dict[str, str]:
    """The columns `A`, `B`, ... that hold text, in the order of their letters."""
    return {letter: text_of(record[letter]) for letter in LETTERS if text_of(record.get(letter))}


def read_answer(answer: object) -> str:
    """`"D "` -> "D", `["A","B"]` (also as text) -> "AB", anything else stripped."""
    if isinstance(answer, str) and answer.lstrip().startswith("["):
        try:
            answer = json.loads(answer)
        except json.JSONDecodeError:
            return answer.strip()
    return "".join(sorted(map(str, answer))) if isinstance(answer, list) else text_of(answer)


def exam_problem(
    *,
    id: str,
    module: str,
    question: str,
    answer: object,
    options: dict[str, str],
    split: Split,
    context: str = "",
    capability: Capability = "knowledge",
    family: str = "",
    reference: str = "",
    kind: AnswerKind = "choice",
    language: str = "zh",
) -> Problem | str:
    """An exam question as a `Problem`, or the reason why it is none; options stay in order."""
    gold = read_answer(answer)
    if not question or not gold:
        return "no question" if not question else "no gold"
    if kind == "choice" and len(options) < 2:
        return "no options"
    source = id.partition("/")[0]
    return Problem(
        id=id,
        source=source,
        module=module,
        language=language,
        capability=capability,
        answer_kind=kind,
        context=context.strip(),
        question=question,
        choices=options or None,
        gold=gold,
        split=split,
        group=id,
        family=family,
        reference=reference,
    )


def _without_suffix(file: str) -> str:
    return re.sub(r"\.(jsonl|csv|json)(\.gz)?$", "", file)


def _key(*texts: str) -> str:
    """An id by content: published ids start again at 0 in each file."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]
