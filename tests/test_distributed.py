"""Several processes on one CPU (gloo): the same training as one process with the same batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_model import make_tiny_model

from finr1 import curation, rewards, synthetic, teacher
from finr1 import launch as launching
from finr1.launch import TrainingFailed, launch, launcher_argv
from finr1.params import GRPOParams, SFTParams
from finr1.params.base import read_flat_yaml
from finr1.paths import repository_root
from finr1.records import write_jsonl

HERE = Path(__file__).parent
SMALL = {
    "max_steps": 3, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "eval_problems": 2,
    "warmup_steps": 0, "save_steps": 2, "run": "r", "peft": "full", "learning_rate": 1e-3,
}  # fmt: skip
NEEDS_DEEPSPEED = pytest.mark.skipif(not find_spec("deepspeed"), reason="DeepSpeed is not installed")
TWO = {"per_device_train_batch_size": 4, "num_processes": 2}  # the same global batch


class StubRun:
    """What `launch` needs of a Run: tests skip the manifests of the stages before."""

    def __init__(self, params, folder: Path):
        self.params, self.dir, self.state = params, folder, {"launched": {}}
        folder.mkdir(parents=True)
        params.to_yaml(folder / "params.yaml")

    def save_state(self) -> None:
        pass

    def may_replace(self, changed: list[str]) -> None:
        pass


@pytest.fixture
def base(outputs, monkeypatch):
    """Rows for SFT and RL and a tiny model; children find the test modules and use one thread each."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(repository_root())]))
    problems = synthetic.generate_problems(40, "train", seed=1)
    write_jsonl(outputs / "r" / "03_filtering" / "sft.jsonl", curation.sft_rows(teacher.derived_traces(problems)))
    write_jsonl(outputs / "r" / "01_data" / "problems.jsonl", synthetic.generate_problems(4, "dev", seed=1))
    make_tiny_model(outputs / "r" / "04_sft" / "model")
    return outputs / "r"


def demo(params_class, base: Path, **changes):
    values = read_flat_yaml(repository_root() / "params" / "demo" / f"{params_class.stage}.yaml").values
    values |= SMALL | {"model_name_or_path": str(base / "04_sft" / "model")}
    return params_class(**(values | changes))


def sft_run(base: Path, name: str, **changes) -> StubRun:
    looks = {"sample_steps": 2, "eval_max_tokens": 8}
    return StubRun(demo(SFTParams, base, bf16=False, **looks, **changes), base / name)


def edited(monkeypatch, change: tuple[str, str], imports: str) -> None:
    """Launch the recipe with one line changed, as a person changes it in the notebook."""
    script = launching.recipe_script

    def changed(*arguments) -> str:
        text = script(*arguments)
        assert change[0] in text
        return f"{imports}\n{text.replace(*change)}"

    monkeypatch.setattr(launching, "recipe_script", changed)


def early_answers(run: StubRun) -> str:
    return (run.dir / "early_answers.jsonl").read_text("utf8")


def grpo_run(base: Path, name: str, **changes) -> StubRun:
    given = {"bf16": False, "num_generations": 4, "beta": 0.1, "eval_steps": 0} | changes
    run = StubRun(demo(GRPOParams, base, **given), base / name)
    write_jsonl(run.dir / "dev.jsonl", curation.rl_rows(synthetic.generate_problems(2, "dev", seed=2)))
    write_jsonl(run.dir / rewards.TRAIN_FILE, curation.rl_rows(synthetic.generate_problems(20, "train", seed=2)))
    return run


def numbers(rows: list[dict]) -> list[dict]:
    timed = ("time", "per_s", "_gib")  # seconds and memory of this very run
    return [{k: v for k, v in row.items() if not any(word in k for word in timed)} for row in rows]


def weights(run: StubRun):
    from safetensors.torch import load_file

    return load_file(run.dir / "model" / "model.safetensors")


def assert_same_training(rows: list[list[dict]], runs: list[StubRun], keys: tuple[str, ...], tolerance: float):
    import torch

    one, two = (numbers(part) for part in rows)
    assert len(one) == len(two) >= 3
    for a, b in zip(one, two, strict=True):
        for key in keys:
            assert (key in a) == (key in b)
            if key in a:
                assert a[key] == pytest.approx(b[key], rel=tolerance, abs=tolerance), (key, a, b)
    first, second = (weights(run) for run in runs)
    for name, tensor in first.items():
        assert torch.allclose(tensor, second[name], atol=1e-3), name


@pytest.mark.slow
def test_sft_in_two_processes_is_sft_in_one(base):
    runs = [sft_run(base, "one"), sft_run(base, "two", **TWO)]
    rows = [launch(run) for run in runs]
    assert_same_training(rows, runs, ("loss", "grad_norm", "learning_rate", "num_tokens"), 1e-5)
    assert early_answers(runs[0]) == early_answers(runs[1])
    assert all("memory_probe_gib" in part[0] for part in rows)


@pytest.mark.slow
@NEEDS_DEEPSPEED
@pytest.mark.parametrize("peft", ["full", "lora"])
def test_sft_under_zero3_is_sft_in_one_process(base, peft):
    runs = [sft_run(base, "one", peft=peft), sft_run(base, "two", peft=peft, distributed="zero3", **TWO)]
    rows = [[row for row in launch(run) if row["step"]] for run in runs]  # no probe of memory under ZeRO-3
    assert_same_training(rows, runs, ("loss", "learning_rate", "num_tokens"), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("distributed", ["ddp", pytest.param("zero3", marks=NEEDS_DEEPSPEED)])
def test_grpo_in_two_processes_is_grpo_in_one(base, distributed, monkeypatch):
    """With fixed completions; four of a prompt stay on one process, so that each process has its own groups."""
    runs = [grpo_run(base, "one", eval_steps=2), grpo_run(base, "two", eval_steps=2, distributed=distributed, **TWO)]
    edited(
        monkeypatch,
        ("rollout_func=cpu_sampler(path, params)", "rollout_func=FixedRollout()"),
        "from fixed_rollout import FixedRollout",
    )
    rows = [launch(run, reads=[rewards.TRAIN_FILE]) for run in runs]
    assert any(row.get("loss") for row in rows[0])
    keys = ("loss", "grad_norm", "reward", "reward_std", "kl", "completions/mean_length", "num_tokens", "eval_accuracy")
    assert [row["step"] for row in rows[0] if "eval_accuracy" in row] == [0, 2, 3]
    assert_same_training(rows, runs, keys, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("peft, distributed", [
    ("lora", "ddp"), *(pytest.param(peft, "zero3", marks=NEEDS_DEEPSPEED) for peft in ("lora", "full")),
])  # fmt: skip
def test_two_processes_of_which_one_dies_resume_and_end_as_two_unbroken_ones(base, peft, distributed, monkeypatch):
    """GRPO; each process samples on its own, from the random state that its checkpoint holds."""
    more = {
        "peft": peft,
        "distributed": distributed,
        "max_steps": 5,
        "max_completion_length": 8,
        "mask_truncated_completions": False,
    } | TWO
    unbroken, broken = (grpo_run(base, name, **more) for name in ("unbroken", "broken"))
    edited(monkeypatch, ("    lora = ", "    lora = "), "import one_rank_dies")
    (unbroken.dir / "died").touch()
    rows = [launch(unbroken, reads=[rewards.TRAIN_FILE])]
    with pytest.raises(TrainingFailed):
        launch(broken, reads=[rewards.TRAIN_FILE])
    assert (broken.dir / "died").exists() and not (broken.dir / "model").exists()
    rows.append(launch(broken, reads=[rewards.TRAIN_FILE]))
    one, two = ([row for row in numbers(part) if "reward" in row] for part in rows)
    assert one == two and [row["step"] for row in one] == [1, 2, 3, 4, 5]
    first, second = weights(unbroken), weights(broken)
    assert all(first[name].equal(second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("peft", ["full", "lora"])
def test_fsdp2_trains_as_one_process_and_saves_the_whole_model(base, peft, monkeypatch):
    runs = [sft_run(base, "one", peft=peft), sft_run(base, "two", peft=peft, distributed="fsdp2", **TWO)]
    rows = [launch(runs[0])]
    edited(monkeypatch, ("    lora = ", "    pass_for_gpus()\n    lora = "), "from sharded_sft import pass_for_gpus")
    rows.append(launch(runs[1]))
    assert_same_training(rows, runs, ("loss", "grad_norm", "learning_rate", "num_tokens"), 1e-4)
    assert early_answers(runs[0]) == early_answers(runs[1])


@pytest.mark.slow
def test_another_wrapper_than_asked_for_is_refused(base):
    """On a CPU, accelerate makes DDP of FSDP2 without a word."""
    run = sft_run(base, "two", distributed="fsdp2", **TWO)
    with pytest.raises(TrainingFailed, match="but accelerate runs ddp"):
        launch(run)


def free_port() -> int:
    """Below those that the system hands out, or a server of another test could have it before the trainer does."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no free port below 32000")


@pytest.mark.slow
def test_a_second_node_joins_the_first(base, monkeypatch):
    """Two nodes of one process each; both of them are this machine."""
    paths = {"filtering_stage": str(base / "03_filtering"), "model_name_or_path": str(base / "04_sft" / "model")}
    paths |= {"data_stage": str(base / "01_data")}
    run = StubRun(demo(SFTParams, base, bf16=False, **TWO, **paths), base.parent / "other" / "04_sft")
    for name, value in {"NNODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NODE_RANK", "1")
    second = subprocess.Popen([sys.executable, "-m", "finr1", "join", str(run.dir)])
    monkeypatch.setenv("NODE_RANK", "0")
    assert len(launch(run)) >= 3
    assert second.wait(60) == 0
    assert subprocess.run([sys.executable, "-m", "finr1", "join", str(run.dir)]).returncode == 0  # nothing left to do


def test_a_node_that_joins_reads_the_parameters_when_the_trainer_is_there(monkeypatch, tmp_path):
    """Before that, the folder may hold an older run's."""
    folder = tmp_path / "04_sft"
    folder.mkdir()
    (folder / "params.yaml").write_text("an older version's\n", "utf8")
    for name, value in {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}.items():
        monkeypatch.setenv(name, value)
    looks = []

    def connect(address, timeout):
        looks.append(address)
        if len(looks) == 1:
            raise ConnectionRefusedError
        demo(SFTParams, tmp_path, num_processes=4).to_yaml(folder / "params.yaml")
        return nullcontext()

    started = []
    monkeypatch.setattr(launching.socket, "create_connection", connect)
    done = subprocess.CompletedProcess([], 7)
    monkeypatch.setattr(launching.subprocess, "run", lambda command, **_: started.append(command) or done)
    assert launching.join(SimpleNamespace(stage_dir=folder)) == 7
    assert started[0][started[0].index("--num_processes") + 1] == "4"


@pytest.mark.parametrize("unset", [["MASTER_ADDR"], ["NODE_RANK"], ["NODE_RANK", "MASTER_ADDR", "MASTER_PORT"]])
def test_several_nodes_need_their_addresses(monkeypatch, tmp_path, unset):
    for name, value in {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.delenv(name, raising=False) if name in unset else monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match=f"^NNODES asks for several nodes; not set: {', '.join(unset)} "):
        launcher_argv(tmp_path, 2, "ddp")


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero3"])
def test_accelerate_reads_each_file_as_what_it_is_named(name):
    """Its own launcher has to come to this: that many processes, no GPU needed, and the environment for the child."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    file = repository_root() / "params" / "accelerate" / f"{name}.yaml"
    arguments = ["--config_file", str(file), "--num_processes", "2", "a_script.py"]
    options, *_ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    chosen = {"ddp": options.multi_gpu, "fsdp2": options.use_fsdp, "zero3": options.use_deepspeed}
    assert [key for key, value in chosen.items() if value] == [name]
    assert (options.num_processes, options.mixed_precision, options.cpu) == (2, "no", False)
    if name == "fsdp2":
        assert options.fsdp_version == 2
    if name == "zero3":
        assert (options.zero_stage, options.zero3_save_16bit_model) == (3, True)
