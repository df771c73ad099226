"""The map of notebook 00: numbers of a preset or of a finished run, and one question through all steps."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest
from recipes import cells

from finr1 import teacher
from finr1.params import STAGES
from finr1.pipeline import load_preset
from finr1.records import render_question, write_jsonl
from finr1.synthetic import generate_problems

STAGE_NAMES = list(STAGES)[1:7]
ASKED = {
    "stages": {"02_distillation": SimpleNamespace(by_parts_share=0.4)},
    "sampled": pd.DataFrame(),
    "finished": None,
}


@pytest.mark.parametrize(
    ("preset", "train", "sft"),
    [("demo", "1,600", "up to 1,000"), ("paper", "59,912", "up to "), ("real_cpu", "", "up to ")],
)
def test_without_a_run_the_arrows_carry_the_numbers_of_the_preset(preset, train, sft, monkeypatch):
    monkeypatch.setenv("FINR1_DATA", "anywhere")
    stages = load_preset(preset, "x", list(STAGES))
    numbers = cells("00_overview", "arrow-numbers", stages=stages, names=STAGE_NAMES, finished=None, records={})[
        "numbers"
    ]
    assert numbers["train"].startswith(train) and numbers["sft"].startswith(sft)
    assert set(numbers) == {"train", "traces", "sft", "rl", "test", "groups"}


def test_with_a_run_the_arrows_carry_what_it_counted(tmp_path):
    metrics = {"01_data": {"train_records": {"synthetic": 40, "tfns": 2}}, "02_distillation": {"traces": 41},
               "03_filtering": {"sft": 30, "rl": 12}}  # fmt: skip
    records = {name: {"metrics": metrics.get(name, {}), "parameters": {"num_generations": 2}} for name in STAGE_NAMES}
    (tmp_path / "06_benchmark").mkdir()
    write_jsonl(tmp_path / "06_benchmark" / "items.jsonl", [{"id": n} for n in range(7)])
    (tmp_path / "05_grpo" / "completions").mkdir(parents=True)
    rows = {
        "step": [1] * 4,
        "prompt": ["?"] * 4,
        "completion": list("abcd"),
        "advantage": [0.0] * 4,
        "a_reward": [1.0] * 4,
    }
    pd.DataFrame(rows).to_parquet(tmp_path / "05_grpo" / "completions" / "completions_00001.parquet")
    found = cells("00_overview", "arrow-numbers", stages={}, names=STAGE_NAMES, finished=tmp_path, records=records)
    assert [text.split()[0] for text in found["numbers"].values()] == ["42", "41", "30", "12", "7", "4"]


def test_the_map_follows_the_question_whose_completions_differ_most(tmp_path):
    traces = teacher.derived_traces(generate_problems(60, "train", 7))
    (tmp_path / "02_distillation").mkdir()
    write_jsonl(tmp_path / "02_distillation" / "traces.jsonl", traces)
    alone = [t.problem for t in traces if t.problem.language == "en" and not t.problem.history]
    chinese = next(t.problem for t in traces if t.problem.language == "zh")
    rewards = {chinese.id: [0.0, 2.0], alone[0].id: [2.0, 2.0], alone[5].id: [0.0, 1.0], alone[8].id: [1.0, 1.0]}
    by_id = {t.problem.id: t.problem for t in traces}
    rows = [
        {"group": group, "step": 1, "question": render_question(by_id[name]), "completion": "x", "reward": reward}
        for group, (name, pair) in enumerate(rewards.items())
        for reward in pair
    ]
    given = ASKED | {"params": SimpleNamespace(seed=7), "finished": tmp_path, "sampled": pd.DataFrame(rows)}
    found = cells("00_overview", "record", **given)
    assert found["problem"] == alone[5] and list(found["group"]["reward"]) == [0.0, 1.0]


@pytest.mark.parametrize("seed", range(5))
def test_the_hand_written_completions_earn_what_their_kinds_should(seed):
    found = cells("00_overview", "record", "hand-written", "rewards-table", params=SimpleNamespace(seed=seed), **ASKED)
    table = found["table"]
    assert table["format"].tolist() == [1, 1, 1, 0, 0, 0, 1, 0]
    assert table["accuracy"].tolist() == [1, 1, 0, 1, 0, 1, 1, 0]
    assert table["advantage"].sum() == pytest.approx(0, abs=1e-9)


def test_the_labelled_tokens_are_the_answer_and_its_end(embedded, outputs):
    (outputs / "cache").symlink_to(embedded)
    given = ASKED | {"params": SimpleNamespace(seed=42)}
    found = cells("00_overview", "record", "tokens", "coloured-tokens", **given)
    labelled = [label for label in found["labels"] if label != -100]
    assert found["tokenizer"].decode(labelled) == found["trace"].completion + "<|im_end|>\n"
    page = found["coloured"](found["ids"], found["labels"]).data
    assert page.count("<span") == len(found["ids"])
    assert page.count("border-bottom") == len(labelled) and "<think>" not in page, "texts are escaped"
