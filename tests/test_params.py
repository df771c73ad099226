"""Parameters: what is accepted, what is refused and in which words; notebooks and presets agree with the models."""

from __future__ import annotations

import ast
import json
import math
import re
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from conftest import ROOT, demo_values
from pydantic.fields import FieldInfo

from finr1.params import NOTEBOOKS as ALL
from finr1.params import (
    STAGES,
    DataParams,
    DistillationParams,
    FilteringParams,
    GRPOParams,
    ParameterError,
    SFTParams,
    read_flat_yaml,
)
from finr1.paths import preset_names

GRPO = demo_values("05_grpo", beta=0.001, max_steps=12, save_steps=4)
DISTILLATION = demo_values("02_distillation")
ENDPOINT = {"teacher_backend": "endpoint", "teacher_model": "m", "teacher_base_url": "http://127.0.0.1:1/v1"}
DATA = demo_values("01_data")


def problems(make) -> str:
    with pytest.raises(ParameterError) as caught:
        make()
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("name", "given", "expected", "reason"),
    [
        ("learning_rate", "1e-5", 1e-5, "YAML and `papermill -p` hand it over as text"),
        ("learning_rate", "1.0e-5", 1e-5, "text with a point"),
        ("bf16", "false", False, "a plain truth test would make it true"),
        ("bf16", "True", True, "Python's spelling"),
        ("max_steps", "12", 12, "text of a whole number"),
        ("max_steps", 12.0, 12, "a float without a fraction"),
        ("beta", 0, 0.0, "a whole number where a float is asked for"),
        ("sft_stage", "outputs/{run}/04_sft", "outputs/demo/04_sft", "the run's name is filled in"),
    ],
)
def test_values_arrive_with_the_type_of_their_field(name, given, expected, reason):
    value = getattr(GRPOParams(**{**GRPO, name: given}), name)
    assert value == expected and type(value) is type(expected), reason


@pytest.mark.parametrize(
    ("change", "expected", "reason"),
    [
        ({"learning_rat": 1}, "learning_rat: unknown parameter; did you mean learning_rate?", "a typo"),
        ({"max_steps": "ten"}, 'max_steps = "ten": should be a valid integer', "text for a number"),
        ({"max_steps": 1.5}, "max_steps = 1.5: should be a valid integer", "a fraction"),
        ({"max_steps": True}, "max_steps = True: should be a number", "pydantic takes True for 1"),
        ({"learning_rate": False}, "learning_rate = False: should be a number", "a truth value for a float"),
        ({"epsilon_high": True}, "epsilon_high = True: should be a number", "a truth value for a float or null"),
        ({"learning_rate": math.nan}, "learning_rate = nan: should be a finite number", "not a number"),
        ({"beta": math.inf}, "beta = inf: should be a finite number", "infinite"),
        ({"beta": None}, "beta = None: should be a valid number", "null where a number is needed"),
        ({"top_p": 1.5}, "top_p = 1.5: should be less than or equal to 1", "out of range"),
        ({"bf16": "maybe"}, 'bf16 = "maybe": should be a valid boolean', "no truth value"),
        ({"peft": {"r": 8}}, "peft: should be 'lora', 'qlora' or 'full'", "a dict, which may hold a key"),
        (
            {"loss_type": "drgrpo"},
            "loss_type = \"drgrpo\": should be 'grpo', 'dapo', 'dr_grpo' or 'cispo'",
            "a near miss of a choice",
        ),
        (
            {"num_generations": 5},
            "num_generations = 5: per_device_train_batch_size x gradient_accumulation_steps x "
            "num_processes = 64 is not divisible by it; 2, 4, 8, 16, 32, 64 would work",
            "TRL says so only after the model is loaded",
        ),
        (
            {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1},
            "num_generations = 8: per_device_train_batch_size x gradient_accumulation_steps x "
            "num_processes = 1 is not divisible by it; raise gradient_accumulation_steps",
            "no group fits at all",
        ),
        ({"loss_type": "cispo"}, "epsilon_high = None: loss_type", "TRL would cap every weight at epsilon"),
        ({"reward_weights": [1.0]}, "reward_weights = [1.0]: one for each of the 2 reward_funcs", "TRL says so late"),
        ({"loss_type": "dapo", "importance_sampling_level": "sequence"},
         'importance_sampling_level = "sequence": completions would count by length', "not the loss of GSPO"),
        ({"use_vllm": True, "peft": "qlora"}, "use_vllm = True: each sync would round", "a base that drifts"),
        ({"beta": 0.0, "stop_kl": 1.0}, "stop_kl = 1.0: with beta = 0 no KL is computed", "a rule that never fires"),
        ({"load_best_model_at_end": True, "eval_steps": 2},
         "load_best_model_at_end = True: each look needs a checkpoint; eval_steps = 4", "best without checkpoint"),
        ({"num_iterations": 3}, "save_steps = 4: no exact resume", "a resumed run would sample at other steps"),
        ({"warmup_steps": 50}, "warmup_steps = 50.0: max_steps = 12 is less; 0 to that, or", "all warm-up"),
        ({"run": "../elsewhere"}, 'run = "../elsewhere": should be a plain folder name', "it would leave outputs/"),
        ({"run": ".hidden"}, 'run = ".hidden": should be a plain folder name', "a hidden folder"),
        ({"run": "cache"}, 'run = "cache": should be a plain folder name', "the folder that all runs share"),
        ({"run": 7}, "run = 7: should be a valid string", "papermill -p makes it a number"),
    ],
)  # fmt: skip
def test_wrong_values_are_named_with_what_would_be_right(change, expected, reason):
    assert problems(lambda: GRPOParams(**{**GRPO, **change})).startswith(expected), reason


def test_all_problems_are_reported_at_once():
    text = problems(lambda: GRPOParams(**{**GRPO, "max_steps": "ten", "beta": -1, "learning_rat": 1}))
    assert [line.split()[0].rstrip(":") for line in text.split("\n")] == ["max_steps", "beta", "learning_rat"]


def test_a_missing_parameter_keeps_no_default():
    values = {name: value for name, value in GRPO.items() if name != "beta"}
    assert problems(lambda: GRPOParams(**values)) == "beta: missing; every parameter must be given a value"


def test_a_key_given_as_a_parameter_is_refused_without_showing_it():
    text = problems(lambda: GRPOParams(**GRPO, api_key="sk-planted"))
    assert "environment" in text and "sk-planted" not in text


@pytest.mark.parametrize(
    ("values", "words", "reason"),
    [
        (
            {**ENDPOINT, "teacher_base_url": None},
            'teacher_base_url = None: teacher_backend = "endpoint" needs',
            "no address",
        ),
        (
            {**ENDPOINT, "teacher_model": "null"},
            'teacher_model = None: teacher_backend = "endpoint" needs',
            "papermill -p x null",
        ),
        (
            {"teacher_backend": "transformers"},
            'teacher_model = None: teacher_backend = "transformers" needs',
            "no model",
        ),
        ({"max_cost": 5.0}, "max_cost = 5.0: needs prompt_price", "a limit that nothing would ever reach"),
        ({"fault_rate": 1.2}, "fault_rate = 1.2: should be less than or equal to 1", "a share"),
    ],
)
def test_distillation_checks_what_its_teacher_needs(values, words, reason):
    assert problems(lambda: DistillationParams(**{**DISTILLATION, **values})).startswith(words), reason


def test_an_endpoint_without_a_key_stops_in_the_notebook(monkeypatch):
    values = {**DISTILLATION, **ENDPOINT}
    text = problems(lambda: DistillationParams.from_notebook(values))
    assert 'teacher_backend = "endpoint"' in text and "FINR1_API_KEY is not set" in text
    monkeypatch.setenv("FINR1_API_KEY", "any")
    assert DistillationParams.from_notebook(values).teacher_backend == "endpoint"


def test_real_records_lie_where_the_environment_says(monkeypatch, tmp_path):
    synthetic = {**DATA, "benchmark_names": ["synthetic"], "data_dir": None}
    real = {**synthetic, "source_names": ["tfns", "finqa"]}
    monkeypatch.delenv("FINR1_DATA", raising=False)
    assert DataParams.from_notebook(real).data_dir is None, "without a folder, the sources' public homes"
    monkeypatch.setenv("FINR1_DATA", str(tmp_path))
    assert DataParams.from_notebook(real).data_dir == str(tmp_path)
    assert DataParams.from_notebook(synthetic).data_dir is None, "synthetic problems need no folder"
    text = problems(lambda: DataParams(**{**DATA, "source_names": ["tfsn"]}))
    assert text.startswith("source_names = ['tfsn']: tfsn should be one of synthetic, ") and text.endswith("mean tfns?")


SETTINGS = 'run = "mine"  # name\nmax_steps = 12  # steps\n'
REST = '"""\nrun = above  # name\n# """\nbeta = 0.001  # weight\n'
INJECTED = "# Parameters\nmax_steps = 2\n"


@pytest.mark.parametrize(
    ("cells", "wrong"),
    [
        ([SETTINGS, REST], []),
        ([SETTINGS + "learning_rat = 1.0e-5\n", REST], ["learning_rat"]),
        ([SETTINGS, REST, SETTINGS + "learning_rat = 1\n"], ["learning_rat"]),
        ([SETTINGS + "learning_rat = 1\n", REST, SETTINGS.replace(" = ", "=").replace('"', "'")], []),
        ([SETTINGS, REST + "learning_rat=1\nepsilom = [\n    1,\n]\n"], ["epsilom", "learning_rat"]),
        ([SETTINGS, REST, INJECTED + "learning_rat = 1\n"], ["learning_rat"]),
        (["import os\na = 1", SETTINGS, REST, "%time\nx = 2", "run = Run(params)\npage = 1", INJECTED], []),
        ([SETTINGS, "max_steps = 3\nmine = 4", "learning_rat == 1\nrun == 2"], []),
    ],
    ids=["right", "first run", "a later run", "put right", "the collapsed cell", "papermill", "other cells", "play"],
)
def test_a_name_that_is_no_parameter_is_an_error_in_the_cells_of_parameters_alone(cells, wrong):
    namespace = {**GRPO, "In": ["", *cells], "learning_rat": 1e-5, "epsilom": [1], "a_helper": print}
    if not wrong:
        assert GRPOParams.from_notebook(namespace).max_steps == 12
    else:
        lines = problems(lambda: GRPOParams.from_notebook(namespace)).split("\n")
        assert [line.partition(":")[0] for line in lines] == wrong
        assert all("unknown parameter; did you mean" in line for line in lines)


def test_a_run_of_ones_own_starts_from_the_demos_stages_where_it_has_none(outputs, capsys):
    at = {name: f"outputs/{{run}}/{stage}" for name, stage in
          {"data_stage": "01_data", "filtering_stage": "03_filtering", "sft_stage": "04_sft"}.items()}  # fmt: skip
    namespace = {**GRPO, **at, "run": "mine"}
    assert GRPOParams.from_notebook(namespace).sft_stage == "outputs/mine/04_sft", "the demo has none either"
    for made in ("demo/01_data", "demo/03_filtering", "demo/04_sft", "mine/03_filtering"):
        (outputs / made).mkdir(parents=True)
    assert capsys.readouterr().out == ""
    params = GRPOParams.from_notebook(namespace)
    found = params.data_stage, params.filtering_stage, params.sft_stage
    assert found == ("outputs/demo/01_data", "outputs/mine/03_filtering", "outputs/demo/04_sft")
    said = capsys.readouterr().out
    assert "outputs/mine has no" in said and "it starts from outputs/demo/01_data, outputs/demo/04_sft\n" in said
    injected = GRPOParams.from_notebook({**namespace, "In": [SETTINGS, REST, "# Parameters\nseed = 1"]})
    assert injected.sft_stage == "outputs/mine/04_sft", "papermill gets what it asks for"
    assert problems(lambda: GRPOParams.from_notebook({**namespace, "run": "x" * 300})).startswith("run = ")
    elsewhere = GRPOParams.from_notebook({**namespace, "sft_stage": "outputs/other/04_sft"})
    assert elsewhere.sft_stage == "outputs/other/04_sft", "so does a person"


def test_the_parameters_cell_can_run_again_after_run_became_an_object():
    class Started:
        name = "demo"

    assert GRPOParams.from_notebook({**GRPO, "run": Started()}).run == "demo"


def test_yaml_round_trip_keeps_every_value_and_type(tmp_path):
    params = GRPOParams(**{**GRPO, "learning_rate": 1e-6, "beta": 1e16})
    params.to_yaml(tmp_path / "params.yaml")
    assert GRPOParams.from_yaml(tmp_path / "params.yaml") == params
    plain = read_flat_yaml(tmp_path / "params.yaml").values
    assert isinstance(plain["learning_rate"], float), "papermill reads the file without our models"
    params = DataParams(**{**DATA, "source_names": ["tfns", "finqa"], "run": "no"})
    params.to_yaml(tmp_path / "params.yaml")
    assert DataParams.from_yaml(tmp_path / "params.yaml") == params, "`no` must not become false"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\nseed: 2\n", "seed: given twice"),
        ("- 1\n- 2\n", "should hold one `name: value` a line"),
        ("", "should hold one `name: value` a line"),
        ("seed: [1\n", "not readable as YAML"),
    ],
)
def test_broken_yaml_is_a_parameter_error(tmp_path, text, words):
    path = tmp_path / "params.yaml"
    path.write_text(text, "utf8")
    assert words in problems(lambda: read_flat_yaml(path))


def test_inputs_are_absolute_folders_below_the_outputs(outputs):
    inputs = GRPOParams(**{**GRPO, "sft_stage": str(outputs / "else" / "04_sft")}).inputs()
    assert inputs == {
        "data_stage": outputs / "demo" / "01_data",
        "filtering_stage": outputs / "demo" / "03_filtering",
        "sft_stage": outputs / "else" / "04_sft",
    }


def test_the_table_shows_what_differs_from_the_paper_and_whether_it_says_so(project):
    (project / "params" / "paper").mkdir(parents=True)
    values = demo_values("04_sft") | {"learning_rate": 1e-5, "peft": "lora", "lora_r": 8, "max_steps": 9, "seed": 1}
    told = dict.fromkeys(values, "") | {
        "learning_rate": "not stated; DianJin-R1: 1e-5", "peft": "paper: so", "max_steps": "README, serving: 9",
        "lora_r": "paper: some rank; value not stated", "seed": "paper: one; this is ours"}  # fmt: skip
    lines = [f"{name}: {json.dumps(value)}  # {told[name]}\n" for name, value in values.items()]
    (project / "params" / "paper" / "04_sft.yaml").write_text("".join(lines), "utf8")
    rows = SFTParams(**demo_values("04_sft", run="mine", learning_rate=3e-5, data_stage="outputs/x/01_data")).table()
    assert [list(row.values()) for row in rows] == [
        ["seed", "42", "1", "no"],
        ["peft", "full", "lora", "yes: lora"],
        ["lora_r", "16", "8", "no"],
        ["learning_rate", "3e-05", "1e-05", "no"],
        ["max_steps", "-1", "9", "its README: 9"],
    ]
    assert list(rows[0]) == ["parameter", "this run", "preset paper", "does the paper state it?"]


def test_a_row_of_the_table_fits_a_screen():
    for stage in ALL.keys() - {"10_compare", "11_machine"}:  # of no preset
        for row in ALL[stage](**demo_values(stage)).table():
            assert sum(map(len, row.values())) < 200 and max(map(len, row.values())) <= 60


# Notebooks, models and presets.

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PRESETS = [ROOT / "params" / name for name in preset_names()]
PRESET_FILES = sorted((ROOT / "params").glob("*/[0-9][0-9]_*.yaml"))


def parameters_cell(notebook: Path) -> dict:
    """{name: literal} of the cells tagged `settings` and `parameters`, which stand in this order."""
    cells = json.loads(notebook.read_text("utf8"))["cells"]
    tagged = [cell for cell in cells if {"settings", "parameters"}.intersection(cell["metadata"].get("tags", []))]
    assert "settings" in tagged[0]["metadata"]["tags"] and "parameters" in tagged[-1]["metadata"]["tags"]
    text = "\n".join("".join(cell["source"]) for cell in tagged)
    nodes = [node for node in ast.parse(text).body if isinstance(node, ast.Assign)]
    lines = [text.splitlines()[node.lineno - 1] for node in nodes]
    assert all("  # " in line for line in lines), f"{notebook.name}: each line is `name = value  # help`"
    names = [node.targets[0].id for node in nodes]
    assert len(set(names)) == len(names), f"{notebook.name}: one truth for each parameter"
    return dict(zip(names, (ast.literal_eval(node.value) for node in nodes), strict=True))


def stage_notebooks() -> list[Path]:
    return [path for path in NOTEBOOKS if path.stem in ALL]


def test_every_stage_has_a_notebook_and_every_preset_a_file_for_each():
    assert sorted(path.stem for path in stage_notebooks()) == list(ALL)
    assert {"demo", "free_gpu", "paper", "real_cpu", "single_gpu"} <= {path.name for path in PRESETS}
    for preset in PRESETS:
        assert set(STAGES) <= {path.stem for path in preset.glob("*.yaml")} <= set(ALL), preset.name


@pytest.mark.parametrize("notebook", stage_notebooks(), ids=lambda path: path.stem)
def test_the_notebooks_cell_names_the_models_fields(notebook, outputs):
    values = parameters_cell(notebook)
    assert set(values) == set(ALL[notebook.stem].model_fields)
    ALL[notebook.stem](**values)


@pytest.mark.parametrize("path", PRESET_FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_presets_file_names_the_models_fields(path, monkeypatch):
    monkeypatch.delenv("FINR1_DATA", raising=False)
    file = read_flat_yaml(path)
    assert set(file.values) == set(ALL[path.stem].model_fields)
    params = ALL[path.stem](**file.values)
    for name, value in file.values.items():
        assert not isinstance(value, str) or not is_number(type(params).model_fields[name]), (
            f"{name}: text, write 1.0e-5"
        )
    if path.parent.name == "paper":
        bare = [name for name in file.values if not file.comments[name] and name != "run"]
        assert not bare, f"say what the paper states about {bare}"


# What the paper says, or that it says nothing and then whose value this is.
SOURCE = re.compile(
    r"paper: \S|README, serving: \S|not stated; .*(\bours\b|usual|TRL's default|DianJin-R1|arXiv \d|\d{4}\))"
)


@pytest.mark.parametrize("stage", ["04_sft", "05_grpo"])
@pytest.mark.parametrize("preset", ["paper", "single_gpu", "free_gpu"])
def test_each_training_value_of_a_large_preset_names_its_source(preset, stage):
    file = read_flat_yaml(ROOT / "params" / preset / f"{stage}.yaml")
    places = {"run", *STAGES[stage](**file.values).input_names()}
    assert len(places) >= 3
    bare = [name for name in file.values if name not in places and not SOURCE.search(file.comments[name])]
    assert not bare, f"whose values are these? {bare}"


@pytest.mark.parametrize("comment", ["", "rank of the adapter", "not stated", "not stated; two", "as in the paper"])
def test_a_comment_that_names_no_source_is_told_from_one_that_does(comment):
    assert not SOURCE.search(comment)


def is_number(field: FieldInfo) -> bool:
    return field.annotation in (int, float)


@pytest.mark.parametrize("notebook", [path for path in stage_notebooks() if path.stem != "10_compare"])
def test_the_demo_preset_has_the_values_of_the_notebooks_cell(notebook):
    """But for the name of the run: what a person tries in a notebook never stands where `make demo` writes."""
    values, own = parameters_cell(notebook), {"run": "ablation" if notebook.stem == "09_ablation" else "mine"}
    assert read_flat_yaml(ROOT / "params" / "demo" / f"{notebook.stem}.yaml").values | own == values


@pytest.mark.parametrize("params_class", ALL.values(), ids=ALL)
def test_no_model_has_defaults(params_class):
    assert [name for name, field in params_class.model_fields.items() if not field.is_required()] == []


def test_stages_that_take_the_same_input_call_it_by_the_same_name():
    for params_class in (SFTParams, GRPOParams, FilteringParams):
        assert "data_stage" in params_class.model_fields


# Every configuration object of the two large presets, by the real libraries, without a GPU.


@pytest.fixture(scope="module")
def as_on_a_gpu():
    """TRL refuses bf16 without a GPU unless `use_cpu` is set, as ours then is; nothing else has to be changed."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("made for a machine without a GPU")


# What the recipes' cells call to read, load and watch.
LOADING = ("start_model", "load_tokenizer", "load_policy", "load_dataset", "speed_up", "whole_model", "cpu_sampler",
           "opened_thought", "keep_vllm_weights", "check_sampler",
           "check_rewards", "watch", "MetricsFile", "MemoryProbe", "EarlyLook")  # fmt: skip


@pytest.mark.parametrize("stage", ["04_sft", "05_grpo"])
@pytest.mark.parametrize("preset", ["paper", "single_gpu", "free_gpu"])
def test_the_libraries_take_what_a_large_preset_asks_for(preset, stage, tmp_path, as_on_a_gpu):
    import torch
    from peft import LoraConfig
    from recipes import recipe

    params = STAGES[stage].from_yaml(ROOT / "params" / preset / f"{stage}.yaml")
    cells = recipe(stage)
    trainer = "SFTTrainer" if stage == "04_sft" else "GRPOTrainer"
    vars(cells).update({name: MagicMock() for name in (*LOADING, trainer)} | {"end_of_turn": lambda tokenizer: "end"})
    cells.make_trainer(params, tmp_path)
    given = getattr(cells, trainer).call_args.kwargs
    config, asked = given["args"], params.model_dump()
    asked |= {"eval_steps": asked["eval_steps"] or None} if stage == "05_grpo" else {}  # TRL takes no 0
    checked = [name for name in asked if hasattr(config, name) and name not in ("warmup_steps", "run_name")]
    assert len(checked) >= 10
    assert {name: getattr(config, name) for name in checked} == {name: asked[name] for name in checked}
    if stage == "05_grpo":  # vLLM's log-probabilities are of the nucleus: no weights from them
        assert not config.vllm_importance_sampling_correction
    adapter = given["peft_config"]
    assert adapter is None if params.peft == "full" else isinstance(adapter, LoraConfig)
    quantization = cells.load_policy.call_args.args[2]
    assert quantization.bnb_4bit_use_double_quant and quantization.bnb_4bit_compute_dtype == torch.bfloat16


def test_vllm_that_is_not_installed_is_missed_before_any_work(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    params = GRPOParams(**{**GRPO, "use_vllm": True})
    (line,) = params.requirements()
    assert line.startswith("use_vllm = True: vllm is not installed") and "make install GPU=1" in line
    assert GRPOParams(**GRPO).requirements() == []
