"""Artefacts that were cut off, emptied, exchanged or edited: noticed before use, named, and mended by a command."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import demo_values
from finished import finish
from test_run import sft  # noqa: F401

from finr1 import launch as launching
from finr1 import manifest, pipeline, progress
from finr1.__main__ import main
from finr1.manifest import read_manifest, what_is_missing
from finr1.params import DataParams, DistillationParams, ParameterError
from finr1.progress import read_metrics
from finr1.records import Problem, read_jsonl
from finr1.rollouts import read_rollouts
from finr1.run import Run

DATA = DataParams(**demo_values("01_data"))
DISTILLATION = DistillationParams(**demo_values("02_distillation"))


def finished_data() -> Run:
    run = Run(DATA)
    run.path("rows.jsonl").write_text('{"id": 1}\n', "utf8")
    run.path("model/weights.bin").write_bytes(b"1234")
    run.path("model/config.json").write_text("{}", "utf8")
    run.finish({}, outputs=["rows.jsonl", "model"])
    return run


def without(name: str):
    def damage(path: Path) -> None:
        record = json.loads(path.read_text("utf8"))
        del record[name]
        path.write_text(json.dumps(record), "utf8")

    return damage


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "within").touch()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def within(*names: str, value: object):
    """Damage that leaves JSON: one value of an object is another one."""

    def damage(path: Path) -> None:
        record = part = json.loads(path.read_text("utf8"))
        for name in names[:-1]:
            part = part[name]
        part[names[-1]] = value
        path.write_text(json.dumps(record), "utf8")

    return damage


# What a file of JSON is turned into; each is a kind of damage that was seen.
DAMAGES = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(b"\0" * 40),
    "an object without keys": lambda path: path.write_text("{}"),
    "a list": lambda path: path.write_text("[]"),
    "null": lambda path: path.write_text("null"),
    "a number": lambda path: path.write_text("7"),
    "bytes": lambda path: path.write_bytes(b"\xff\xfe\x00\x81"),
    "nested without end": lambda path: path.write_text("[" * 100_000),
    "a folder": folder,
    "a pipe": pipe,
}
KEYS = ["outputs", "outputs_sha256", "parameters", "inputs", "code", "metrics", "seed"]
ENTRY = {"sha256": "0" * 64, "bytes": 1}
OF_A_MANIFEST = DAMAGES | {f"no {name}": without(name) for name in KEYS} | {
    "an output more": within("outputs", "more.jsonl", value=ENTRY),
    "an output outside": within("outputs", "../../x", value=ENTRY),
    "an output at the root": within("outputs", "/tmp", value=ENTRY),
    "an output without a name": within("outputs", "", value=ENTRY),
    "an output of no kind": within("outputs", "rows.jsonl", value=None),
    "another hash of all": within("outputs_sha256", value="0" * 64),
    "files that are a list": within("code", "files", value=[]),
    "a notebook that is null": within("code", "notebook", value=None),
    "times that are a list": within("phases_s", value=[1]),
}  # fmt: skip


@pytest.mark.parametrize("damage", OF_A_MANIFEST.values(), ids=OF_A_MANIFEST)
def test_an_unreadable_manifest_is_an_incomplete_stage_for_every_command(outputs, capsys, damage):
    data, benchmark = finished_data(), finish(outputs / "demo" / "06_benchmark")
    for stage in (data.dir, benchmark):
        damage(stage / "manifest.json")
        assert what_is_missing(stage) == "manifest.json can't be read"
    assert pipeline.why_run(DATA) == "manifest.json can't be read"
    command = "python -m finr1 run --preset PRESET --run demo --until 0{}`$"
    with pytest.raises(ParameterError, match=f"not a complete stage .*{command.format('1_data')}"):
        Run(DISTILLATION)
    with pytest.raises(ValueError, match=f"01_data/manifest.json can't be read.*{command.format('1_data')}"):
        read_manifest(data.dir)
    for arguments in (["regrade", "demo"], ["export-harness", "--run", "demo", "--output", "tasks"]):
        assert main(arguments) == 2
        assert re.search(f"not a complete stage .*{command.format('6_benchmark')}", capsys.readouterr().err.strip())
    again = Run(DATA)  # not stuck: the stage goes on, with what it has
    assert (again.dir / "rows.jsonl").exists()
    again.finish({}, outputs=["rows.jsonl"])
    assert what_is_missing(data.dir) is None
    assert main(["plan"]) == 0


@pytest.mark.parametrize("name", ["rows.jsonl", "model/weights.bin", "model/config.json"])
def test_an_output_that_was_edited_at_the_same_size_is_noticed_and_made_again(outputs, name):
    run = finished_data()
    content = (run.dir / name).read_bytes()
    (run.dir / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert what_is_missing(run.dir) == f"{name} was removed or changed after the stage was complete"
    assert pipeline.why_run(DATA) == what_is_missing(run.dir)
    with pytest.raises(ParameterError, match=f"{name} was removed or changed .*--until 01_data --force 01_data"):
        Run(DISTILLATION)
    again = Run(DATA)  # a trainer would else find a model, and the manifest call it its own
    assert not (again.dir / Path(name).parts[0]).exists()
    kept = "rows.jsonl" if name.startswith("model") else "model/config.json"
    assert (again.dir / kept).exists()


def test_nothing_that_holds_the_project_is_removed(monkeypatch, tmp_path):
    (project := tmp_path / "above" / "project").mkdir(parents=True)
    monkeypatch.setattr(manifest, "repository_root", lambda: project)
    for path in (project, project.parent, project / ".."):
        with pytest.raises(ValueError, match="holds the project"):
            manifest.remove(path)
    assert project.exists()


def test_a_manifest_removes_nothing_outside_its_stage(outputs):
    """What was changed is removed when its stage is made again."""
    (precious := outputs / "precious").touch()
    for name in ("../../precious", str(precious)):
        run = finished_data()
        record = json.loads((run.dir / "manifest.json").read_text("utf8"))
        record["outputs"][name] = ENTRY
        hashes = {name: entry["sha256"] for name, entry in record["outputs"].items()}
        manifest.write_json(run.dir / "manifest.json", record | {"outputs_sha256": manifest.digest(hashes)})
        Run(DATA)
        assert precious.exists()


@pytest.mark.parametrize("name", ["adapter_config.json", "chat_template.jinja", "more.safetensors"])
def test_a_file_that_was_put_into_a_model_is_noticed_and_taken_out(outputs, name):
    """Loading the model would read it: an adapter, another template, more weights."""
    run = finished_data()
    (run.dir / "model" / "model-f16.gguf").touch()  # which nobody reads from there
    assert what_is_missing(run.dir) is None
    (run.dir / "model" / name).write_text("{}")
    with pytest.raises(ParameterError, match=f"model/{name} was added, .*--until 01_data`$"):
        Run(DISTILLATION)
    again = Run(DATA)
    assert not (again.dir / "model" / name).exists() and (again.dir / "model" / "weights.bin").exists()


@pytest.mark.parametrize("arguments", [["regrade", "demo"], ["export-harness", "--run", "demo", "--output", "tasks"]])
def test_an_edited_benchmark_is_not_graded(outputs, capsys, arguments):
    stage = outputs / "demo" / "06_benchmark"
    stage.mkdir(parents=True)
    (stage / "samples.jsonl").write_text('{"correct": true}\n', "utf8")
    finish(stage)
    (stage / "samples.jsonl").write_text('{"correct": fals}\n', "utf8")
    assert main(arguments) == 2
    assert "samples.jsonl was removed or changed" in capsys.readouterr().err


def test_a_large_file_is_compared_by_blocks_while_its_time_is_the_same(outputs, monkeypatch):
    monkeypatch.setattr(manifest, "LARGE", 1000)
    monkeypatch.setattr(manifest, "_BLOCK", 4)
    run, content = Run(DATA), bytes(range(250)) * 20
    weights = run.path("weights.bin")
    weights.write_bytes(content)
    run.finish({}, outputs=["weights.bin"])
    before = weights.stat()

    def write(place: int, value: int, same_time: bool) -> str | None:
        weights.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
        if same_time:
            os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
        return what_is_missing(run.dir)

    assert write(0, content[0], same_time=False) is None, "copied: the whole content is the same"
    for place in (0, 4996, 4999):
        assert write(place, 251, same_time=True), "in a block"
    assert write(40, 251, same_time=False), "outside of the blocks, at another time"
    assert write(40, 251, same_time=True) is None, "what a sampled hash can't see"
    monkeypatch.setenv("FINR1_VERIFY", "all")
    assert what_is_missing(run.dir) == "weights.bin was removed or changed after the stage was complete"


PROBLEM = '{"id": "a/1", "source": "a"'
LINES = {
    "cut off": (PROBLEM.encode(), "EOF while parsing"),
    "empty": (b"", "EOF while parsing"),
    "a list": (b"[1]", "object"),
    "a field is missing": (b'{"id": "a/1"}', "source: Field required"),
    "another type": (b'{"id": 7}', "id: Input should be a valid string"),
    "no UTF-8": (b'{"id": "\xff"}', "Invalid JSON"),
    "zeros": (b"\0\0\0", "Invalid JSON"),
}


@pytest.mark.parametrize(("line", "words"), LINES.values(), ids=LINES)
def test_a_broken_line_is_named_with_its_file_and_the_command(outputs, line, words):
    good = Problem(id="a/1", source="a", module="m", language="en", capability="esg", answer_kind="text", question="?",
                   gold="g", split="train", group="g").model_dump_json().encode()  # fmt: skip
    path = outputs / "demo" / "01_data" / "problems.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xef\xbb\xbf" + good + b"\n" + line + b"\n" + good + b"\n")
    rows = read_jsonl(path, Problem)
    assert next(rows).id == "a/1", "a mark of the byte order is no part of a line"
    with pytest.raises(ValueError) as caught:
        next(rows)
    text = str(caught.value)
    assert f"{path}, line 2: " in text and words in text, text
    assert "\n" not in text and text.endswith("--run demo --until 01_data --force 01_data`")


_PARTS = ("fingerprint", "phases", "launched", "started", "parameters", "inputs")
OF_A_STATE = DAMAGES | {f"no {name}": without(name) for name in _PARTS} | {
    "a time that is a text": within("phases", "a", value="1 s"),
    "peaks that are a list": within("peak_memory_gib", value=[1]),
}  # fmt: skip


@pytest.mark.parametrize("damage", OF_A_STATE.values(), ids=OF_A_STATE)
def test_a_stage_whose_state_is_broken_starts_anew_and_says_so(outputs, capsys, damage):
    run = Run(DATA)
    run.path("rows.jsonl").touch()
    run.path("teacher.answers.jsonl").touch()
    damage(run.dir / "state.json")
    again = Run(DATA)
    assert "state.json can't be read" in capsys.readouterr().out
    assert not (again.dir / "rows.jsonl").exists() and (again.dir / "teacher.answers.jsonl").exists()
    assert again.state["fingerprint"] == run.fingerprint


# Checkpoints.

PARTS = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "files.json"]
OF_A_PART = {name: DAMAGES[name] for name in ("cut off", "empty", "bytes", "a folder", "a pipe", "a list")} | {
    "gone": lambda path: path.unlink(),
    "an object without keys": DAMAGES["an object without keys"],
    "one bit": lambda path: path.write_bytes(path.read_bytes()[:-3] + b"?" + path.read_bytes()[-2:]),
}


def write_checkpoints(stage: Path, *steps: int, best: int | None = None) -> Path:
    for step in steps:
        checkpoint = stage / "checkpoints" / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        for name in PARTS[:4]:
            (checkpoint / name).write_text(f"{name} of {step}, as it was written\n")
        state = {"best_model_checkpoint": best and str(checkpoint.with_name(f"checkpoint-{best}"))}
        (checkpoint / "trainer_state.json").write_text(json.dumps(state))
        for log in ("metrics.jsonl", "early_answers.jsonl"):
            with (stage / log).open("a") as file:
                file.write(f'{{"step": {step}}}\n')
        progress.seal(checkpoint)
    return stage / "checkpoints"


@pytest.mark.parametrize("damage", OF_A_PART.values(), ids=OF_A_PART)
@pytest.mark.parametrize("part", PARTS)
def test_a_broken_checkpoint_is_dropped_for_the_one_before(tmp_path, capsys, part, damage):
    folder = write_checkpoints(tmp_path, 2, 4)
    damage(folder / "checkpoint-4" / part)
    assert progress.newest_whole(folder).endswith("checkpoint-2") and not capsys.readouterr().out
    assert progress.newest_whole(folder, drop=True).endswith("checkpoint-2")
    assert f"checkpoint-4 is dropped: {part} is missing or not as it was written" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["checkpoint-2"]
    damage(folder / "checkpoint-2" / part)
    assert progress.newest_whole(folder, drop=True) is None and not list(folder.iterdir())


def test_other_folders_and_a_missing_one_are_no_checkpoints(tmp_path):
    assert progress.newest_whole(tmp_path / "none") is None
    folder = write_checkpoints(tmp_path, 9, 10)
    for name in ("checkpoint-best", "checkpoint-", "checkpoint-11"):
        (folder / name).mkdir()
    assert progress.newest_whole(folder).endswith("checkpoint-10"), "by number, and without the half-written one"


def test_a_checkpoint_whose_best_one_is_broken_could_not_be_ended_with(tmp_path):
    folder = write_checkpoints(tmp_path, 2, 4, 6, best=2)
    assert progress.newest_whole(folder).endswith("checkpoint-6")
    (folder / "checkpoint-2" / "model.safetensors").write_text("")
    assert progress.newest_whole(folder) is None
    shutil.rmtree(folder / "checkpoint-2")
    assert progress.newest_whole(folder) is None


@pytest.mark.parametrize("log", ["metrics.jsonl", "early_answers.jsonl"])
def test_a_checkpoint_holds_its_logs_and_mends_broken_ones(tmp_path, log):
    folder = write_checkpoints(tmp_path, 2, 4)
    path = tmp_path / log
    whole = path.read_text()
    path.write_text(whole + '{"step": 5}\n{"st')
    assert progress.newest_whole(folder).endswith("checkpoint-4"), "rows that came since do no harm"
    for damage in (lambda: None, lambda: path.write_bytes(b"\xff"), path.unlink):
        damage()
        progress.rewind(path, folder / "checkpoint-4")
        assert path.read_text() == whole
    progress.rewind(path, folder / "checkpoint-2")
    assert path.read_text() == '{"step": 2}\n'
    for _ in range(2):
        progress.rewind(path, folder / "checkpoint-0")
        assert not path.exists()
    progress.rewind(path, folder / "checkpoint-4")
    (folder / "checkpoint-4" / log).write_text("garbage")
    assert progress.newest_whole(folder).endswith("checkpoint-2")


def test_a_broken_line_of_metrics_is_named_and_one_that_is_being_written_waits(outputs):
    stage = outputs / "demo" / "04_sft"
    stage.mkdir(parents=True)
    (stage / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2')
    assert read_metrics(stage) == [{"step": 1}]
    (stage / "metrics.jsonl").write_text('{"step": 1}\nnull\n{"step": 3}\n')
    with pytest.raises(ValueError, match="metrics.jsonl, line 2: .*--until 04_sft --force 04_sft`"):
        read_metrics(stage)


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"{}", None])
def test_a_broken_file_of_completions_is_named_with_the_way_on(outputs, damage):
    folder = outputs / "r" / "05_grpo" / "completions"
    folder.mkdir(parents=True)
    whole = [{"step": 1, "prompt": "q", "completion": "a", "advantage": 0.0, "format_reward": 1.0}] * 2
    for step in (1, 2):
        pd.DataFrame(whole).assign(step=step).to_parquet(folder / f"completions_{step:05d}.parquet")
    file = folder / "completions_00002.parquet"
    file.write_bytes(file.read_bytes()[:-20] if damage is None else damage)
    told = r"completions_00002.parquet can't be read .*without the file its step is not shown; .*--force 05_grpo"
    with pytest.raises(ValueError, match=told):
        read_rollouts(folder.parent, 2)
    file.unlink()
    assert len(read_rollouts(folder.parent, 2)) == 2


def test_launch_names_what_it_drops_and_what_it_cannot_mend(sft, capsys, monkeypatch):  # noqa: F811
    def trained(stage_dir, ended, on_progress):
        (stage_dir / "model").mkdir()
        (stage_dir / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5, "max_steps": 3}\n')

    run = Run(sft, overwrite=True)
    process = SimpleNamespace(stdin=nullcontext(), returncode=0)
    monkeypatch.setattr(launching.subprocess, "Popen", lambda *_, **__: process)
    monkeypatch.setattr(launching, "follow", trained)
    folder = write_checkpoints(run.dir, 2, 4)
    (folder / "checkpoint-4" / "optimizer.pt").write_bytes(b"")
    assert len(launching.launch(run)) == 1
    assert "checkpoint-4 is dropped: optimizer.pt is missing or not as it was written" in capsys.readouterr().out
    for damage in (DAMAGES["cut off"], DAMAGES["zeros"], Path.unlink):  # the model is there, and not how it came about
        damage(run.dir / "metrics.jsonl")
        if damage is DAMAGES["zeros"]:
            (run.dir / "metrics.jsonl").write_bytes(b"\0\n")
        with pytest.raises((FileNotFoundError, ValueError), match="metrics.jsonl.*--until 04_sft --force 04_sft`"):
            launching.launch(run)
    for damage in DAMAGES.values():
        (run.dir / "train_files.json").write_text('{"finr1/rewards.py": "a hash of another time"}')
        damage(run.dir / "train_files.json")
        shutil.rmtree(run.dir / "model", ignore_errors=True)
        launching.launch(run)
        assert not (run.dir / "train_files.json").exists() or damage is DAMAGES["an object without keys"]


def test_a_trained_model_that_broke_before_its_stage_was_complete_is_named(sft):  # noqa: F811
    run = Run(sft, overwrite=True)
    run.path("metrics.jsonl").write_text('{"step": 1, "loss": 0.5, "max_steps": 3}\n')
    run.path("model/config.json").write_text('{"model_type": "llama"}')
    for content in (b"", b"\0" * 40, b"{}"):
        run.path("model/model.safetensors").write_bytes(content)
        with pytest.raises(FileNotFoundError, match="model.safetensors is missing or can't be read.*--force 04_sft`"):
            launching.launch(run)
