"""What watches a GRPO run: phase times, signs of reward hacking, stop rules."""

from __future__ import annotations

import math
from contextlib import contextmanager

import pytest
from recipes import make_trainer, train
from test_training import demo
from transformers import TrainerControl, TrainerState

from finr1 import curation, rewards, synthetic, watch
from finr1.params import GRPOParams
from finr1.progress import read_metrics
from finr1.records import write_jsonl


@pytest.fixture
def stage(outputs):
    """A GRPO stage folder with eight problems to train on."""
    rows = curation.rl_rows(synthetic.generate_problems(8, "train", seed=1))
    write_jsonl(outputs / "r" / "05_grpo" / rewards.TRAIN_FILE, rows)
    return outputs / "r" / "05_grpo"


def short(tiny, **changes) -> GRPOParams:
    values = {"num_generations": 2, "max_completion_length": 4, "sft_stage": None, "model_name_or_path": str(tiny)}
    return demo(GRPOParams, **(values | changes))


# ---- signs of reward hacking ----------------------------------------------------------------------------------------

SHAPED = "<think>{}</think><answer>\\boxed{{{}}}</answer>"


def test_the_signs_of_four_completions_by_hand():
    texts = [
        SHAPED.format("The limit is 10, it holds 7.", "yes"),
        SHAPED.format("Yes.", "yes"),
        "It is allowed.",
        SHAPED.format("", "no"),
    ]
    ids = [[1, 2, 3, 4], [7] * 6, [1, 2], [1, 2, 3]]  # 3-grams: 2 of 2 differ, 1 of 4, none, 1 of 1
    found = watch.signs(texts, ids, [1.0, 0.0, None, 0.0])
    assert found == pytest.approx({"repetition": 0.75 / 4, "no_reasoning": 2 / 3, "agreement": 2 / 3})


def test_a_sign_without_a_base_is_left_out():
    assert watch.signs(["no answer at all"], [[1, 2, 3]], [None]) == {"repetition": 0.0}


# ---- stop rules -----------------------------------------------------------------------------------------------------

STEADY = {"reward": 1.0, "kl": 0.1, "frac_reward_zero_std": 0.2}
STOPS = [
    ({"reward": 0.1}, "the reward collapsed from 1 to 0.1", "lower learning_rate"),
    ({"kl": 9.0}, "the KL to the starting model is 9", "raise beta"),
    ({"frac_reward_zero_std": 1.0}, "100% of the groups have no spread", "pass_rate_candidates"),
]


@pytest.mark.parametrize(("late", "words", "advice"), STOPS, ids=[case[1] for case in STOPS])
def test_a_rule_stops_the_run_and_says_what_to_do(tiny, late, words, advice, capsys):
    params = short(tiny, beta=0.1, stop_window=4, stop_reward=0.3, stop_kl=1.0, stop_dead_groups=0.95)
    log = [STEADY] * 8 + [STEADY | late] * 3
    if "kl" not in late:  # the median of a window turns with its half
        assert watch.stop_reason(log, params) is None, "one step less than the window"
    log.append(STEADY | late)
    assert words in watch.stop_reason(log, params) and advice in watch.stop_reason(log, params)
    off = short(tiny, stop_window=4, stop_reward=None, stop_kl=None, stop_dead_groups=None)
    assert watch.stop_reason(log, off) is None
    state, control = TrainerState(global_step=12, max_steps=20, log_history=log), TrainerControl()
    logs = {"loss": 0.1, **log[-1]}
    watch.StopRules(params).on_log(None, state, control, logs=logs)
    assert control.should_training_stop and logs["stopped"].startswith("step 12: ")
    assert "STOPPED step 12" in capsys.readouterr().out


def test_one_wild_step_of_the_kl_stops_nothing(tiny):
    params = short(tiny, beta=0.1, stop_window=4, stop_kl=1.0)
    assert watch.stop_reason([STEADY] * 6 + [STEADY | {"kl": 29_000.0}] + [STEADY] * 2, params) is None
    assert watch.stop_reason([STEADY | {"kl": 9.0}] * 3, params) is None, "the window is not full yet"


def test_a_run_without_spread_is_stopped_keeps_its_model_and_says_so(stage, tiny):
    """The random model never writes the format: every reward is 0, so every group is dead."""
    train(short(tiny, max_steps=6, save_steps=6, stop_window=2, stop_dead_groups=0.9), stage)
    rows = [row for row in read_metrics(stage) if "reward" in row]
    assert [row["step"] for row in rows] == [1, 2]
    assert "stopped" not in rows[0] and rows[1]["stopped"].startswith("step 2: 100% of the groups have no spread")
    assert (stage / "model" / "model.safetensors").exists()


def test_a_loss_that_is_no_number_is_an_error_and_leaves_no_model(stage, tiny):
    def broken(params, folder):
        trainer = make_trainer(params, folder)
        loss = trainer.compute_loss
        trainer.compute_loss = lambda *a, **k: loss(*a, **k) * (math.nan if trainer.state.global_step == 1 else 1.0)
        return trainer

    with pytest.raises(FloatingPointError, match="step 2: loss is nan.*learning_rate"):
        train(short(tiny, max_steps=3, save_steps=1, bf16=False), stage, broken)
    assert not (stage / "model").exists()
    assert [path.name for path in (stage / "checkpoints").glob("checkpoint-*")] == ["checkpoint-1"]


# ---- phase times ----------------------------------------------------------------------------------------------------


def test_each_second_of_a_step_belongs_to_one_phase(monkeypatch):
    """TRL's own stopwatch is heard: the test fails when TRL gives its parts other names."""
    from trl.extras.profiling import ProfilingContext

    now = [0.0]
    monkeypatch.setattr(watch.time, "perf_counter", lambda: now[0])
    phases, logs = watch.PhaseTimes(), []

    @contextmanager
    def part(name: str, seconds: int):
        with ProfilingContext(f"GRPOTrainer.{name}", report_to=[]):
            now[0] += seconds
            yield

    phases.on_train_begin(None, None, None)
    for _ in range(2):
        phases.on_step_begin(None, None, None)
        with part("_prepare_inputs", 3):
            with part("transformers.generate", 10), part("_get_per_token_logps_and_entropies", 0):
                pass
            with part("_calculate_rewards", 1), part("accuracy_reward", 2):
                pass
        with part("compute_loss", 5):
            pass
        phases.on_step_end(None, None, None)
        logs.append({"reward": 1.0})
        phases.on_log(None, None, None, logs=logs[-1])
    phases.on_train_end(None, None, None)
    expected = {"reward": 1.0, "time/generate": 10, "time/score": 3, "time/reward": 3, "time/update": 5}
    assert logs == [expected, expected]


def test_a_run_logs_phases_and_signs(stage, tiny):
    train(short(tiny, beta=0.1), stage)
    rows = [row for row in read_metrics(stage) if "reward" in row]
    for name in ("generate", "score", "reward", "update"):
        assert all(row[f"time/{name}"] > 0 for row in rows), name
    assert all(0 <= row["watch/repetition"] <= 1 for row in rows)
