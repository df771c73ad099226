"""What of the benchmarks can be wrong without a GPU and without a measurement."""

from __future__ import annotations

import argparse
import importlib
import math
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
