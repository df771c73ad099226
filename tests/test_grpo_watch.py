"""What watches a GRPO run: phase times, signs of reward hacking, stop rules, and problems left out between epochs."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from types import SimpleNamespace

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
LABELS = json.dumps({"bullish": "bullish", "bearish": "bearish", "neutral": "neutral"})
COMPLIANT = json.dumps({"compliant": "compliant", "non-compliant": "non-compliant"})
CHOICES = json.dumps({"A": "bonds", "B": "shares", "C": "cash"})


def row(question: str, kind: str = "number", labels: str = "", choices: str = "") -> dict:
    return {
        "prompt": [{"role": "user", "content": question}],
        "answer_kind": kind,
        "labels": labels,
        "choices": choices,
    }


def columns(rows: list[dict], completion_ids: list[list[int]]) -> dict[str, list]:
    """The rows as TRL passes them to a reward."""
    names = ("answer_kind", "labels", "choices")
    prompts = {"prompts": [row["prompt"] for row in rows], "completion_ids": completion_ids}
    return prompts | {name: [row[name] for row in rows] for name in names}


OPTIONS = [
    ("bullish", row("bullish or bearish?", "label", LABELS), False, "one label"),
    ("bullish, bearish or neutral", row("bullish, bearish or neutral?", "label", LABELS), True, "all labels"),
    ("Bullish/bearish", row("bullish or bearish?", "label", LABELS), True, "two labels in other letters"),
    ("non-compliant", row("compliant or not?", "label", COMPLIANT), False, "a label inside a label is one"),
    ("合规还是不合规", row("实际持仓11%，合规还是不合规？", "boolean"), True, "what the demo's policy once found"),
    ("不合规", row("实际持仓11%，合规还是不合规？", "boolean"), False, "a verdict"),
    ("yes or no", row("Is this allowed, yes or no?", "boolean"), True, "the question's words"),
    ("yes", row("Is this allowed, yes or no?", "boolean"), False, "one of them"),
    ("A", row("Which?", "choice", choices=CHOICES), False, "one letter"),
    ("A, C", row("Which?", "choice", choices=CHOICES), False, "several letters may be right"),
    ("A, B, C", row("Which?", "choice", choices=CHOICES), True, "every letter"),
    ("20 or 30", row("Is it 20 or 30?"), False, "a number is compared, not read"),
]


@pytest.mark.parametrize(("answer", "problem", "expected", "reason"), OPTIONS, ids=[case[3] for case in OPTIONS])
def test_an_answer_that_repeats_the_options(answer, problem, expected, reason):
    assert watch.repeats_options(answer, problem) is expected, reason


def test_the_signs_of_four_completions_by_hand():
    question = row("Is this allowed, yes or no?", "boolean")
    texts = [
        SHAPED.format("The limit is 10, it holds 7.", "yes"),
        SHAPED.format("Yes.", "yes or no"),
        "It is allowed.",
        SHAPED.format("", "no"),
    ]
    ids = [[1, 2, 3, 4], [7] * 6, [1, 2], [1, 2, 3]]  # 3-grams: 2 of 2 differ, 1 of 4, none, 1 of 1
    found = watch.signs(columns([question] * 4, ids), texts, [1.0, 0.0, None, 0.0])
    assert found == pytest.approx(
        {"repetition": 0.75 / 4, "no_reasoning": 2 / 3, "options": 1 / 3, "agreement": 2 / 3}
    )  # fmt: skip


def test_a_sign_without_a_base_is_left_out():
    found = watch.signs(columns([row("?")], [[1, 2, 3]]), ["no answer at all"], [None])
    assert found == {"repetition": 0.0}


HEALTHY = {
    "reward": 1.0, "watch/repetition": 0.05, "watch/no_reasoning": 0.02, "watch/options": 0.0,
    "watch/agreement": 0.6, "completions/mean_length": 40.0,
}  # fmt: skip
HACKED = [
    ({"watch/repetition": 0.8}, "3-grams"),
    ({"watch/no_reasoning": 0.9}, "without reasoning"),
    ({"watch/options": 0.4}, "repeat the question's options"),
    ({"watch/agreement": 0.1}, "gated_reward"),
    ({"completions/mean_length": 200.0}, "grew from 40 to"),
    ({"completions/mean_length": 5.0}, "shrank from 40 to"),
]


@pytest.mark.parametrize(("change", "words"), HACKED, ids=[case[1] for case in HACKED])
def test_a_hacked_log_is_warned_about_once_and_with_its_step(change, words):
    log = [HEALTHY | {"step": step} for step in range(1, 8)]
    assert watch.hacking_warnings(log) == []
    log += [HEALTHY | change | {"step": step} for step in range(8, 15)]
    (line,) = watch.hacking_warnings(log)
    assert words in line and 8 <= int(line.split()[1].rstrip(":")) <= 10


def test_a_warning_stands_in_the_row_of_its_step(capsys):
    log = [HEALTHY | {"step": step} for step in range(1, 5)]
    log += [HEALTHY | {"watch/options": 0.9, "step": 5}]
    logs = dict(log[-1])
    state = SimpleNamespace(log_history=log, global_step=5, is_world_process_zero=True)
    watch.Warnings().on_log(None, state, None, logs=logs)
    assert len(logs["warnings"]) == 1 and "step 5: 30% of the answers repeat" in logs["warnings"][0]
    assert "WARNING step 5" in capsys.readouterr().out
    state.log_history, state.global_step = [*log, log[-1] | {"step": 6}], 6
    later = dict(log[-1])
    watch.Warnings().on_log(None, state, None, logs=later)
    assert "warnings" not in later, "said once"


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
    assert watch.stopped(read_metrics(stage)) == rows[1]["stopped"] and watch.stopped(rows[:1]) is None


def test_a_loss_that_is_no_number_is_an_error_and_leaves_no_model(stage, tiny):
    def broken(params, folder):
        trainer = make_trainer(params, folder)
        loss = trainer.compute_loss
        trainer.compute_loss = lambda *a, **k: loss(*a, **k) * (math.nan if trainer.state.global_step == 1 else 1.0)
        return trainer

    with pytest.raises(watch.Diverged, match="step 2: loss is nan.*learning_rate"):
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
