"""Two processes at one thing: one asks or works, the other waits with a message, also when the first one is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT, demo_values
from loopback import Loopback

from finr1 import pipeline
from finr1.generation import AnswerStore, Request, SamplingParams, ScriptedBackend, generate
from finr1.params import OverviewParams
from finr1.run import Run, kernel_lock

QUESTIONS = [f"q{number}" for number in range(12)]


def start(code: str, *arguments: object, **env: str) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | env)


def wait_until(condition, process: subprocess.Popen | None = None) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline and (process is None or process.poll() is None)
        time.sleep(0.01)


def command(folder: Path, server: Loopback) -> list[str]:
    files = ["--input", str(folder / "in.jsonl"), "--output", str(folder / "out.jsonl"), "--concurrency", "2"]
    return [sys.executable, "-m", "finr1", "generate", *files, "--base-url", server.base_url, "--model", "m"]


@pytest.mark.parametrize("killed", [False, True], ids=["to its end", "killed"])
def test_two_commands_on_one_output_pay_once(tmp_path, killed):
    rows = [{"id": q, "messages": [{"role": "user", "content": q}]} for q in QUESTIONS]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    store, gate = tmp_path / "out.answers.jsonl", threading.Event()

    def message(question: str) -> dict:  # the first one can't come to its end before the second one waits for it
        if question not in ("1", *QUESTIONS[:2]):
            gate.wait(60)
        return {"content": question}

    with Loopback(message=message) as server:
        first = subprocess.Popen(command(tmp_path, server), cwd=ROOT, stderr=subprocess.DEVNULL)
        wait_until(lambda: store.exists() and store.stat().st_size, first)
        second = subprocess.Popen(command(tmp_path, server), cwd=ROOT, stderr=subprocess.PIPE, text=True)
        told = second.stderr.readline()
        assert told.startswith(f"process {first.pid} asks for answers that go to ") and "waiting for it" in told
        if killed:
            first.kill()
        gate.set()
        assert first.wait(60) == (-9 if killed else 0) and second.wait(60) == 0
        second.stderr.close()
        del server.asked["1"]  # what the check asks
        assert set(server.asked) == set(QUESTIONS) and server.asked.total() <= len(QUESTIONS) + 2 * killed
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == QUESTIONS and not any(row["error"] for row in rows)


ASKER = """
import sys, time
from pathlib import Path
from finr1.generation import AnswerStore, Request, SamplingParams, ScriptedBackend, generate
folder, log = Path(sys.argv[1]), open(Path(sys.argv[1]) / "asked", "a", buffering=1)
def slow(request, sampling, sample):
    time.sleep(0.02)
    log.write(request.id + "\\n")
    return request.id
requests = [Request(id=f"q{n}", messages=[{"role": "user", "content": str(n)}]) for n in range(30)]
AnswerStore(folder / "answers.jsonl")
(folder / sys.argv[2]).touch()
while len(list(folder.glob("ready*"))) < int(sys.argv[3]):
    time.sleep(0.001)
generate(requests, SamplingParams(), ScriptedBackend(slow, "slow"), AnswerStore(folder / "answers.jsonl"))
"""


def test_several_kernels_on_one_store_ask_each_request_once(tmp_path):
    kernels = [start(ASKER, tmp_path, f"ready{number}", 3) for number in range(3)]
    told = [kernel.communicate(timeout=60)[1] for kernel in kernels]
    assert [kernel.returncode for kernel in kernels] == [0, 0, 0], told
    asked = Counter((tmp_path / "asked").read_text().split())
    assert len(asked) == 30 and set(asked.values()) == {1}
    assert sum("asks for answers" in text for text in told) == 2


def test_a_kernel_that_fails_gives_its_turn_away_and_ranks_take_none(tmp_path, monkeypatch):
    store = AnswerStore(tmp_path / "answers.jsonl")
    request = Request(id="q", messages=[{"role": "user", "content": "q"}])
    with pytest.raises(ZeroDivisionError):
        generate([request], SamplingParams(), ScriptedBackend(lambda *_: 1 / 0, "broken"), store)
    assert not store.asking
    monkeypatch.setenv("WORLD_SIZE", "2")
    with store.turn():  # a stage is locked as a whole: its ranks ask side by side
        thread = threading.Thread(target=generate, args=([request], SamplingParams(), ScriptedBackend(
            lambda *_: "a", "rank"), AnswerStore(store.path)))  # fmt: skip
        thread.start()
        thread.join(10)
        assert not thread.is_alive()


def test_a_link_to_a_store_is_that_store(tmp_path):
    store, link, asked = AnswerStore(tmp_path / "answers.jsonl"), tmp_path / "link.jsonl", []
    link.symlink_to(store.path)
    request = Request(id="q", messages=[{"role": "user", "content": "q"}])
    backend = ScriptedBackend(lambda *_: asked.append(1) or "a", "linked")
    thread = threading.Thread(target=generate, args=([request], SamplingParams(), backend, AnswerStore(link)))
    with store.turn():
        thread.start()
        thread.join(0.5)
        assert thread.is_alive() and not asked
        generate([request], SamplingParams(), backend, store)
    thread.join(10)
    assert asked == [1]


# Two kernels on one stage, two `run`s, an ablation beside a `run`.

KERNEL = """
import sys, time
from finr1.params import read_flat_yaml, OverviewParams
from finr1.run import Run
run = Run(OverviewParams(**read_flat_yaml("params/demo/00_overview.yaml").values))
print("at work", file=sys.stderr, flush=True)
time.sleep(float(sys.argv[1]))
run.finish({}, [])
"""
PARAMS = OverviewParams(**demo_values("00_overview"))


@pytest.fixture
def kernel(outputs):
    process = start(KERNEL, 60)
    assert process.stderr.readline() == "at work\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_kernel_on_a_stage_stops_with_a_sentence_until_the_first_is_gone(kernel, outputs):
    state = (outputs / "demo/00_overview/state.json").read_bytes()
    with pytest.raises(RuntimeError, match=rf"^process {kernel.pid} is at work in .*00_overview .*: wait or end it$"):
        Run(PARAMS)
    assert (outputs / "demo/00_overview/state.json").read_bytes() == state
    kernel.kill()
    kernel.wait()
    run = Run(PARAMS)
    assert Run(PARAMS).fingerprint == run.fingerprint  # the cell was run again
    run.finish({}, [])
    with kernel_lock(run.dir):  # given back
        pass


def test_a_run_waits_for_a_kernel_and_does_not_do_again_what_it_finished(outputs, monkeypatch, capfd):
    process = start(KERNEL, 2)
    assert process.stderr.readline() == "at work\n"
    monkeypatch.setattr(pipeline, "execute", lambda *_: pytest.fail("it was done already"))
    pipeline.run_stages([PARAMS])
    assert process.communicate()[0] is None and process.returncode == 0
    told = capfd.readouterr()
    assert f"process {process.pid} is at work in " in told.err and "waiting for it" in told.err
    assert "skip 00_overview: complete and unchanged" in told.out


RUN = """
import sys, time
from pathlib import Path
from finr1 import pipeline
from finr1.params import read_flat_yaml, OverviewParams
from finr1.run import Run
def execute(stage, params):
    with open(sys.argv[1], "a") as log:
        log.write(f"{params.run}\\n")
    time.sleep(1)
    Run(params).finish({}, [])
pipeline.execute = execute
values = read_flat_yaml("params/demo/00_overview.yaml").values
pipeline.run_stages([OverviewParams(**values | {"run": run}) for run in sys.argv[2:]])
"""


def test_two_runs_and_an_ablation_beside_them_do_each_stage_once(outputs, tmp_path):
    runs = [start(RUN, tmp_path / "done", *names) for names in (["a"], ["a"], ["a", "b"])]  # an arm starts from `a`
    told = [run.communicate(timeout=60)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], told
    assert sorted((tmp_path / "done").read_text().split()) == ["a", "b"]
