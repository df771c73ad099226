"""Data as people have it: what can be read without guessing is read, and one bad file never stops a source."""

from __future__ import annotations

import gzip
import json
import os
import socket
import zipfile
from pathlib import Path

import pytest

from finr1.__main__ import main
from finr1.generation import AnswerStore, Completion
from finr1.generation.command import read_requests
from finr1.sources import SourceError, load_source
from finr1.sources.files import decode

ROWS = [{"text": "Harbor Foods up 5%", "label": "1"}, {"text": "Granite cut to sell", "label": "0"}]
EXAM = {"Question": "下列哪项是资产？", "A": "现金", "B": "负债", "Answer": "A"}


def table(rows: list[dict], mark: str = ",", end: str = "\n") -> str:
    return end.join([mark.join(rows[0]), *(mark.join(map(str, row.values())) for row in rows)]) + end


def put(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def dropped(loaded) -> dict[str, int]:
    assert all(row["raw"] == row["kept"] + sum(row["dropped"].values()) for row in loaded.rows)
    return {reason: count for row in loaded.rows for reason, count in row["dropped"].items()}


def parquet(rows: list[dict]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030", "gbk"])
@pytest.mark.parametrize("name, mark, end", [("a.csv", ",", "\r\n"), ("a.tsv", "\t", "\n"), ("a.csv", "\t", "\r\n"),
                                             ("a.csv", ";", "\n")])  # fmt: skip
def test_tables_of_excel_are_read_by_their_mark_or_the_source_s_language(tmp_path, encoding, name, mark, end):
    put(tmp_path, f"financeiq/test/{name}", table([EXAM], mark, end).encode(encoding))
    [problem] = load_source("financeiq", tmp_path).problems
    assert (problem.question, problem.choices, problem.gold) == (EXAM["Question"], {"A": "现金", "B": "负债"}, "A")


@pytest.mark.parametrize(
    ("source", "text", "encoding"),
    [
        ("financeiq", table([{"Question": "下列哪項是資產？", "A": "現金", "B": "負債", "Answer": "A"}]), "big5"),
        ("financeiq", table([EXAM]), "utf-16-le"),  # without its mark
        ("financeiq", table([EXAM])[:-1] + "\udcff", "utf-8"),
        ("tfns", table([{"text": "Müller steigt", "label": 1}]), "latin-1"),
        ("tfns", table([{"text": "上涨 up", "label": 1}]), "gb18030"),  # an English source: it may be anything
        ("tfns", table([{"text": "акции растут", "label": 1}]), "cp1251"),
    ],
)
def test_what_would_have_to_be_guessed_is_left_out_with_its_reason(tmp_path, source, text, encoding):
    put(tmp_path, f"{source}/train.csv", text.encode(encoding, "surrogateescape"))
    with pytest.raises(SourceError, match=r"train\.csv: unreadable file, .*save it as UTF-8"):
        load_source(source, tmp_path)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("train.parquet", parquet([row | {"label": int(row["label"])} for row in ROWS])),
        ("train.parquet", parquet([row | {"label": float(row["label"])} for row in ROWS])),
        ("train.tsv", table(ROWS, "\t")),
        ("train.tsv.gz", gzip.compress(table(ROWS, "\t").encode())),
        ("TRAIN.CSV", table(ROWS)),
        ("train.csv", table([row | {"label": row["label"] + ".0"} for row in ROWS])),
        ("train.jsonl", "\n".join(json.dumps(row | {"label": float(row["label"])}) for row in ROWS)),
        ("train.json", "\n".join(map(json.dumps, ROWS))),  # lines under the name of a list, as the hub has them
        ("train.csv/train-0.csv", table(ROWS)),
        ("all.csv", table([row | {"split": "train"} for row in ROWS])),
        ("all.csv", table([row | {"split": "Training"} for row in ROWS])),
        ("train/x.csv", table(ROWS)),  # the folder states it
        ("Training/2024/part-0.parquet", parquet([row | {"label": int(row["label"])} for row in ROWS])),
        ("tests of mine/train.csv", table(ROWS)),  # the file's own name counts first
        ("train.csv", "sep=;\n" + table(ROWS, ";")),  # Excel's first line
        ("train.csv", '"sep=|"\r\n' + table(ROWS, "|", "\r\n")),
        ("train.ndjson", "\n".join(map(json.dumps, ROWS))),
        ("train.jsonl", "\n".join("\ufeff" + json.dumps(row) for row in ROWS)),  # joined files, each with its mark
        ("train.csv", table(ROWS, end="\r")),
        ("train.csv", "\n\r\n" + table(ROWS)),
        ("train.csv", "\ufeff\ufeff" + table(ROWS)),
        ("train.csv", "text,label\n" + "".join(f"{row['text']},{row['label']},\n" for row in ROWS)),
        ("train.jsonl", json.dumps(ROWS)),
        ("train.jsonlines", "\n".join(map(json.dumps, ROWS))),
        ("train.csv", table(ROWS).replace("text,label", " text , label")),
        ("train.jsonl", "\n".join(map(json.dumps, ROWS)).encode("utf-16")),
    ],
    ids=range(26),  # what gzip and Parquet write differs from process to process
)
def test_a_file_of_another_kind_gives_the_same_problems(tmp_path, name, data):
    put(tmp_path / "expected" / "tfns", "train.csv", table(ROWS))
    put(tmp_path / "found" / "tfns", name, data)
    expected, found = (load_source("tfns", tmp_path / folder).problems for folder in ("expected", "found"))
    assert [p.gold for p in expected] == ["bullish", "bearish"] and found == expected


def test_utf8_that_has_lost_a_byte_is_not_read_as_gb18030():
    data = table([{"Question": "下列哪项是资产？请选出一项。", "A": "现金", "B": "应付账款", "Answer": "A"}]).encode()
    for place in (place for place, byte in enumerate(data) if byte > 127):
        with pytest.raises(ValueError, match="UTF-8"):
            decode(data[:place] + data[place + 1 :], chinese=True)
    assert decode(data.decode().encode("gb18030"), chinese=True) == decode(data, chinese=True)


@pytest.mark.parametrize(
    ("record", "gold"),
    [({"answer": ["10000", "-8000"]}, "10000;-8000"), ({"answer": "[5, 6]"}, "5;6"), ({"answer": "['A', 'B']"}, "AB"),
     ({"answer": ["B", "A"]}, "AB"), ({"answer": "[2023]5号文", "kind": "text"}, "[2023]5号文")],
)  # fmt: skip
def test_an_answer_that_is_a_list_is_several_letters_or_several_blanks(tmp_path, record, gold):
    letters = {"A": "现金", "B": "负债"} if gold == "AB" else {}
    put(tmp_path, "finpee/dev/a.jsonl", json.dumps({"question": "q", "kind": None} | letters | record))
    [problem] = load_source("finpee", tmp_path).problems
    assert (problem.gold, problem.split) == (gold, "dev")


@pytest.mark.parametrize(("split", "expected"), [("validation", "dev"), ("val", "dev"), ("Test", "test"), ("", "train"),
                                                 (None, "train"), ("holdout", "unknown split")])  # fmt: skip
def test_a_split_is_known_by_any_of_its_names(tmp_path, split, expected):
    put(tmp_path, "finpee/a.jsonl", json.dumps({"question": "q", "answer": 5, "split": split}))
    loaded = load_source("finpee", tmp_path)
    assert [p.split for p in loaded.problems] == [expected] or dropped(loaded) == {expected: 1}


CHAT = [{"role": "user", "content": "What is 2+2?"}, {"role": "assistant", "content": "4"}]
IN_PARTS = [turn | {"content": [{"type": "text", "text": turn["content"]}]} for turn in CHAT]
SHAREGPT = [{"from": "human", "value": "What is 2+2?"}, {"from": "gpt", "value": "4"}]
PICTURE = [CHAT[0] | {"content": [{"type": "image_url", "image_url": "x"}]}, CHAT[1]]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"messages": CHAT}, None),
        ({"messages": json.dumps(CHAT)}, None),
        ({"messages": IN_PARTS}, None),
        ({"messages": [turn | {"content": [turn["content"]]} for turn in CHAT]}, None),
        ({"messages": repr(CHAT)}, None),  # as pandas writes a list into CSV
        ({"messages": "__import__('os').getcwd()"}, "malformed record"),
        ({"messages": json.dumps(IN_PARTS)}, None),
        ({"prompt": json.dumps(CHAT[:1]), "completion": json.dumps(CHAT[1:])}, None),
        ({"conversations": SHAREGPT}, None),
        ({"conversations": json.dumps(SHAREGPT), "system": ""}, None),
        ({"conversations": [SHAREGPT[0], {"from": "observation", "value": "4"}]}, "no question and answer in turn"),
        ({"conversations": SHAREGPT[:1]}, "no question and answer in turn"),
        ({"conversations": [{"from": "human"}, SHAREGPT[1]]}, "missing column value"),
        ({"messages": PICTURE}, "a turn that is not all text"),
        ({"messages": "[{cut"}, "malformed record"),
        ({"messages": [None]}, "malformed record"),
        ({"messages": [CHAT[0] | {"content": None}, CHAT[1]]}, "malformed record"),
    ],
)
def test_a_chat_is_read_in_every_shape_it_has(tmp_path, record, reason):
    put(tmp_path, "finance_instruct_500k/train.jsonl", json.dumps(record))
    loaded = load_source("finance_instruct_500k", tmp_path)
    assert [(p.question, p.gold) for p in loaded.problems] == ([] if reason else [("What is 2+2?", "4")])
    assert dropped(loaded) == ({reason: 1} if reason else {})


def test_a_table_in_the_cells_of_a_csv_is_read(tmp_path):
    """A record of FinQA as pandas writes it from a list of dicts through `json.dumps`."""
    qa = {"question": "growth?", "answer": "2", "exe_ans": 2.0, "program": "subtract(5, 3)"}
    page = {"pre_text": ["a ."], "table": [["", "2015"], ["revenue", "5"]], "post_text": ["b ."]}
    row = {"id": "A/2015/page_1.pdf-1", **{name: json.dumps(value) for name, value in (page | {"qa": qa}).items()}}
    quoted = ["\t".join(row), "\t".join('"' + cell.replace('"', '""') + '"' for cell in row.values())]
    put(tmp_path, "finqa/train.tsv", "\n".join(quoted))
    [problem] = load_source("finqa", tmp_path).problems
    assert problem.gold == "2" and "| revenue | 5 |" in problem.context


@pytest.mark.parametrize(
    ("record", "outcome"),
    [
        ('{"question": NaN, "answer": 5}', "no question"),
        ('{"question": ["a", "b"], "answer": 5}', "a cell that is no text"),
        ('{"question": {"text": "a"}, "answer": 5}', "a cell that is no text"),
        ('{"question": "a", "answer": NaN}', "no gold"),
        ('{"question": "a", "answer": {"value": 5}}', "a cell that is no text"),
        ('{"question": "a", "A": "x", "B": "y", "C": NaN, "answer": ["B", "A"]}', "AB"),
        ('{"question": "a", "answer": 5, "split": ["test"]}', "a cell that is no text"),
    ],
)
def test_a_cell_that_is_no_text_is_no_question(tmp_path, record, outcome):
    put(tmp_path, "finpee/a.jsonl", record)
    loaded = load_source("finpee", tmp_path)
    assert [p.gold for p in loaded.problems] == [outcome] or dropped(loaded) == {outcome: 1}


def test_a_file_whose_name_is_no_text_is_told_in_any_terminal(tmp_path, capsys):
    put(tmp_path, "tfns/train.csv", table(ROWS))
    bad = Path(os.fsdecode(os.fsencode(tmp_path) + b"/tfns/\xff.parquet"))
    bad.write_bytes(b"PAR1")
    names = [row["file"] for row in load_source("tfns", tmp_path).rows]
    assert json.dumps(names, ensure_ascii=False).encode() and len(names) == 2
    assert main(["sources", "--data", str(tmp_path)]) == 1 and "unreadable file" in capsys.readouterr().err


def pipe(path: Path) -> None:
    os.mkfifo(path)


def open_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path may have some 100 characters
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def nested(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("c.zip", b"PK")


def encrypted(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.csv", table(ROWS))
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    path.write_bytes(data)


def far_off() -> bytes:
    import pyarrow
    from pyarrow import parquet

    sink, days = pyarrow.BufferOutputStream(), pyarrow.array([2**30], pyarrow.int32()).cast(pyarrow.date32())
    parquet.write_table(pyarrow.table({"text": ["a"], "label": [1], "day": days}), sink)
    return sink.getvalue().to_pybytes()


BAD = {
    "a pipe": ("b.csv", pipe),
    "a socket": ("b.jsonl", open_socket),
    "a device": ("b.json", lambda path: path.symlink_to("/dev/zero")),
    "an empty folder named like a file": ("b.csv", Path.mkdir),
    "a link to nowhere": ("b.csv", lambda path: path.symlink_to("gone")),
    "a link to itself": ("b.csv", lambda path: path.symlink_to(path.name)),
    "an empty file": ("b.csv", Path.touch),
    "cut gzip": ("b.csv.gz", lambda path: path.write_bytes(gzip.compress(b"text,label\n" * 99)[:-9])),
    "no parquet": ("b.parquet", lambda path: path.write_bytes(b"PAR1")),
    "no archive": ("b.zip", lambda path: path.write_bytes(b"PK")),
    "an encrypted archive": ("b.zip", encrypted),
    "an archive in an archive": ("b.zip", nested),
    "an unclosed quote": ("b.csv", lambda path: path.write_text('text,label\n"up,1\nb,1\n')),
    "a workbook": ("b.xlsx", lambda path: path.write_bytes(b"PK")),
    "a date beyond the calendar": ("b.parquet", lambda path: path.write_bytes(far_off())),
    "a table of another program": ("b.feather", lambda path: path.write_bytes(b"ARROW1")),
    "packed in a way that is not read": ("b.csv.zst", lambda path: path.write_bytes(b"x")),
    "an archive without data": ("b.zip", lambda path: zipfile.ZipFile(path, "w").writestr("a.txt", "x")),
    "two columns of one name": ("b.csv", lambda path: path.write_text("text,label,label\nup,1,0\n")),
    "a tar": ("b.tar.gz", lambda path: path.write_bytes(b"x")),
    "a page in place of a table": ("b.csv", lambda path: path.write_text("<!DOCTYPE html><p>404</p>")),
    "cut JSON": ("b.json", lambda path: path.write_text('[{"text": "a"')),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("source", ["tfns", "finqa"])
def test_one_bad_file_is_counted_with_its_reason_and_stops_nothing(tmp_path, capsys, kind, source):
    name, make = BAD[kind]
    good = put(tmp_path, f"{source}/train.csv", table(ROWS))
    alone = load_source(source, tmp_path)
    make(good.parent / name)
    loaded = load_source(source, tmp_path)
    assert loaded.problems == alone.problems
    rows = {row["file"]: row for row in loaded.rows}
    [(bad, row)] = [(file, row) for file, row in rows.items() if file != "train.csv"]
    [reason] = row["dropped"]
    assert bad.startswith(name) and row["raw"] == 1 and reason.startswith("unreadable file, "), rows
    assert main(["sources", "--data", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert reason in out and f"{source}: {bad}: {reason}" in err and "Traceback" not in err


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "a", "messages": [{"role": "user", "content": "q"}]}',
        '\ufeff{"id": "a", "messages": "[{\\"role\\": \\"user\\", \\"content\\": \\"q\\"}]"}',
    ],
)
def test_requests_are_read_with_a_mark_and_with_messages_as_text(tmp_path, line):
    [request] = read_requests(put(tmp_path, "in.jsonl", line))
    assert request.messages == [{"role": "user", "content": "q"}]


LINE = '{"key":"k","id":"a","sample":0,"text":"4"}'


@pytest.mark.parametrize("content", [f"\ufeff{LINE}\n", f"{LINE}\r\n", f"\n{LINE}\n\n", f"{LINE}\n  \n"], ids=repr)
def test_a_store_that_an_editor_has_touched_is_read(tmp_path, content):
    path = put(tmp_path, "a.answers.jsonl", content)
    assert list(AnswerStore(path).answers) == ["k"] and path.read_bytes() == content.encode()


def test_a_whole_last_line_without_its_end_is_kept_and_a_cut_one_is_not(tmp_path):
    other = LINE.replace('"k"', '"l"')
    path = put(tmp_path, "a.answers.jsonl", f"{LINE}\n{other}")
    store = AnswerStore(path)
    assert list(store.answers) == ["k", "l"] and path.read_bytes().endswith(b"}\n")
    store.put([Completion(key="m", id="c", sample=0, text="5")])
    assert list(AnswerStore(path).answers) == ["k", "l", "m"]
    with path.open("a") as file:
        file.write(LINE[:-1])
    assert list(AnswerStore(path).answers) == ["k", "l", "m"] and path.read_bytes().count(b"\n") == 3
    path.write_text("\r".join([LINE, LINE]))  # line ends of an old Mac: nothing is cut off
    with pytest.raises(ValueError, match="no stored answer"):
        AnswerStore(path)
    assert path.read_bytes().count(b"k") == 4


@pytest.mark.parametrize(
    "line",
    ["5", "[]", "{}", "null", '"text"', LINE[:-1], LINE.replace('"k"', "5"), LINE.replace('"4"', "4"), "\udcff",
     LINE.replace('"sample":0', '"sample":"first"'), LINE.replace("}", ',"usage":7}')],
)  # fmt: skip
def test_a_line_that_is_no_answer_is_named_with_its_file_and_number(tmp_path, line):
    path = put(tmp_path, "a.answers.jsonl", f"{LINE}\n\n{line}\n{LINE}\n".encode("utf8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"a\.answers\.jsonl: this line is no stored answer: line 3, .*asked again"):
        AnswerStore(path)
