"""What cannot be written: a full disk, no right to write, a file where a folder should be. One line, nothing left."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import demo_values
from loopback import Loopback

from finr1 import manifest, models
from finr1.__main__ import main
from finr1.evaluation import harness
from finr1.evaluation.samples import chat_sha256
from finr1.generation import AnswerStore, Request, SamplingParams, ScriptedBackend, generate
from finr1.params import OverviewParams
from finr1.paths import remedy
from finr1.records import Problem, messages, write_jsonl
from finr1.sources import files

from .conftest import ROUNDS

WRITERS = {
    "rows": lambda path: write_jsonl(path, [{"a": "b" * 100} for _ in range(5000)]),
    "JSON": lambda path: manifest.write_json(path, {"a": 1}),
    "parameters": lambda path: OverviewParams(**demo_values("00_overview")).to_yaml(path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, writer):
    path = tmp_path / "rows.jsonl"
    path.write_text("old")
    (tmp_path / "rows.jsonl.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*rows\.jsonl") as caught:
        WRITERS[writer](path)
    assert remedy(caught.value).startswith("there is no room")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["rows.jsonl"]
    WRITERS[writer](path)
    assert path.read_text() != "old" and os.listdir(tmp_path) == ["rows.jsonl"]


def test_rows_that_cannot_be_made_leave_nothing_either(tmp_path):
    with pytest.raises(TypeError):
        write_jsonl(tmp_path / "rows.jsonl", [{"a": object()}])
    assert os.listdir(tmp_path) == []


def test_a_download_that_finds_no_room_is_no_unreachable_home(tmp_path):
    (tmp_path / "home.json").write_text("[]")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "train.json.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*train\.json"):
        files.download({"train.json": (tmp_path / "home.json").as_uri()}, tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == []


def test_a_store_on_a_full_disk_names_itself_and_goes_on_when_there_is_room(tmp_path, monkeypatch):
    store, asked = AnswerStore(tmp_path / "answers.jsonl"), []
    requests = [Request(id=n, messages=[{"role": "user", "content": str(n)}]) for n in range(3)]
    backend = ScriptedBackend(lambda request, *_: asked.append(request.id) or "answer", "counting")
    write, left = os.write, [200]  # bytes

    def full(fd: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(fd, data[: left[0]])
        left[0] -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match=r"No space left on device: .*answers\.jsonl"):
            generate(requests, SamplingParams(), backend, store)
    assert asked == [0]
    generate(requests, SamplingParams(), backend, store)
    assert asked == [0, 0, 1, 2] and len(AnswerStore(store.path).answers) == 3


def test_a_model_that_finds_no_room_leaves_no_part_in_the_cache(tmp_path, monkeypatch):
    import transformers

    def save_pretrained(folder: Path) -> None:
        Path(folder).mkdir()
        (Path(folder) / "model.safetensors").write_bytes(b"0" * 100)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    model = SimpleNamespace(
        config=SimpleNamespace(), state_dict=dict, load_state_dict=len, save_pretrained=save_pretrained
    )
    tokenizer = SimpleNamespace(eos_token_id=0, pad_token_id=0)
    gguf = SimpleNamespace(name="a.gguf", locate=lambda: tmp_path / "a.gguf")
    monkeypatch.setattr(importlib.metadata, "files", lambda _: [gguf])
    for name, made in (("AutoModelForCausalLM", model), ("AutoTokenizer", tokenizer)):
        stub = SimpleNamespace(from_pretrained=lambda *_, made=made, **__: made, from_config=lambda *_, **__: model)
        monkeypatch.setattr(transformers, name, stub)
    with pytest.raises(OSError, match="No space left"):
        models.resolve_model(models.EMBEDDED_MODEL, tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == [f"{models.EMBEDDED_MODEL}.lock"]


# The commands: one line with the path and what to do, exit code 1.

PROBLEM = Problem(id="x/1", source="x", module="m", language="en", capability="calculation", answer_kind="number",
                  question="1 + 1?", gold="2", split="test", group="x/1")  # fmt: skip
IN_THE_WAY, FULL = "a file stands where a folder should be", "there is no room"
A_FOLDER = "a folder stands where a file should be"


def export(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sample = SimpleNamespace(problem_id=PROBLEM.id, prompt_sha256=chat_sha256(messages(PROBLEM)))
    monkeypatch.setattr(harness, "read_benchmark", lambda _: (folder, [sample], [PROBLEM]))
    (folder / "params.yaml").write_text("max_tokens: 8\n")
    return ["export-harness", "--run", "x", "--output", str(folder / "out")]


def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("FINR1_OUTPUTS", str(folder / "outputs"))
    return ["run", "--run", "x", "--until", "00_overview"]


def ask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (folder / "in.jsonl").write_text('{"id": "a", "messages": [{"role": "user", "content": "q"}]}')
    return [
        "generate",
        "--input",
        str(folder / "in.jsonl"),
        "--output",
        str(folder / "out" / "o.jsonl"),
        "--model",
        "m",
    ]


@pytest.mark.parametrize(
    ("command", "kind", "name", "path", "advice"),
    [
        (run, "file", "outputs", "outputs/x/00_overview", IN_THE_WAY),
        (run, "file", "outputs/x", "outputs/x/00_overview", IN_THE_WAY),
        (run, "file", "outputs/x/00_overview", "outputs/x/00_overview", IN_THE_WAY),
        (run, "folder", "outputs/x/00_overview/kernel.log", "kernel.log", A_FOLDER),
        (run, "folder", "outputs/x/00_overview/run.lock", "run.lock", A_FOLDER),
        (ask, "file", "out", "out", IN_THE_WAY),
        (ask, "folder", "out/o.answers.jsonl", "o.answers.jsonl", A_FOLDER),
        (ask, "folder", "out/o.jsonl", "o.jsonl", A_FOLDER),
        (ask, "folder", "out/o.jsonl.tmp", "o.jsonl.tmp", A_FOLDER),
        (ask, "full", "out/o.jsonl.tmp", "o.jsonl", FULL),
        (export, "file", "out", "out", IN_THE_WAY),
        (export, "folder", "out/finr1_x.jsonl", "finr1_x.jsonl", A_FOLDER),
        (export, "folder", "out/finr1_x.yaml", "finr1_x.yaml", A_FOLDER),
        (export, "full", "out/finr1_x.yaml.tmp", "finr1_x.yaml", FULL),
    ],
)
def test_a_command_that_cannot_write_says_so_in_one_line(
    tmp_path, monkeypatch, capsys, command, kind, name, path, advice
):
    arguments = command(tmp_path, monkeypatch)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    {"file": Path.touch, "folder": Path.mkdir, "full": lambda p: p.symlink_to("/dev/full")}[kind](tmp_path / name)
    with Loopback() as server:
        arguments += ["--base-url", server.base_url] if command is ask else []
        assert main(arguments) == 1
    said = capsys.readouterr()
    told = [line for line in said.err.splitlines() if "answers, " not in line]
    assert "can't be read" not in said.out and len(told) == 1 and path in told[0] and advice in told[0], told
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.tmp")}
    assert left <= {name}


def test_answers_that_were_paid_for_survive_a_full_disk_at_the_last_file(tmp_path, monkeypatch, capsys):
    arguments = ask(tmp_path, monkeypatch)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "o.jsonl.tmp").symlink_to("/dev/full")
    with Loopback() as server:
        assert [main([*arguments, "--base-url", server.base_url]) for _ in range(2)] == [1, 0]
    assert server.asked["q"] == 1 and json.loads((tmp_path / "out" / "o.jsonl").read_text())["error"] is None


def test_an_input_that_is_not_there_is_one_line_too(tmp_path, capsys):
    arguments = ["--output", str(tmp_path / "o"), "--model", "m", "--base-url", "http://127.0.0.1:9"]
    assert main(["generate", "--input", str(tmp_path / "gone.jsonl"), *arguments]) == 1
    assert capsys.readouterr().err == f"{tmp_path / 'gone.jsonl'}: No such file or directory\n"


@pytest.mark.parametrize("content", ['{"step": 1}\nnull\n', '{"step": 1}\n[2]\n', "\0\n"])
def test_a_command_that_cannot_read_says_so_in_one_line(outputs, capsys, content):
    stage = outputs / "r" / "04_sft"
    stage.mkdir(parents=True)
    (stage / "train.py").touch()
    (stage / "metrics.jsonl").write_text(content)
    assert main(["watch", "r"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "metrics.jsonl, line " in line and line.endswith("--force 04_sft`")


@pytest.mark.parametrize("content", [b"run: \xff\n", b"", b"run: r\n"])
def test_a_further_node_that_cannot_read_the_parameters_says_so(outputs, monkeypatch, capsys, content):
    stage = outputs / "r" / "04_sft"
    stage.mkdir(parents=True)
    (stage / "params.yaml").write_bytes(content)
    with socket.create_server(("127.0.0.1", 0)) as first:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(first.getsockname()[1])}
        for name, value in ({"NNODES": "2", "NODE_RANK": "1"} | address).items():
            monkeypatch.setenv(name, value)
        assert main(["join", str(stage)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("wrong parameters for ") and "Traceback" not in told


# Inside a notebook.


def failing(error: Exception, log: bytes = b"", monkeypatch: pytest.MonkeyPatch | None = None) -> None:
    def execute_notebook(*_: object, kernel_manager_class: type, **__: object) -> None:
        cells = dict(zip(kernel_manager_class.start_kernel.__code__.co_freevars,
                         kernel_manager_class.start_kernel.__closure__, strict=True))  # fmt: skip
        cells["log"].cell_contents.write(log)
        cells["log"].cell_contents.flush()
        raise error

    monkeypatch.setattr("papermill.execute_notebook", execute_notebook)


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("OSError", "[Errno 28] No space left on device", FULL),
        ("OSError", "[Errno 122] Disk quota exceeded: 'a'", FULL),
        ("OSError", "[Errno 30] Read-only file system: 'a'", "may not write there"),
        ("PermissionError", "[Errno 13] Permission denied: 'a'", "may not write there"),
        ("IsADirectoryError", "[Errno 21] Is a directory: 'a'", A_FOLDER),
        ("FileExistsError", "[Errno 17] File exists: 'a'", IN_THE_WAY),
        ("SafetensorError", "Error while serializing: I/O error: No space left on device (os error 28)", FULL),
        ("RuntimeError", "PytorchStreamWriter failed writing file data/9: file write failed", FULL),
        ("OperationalError", "database or disk is full", FULL),
    ],
)
def test_a_cell_that_cannot_write_is_told_without_a_traceback(tmp_path, monkeypatch, capsys, name, value, advice):
    papermill = pytest.importorskip("papermill")
    trace = ["Traceback", "a library's lines", f"{name}: {value}"]
    failing(papermill.PapermillExecutionError(3, 7, "cell", name, value, trace), monkeypatch=monkeypatch)
    assert main(run(tmp_path, monkeypatch)) == 1
    first, *_ = error = capsys.readouterr().err.splitlines()
    assert "failed in cell [7]" in first and "outputs/x/00_overview" in first and value in first and advice in first
    assert not any("a library's lines" in line for line in error) and "The same command again" in error[-1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_papermill_that_cannot_write_its_notebook_is_one_line(tmp_path, monkeypatch, capsys, number):
    failing(OSError(number, os.strerror(number)), monkeypatch=monkeypatch)
    assert main(run(tmp_path, monkeypatch)) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "00_overview.ipynb: " in line and os.strerror(number) in line and remedy(f"[Errno {number}]") in line


def test_a_kernel_that_does_not_come_up_says_why(tmp_path, monkeypatch, capsys):
    log = b"Traceback\nPermissionError: [Errno 13] Permission denied: '/nonexistent/.ipython'\n"
    failing(RuntimeError("Kernel died before replying to kernel_info"), log, monkeypatch)
    assert main(run(tmp_path, monkeypatch)) == 1
    error = capsys.readouterr().err
    assert "died before replying" in error and "/nonexistent/.ipython" in error and "`HOME` one for caches" in error


@pytest.mark.skipif(ROUNDS <= 2, reason="`make faults` tries a disk that is really full")
@pytest.mark.parametrize("kilobytes", [0, 16, 64, 128, 192])
def test_a_run_on_a_small_disk_ends_in_words_and_goes_on_when_there_is_room(tmp_path, kilobytes):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a small disk here")
    try:
        (small / "ballast").write_bytes(b"0" * 1024 * (256 - kilobytes - 4))
        command = [sys.executable, "-m", "finr1", "run", "--run", "x", "--until", "00_overview"]
        env = os.environ | {"FINR1_OUTPUTS": str(small / "outputs")}
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode:
            assert done.returncode == 1 and FULL in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert not list(small.rglob("*.tmp"))
        (small / "ballast").unlink()
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0 or FULL in done.stderr
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("how", ["-m", "-c"])
def test_windows_is_told_where_it_runs(tmp_path, how):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['fcntl'] = None")
    root = str(Path(models.__file__).parents[1])
    command = [sys.executable, *(["-m", "finr1", "run"] if how == "-m" else ["-c", "import finr1"])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), root])}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "On Windows, run it inside WSL 2" in done.stderr.splitlines()[-1]
    assert ("Traceback" in done.stderr) == (how == "-c")
