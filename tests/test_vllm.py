"""vLLM, run for real; on a CPU it is the same engine (`make install VLLM_CPU=1`). Each runs in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from tiny_model import make_tiny_model

pytest.importorskip("vllm", reason="vLLM is not installed: make install GPU=1, or VLLM_CPU=1 on Linux x86-64")

import torch  # noqa: E402
from test_distributed import grpo_run  # noqa: E402

from finr1 import evaluation, launch, sampler, synthetic  # noqa: E402
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
from finr1.params import GRPOParams  # noqa: E402
from finr1.paths import repository_root  # noqa: E402
from finr1.progress import read_metrics  # noqa: E402
from finr1.records import messages  # noqa: E402

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


@torch.no_grad()
def moved(before: Path, after: Path) -> float:
    """Mean difference in the log-probability of some tokens, nats."""
    from finr1.models import load_model

    ids = torch.arange(5, 105)[None]
    first, second = (load_model(str(path)).eval()(ids).logits[0, :-1].log_softmax(-1) for path in (before, after))
    return (first - second).gather(1, ids[0, 1:, None]).abs().mean().item()
