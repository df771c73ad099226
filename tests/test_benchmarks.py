"""What of the benchmarks can be wrong without a GPU and without a measurement."""

from __future__ import annotations

import argparse
import importlib
import math
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a script of `benchmarks/` by name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    return importlib.import_module


def test_without_cuda_the_gpu_benchmark_says_so(benchmark, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert benchmark("gpu").main(["--steps", "3", "--tflops", "100"]) == 2
    assert "needs a CUDA GPU" in capsys.readouterr().out


def test_the_checks_tell_right_from_wrong(benchmark, monkeypatch):
    gpu = benchmark("gpu")
    assert "WRONG" not in gpu.check_reward()
    monkeypatch.setattr("finr1.grading.has_format", lambda text: False)
    assert "WRONG" in gpu.check_reward()
    fine, rising, broken = [3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [3.0, 2.0, math.nan]
    lines = gpu.check_curves([{"variant": "x", "curve": curve} for curve in (fine, rising, broken)])
    assert ["WRONG" in line for line in lines] == [False, True, True]


PEAKS = [("H200", 989), ("H200 NVL", 835), ("H100 80GB HBM3", 989), ("H100 PCIe", 756), ("H100 NVL", 835),
         ("L40S", 362), ("L40", 181), ("L4", 121), ("A100-80GB", 312), ("RTX 4090", 165), ("?", None)]  # fmt: skip


@pytest.mark.parametrize("device, peak", [(f"NVIDIA {name}", peak) for name, peak in PEAKS])
def test_a_devices_peak_is_read_from_its_name(benchmark, device, peak):
    assert benchmark("gpu").peak_tflops(device) == peak


def test_ratios_are_of_speed(benchmark):
    rows = [
        {"variant": "plain TRL", "s/step": 4.0, "tokens/s": 100.0, "peak GiB": 3.0, "curve": [2.0, 1.0]},
        {"variant": "ours", "s/step": 2.0, "tokens/s": 150.0, "peak GiB": 2.0, "curve": [2.0, 1.0]},
    ]
    training = benchmark("training")
    assert " 1.50 " in training.table("sft", rows).splitlines()[2]
    assert " 2.00 " in training.table("grpo", rows).splitlines()[2]


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_every_variants_parameters_are_valid(benchmark, stage, tmp_path):
    training = benchmark("training")
    options = argparse.Namespace(model=str(tmp_path), steps=2, batch=16, tokens=8)
    for name in training.STAGES[stage][0]:
        assert training.parameters(stage, name, tmp_path, options).max_steps == 3


def test_the_peak_of_a_command_is_what_it_held_at_most_and_not_what_we_hold(benchmark, tmp_path):
    """300 MiB are held and let go again before the end; this process holds more than the small command."""
    program = "held = bytearray(300 << 20); held[::4096] = b'x' * len(held[::4096]); del held; print('done')"
    peak_gib = benchmark("training").peak_gib
    small, large = (peak_gib([sys.executable, "-c", code], tmp_path / "log") for code in ("print('done')", program))
    assert 0 < small < 0.03
    assert 0.28 < large - small < 0.35
    assert (tmp_path / "log").read_text() == "done\n"


@pytest.mark.parametrize(
    "code, status",
    [("raise SystemExit('no such model')", 1), ("import os; print('no such model', flush=True); os.abort()", -6)],
)
def test_a_child_that_fails_is_an_error_with_its_last_words(benchmark, tmp_path, code, status):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        benchmark("training").peak_gib([sys.executable, "-c", code], tmp_path / "log")
    assert failed.value.returncode == status and "no such model" in failed.value.output


def test_curation_takes_what_the_notebooks_define(benchmark):
    row = benchmark("curation").run(200, "local")
    assert row["exact duplicate"] + row["near duplicate"] == 4 and row["7 of 7"] == 200 - 4 - row["leaks"]


def test_the_endpoint_benchmark_gets_every_answer():
    script = Path(__file__).parent.parent / "benchmarks" / "endpoint.py"
    few = ["--requests", "60", "--concurrency", "8", "--latency", "0.01"]
    done = subprocess.run([sys.executable, str(script), *few], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "finr1, with its store" in done.stdout, done.stderr[-1000:]
