"""The rehearsal: what it leaves as written, what it cuts and replaces; trackers and a mirror of the hub beside it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT, demo_values
from recipes import cells, read_scores, score_prompt, score_reasoning
from test_distributed import free_port
from tiny_model import make_tiny_model, tiny_tokenizer

from finr1 import judge, pipeline, rehearse, synthetic, teacher
from finr1.__main__ import main
from finr1.child import SHARDS_ON_A_CPU
from finr1.generation import EndpointBackend, Request, SamplingParams, generate
from finr1.params import STAGES, DataParams, GRPOParams, SFTParams, missing_key
from finr1.records import Problem, messages, write_jsonl
from finr1.sources import load_source


@pytest.fixture
def problems(tmp_path) -> tuple[list[Problem], Path]:
    made = synthetic.generate_problems(60, "train", seed=1)
    for name in rehearse.SHIPPED:
        made += load_source(name, ROOT / "finr1" / "sources" / "samples").problems
    write_jsonl(tmp_path / "problems.jsonl", made)
    return made, tmp_path / "problems.jsonl"


@pytest.fixture
def endpoint(problems):
    server = rehearse.serve_stand_in(problems[1])
    yield EndpointBackend(f"http://127.0.0.1:{server.server_port}/v1", "any-name", concurrency=64)
    server.shutdown()
    server.server_close()


def test_the_stand_in_teaches_what_the_filter_keeps(problems, endpoint):
    asked, made = problems[0], cells("02_distillation", "requests", "traces-of")
    traces = made["traces_of"](asked, generate(made["requests"](asked), SamplingParams(), endpoint), "stand-in", {})
    right = [judge.check_answer(trace) for trace in traces]
    assert right.count(True) == len(asked)
    assert sum(score_reasoning(trace).total == 7 for trace in traces) > 0.9 * len(traces)


def test_the_stand_in_judges_verifies_and_is_benchmarked(problems, endpoint):
    problem = next(problem for problem in problems[0] if problem.answer_kind == "percent")
    for order in judge.CHECK_PROMPTS:
        requests = [judge.check_request(answer, problem, answer, order) for answer in (problem.gold, "no answer")]
        said = [judge.read_check(reply.text) for reply in generate(requests, judge.JUDGE_SAMPLING, endpoint)]
        assert said == [True, False], order
    judge.Verifier(endpoint).check()
    trace = teacher.derived_traces([problem])[0]
    points = Request(id="points", messages=[{"role": "user", "content": score_prompt(trace)}])
    as_benchmark = Request(id="item", messages=messages(problem))
    points, item = generate([points, as_benchmark], SamplingParams(), endpoint)
    assert read_scores(points.text).total == 7
    assert problem.gold in item.text


@pytest.mark.parametrize(
    ("name", "kind", "template"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2", "qwen2_5"),
        ("Qwen/Qwen3-8B", "qwen3", "qwen3"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama", "llama3_1"),
        ("google/gemma-2-9b-it", "gemma2", "gemma"),
        ("someone/my-finance-model", None, None),
    ],
)
def test_a_name_tells_architecture_and_template(name, kind, template):
    import trl
    from transformers import CONFIG_MAPPING

    templates = [file.stem for file in (Path(trl.__file__).parent / "chat_templates").glob("*.jinja")]
    assert (rehearse._begins(name, CONFIG_MAPPING), rehearse._begins(name, templates)) == (kind, template)


@pytest.mark.parametrize(("name", "tied"), [("Qwen/Qwen2.5-7B-Instruct", False), ("Qwen/Qwen2.5-1.5B-Instruct", True)])
def test_the_tiny_model_is_of_the_real_ones_architecture(name, tied, tmp_path, monkeypatch, outputs):
    import trl
    from transformers import AutoModelForCausalLM, AutoTokenizer

    resolved = rehearse.resolve_model
    monkeypatch.setattr(
        rehearse, "resolve_model", lambda name, at: name if "/" in name else resolved(str(tmp_path), at)
    )
    monkeypatch.setattr(rehearse, "load_tokenizer", lambda path: tiny_tokenizer())
    rehearse.tiny_model(name, tmp_path / "model")
    model, tokenizer = (auto.from_pretrained(tmp_path / "model") for auto in (AutoModelForCausalLM, AutoTokenizer))
    layer = model.model.layers[0].self_attn
    assert model.config.model_type == "qwen2" and model.config.tie_word_embeddings is tied
    assert layer.q_proj.bias is not None and layer.o_proj.bias is None
    assert layer.k_proj.out_features < layer.q_proj.out_features or tied  # 7B is known to share keys and values
    template = Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja"
    assert tokenizer.chat_template == template.read_text("utf8")
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert model.config.vocab_size >= len(tokenizer)


def test_a_model_that_nobody_can_tell_is_refused_with_what_to_do(outputs, capsys, monkeypatch):
    monkeypatch.setattr(rehearse, "few_records", lambda params, folder: ({}, {}))
    assert main(["run", "--preset", "single_gpu", "--rehearse", "--set", "model_name_or_path=x/my-model"]) == 2
    assert "hf download x/my-model" in capsys.readouterr().err


def data(**changes) -> DataParams:
    return DataParams(**demo_values("01_data", **changes))


def test_a_few_records_of_each_source_and_why_one_is_left_out(tmp_path):
    names = ["tfns", "fincorpus"]
    new, gone = rehearse.few_records(data(source_names=names, benchmark_names=["tfns", "finqa"]), tmp_path)
    assert new["benchmark_names"] == ["tfns", "finqa"] and new["data_dir"] == str(tmp_path)
    assert new["source_names"] == ["tfns", "synthetic"], "none of the shipped tweets is a dev problem"
    assert list(gone) == ["fincorpus"] and "no folder" in gone["fincorpus"]
    few = load_source("tfns", tmp_path)
    assert 20 < len(few.problems) <= rehearse.RECORDS and {"train", "test"} <= {p.split for p in few.problems}


def test_records_of_all_splits_need_no_synthetic_ones_beside(tmp_path):
    splits = ["train", "dev", "train", "dev", "train", "dev"]
    questions = [{"question": f"{n} + 1?", "answer": n + 1, "split": split} for n, split in enumerate(splits)]
    for few, names in ((6, ["finpee"]), (1, ["finpee", "synthetic"])):
        held_out = {"question": "?", "answer": 1, "split": "test"}
        write_jsonl(tmp_path / "mine" / "finpee" / "a.jsonl", [*questions[:few], held_out])
        params = data(source_names=["finpee"], benchmark_names=["finpee"], data_dir=str(tmp_path / "mine"))
        assert rehearse.few_records(params, tmp_path / str(few))[0]["source_names"] == names


def test_where_no_source_can_be_read_the_packages_records_take_their_place(tmp_path):
    params = data(source_names=["fincorpus"], benchmark_names=["fincorpus"], data_dir=str(tmp_path / "none"))
    new, gone = rehearse.few_records(params, tmp_path)
    assert set(gone) == {"fincorpus"}
    assert new["data_dir"] == "finr1/sources/samples" and "synthetic" in new["source_names"]


@pytest.mark.parametrize("preset", ["demo", "real_cpu", "free_gpu", "single_gpu", "paper"])
def test_only_sizes_are_cut_and_a_batch_still_holds_whole_groups(preset, monkeypatch):
    plan = pipeline.load_preset(preset, "r", list(STAGES), ["num_iterations=2", "save_steps=2"])
    for params in plan.values():
        for processes in (1, 2, 3, 8) if params.stage in ("04_sft", "05_grpo") else (1,):
            new = rehearse.small(params, processes)
            given = params.model_dump() | (
                {"num_processes": processes} if "num_processes" in params.model_dump() else {}
            )
            cut = type(params)(**given | new)  # whose checks hold
            assert all(
                new[name] <= given[name] or given[name] < 0 or name == "gradient_accumulation_steps" for name in new
            )
            assert all(not new[name] for name in new if given[name] == 0)
            if isinstance(cut, GRPOParams):
                assert cut.max_steps == 4 and cut.batch_size % cut.num_generations == 0


@pytest.fixture
def planned(monkeypatch, outputs):
    """What a rehearsal of `paper` would run; nothing runs."""
    ran = []
    monkeypatch.setattr(rehearse, "tiny_model", lambda name, folder: f"tiny {name}")
    monkeypatch.setattr(rehearse, "few_records", lambda params, folder: ({"data_dir": str(folder)}, {"finqa": "gone"}))
    monkeypatch.setattr(pipeline, "run_stages", lambda plan, *_: ran.extend(plan))
    told = lambda asked, here, why, untried: json.dumps([[name for _, name in why], untried])  # noqa: E731
    monkeypatch.setattr(rehearse, "table", told)
    for name in (rehearse.API_KEY, "OPENAI_API_KEY", rehearse.SHARDS_ON_A_CPU):
        monkeypatch.setenv(name, "")  # restored behind the test
        monkeypatch.delenv(name)
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("vllm", "deepspeed") else found(name))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)

    def plan(*arguments: str):
        assert main(["run", "--preset", "paper", "--rehearse", *arguments]) == 0
        return {params.stage: params for params in ran}

    return plan


def test_paper_is_rehearsed_with_what_is_here(planned, capsys):
    plan = planned()
    why, untried = json.loads(capsys.readouterr().out.splitlines()[-1])
    sft, grpo = plan["04_sft"], plan["05_grpo"]
    assert "00_overview" not in plan and len(plan) == 7
    assert sft.num_processes == grpo.num_processes == min(8, max(2, os.cpu_count()))
    assert {sft.distributed, grpo.distributed} == {"fsdp2"} and not grpo.use_vllm
    assert (sft.peft, grpo.beta, grpo.loss_type, grpo.top_p) == ("full", 0.001, "grpo", 0.95)
    for params, role in ((plan["02_distillation"], "teacher"), (plan["03_filtering"], "judge"), (grpo, "verifier")):
        assert getattr(params, f"{role}_base_url").startswith("http://127.0.0.1:")
        assert getattr(params, f"{role}_model") and missing_key(role) is None
    assert plan["06_benchmark"].inference_backend == "transformers" and plan["06_benchmark"].judge_scope == "all"
    assert {"distributed", "use_vllm", "num_processes", "model_name_or_path", "teacher_base_url"} <= set(why)
    assert {"source finqa", "teacher deepseek-ai/DeepSeek-R1", "verifier Qwen2.5-Max", "the real weights"} <= set(
        untried
    )


def test_a_budget_asks_the_endpoints_that_have_a_key(planned, monkeypatch, capsys):
    monkeypatch.setenv("FINR1_API_KEY_TEACHER", "k")
    plan = planned("--max-cost", "0.5")
    teacher_params, judge_params = plan["02_distillation"], plan["03_filtering"]
    assert (teacher_params.teacher_base_url, teacher_params.max_cost) == ("http://localhost:8001/v1", 0.5)
    assert judge_params.judge_base_url.startswith("http://127.0.0.1:") and judge_params.judge_base_url.endswith("/v1")


def test_a_budget_without_a_rehearsal_is_refused(capsys):
    assert main(["run", "--max-cost", "1"]) == 2
    assert "--rehearse" in capsys.readouterr().err


# What is run here in place of what the presets write.
REPLACED = {
    "single_gpu": {"01_data", "02_distillation.teacher_base_url", "model_name_or_path"},
    "paper": {
        "01_data", "02_distillation.teacher_base_url", "03_filtering.judge_base_url", "05_grpo.verifier_base_url",
        "06_benchmark.judge_base_url", "04_sft.num_processes", "05_grpo.num_processes", "model_name_or_path",
        "04_sft.distributed", "05_grpo.distributed", "05_grpo.use_vllm", "06_benchmark.inference_backend",
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("preset", REPLACED)
def test_a_large_preset_is_rehearsed_from_data_to_report(preset, outputs, embedded, request):
    (outputs / "cache").symlink_to(embedded)
    command = [sys.executable, "-m", "finr1", "run", "--preset", preset, "--rehearse"]
    records = ROOT / "finr1" / "sources" / "samples"  # of three sources, and no dev problem among them
    records = request.getfixturevalue("real_data") if preset == "paper" else records
    env = os.environ | {"OMP_NUM_THREADS": "1", "FINR1_DATA": str(records)}
    if preset == "paper":  # two nodes of one process each; both of them are this machine
        env |= {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        stages = [str(outputs / "paper-rehearsal" / stage) for stage in ("04_sft", "05_grpo")]
        join = f"from finr1.__main__ import main; exit(any(main(['join', stage]) for stage in {stages}))"
        second = {"NODE_RANK": "1", SHARDS_ON_A_CPU: "1"}  # the first one sets the latter itself
        further = subprocess.Popen([sys.executable, "-c", join], cwd=ROOT, env=env | second)
        request.addfinalizer(further.kill)
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
    assert preset != "paper" or further.wait(60) == 0
    kept = json.loads((outputs / f"{preset}-rehearsal" / "rehearsal.json").read_text("utf8"))
    replaced = {what for state, what, _ in kept["rows"] if state == "replaced"}
    known = {what for what in replaced if any(word in what for word in REPLACED[preset])}
    assert replaced == known and "04_sft.model_name_or_path" in replaced
    trained = {row["stage"]: row for row in kept["measured"] if row["seconds a step"]}
    assert set(trained) == {"04_sft", "05_grpo"} and all(row["peak GiB"] > 0 for row in kept["measured"])
    # The reference is the model that training starts from, in whatever shards both are.
    assert abs(float(trained["05_grpo"]["first KL"])) < 1e-4
    assert "not tried here\n" in result.stdout and "seconds a step" in result.stdout


# ---- trackers --------------------------------------------------------------------------------------------------------


def test_a_tracker_that_is_not_installed_is_refused_with_its_name(monkeypatch):
    for params_class in (SFTParams, GRPOParams):
        params = params_class(**demo_values(params_class.stage, report_to=["trackio", "mlflow"]))
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "mlflow" else object())
        [line] = params.requirements()
        assert "report_to" in line and "pip install mlflow" in line and "install trackio" not in line
    with pytest.raises(ValueError, match="report_to"):
        SFTParams(**demo_values("04_sft", report_to=["a_diary"]))


def test_a_tracker_gets_the_trainers_numbers_under_the_runs_name(tmp_path, monkeypatch):
    from transformers.integrations import integration_utils
    from trl import SFTConfig

    from finr1.training import logging_and_saving

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "x")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR")
    params = SFTParams(**demo_values("04_sft", report_to=["trackio", "tensorboard"]))
    config = SFTConfig(**logging_and_saving(params, tmp_path))
    assert (config.report_to, config.run_name, config.project) == (["trackio", "tensorboard"], "demo/04_sft", "finr1")
    assert set(config.report_to) <= set(integration_utils.INTEGRATION_TO_CALLBACK)
    # Beside the model: by default it would lie among the checkpoints, which go when the model is saved.
    assert Path(os.environ["TENSORBOARD_LOGGING_DIR"]) == tmp_path / "tensorboard"


# ---- a mirror of the hub ---------------------------------------------------------------------------------------------


class _Hub(BaseHTTPRequestHandler):
    """GET and HEAD of .../resolve/REVISION/FILE out of `folder`, with the headers that a hub sends, and its lists."""

    folder: Path
    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        file = self.folder / self.path.rpartition("/")[2]
        found = "/resolve/" in self.path and file.is_file()
        content = file.read_bytes() if found else b'{"error": "Entry not found"}'
        names = sorted(path.name for path in self.folder.iterdir())
        lists = {"revision": {"id": "o/n", "sha": "0" * 40, "siblings": [{"rfilename": name} for name in names]},
                 "tree": [{"type": "file", "path": name, "size": 1, "oid": "1" * 40} for name in names]}  # fmt: skip
        for kind in [kind for kind in lists if f"/{kind}/" in self.path]:
            found, content = True, json.dumps(lists[kind]).encode()
        self.send_response(200 if found else 404)
        for name, value in {
            "X-Repo-Commit": "0" * 40,
            "ETag": f'"{file.name}"',
            "Content-Length": len(content),
        }.items():
            self.send_header(name, str(value))
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def at_a_mirror(folder: Path, code: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    """What `code` ends with, and what it asks of a mirror that serves `folder`.

    `HF_ENDPOINT` is read by huggingface_hub at import, so in a process of its own.
    """
    hub = type("Hub", (_Hub,), {"folder": folder, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1",
           "HF_HOME": str(folder.with_name("hf")), "PYTHONPATH": str(ROOT)}  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | env, capture_output=True, text=True, timeout=300
    )
    server.shutdown()
    return result, hub.asked


@pytest.mark.slow
def test_a_mirror_of_the_hub_serves_the_rehearsals_model(tmp_path):
    folder = make_tiny_model(tmp_path / "published")
    call = f"print(tiny_model('o/n', Path({str(tmp_path)!r})))"
    code = f"from pathlib import Path; from finr1.rehearse import tiny_model; {call}"
    result, asked = at_a_mirror(folder, code)
    assert "LlamaForCausalLM" in result.stdout and "as published" in result.stdout, result.stderr
    assert "/o/n/resolve/main/config.json" in asked


@pytest.mark.slow
def test_a_mirror_of_the_hub_serves_a_source(tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    rows = "".join(f"tweet {number} falls,{number % 3}\n" for number in range(40))
    (folder / "sent_train.csv").write_text(f"text,label\n{rows}")
    (folder / "sent_valid.csv").write_text("text,label\nshares rise,1\nflat,2\n")
    code = "from finr1.sources import load_source; print(len(load_source('tfns').problems))"
    result, asked = at_a_mirror(folder, code)
    assert result.stdout.strip().endswith("42"), result.stderr
    assert any("twitter-financial-news-sentiment/resolve" in path for path in asked)
