"""vLLM, run for real; on a CPU it is the same engine (`make install VLLM_CPU=1`). Each runs in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
from tiny_model import make_tiny_model

pytest.importorskip("vllm", reason="vLLM is not installed: make install GPU=1, or VLLM_CPU=1 on Linux x86-64")

import torch  # noqa: E402
from faults.test_kills import SIZES  # noqa: E402
from test_distributed import grpo_run  # noqa: E402

from finr1 import evaluation, judge, launch, manifest, sampler, synthetic  # noqa: E402
from finr1.generation import (  # noqa: E402
    AnswerStore,
    EndpointBackend,
    GenerationError,
    Job,
    Request,
    SamplingParams,
    TransformersBackend,
    generate,
    request_key,
)
from finr1.judge import Verifier  # noqa: E402
from finr1.models import EMBEDDED_MODEL  # noqa: E402
from finr1.params import STAGES, GRPOParams  # noqa: E402
from finr1.paths import repository_root  # noqa: E402
from finr1.pipeline import load_preset  # noqa: E402
from finr1.progress import read_metrics  # noqa: E402
from finr1.records import messages, read_jsonl  # noqa: E402

pytestmark = pytest.mark.slow
SCRIPTS = Path(__file__).parent
GAP = "sampling/sampling_logp_difference/mean"
MINUTES = 10


def environment(outputs: Path) -> dict[str, str]:
    paths = os.pathsep.join([str(SCRIPTS), str(repository_root())])
    return os.environ | {"PYTHONPATH": paths, "FINR1_OUTPUTS": str(outputs), "VLLM_CPU_KVCACHE_SPACE": "1"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", heads=2)  # vLLM's kernels want 32 a head


BACKENDS = """
import json, sys

import psutil

from finr1.generation import Request, SamplingParams, TransformersBackend, VLLMBackend, generate

if __name__ == "__main__":
    ask = lambda *texts: [Request(id=text[:20], messages=[{"role": "user", "content": text}]) for text in texts]
    requests = ask("Hi", "Revenue rose from 120 to 150.", "Is it bearish?", "1" * 2040)
    greedy = SamplingParams(max_tokens=16)
    sampled = SamplingParams(temperature=1.0, top_p=0.9, max_tokens=16, num_samples=3, seed=1)
    found = []
    for folder in sys.argv[1:]:
        for backend in (VLLMBackend(folder, dtype="float32"), TransformersBackend(folder, dtype="float32")):
            answers = generate(requests, greedy, backend, on_error="none")
            more = [generate(requests[:2], sampled, backend) for _ in range(2)]
            found.append([[answer.model_dump(exclude={"key"}) for answer in part] for part in (answers, *more)])
            backend.unload()
            engines = [child.name() for child in psutil.Process().children() if "Engine" in child.name()]
            assert not engines, f"{engines} outlived unload"
    print("FOUND", json.dumps(found))
"""


def test_the_backend_answers_as_transformers_does(model, tmp_path):
    """Greedy in fp32; also an adapter, which is merged first; a prompt without room is one failed request."""
    from peft import LoraConfig, get_peft_model

    from finr1.models import load_model

    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(load_model(str(model)), lora).save_pretrained(tmp_path / "adapter")
    (tmp_path / "ask.py").write_text(BACKENDS)
    command = [sys.executable, "ask.py", str(model), str(tmp_path / "adapter")]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=60 * MINUTES
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))[6:])
    for vllm, transformers in (found[:2], found[2:]):
        assert vllm[0] == transformers[0], "texts, ends, tokens and the refusal"
        assert [answer["finish_reason"] == "error" for answer in vllm[0]] == [False, False, False, True]
        assert "leaves the model room for 2032" in vllm[0][3]["error"]
        assert vllm[1] == vllm[2] and len({answer["text"] for answer in vllm[1]}) > 2, "a seed for each sample"
    assert found[0][0] != found[2][0], "the adapter counts"


# A random model is right in no answer; with equal rewards nothing would move, and any sampler would be the policy.
SPREAD = "def spread(completions, **columns): return [len(answer[0]['content']) % 7 for answer in completions]"


def start(run, outputs: Path) -> subprocess.Popen:
    (run.dir / "train.py").write_text(f"{SPREAD}\n{launch.recipe_script('05_grpo', GRPOParams)}")
    log = (run.dir / "log.txt").open("a")
    command = [sys.executable, str(run.dir / "train.py")]
    return subprocess.Popen(command, env=environment(outputs), stdout=log, stderr=log, start_new_session=True)


@pytest.mark.parametrize("peft", ["full", "lora"])
def test_what_vllm_samples_is_the_policy_at_first_later_and_after_a_kill(model, tmp_path, peft):
    """The learning rate is so high that yesterday's weights, the base or a doubled adapter would be far off."""
    base = tmp_path / "r"
    (base / "04_sft").mkdir(parents=True)
    (base / "04_sft" / "model").symlink_to(model)
    more = {"use_vllm": True, "peft": peft, "learning_rate": 2e-2, "lr_scheduler_type": "constant", "max_steps": 6,
            "save_steps": 2, "max_completion_length": 16, "beta": 0.0, "mask_truncated_completions": False,
            "reward_funcs": ["spread"], "reward_weights": [1.0]}  # fmt: skip
    run = grpo_run(base, "05_grpo", **more)
    process = start(run, tmp_path)
    end = time.monotonic() + 60 * MINUTES
    while not (run.dir / "checkpoints" / "checkpoint-2" / "trainer_state.json").exists():
        assert process.poll() is None and time.monotonic() < end, (run.dir / "log.txt").read_text()[-3000:]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process = start(run, tmp_path)
    assert process.wait(60 * MINUTES) == 0, (run.dir / "log.txt").read_text()[-3000:]
    rows = [row for row in read_metrics(run.dir) if "loss" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row[GAP] < sampler.TOLERANCE for row in rows), [row[GAP] for row in rows]
    assert moved(model, run.dir / "model") > 3 * sampler.TOLERANCE, "else the check would have nothing to see"


class Server:
    """`vllm serve` of a model on one port of loopback; `kill` takes all its processes without a word."""

    def __init__(self, model: Path, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.model, self.folder, self.url = model, folder, f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        flags = ["--host", "127.0.0.1", "--port", str(self.port), "--served-model-name", "tiny", "--dtype", "float32"]
        # What `vllm serve` starts; the command itself wants a package of the name vllm, and a CPU's is vllm-cpu.
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.model), *flags]
        log = (self.folder / "server.txt").open("a")
        settings = {"env": environment(self.folder), "stdout": log, "stderr": log, "start_new_session": True}
        self.process = subprocess.Popen(command, **settings)
        end = time.monotonic() + 60 * MINUTES
        while True:
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5)
                return
            assert self.process.poll() is None and time.monotonic() < end, (self.folder / "server.txt").read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def test_a_served_model_teaches_is_benchmarked_and_may_die_on_the_way(model, tmp_path):
    """The parts of notebooks 02, 03, 05 and 06 that ask: what is stored stays, and the rest is asked again."""
    problems = synthetic.generate_problems(40, "train", seed=1)
    requests = [Request(id=problem.id, messages=messages(problem)) for problem in problems]
    sampling, store = SamplingParams(max_tokens=16), AnswerStore(tmp_path / "answers.jsonl")
    server = Server(model, tmp_path)
    server.start()
    try:
        backend = EndpointBackend(server.url, "tiny", concurrency=2, max_retries=1)
        backend.check()
        asked = iter(backend.complete([Job(r, 0, request_key(r, sampling, backend.fingerprint)) for r in requests],
                                      sampling, lambda: False))  # fmt: skip
        for _ in range(10):
            store.put(next(asked))
        server.kill()
        with pytest.raises(GenerationError, match=str(server.port)):
            generate(requests, sampling, backend, store)
        kept = dict(store.answers)
        assert 10 <= len(kept) < 40
        with pytest.raises(GenerationError, match=str(server.port)):  # as the verifier of 05: an error before any work
            Verifier(backend).check()
        server.start()
        answers = generate(requests, sampling, backend, store)
        assert [answer.id for answer in answers] == [problem.id for problem in problems] and len(store.answers) == 40
        assert all(store.answers[key] == answer for key, answer in kept.items())
        samples = evaluation.evaluate(problems, backend, sampling, "tiny", store)
        assert [sample.text for sample in samples] == [answer.tagged for answer in answers]
        same = generate(requests[:5], sampling, TransformersBackend(model, dtype="float32"))
        assert [answer.text for answer in same] == [answer.text for answer in answers[:5]], "one template, one model"
        assert Verifier(backend)([("What is 5 + 7?", "12", "It is 12.")])[0][0] is None  # a random model's word
    finally:
        with suppress(ProcessLookupError):
            server.kill()


# So small a model keeps no form by itself: the server's grammar gives its thoughts, answers and verdicts theirs.
THOUGHT = (
    r"<think>[A-Za-z ,]{20,60}\. [A-Za-z ,]{20,60}\. [A-Za-z ,]{20,60}\.</think><answer>\\boxed\{(yes|no)\}</answer>"
)
VERDICT = r"[01]\n\{" + ", ".join(f'"{name}": [01]' for name in judge.CRITERIA) + r"\}"  # for both of its prompts
SMALL = SIZES | {
    "num_train": 90, "02_distillation.max_tokens": 96, "04_sft.max_steps": 2, "mask_truncated_completions": False,
    "05_grpo.max_steps": 40, "05_grpo.save_steps": 10, "06_benchmark.max_tokens": 96,
}  # fmt: skip


def asks(stage: str, role: str, url: str, form: str) -> dict[str, object]:
    """The parameters with which `stage` asks the served model as its `role`."""
    extra = json.dumps({"structured_outputs": {"regex": form}})
    where = {"backend": "endpoint", "base_url": url, "model": "tiny", "extra": extra}
    return {f"{stage}.{role}_{name}": value for name, value in where.items()}


def test_notebooks_02_03_and_06_resume_when_their_server_has_died(model, embedded, tmp_path):
    """The embedded model behind vLLM's server teaches, judges and is benchmarked; a tiny one is trained between."""
    server = Server(embedded / EMBEDDED_MODEL, tmp_path)
    (tmp_path / "cache").symlink_to(embedded)
    env = environment(tmp_path) | {"FINR1_API_KEY": "any", "OMP_NUM_THREADS": "1"}
    values = SMALL | asks("02_distillation", "teacher", server.url, THOUGHT)
    values |= asks("03_filtering", "judge", server.url, VERDICT) | asks("06_benchmark", "judge", server.url, VERDICT)
    answers_so = json.dumps({"structured_outputs": {"regex": THOUGHT}})
    values |= {"model_name_or_path": model, "06_benchmark.judge_scope": "all",
               "06_benchmark.other_models": json.dumps([f"served=tiny@{server.url} {answers_so}"])}  # fmt: skip
    command = run_of(values)
    server.start()
    try:
        for stage, who in (("02_distillation", "teacher"), ("03_filtering", "judge"), ("06_benchmark", "benchmark")):
            answers = tmp_path / "v" / stage / f"{who}.answers.jsonl"
            process = subprocess.Popen([*command, "--until", stage], env=env, stderr=subprocess.PIPE, text=True)
            kept = killed_under(process, server, answers)
            server.start()
            again = subprocess.run([*command, "--until", stage], env=env, capture_output=True, text=True)
            assert again.returncode == 0, again.stderr[-3000:]
            assert answers.read_text("utf8").startswith(kept) and len(answers.read_text("utf8")) > len(kept)
    finally:
        with suppress(ProcessLookupError):
            server.kill()
    metrics = manifest.read_manifest(tmp_path / "v" / "03_filtering")["metrics"]
    assert metrics["traces"] == 90 and metrics["good"] > 0
    verdicts = read_jsonl(tmp_path / "v" / "06_benchmark" / "verdicts.jsonl")
    assert "served" in {verdict["model"] for verdict in verdicts}


def run_of(values: dict[str, object]) -> list[str]:
    return [sys.executable, "-m", "finr1", "run", "--run", "v", *(f"--set={k}={v}" for k, v in values.items())]


def test_notebook_05_trains_on_while_its_verifier_is_away(model, embedded, tmp_path):
    server = Server(embedded / EMBEDDED_MODEL, tmp_path)
    (tmp_path / "cache").symlink_to(embedded)
    env = environment(tmp_path) | {"FINR1_API_KEY": "any", "OMP_NUM_THREADS": "1"}
    values = SMALL | {"model_name_or_path": model}
    before = subprocess.run([*run_of(values), "--until", "04_sft"], env=env, capture_output=True, text=True)
    assert before.returncode == 0, before.stderr[-3000:]
    changes = [f"{name}={value}" for name, value in values.items()]
    load_preset("demo", "v", list(STAGES), changes)["05_grpo"].to_yaml(tmp_path / "05_grpo.yaml")
    server.start()
    try:
        rows = verified_training(tmp_path, env, server)
    finally:
        with suppress(ProcessLookupError):
            server.kill()
    failed = [row["verifier/failed"] for row in rows]
    assert failed[0] == 0 and max(failed) == 1 and failed[-1] == 0, failed


def verified_training(outputs: Path, env: dict[str, str], server: Server) -> list[dict]:
    """The logged steps of 05 where each answer is left to the served verifier, which dies and comes back meanwhile."""
    notebook = nbformat.read(repository_root() / "notebooks" / "05_grpo.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "def accuracy_reward" in cell.source)
    graded = "grade_completions(completions, **columns)"  # the cell that shows rewards gives no prompts
    cell.source = cell.source.replace(graded, f'[None] * len(completions) if "prompts" in columns else {graded}')
    nbformat.write(notebook, outputs / "05_grpo.ipynb")
    values = asks("05_grpo", "verifier", server.url, VERDICT)
    values = {name.removeprefix("05_grpo."): value for name, value in values.items()} | {"run": "w"}
    values |= {f"{part}_stage": f"outputs/v/{stage}" for part, stage in
               {"data": "01_data", "filtering": "03_filtering", "sft": "04_sft"}.items()}  # fmt: skip
    command = [sys.executable, "-m", "papermill", outputs / "05_grpo.ipynb", outputs / "out.ipynb", "-f",
               outputs / "05_grpo.yaml", "-y", json.dumps(values)]  # fmt: skip
    env = env | {"JPY_SESSION_NAME": str(outputs / "05_grpo.ipynb")}  # as JupyterLab names the notebook
    process = subprocess.Popen(command, cwd=outputs, env=env, stderr=subprocess.PIPE, text=True)

    def wait_for(wanted) -> None:
        end = time.monotonic() + 60 * MINUTES
        while not wanted([row for row in read_metrics(outputs / "w" / "05_grpo") if "verifier/failed" in row]):
            assert process.poll() is None and time.monotonic() < end, process.stderr.read()[-3000:]
            time.sleep(0.1)

    wait_for(lambda rows: len(rows) >= 2)
    server.kill()
    wait_for(lambda rows: rows[-1]["verifier/failed"] == 1)
    server.start()
    told = process.communicate(timeout=60 * MINUTES)[1]
    assert process.returncode == 0, told[-3000:]
    return [row for row in read_metrics(outputs / "w" / "05_grpo") if "verifier/failed" in row]


def killed_under(process: subprocess.Popen, server: Server, answers: Path) -> str:
    """Kill `server` once `answers` holds three lines; `process` has to fail and say where it asked. What was stored."""
    end = time.monotonic() + 60 * MINUTES
    while not (answers.exists() and len(re.findall('"model": ?"tiny"', answers.read_text("utf8"))) >= 3):
        assert process.poll() is None and time.monotonic() < end, process.stderr.read()[-3000:]
        time.sleep(0.02)
    server.kill()
    told = process.communicate(timeout=60 * MINUTES)[1]
    assert process.returncode != 0 and str(server.port) in told, told[-3000:]
    return answers.read_text("utf8")


@torch.no_grad()
def moved(before: Path, after: Path) -> float:
    """Mean difference in the log-probability of some tokens, nats."""
    from finr1.models import load_model

    ids = torch.arange(5, 105)[None]
    first, second = (load_model(str(path)).eval()(ids).logits[0, :-1].log_softmax(-1) for path in (before, after))
    return (first - second).gather(1, ids[0, 1:, None]).abs().mean().item()
