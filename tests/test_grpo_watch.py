"""What watches a GRPO run: phase times, signs of reward hacking, stop rules."""

from __future__ import annotations

import math
from contextlib import contextmanager

import pytest
from recipes import make_trainer, recipe, train
from test_distributed import numbers
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
    found = watch.signs(texts, [1.0, 0.0, None, 0.0], {"completion_ids": ids})
    shares = {"repetition": 0.75 / 4, "no_reasoning": 2 / 3, "agreement": 2 / 3}
    assert found == pytest.approx({"accuracy": 1 / 3} | {f"watch/{name}": share for name, share in shares.items()})


def test_a_sign_without_a_base_is_left_out():
    assert watch.signs(["no answer at all"], [None], {"completion_ids": [[1, 2, 3]]}) == {"watch/repetition": 0.0}


def test_the_share_of_one_answer_counts_each_gold_alike():
    """Family a: golds yes, yes, no; b: one gold only, so one answer may be right; c: two groups that are never sure."""
    families, ids, golds = ["a"] * 6 + ["b"] * 2 + ["c"] * 4, list("112233") + list("44") + list("5566"), []
    golds = ["yes"] * 4 + ["no"] * 2 + ["yes"] * 2 + ["7", "7", "8", "8"]

    def found(*answers):
        columns = {"family": families, "id": ids, "solution": golds}
        return watch.answers_by_family(columns, [SHAPED.format("so", answer) for answer in answers])

    right = found(*golds[:8], "7", "8", "7", "8")
    assert right.loc["a"].to_dict() == pytest.approx(
        {"answer": "no", "share": 0.5, "within": 0.0, "across": math.log(2)}
    )
    assert right.loc["c", ["share", "within", "across"]].tolist() == pytest.approx([0.5, math.log(2), math.log(2)])
    assert list(right.index) == ["a", "c"]
    constant = found(*["Yes"] * 8, "7", "7", "7", "7")
    assert constant["share"].tolist() == [1.0, 1.0] and constant["answer"].tolist() == ["yes", "7"]
    assert constant["across"].tolist() == [0.0, 0.0]
    columns = {"family": ["a"] * 2, "id": ["1", "2"], "solution": ["yes", "no"]}
    silent = watch.answers_by_family(columns, ["I do not know", "nor do I"])
    assert silent.empty and list(silent) == ["answer", "share", "within", "across"]


def test_a_family_with_one_answer_is_named_in_a_warning_and_can_stop_the_run(tiny):
    steps = [{"step": step, "reward": 1.0, "one_answer/risk": 0.5 if step < 4 else 1.0, "one_answer/percent": 0.1}
             for step in range(1, 9)]  # fmt: skip
    steps[6].pop("one_answer/risk")  # not met in this step
    (warning,) = watch.run_warnings(steps)
    assert warning.startswith("risk: one answer makes up 100% whatever is asked, since step 5")
    assert watch.run_warnings(steps[:4]) == [], "one step tells nothing"
    off, on = (short(tiny, stop_window=4, stop_one_answer=limit) for limit in (None, 0.9))
    assert watch.stop_reason(steps, off) is None and watch.stop_reason(steps[:6], on) is None
    assert watch.stop_reason(steps, on).startswith("risk: one answer makes up 100%")


# ---- looks at dev problems ------------------------------------------------------------------------------------------

LOOKS = {"max_steps": 4, "eval_steps": 2, "save_steps": 2, "eval_problems": 6, "max_completion_length": 8,
         "learning_rate": 1e-3, "mask_truncated_completions": False, "stop_dead_groups": None, "beta": 0.0}  # fmt: skip


def spread_reward(completions, **columns):
    """A random model is always wrong; its texts differ."""
    return [len(set(completion[0]["content"])) / 10 for completion in completions]


def looking(tiny, stage, make=None, **changes):
    """A training with looks at six dev problems: its rows, weights and completions."""
    import pandas as pd
    from safetensors.torch import load_file

    write_jsonl(stage / "dev.jsonl", curation.rl_rows(synthetic.generate_problems(6, "dev", seed=1)))

    def trainer_of(params, folder):
        cells = recipe("05_grpo")
        cells.format_reward = spread_reward
        trainer = cells.make_trainer(params, folder)
        return make(trainer) if make else trainer

    train(short(tiny, **(LOOKS | {"reward_funcs": ["format_reward", "accuracy_reward"]} | changes)), stage, trainer_of)
    kept = [pd.read_parquet(file) for file in sorted((stage / "completions").glob("*.parquet"))]
    return numbers(read_metrics(stage)), load_file(stage / "model" / "model.safetensors"), kept


@pytest.mark.parametrize("bf16", [True, False])  # a copy samples, or the policy itself
def test_looks_change_nothing_in_the_training(stage, tiny, bf16):
    import torch

    looks, without = stage, stage.with_name("without")
    write_jsonl(without / rewards.TRAIN_FILE, curation.rl_rows(synthetic.generate_problems(8, "train", seed=1)))
    seen = []

    def listening(trainer):
        score = trainer._calculate_rewards

        def heard(inputs, prompts, completions, ids):
            if not trainer.model.training:
                seen.extend(row["id"] for row in inputs)
            return score(inputs, prompts, completions, ids)

        trainer._calculate_rewards = heard
        return trainer

    rows, weights, kept = looking(tiny, looks, listening, bf16=bf16)
    plain, plain_weights, plain_kept = looking(tiny, without, bf16=bf16, eval_steps=0)
    evaluated = [row for row in rows if "eval_accuracy" in row]
    assert [row["step"] for row in evaluated] == [0, 2, 4]
    assert all("reward" in row or "eval_accuracy" in row or "train_loss" in row for row in rows)
    assert [row for row in rows if "eval_accuracy" not in row] == plain
    assert all(torch.equal(tensor, plain_weights[name]) for name, tensor in weights.items())
    assert len(kept) == len(plain_kept) == 4 and all(a.equals(b) for a, b in zip(kept, plain_kept, strict=True))
    assert [len(set(seen[start : start + 6])) for start in (0, 6, 12)] == [6, 6, 6] and len(seen) == 18


def test_the_same_policy_is_seen_the_same_way_twice(stage, tiny):
    """Greedy: two looks at the untrained policy hear the same words, whatever was sampled between them."""
    heard = []

    def twice(trainer):
        score = trainer._calculate_rewards
        trainer._calculate_rewards = lambda i, p, c, ids: heard.append(ids) or score(i, p, c, ids)
        trainer.evaluate()
        trainer.evaluate()
        trainer._calculate_rewards = score
        return trainer

    looking(tiny, stage, twice, max_steps=1, save_steps=1, eval_steps=1)
    assert len(heard) == 4 and heard[:2] == heard[2:], "two batches in each look"


@pytest.mark.parametrize("peft", ["full", "lora"])
def test_the_model_of_the_best_look_is_saved(stage, tiny, peft):
    import torch
    from transformers import TrainerCallback

    at, accuracies = {}, {0: 0.9, 2: 0.5, 4: 0.7, 6: 0.7}

    class Keeper(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            model = model.merge_adapter() or model if hasattr(model, "merge_adapter") else model
            base = model.get_base_model() if hasattr(model, "get_base_model") else model
            at[state.global_step] = (
                base.get_input_embeddings().weight.clone(),
                next(
                    value.clone()
                    for name, value in base.state_dict().items()
                    if "q_proj" in name and "lora" not in name
                ),
            )
            if hasattr(model, "unmerge_adapter"):
                model.unmerge_adapter()

    def fixed(trainer):
        evaluate = trainer.evaluate

        def told(*args, **kwargs):
            metrics = evaluate(*args, **kwargs)
            metrics["eval_accuracy"] = accuracies[trainer.state.global_step]
            return metrics

        trainer.evaluate = told
        trainer.add_callback(Keeper())
        return trainer

    _, weights, _ = looking(tiny, stage, fixed, load_best_model_at_end=True, max_steps=6, peft=peft, bf16=False)
    saved = next(value for name, value in weights.items() if "q_proj" in name)
    assert torch.allclose(saved, at[4][1], atol=1e-6)
    assert not torch.allclose(at[6][1], at[4][1], atol=1e-6)


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
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
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
