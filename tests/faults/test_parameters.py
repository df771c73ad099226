"""Whatever a library, a server or the file system would refuse later is refused at once, in one sentence."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import demo_values
from finished import finish
from recipes import cells

from finr1 import models, pipeline, synthetic, teacher
from finr1.__main__ import main
from finr1.launch import unknown_rewards
from finr1.models import why_unusable
from finr1.params import NOTEBOOKS, GRPOParams, ParameterError, SFTParams, read_flat_yaml
from finr1.run import Run

KEY = "sk-planted-0123456789"
LONG = "n" * 300
ENDPOINTS = {"02_distillation": "teacher", "03_filtering": "judge", "05_grpo": "verifier", "06_benchmark": "judge"}


def stages_with(name: str) -> list[str]:
    return [stage for stage, params in NOTEBOOKS.items() if name in params.model_fields]


def fields(*kinds: type) -> list[tuple[str, str]]:
    """(stage, name) of all parameters whose plain type is one of `kinds`."""
    return [(stage, name) for stage, params in NOTEBOOKS.items() for name, field in params.model_fields.items()
            if field.annotation in kinds]  # fmt: skip


def refused(stage: str, **change) -> str:
    values = {"run": "r", "seed": 1, "run_a": "a", "run_b": "b"} if stage == "10_compare" else demo_values(stage)
    with pytest.raises(ParameterError) as caught:
        NOTEBOOKS[stage](**values | change)
    return "\n".join(caught.value.problems)


# What is wrong with a value in every stage that has the parameter, and what the sentence says.
WRONG = [
    *((f"{stage}.seed", value, words) for stage in NOTEBOOKS for value, words in (
        (-1, "greater than or equal to 0"), (2**32, "less than 4294967296"), (2**40, "less than 4294967296"),
        (1.5, "a valid integer"), (True, "a number"))),
    *((f"{stage}.run", value, "should be ") for stage in NOTEBOOKS for value in (
        "", LONG, "a/b", "..", "a b", "名", "a\0b", "a\nb", "-a", "x" * 101)),
    *((f"{stage}.{name}", value, "") for stage, name in fields(int) if name != "seed" for value in (
        -7, 10**30, True, "many", 0.5, None, [1])),
    *((f"{stage}.{name}", value, "") for stage, name in fields(float) for value in (
        math.nan, math.inf, -math.inf, -1.0, True, "nan", None, [0.5])),
    *((f"{stage}.{name}", value, "") for stage, name in fields(bool) for value in (1, 0, 1.0, "maybe", None)),
    *((f"{stage}.{name}", value, "255 bytes") for stage, name in fields(str) if name != "run" for value in (
        LONG, f"a/{LONG}", "a\0b", "a\nb", "\x1b[31m", "\ud800")),
    *((f"{stage}.{name}", "", "at least 1 character") for stage, name in fields(str) if name != "run"),
    *((f"{stage}.per_device_train_batch_size", 1_000_000_001, "less than or equal to 100000")
      for stage in ("04_sft", "05_grpo")),
    ("04_sft.max_steps", 0, "-1 for num_train_epochs"),
    ("04_sft.max_steps", -2, "greater than or equal to -1"),
    ("04_sft.max_length", 8, "greater than or equal to 64"),
    ("04_sft.warmup_steps", 2.5, "a whole number of steps"),
    ("04_sft.num_train_epochs", 1e300, "less than or equal to 1000000"),
    ("05_grpo.temperature", 1e-300, "greater than or equal to 0.01"),
    ("05_grpo.reward_weights", [True, True], "a number"),
    ("05_grpo.reward_weights", [math.nan, 1.0], "finite"),
    ("05_grpo.reward_weights", [0.0, 0.0], "not all 0"),
    ("05_grpo.reward_funcs", ["format_reward", "format_reward"], "once"),
    ("05_grpo.soft_punish_cache", 10**6, "max_completion_length = 128"),
    ("05_grpo.num_generations", 7, "not divisible"),
    ("01_data.source_names", ["synthetic", "synthetic"], "once"),
    ("01_data.benchmark_names", ["tfns", "finqa", "tfns"], "once"),
    ("09_ablation.arms", ["a", "a"], "once"),
    ("06_benchmark.other_models", ["x=a", "x=b"], "a NAME of its own"),
    ("09_ablation.seed", 2**32 - 1, "num_seeds"),
    *((f"{stage}.temperature", 1e-300, "at least 0.01") for stage in ("02_distillation", "08_use_the_model")),
    *((f"{stage}.preset", no, "no such preset") for stage in stages_with("preset") for no in ("no", "../x", "Demo")),
    ("01_data.run", "CACHE", "plain folder name"),
    ("02_distillation.num_samples", 10**8, "less than or equal to 100000"),
    ("06_benchmark.other_models", ["x=@http://host/v1"], "NAME=MODEL@URL"),
    ("02_distillation.prompt_price", -0.5, "greater than or equal to 0"),
    ("02_distillation.max_cost", math.nan, "finite"),
    ("02_distillation.max_cost", 0.0, "greater than 0"),
    ("01_data.max_context_chars", 0, "greater than or equal to 1"),
]  # fmt: skip


@pytest.mark.parametrize("stage", NOTEBOOKS)
def test_a_wrong_value_is_refused_in_one_sentence_that_names_it(stage):
    tried = [(name.partition(".")[2], value, words) for name, value, words in WRONG if name.startswith(f"{stage}.")]
    assert len(tried) >= 15
    for name, value, words in tried:
        lines = refused(stage, **{name: value}).split("\n")
        own = [line for line in lines if re.match(rf"{name}(\[\d+\])?( = |: )", line)]
        assert own and words in own[0], f"{name} = {value!r:.40}: {lines}"
        assert all(len(line) < 400 for line in lines)


def test_each_process_has_a_seed_that_numpy_takes():
    values = {"num_processes": 8, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    for stage in ("04_sft", "05_grpo"):
        assert "seed = 4294967289: at most 4294967288 would work" in refused(stage, seed=2**32 - 7, **values)
        assert NOTEBOOKS[stage](**demo_values(stage) | values | {"seed": 2**32 - 8})


def test_a_huge_batch_is_answered_at_once():
    sizes = ("per_device_train_batch_size", "gradient_accumulation_steps", "num_processes")
    text = refused("05_grpo", **dict.fromkeys(sizes, 99_999))
    assert text.startswith("num_generations = 8:") and len(text) < 400


# Addresses.

ADDRESSES = [
    f"https://{KEY}@host/v1", f"https://user:{KEY}@host/v1", f"https://host/v1?api_key={KEY}", f"https://host/v1#{KEY}",
    f"https://host/v1;{KEY}", f"https://host/v1/{KEY}", f"https://host/{KEY}/v1", "host/v1", "host:8000", "ftp://host/v1",
    "http://", "http:///v1", "http://host:port/v1", "http://host:99999/v1", "http://[::1/v1", "https://host/v 1",
    "file:///etc/passwd", "//host/v1", f"http://host/v1,{KEY}", f"http://host/v1,https://{KEY}@host/v1", "http://host/v1,",
    "http://host/v1,http://host:port/v1", "http://-/v1",
    *(f"https://host/{key}/v1" for key in (
        "AIzaSyD4planted-0123456789abc", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.abc", "gsk_planted0123456789",
        "r8_planted0123456789", "xai-planted0123456789", "pplx-planted0123456789", "nvapi-planted0123456789",
        "api-key-planted0123", "bot1:planted", "token=planted0123", "v1&a=planted0123", "%3Fa=planted0123",
        "SK-planted-0123456789", "glpat-planted0123456789", "token/planted0123", "apikey/planted0123",
        "Bearer%20planted", "Planted0123456789PlantedKey")),
    f"https://{KEY}.host/v1", "http://host/v1\u200b", "http://\uff48ost/v1", "https://host\\@evil/v1",
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_is_none_or_holds_a_key_is_refused_without_being_shown(address):
    for stage, role in ENDPOINTS.items():
        given = {f"{role}_backend": "endpoint", f"{role}_model": "m", f"{role}_base_url": address}
        text = refused(stage, **given)
        assert text.startswith(f"{role}_base_url: should hold a bare address") and KEY not in text


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/v1", "https://api.deepseek.com/v1", "http://[::1]:8000/v1",
                                     "http://a:8000/v1,http://b:8000/v1", "http://a/v1, http://b/v1",
                                     "https://token-gateway.corp/openai/deployments/DeepSeek-R1-0528-Premium",
                                     "https://router.huggingface.co/hf-inference/v1",
                                     "https://gateway.cloud/v1/0123456789abcdef0123456789abcdef/openai"])  # fmt: skip
def test_a_bare_address_is_taken(address):
    for stage, role in ENDPOINTS.items():
        given = {f"{role}_backend": "endpoint", f"{role}_model": "m", f"{role}_base_url": address}
        assert getattr(NOTEBOOKS[stage](**demo_values(stage) | given), f"{role}_base_url") == address
    other = {"other_models": [f"m=DeepSeek-R1@{address}"]}
    assert NOTEBOOKS["06_benchmark"](**demo_values("06_benchmark") | other).others == {"m": f"DeepSeek-R1@{address}"}


def test_a_key_that_stands_where_a_name_belongs_is_not_shown(capsys):
    for command in (["run", "--set", f"teacher_key: {KEY}"], ["run", "--set", f"teacher_key: {KEY}=1"],
                    ["doctor", "--base-url", "http://host/v1", "--model", "m", "--api-key-env", KEY]):  # fmt: skip
        assert main(command) == 2
        said = capsys.readouterr()
        assert KEY not in said.out + said.err and said.err


def test_a_key_in_an_address_reaches_no_file(outputs, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "execute", lambda *_: pytest.fail("it ran"))
    for change in (f"02_distillation.teacher_base_url=https://{KEY}@host/v1", f"judge_base_url=http://h/v1?key={KEY}",
                   f"06_benchmark.other_models=[a=b@https://u:{KEY}@host/v1]"):  # fmt: skip
        for until in ("01_data", "07_report"):  # checked whether the stage is to run or not
            assert main(["run", "--until", until, "--set", change]) == 2
            said = capsys.readouterr()
            assert KEY not in said.out + said.err and "bare address" in said.err
    assert list(outputs.iterdir()) == []
    for stage in stages_with("changes"):
        for change in (f"teacher_base_url=https://{KEY}@host/v1", f'teacher_extra={{"api_key": "{KEY}"}}',
                       f"judge_extra={{password: {KEY}}}"):  # fmt: skip
            assert KEY not in refused(stage, changes=[change])


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"a": ["hf_planted0123456789"]}, "holds a key"),
        ({"extra_headers": {"X": "AIzaSyplanted0123456789"}}, "holds a key"),
        ({"a": math.nan}, "a JSON object"),
        ({"a": {"b": math.inf}}, "a JSON object"),
        ({"n": 2}, "n belongs to the request itself"),  # two answers would be paid for, and one read
    ],
)
def test_more_of_a_request_s_body_is_checked_without_being_shown(extra, words):
    for stage, role in ENDPOINTS.items():
        text = refused(stage, **{f"{role}_extra": extra})
        assert text.startswith(f"{role}_extra: ") and words in text and "planted" not in text


# The command line.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", ""], 'run = "": should be a plain folder name'),
        (["--rehearse", "--run", ""], 'run = "": should be a plain folder name'),
        (["--run", LONG], "should be a plain folder name: letters, digits, '-', '_', '.', at most 100 of them"),
        (["--until", "03_filtering", "--set", "05_grpo.max_steps=many"], '05_grpo: max_steps = "many": should be'),
        (["--until", "03_filtering", "--set", "05_grpo.x=1"], "05_grpo.x: unknown parameter; did you mean 05_grpo."),
        (["--set", "04_sft.learning_rate=2024-13-45"], 'learning_rate = "2024-13-45": should be a valid number'),
        (["--set", "preset=paper"], "preset: unknown parameter"),
        (["--set", "02_distillation.teacher_extra=" + "[" * 50_000], "teacher_extra"),
        (["--set", "seed=-1"], "01_data: seed = -1: should be"),
        (["--set", "05_grpo.num_generations=true"], "num_generations = True: should be a number"),
        (
            ["--set", "05_grpo.reward_funcs=[format_reward, make_trainer]"],
            "reward_funcs, make_trainer: no such function",
        ),
        (["--set", "05_grpo.reward_funcs=[format_reward, Path]"], "reward_funcs, Path: no such function"),
        (["--set", "num_processes=4096", "--set", "05_grpo.num_generations=8"], "num_processes = 4096: "),
        (["--set", "01_data.benchmark_names=[tfns]", "--set", "data_dir=/no/such"], '"/no/such": no such folder'),
        (["--rehearse", "--max-cost", "nan"], "--max-cost\n  nan: should be above 0"),
        (["--rehearse", "--max-cost=-1"], "--max-cost\n  -1.0: should be above 0"),
        (["--set", "model_name_or_path=no/such/folder"], 'model_name_or_path = "no/such/folder": neither a folder nor'),
    ],
)
def test_a_wrong_argument_is_told_before_any_work(outputs, monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(pipeline, "execute", lambda *_: pytest.fail("it ran"))
    assert main(["run", *arguments]) == 2
    assert words in capsys.readouterr().err and list(outputs.iterdir()) == []


def test_a_reward_that_no_cell_defines_is_told_before_any_work(outputs, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "execute", lambda stage, params: pytest.fail("it began"))
    wrong = ["--set", "05_grpo.reward_funcs=[format_reward, acuracy_reward]"]
    assert main(["run", "--preset", "demo", *wrong]) == 2
    told = capsys.readouterr().err
    assert "05_grpo: reward_funcs, acuracy_reward: no such function in the cells of the recipe" in told
    assert "; did you mean accuracy_reward?" in told
    names = ["true_steps_reward", "gated_reward", "get_soft_overlong_punishment"]  # the last is imported there
    assert not unknown_rewards(GRPOParams(**demo_values("05_grpo", reward_funcs=names, reward_weights=[1.0] * 3)))


def test_a_change_of_a_stage_that_does_not_run_is_taken(outputs, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(pipeline, "execute", lambda stage, params: ran.append(stage))
    assert main(["run", "--until", "00_overview", "--set", "05_grpo.max_steps=7"]) == 0 and ran == ["00_overview"]


@pytest.mark.parametrize("content", [b"run: \xff\n", b"run: 2024-13-45\n", b"1: 2\n", b"[" * 5000, b"\0"])
def test_a_parameter_file_that_cannot_be_read_is_an_error_with_its_name(tmp_path, content):
    path = tmp_path / "01_data.yaml"
    path.write_bytes(content)
    with pytest.raises(ParameterError, match=r"01_data.yaml\n"):
        read_flat_yaml(path)


# Models.


def model_folder(folder: Path, config: str = '{"model_type": "llama"}', weights: bytes | None = None) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(config)
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_what_holds_no_model_is_named_before_anything_is_loaded(tmp_path, tiny):
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    whole = len(header).to_bytes(8, "little") + header + b"\0" * 8
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    wrong = {
        str(tmp_path / "none"): "neither a folder nor a hub id",
        str(tmp_path / "file"): "neither a folder nor a hub id",
        "a/b/c": "neither", "a--b": "neither", "../no-such-folder": "neither", "a b": "neither",
        "x" * 97: "neither", "": "config.json",
        "owner/no-such-model": "HF_HUB_OFFLINE is set: `hf download owner/no-such-model`",
        str(tmp_path / "empty"): "config.json is missing",
        str(model_folder(tmp_path / "broken", "{", whole)): "config.json is missing or can't be read",
        str(model_folder(tmp_path / "kindless", "{}", whole)): "config.json is missing or can't be read",
        str(model_folder(tmp_path / "bare")): "pytorch_model.bin is missing",
        str(model_folder(tmp_path / "zero", weights=b"")): "model.safetensors is missing or can't be read",
        str(model_folder(tmp_path / "cut", weights=whole[:-1])): "model.safetensors is missing or can't be read",
        str(model_folder(tmp_path / "t5", '{"model_type": "t5"}', whole)): "t5, is no language model",
        str(model_folder(tmp_path / "new", '{"model_type": "no-such"}', whole)): "no-such, is no language model",
    }  # fmt: skip
    parts = model_folder(tmp_path / "parts", weights=whole)
    index = {"weight_map": {"w": "model.safetensors", "v": "model-00002-of-00002.safetensors"}}
    (parts / "model.safetensors.index.json").write_text(json.dumps(index))
    wrong[str(parts)] = "model-00002-of-00002.safetensors is missing or can't be read"
    for name, base in {"of nothing": tmp_path / "gone", "of half": tmp_path / "cut"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
        (tmp_path / name / "adapter_model.safetensors").write_bytes(whole)
        wrong[str(tmp_path / name)] = f"an adapter to {base}: "
    (tmp_path / "no adapter").mkdir()
    (tmp_path / "no adapter" / "adapter_config.json").write_text("{")
    wrong[str(tmp_path / "no adapter")] = "adapter_config.json is missing or can't be read"
    for model, words in wrong.items():
        assert words in (why_unusable(model) or ""), model
    assert why_unusable(str(tiny)) is None and why_unusable("SmolLM2-135M-Instruct") is None
    assert why_unusable(str(model_folder(tmp_path / "good", weights=whole))) is None


def test_each_parameter_that_names_a_model_is_checked_where_it_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("FINR1_API_KEY", "any")
    gone = str(tmp_path / "gone")
    for stage, change in {
        "02_distillation": {"teacher_backend": "transformers", "teacher_model": gone},
        "04_sft": {"model_name_or_path": gone},
        "05_grpo": {"model_name_or_path": gone, "sft_stage": None},
        "06_benchmark": {"other_models": [f"mine={gone}"]},
    }.items():
        (line,) = NOTEBOOKS[stage](**demo_values(stage) | change).requirements()
        assert "neither a folder nor a hub id" in line
    assert NOTEBOOKS["05_grpo"](**demo_values("05_grpo", model_name_or_path=gone)).requirements() == [], "SFT's is used"


def test_what_is_left_of_the_embedded_model_is_made_again(tmp_path, monkeypatch):
    made = []

    def convert(folder: Path) -> None:
        assert not folder.exists()
        made.append(model_folder(folder))
        (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")

    monkeypatch.setattr(models, "_convert_embedded_model", convert)
    folder = tmp_path / models.EMBEDDED_MODEL
    for leave in (lambda: None, (folder / "config.json").unlink, lambda: (folder / "model.safetensors").write_text("")):
        leave()
        models.resolve_model(models.EMBEDDED_MODEL, tmp_path)
        models.resolve_model(models.EMBEDDED_MODEL, tmp_path)
    assert len(made) == 3


def test_an_input_that_is_another_stage_is_named(outputs):
    for stage in ("01_data", "02_distillation"):
        finish(outputs / "demo" / stage)
    params = NOTEBOOKS["02_distillation"](**demo_values("02_distillation", data_stage="outputs/demo/02_distillation"))
    told = 'data_stage = "outputs/demo/02_distillation": it is a stage 02_distillation'
    with pytest.raises(ParameterError, match=told):
        Run(params)


# Rows.


@pytest.mark.parametrize(("num_sft", "num_rl", "told"), [(3, 2, 0), (4, 2, 1), (4, 9, 2)])
def test_fewer_rows_than_asked_for_are_said_and_kept(capsys, num_sft, num_rl, told):
    problems = synthetic.generate_problems(5, "train", seed=1)
    asked = SimpleNamespace(num_sft=num_sft, num_rl=num_rl, seed=1, rl_text=False)
    traces = teacher.derived_traces(problems[:3])
    names = cells("03_filtering", "objective", "cell-21", traces=traces, good=[True] * 3, train=problems, params=asked)
    lines = ["num_sft = 4, but only 3 rows are there", f"num_rl = {num_rl}, but only 2 rows are there"][:told]
    said = capsys.readouterr().out
    assert len(names["fewer"]) == told and all(line in said for line in lines)


@pytest.mark.parametrize(
    ("warmup_steps", "max_steps", "epochs", "refused"),
    [(5, -1, 1.0, True), (4, -1, 1.0, False), (5, -1, 1.5, False), (0.5, -1, 1.0, False), (5, 6, 1.0, False)],
)
def test_a_warm_up_longer_than_the_rows_last_is_refused_before_any_work(warmup_steps, max_steps, epochs, refused):
    changes = {"warmup_steps": warmup_steps, "max_steps": max_steps, "num_train_epochs": epochs}
    params = SFTParams(**demo_values("04_sft", **changes))
    rows = range(4 * params.batch_size - 1)  # four steps
    if not refused:
        cells("04_sft", "cell-07c", params=params, rows=rows, lengths=[100] * len(rows))
        return
    with pytest.raises(AssertionError, match="31 rows give 4 steps, less than warmup_steps = 5: set a share below 1"):
        cells("04_sft", "cell-07c", params=params, rows=rows, lengths=[100] * len(rows))
