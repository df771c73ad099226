"""Sources of which a record is a question with its answer: exams in Chinese, and open questions.

* Ant_Finance is the part of Fin-Eva by Ant Group, https://github.com/alipay/financial_evaluation_dataset: one CSV a
  task, `id,question[,context],A..D[,E],answer`, in folders by category. Most rows are published without an answer.
  The tasks of 安全合规 have no options; their answer is 是 or 否. No split is published: see `ANT_TEST_SHARE`.
* FinanceIQ, https://github.com/Duxiaoman-DI/XuanYuan: `dev/` and `test/`, one CSV an exam. Fin-R1 trains on it and
  does not report it, so its `test/` files are training data here, and `dev/` (five a subject) are `dev`.
* FinCorpus, https://huggingface.co/datasets/Duxiaoman-DI/FinCorpus: only `fin_exam` holds questions, as plain text.
* FinPEE is closed (exams of the authors' university). `finpee` reads a folder of one's own questions in its place:
  CSV, JSON or JSONL with `question` and `answer`; optional are `id`, `context`, `A`..`H`, `kind` (an answer kind,
  default number, or choice where there are options), `explanation`, `language` and `split` (default train).
* Finance-Instruct-500k, https://huggingface.co/datasets/Josephgflowers/Finance-Instruct-500k: `system, user,
  assistant`; re-uploads hold the same as `prompt` and `completion` or as `messages`. Fin-R1 benchmarks on a stratified
  tenth of it: where no file states a split, a tenth by hash is `test`. `train` is a split only beside another one: the
  hub calls all of a data set so that nobody has split.
* FinanceQT is https://huggingface.co/datasets/lumalik/Quant-Trading-Instruct: `context, question, answer`.

Open answers are `text` (the judge's case) unless they are one number, which rules can grade.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

from finr1.records import AnswerKind, Capability, Problem, Split, Turn, hash_share
from finr1.sources.files import Files, NoProblem, key_of, read_each, require, require_columns, split_in_name, text_of

# Ant_Finance is both a source and a benchmark of the paper: of some 2,343 questions with an answer this leaves about
# 940 for the benchmark, which wants 1,000.
ANT_TEST_SHARE, ANT_DEV_SHARE, INSTRUCT_TEST_SHARE, SPLIT_SEED = 0.4, 0.1, 0.1, 0
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


def read_ant(record: Any, file: str) -> Problem:
    """A row of one of the 33 task files as a `Problem`."""
    if "sufe" in file.lower().split("/"):
        raise NoProblem("FinEval, the other part of Fin-Eva")
    require_columns(record, "question", "answer")
    *_, category, task = ["", *_without_suffix(file).split("/")]
    question, context, options = text_of(record["question"]), text_of(record.get("context")), options_of(record)
    key = key_of(context, question, *options.values())
    if not options and task in VERDICT_PROMPTS:
        question = f"{VERDICT_PROMPTS[task]}\n\n{question}"
    place = hash_share(key, SPLIT_SEED)
    return _exam(
        f"ant_finance/{task}/{key}",
        question,
        options,
        record["answer"],
        module="non-reasoning business knowledge",
        answer_kind="choice" if options else "boolean",
        split="test" if place < ANT_TEST_SHARE else "dev" if place < ANT_TEST_SHARE + ANT_DEV_SHARE else "train",
        context=context,
        capability=ANT_CAPABILITIES.get(task) or ANT_CAPABILITIES.get(category) or "knowledge",
        family=task,
    )


def read_financeiq(record: Any, file: str) -> Problem:
    """A row of an exam file as a `Problem`."""
    require_columns(record, "Question", "Answer")
    question, options = text_of(record["Question"]), options_of(record)
    return _exam(
        f"financeiq/{key_of(question, *options.values())}",
        question,
        options,
        record["Answer"],
        split="dev" if "dev" in file.split("/") else "train",
        family=_without_suffix(file.rsplit("/", 1)[-1]),
    )


def read_fincorpus(record: Any, file: str) -> Problem:
    """An exam question out of its plain text: question, `A、` ... lines, `答案：`, `分析解释：`."""
    require_columns(record, "text")
    parts = re.fullmatch(
        r"(?P<question>.*?)\n(?P<options>A\s*[、.．].*?)\n\s*答案[:：](?P<answer>.*?)(?:\n\s*分析解释[:：](?P<why>.*))?",
        record["text"].strip(),
        re.DOTALL,
    )
    require({"plain text, no question": parts})
    options = dict(re.findall(r"^[ \t]*([A-H])[ \t]*[、.．][ \t]*(.*?)[ \t]*$", parts["options"], re.MULTILINE))
    require({"no options": all(options.values())})  # they were images
    return _exam(
        f"fincorpus/{key_of(parts['question'], *options.values())}",
        parts["question"].strip(),
        options,
        parts["answer"],
        module="non-reasoning business knowledge",
        split=split_in_name(file) or "train",
        reference=(parts["why"] or "").strip(),
    )


def read_finpee(record: Any, file: str) -> Problem:
    """A question of one's own folder as a `Problem`; columns as in the module's text."""
    require_columns(record, "question", "answer")
    question, options = text_of(record["question"]), options_of(record)
    kind, split = record.get("kind") or ("choice" if options else "number"), record.get("split") or "train"
    require({"unknown kind": kind in get_args(AnswerKind), "unknown split": split in get_args(Split)})
    return _exam(
        f"finpee/{record.get('id') or key_of(question, *options.values())}",
        question,
        options,
        text_of(record["answer"]),
        answer_kind=kind,
        split=split,
        context=text_of(record.get("context")),
        capability="calculation" if kind in ("number", "percent") else "knowledge",
        reference=record.get("explanation") or "",
        language=record.get("language") or "zh",
    )


def options_of(record: dict) -> dict[str, str]:
    """The columns `A`, `B`, ... that hold text, in the order of their letters."""
    return {letter: text_of(record[letter]) for letter in "ABCDEFGH" if text_of(record.get(letter))}


def read_answer(answer: object) -> str:
    """`"D "` -> "D", `["A","B"]` (also as text) -> "AB", anything else stripped."""
    if isinstance(answer, str) and answer.lstrip().startswith("["):
        try:
            answer = json.loads(answer)
        except json.JSONDecodeError:
            return answer.strip()
    return "".join(sorted(map(str, answer))) if isinstance(answer, list) else text_of(answer)


def _exam(id: str, question: str, options: dict[str, str], answer: object, **fields: Any) -> Problem:
    """An exam question as a `Problem`, by default a Chinese choice; its options stay in order."""
    gold, kind = read_answer(answer), fields.get("answer_kind", "choice")
    require({"no question": question, "no gold": gold, "no options": kind != "choice" or len(options) > 1})
    defaults = {"module": "professional knowledge", "language": "zh", "capability": "knowledge", "answer_kind": kind}
    source, group = id.partition("/")[0], id
    return Problem(
        id=id, source=source, question=question, choices=options or None, gold=gold, group=group, **defaults | fields
    )


def _without_suffix(file: str) -> str:
    return re.sub(r"\.(jsonl|csv|json)(\.gz)?$", "", file)


def finance_instruct_files(files: Files) -> Iterator[tuple[str, int, Problem | str]]:
    """(file, number, problem or reason); train files are read as unsplit where no other split is."""
    has_splits = any(split_in_name(name) in ("dev", "test") for name in files)
    return read_each(lambda record, file: read_finance_instruct(record, file if has_splits else ""), files)


def read_finance_instruct(record: Any, file: str) -> Problem:
    """A conversation as a `Problem` whose gold is the last answer."""
    if "messages" in record:
        chat = record["messages"]
    elif {"prompt", "completion"} <= record.keys():
        chat = [*record["prompt"], *record["completion"]]
    else:
        require_columns(record, "user", "assistant")
        chat = [{"role": role, "content": record.get(role) or ""} for role in ("system", "user", "assistant")]
    system = "\n".join(turn["content"].strip() for turn in chat if turn["role"] == "system")
    turns = [(turn["role"], turn["content"].strip()) for turn in chat if turn["role"] != "system"]
    in_turn = [role for role, _ in turns] == ["user", "assistant"] * (len(turns) // 2)
    require({"no question and answer in turn": turns and in_turn})
    texts = [text for _, text in turns]
    require({"no question": texts[-2], "no gold": texts[-1], "empty turn": all(texts)})
    history = [Turn(question=texts[n], answer=texts[n + 1]) for n in range(0, len(texts) - 2, 2)]
    key = key_of(system, *(turn.question for turn in history), texts[-2])
    split = split_in_name(file) or ("test" if hash_share(key, SPLIT_SEED) < INSTRUCT_TEST_SHARE else "train")
    return _open(
        f"finance_instruct_500k/{key}",
        texts[-2],
        texts[-1],
        module="professional knowledge",
        capability="knowledge",
        context=system,
        history=history,
        split=split,
    )


def read_financeqt(record: Any, file: str) -> Problem:
    """A row of trading questions as a `Problem`."""
    require_columns(record, "context", "question", "answer")
    question, answer, context = (str(record[name] or "").strip() for name in ("question", "answer", "context"))
    require({"no question": question, "no gold": answer})
    return _open(
        f"financeqt/{key_of(context, question)}",
        question,
        answer,
        module="code",
        capability="code",
        context=context,
        split=split_in_name(file) or "train",
    )


def _open(id: str, question: str, answer: str, **fields: Any) -> Problem:
    """An open question as a `Problem`."""
    return Problem(
        id=id,
        source=id.partition("/")[0],
        language="zh" if re.search(r"[\u4e00-\u9fff]", question) else "en",
        answer_kind="number" if re.fullmatch(r"[-+]?\$?\d[\d,]*(\.\d+)?", answer) else "text",
        question=question,
        gold=answer,
        group=id,
        **fields,
    )
