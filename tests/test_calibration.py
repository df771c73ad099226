"""Predicted against measured memory: what is measured, what becomes of it, and a training that fails."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from finr1.plan import calibration


def test_the_peak_of_a_command_is_what_it_held_at_most_and_not_what_we_hold(tmp_path):
    """300 MiB are held and let go again before the end; this process holds more than the small command."""
    program = "held = bytearray(300 << 20); held[::4096] = b'x' * len(held[::4096]); del held; print('done')"
    small, large = (
        calibration.peak_gib([sys.executable, "-c", code], tmp_path / "log") for code in ("print('done')", program)
    )
    assert 0 < small < 0.03
    assert 0.28 < large - small < 0.35
    assert (tmp_path / "log").read_text() == "done\n"


@pytest.mark.parametrize(
    "code, status",
    [("raise SystemExit('no such model')", 1), ("import os; print('no such model', flush=True); os.abort()", -6)],
)
def test_a_child_that_fails_is_an_error_with_its_last_words(tmp_path, code, status):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        calibration.peak_gib([sys.executable, "-c", code], tmp_path / "log")
    assert failed.value.returncode == status and "no such model" in failed.value.output


def test_each_case_is_planned_and_measured_with_the_same_parameters(tiny, tmp_path, monkeypatch):
    ran = []

    def measure(command, log):
        ran.append((command[2], log.parent))
        return 2.0

    monkeypatch.setattr(calibration, "peak_gib", measure)
    rows = calibration.calibrate(tmp_path, str(tiny))
    assert [row["case"] for row in rows] == list(calibration.CASES)
    assert all(row["predicted"] > 0 and row["measured"] == 2.0 for row in rows)
    assert [row["error"] for row in rows] == [row["predicted"] / 2.0 - 1 for row in rows]
    by_case = {row["case"]: row["predicted"] for row in rows}
    assert by_case["SFT LoRA, bf16"] < by_case["SFT full, bf16"] > by_case["SFT full, bf16, checkpointing"]
    assert [module for module, _ in ran] == ["finr1.sft"] * 4 + ["finr1.grpo"] * 2
    for case, (module, folder) in zip(calibration.CASES, ran, strict=True):
        kind = calibration.SFTParams if module == "finr1.sft" else calibration.GRPOParams
        params = kind.from_yaml(folder / "params.yaml")
        assert calibration.CASES[case].items() <= params.model_dump().items() and params.max_steps == 2


@pytest.mark.slow
def test_a_training_is_measured(tiny, tmp_path, monkeypatch):
    case = "SFT full, fp32"
    monkeypatch.setattr(calibration, "CASES", {case: calibration.CASES[case]})
    monkeypatch.setattr(calibration, "_SFT_ROWS", 1)
    (row,) = calibration.calibrate(tmp_path, str(tiny))
    assert row["case"] == case and 0.2 < row["measured"] < 8  # torch alone is more, a whole machine is not this model
    assert row["error"] == row["predicted"] / row["measured"] - 1
    metrics = [json.loads(line) for line in (tmp_path / "SFT_full__fp32" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics if "loss" in row] == [1, 2]  # it did train
