"""A dress rehearsal before money is spent: a preset with every switch as it is written, and only its sizes cut.

It trains a random tiny model of the preset's own architecture for two steps, in as many processes as there are GPUs
(else cores, over gloo). A server here that knows the golds stands in for teacher, judge and verifier.
"""

import functools
import importlib.util
import json
import os
import re
import textwrap
import threading
from collections.abc import Iterable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

from finr1 import manifest, pipeline, plan, sources
from finr1.child import SHARDS_ON_A_CPU
from finr1.judge import CRITERIA
from finr1.models import EMBEDDED_MODEL, OWN_CODE, end_of_turn, load_tokenizer, resolve_model
from finr1.params import API_KEY, STAGES, DataParams, GRPOParams, ParameterError, Params, TrainingParams, missing_key
from finr1.params.base import NEEDED
from finr1.paths import cache_dir, data_beside, outputs_root, resolve
from finr1.progress import read_metrics
from finr1.records import Problem, messages, read_jsonl, write_jsonl
from finr1.run import stage_folder
from finr1.sources.files import Broken, SourceError

PORT = 18653  # of the stand-in where it is free: with the same address a second rehearsal skips what is complete
RECORDS = 60  # of each source, from the beginnings of its files
SHIPPED = ["finqa", "convfinqa", "tfns"]  # of these the package has records
_CHANGES = data_beside(__file__, "rehearse.yaml")


def serve_stand_in(file: Path) -> ThreadingHTTPServer:
    """An endpoint for every role: a problem of `file` gets its gold answer, seven points, and a check that compares."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            thought, text = stand_in(_said(body["messages"]), file)
            message = {"role": "assistant", "content": text, "reasoning_content": thought}
            reply = {"model": body["model"], "choices": [{"message": message, "finish_reason": "stop"}]}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        log_message = functools.partialmethod(lambda *_: None)  # the notebooks' own words stand there

    server_class = type("Server", (ThreadingHTTPServer,), {"request_queue_size": 1024})
    try:
        server = server_class(("127.0.0.1", PORT), Handler)
    except OSError:  # another rehearsal has it
        server = server_class(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def stand_in(asked: str, file: Path) -> tuple[str, str]:
    """Thought and text of the stand-in's answer."""
    if all(name in asked for name in CRITERIA):
        return "", json.dumps(dict.fromkeys(CRITERIA, 1))
    if given := re.search(r"(=== \w+ ===)\n(.*?)\n\1", asked, re.DOTALL):
        gold = re.search(r"(?:Gold answer|标准答案)[^:：]*[:：] ?(.+)", asked)
        reason = "\nThe texts were compared." if re.search("Reply with two lines|回复两行", asked) else ""
        return "", f"{int(bool(gold) and gold[1].strip() in given[2])}{reason}"
    known = _problems(file, file.stat().st_mtime) if file.exists() else {}
    problem = known.get(asked) or known.get(asked.rpartition("\n\n")[0])  # a teacher is told behind it how to answer
    what, gold = (re.sub(r"[\W_]+", " ", problem.question)[:120].strip(), problem.gold) if problem else ("", "0")
    told = f"We are asked: {what}. What is given about {what} leads to {gold}. So the answer is {gold}."
    return told, f"<answer>\\boxed{{{gold}}}</answer>"


@functools.lru_cache(maxsize=1)
def _problems(file: Path, written: float) -> dict[str, Problem]:
    """By what is asked."""
    return {_said(messages(problem)): problem for problem in read_jsonl(file, Problem)}


def _said(chat: list[dict[str, str]]) -> str:
    """All turns but the system's: questions about one page may end in the same words."""
    return "\n\n".join(turn["content"] for turn in chat if turn["role"] != "system")


def tiny_model(name: str, folder: Path) -> str:
    """Save a random model of the architecture of `name`, with its chat template, to `folder`; returns what it is.

    Configuration and tokenizer are the model's own where they are here or a hub has them. Else its name has to tell: a
    configuration of transformers, and a template of TRL on the embedded model's vocabulary; or `ParameterError`.
    """
    import torch
    import trl
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        path = resolve_model(name, cache_dir())
        config, how = AutoConfig.from_pretrained(path, **OWN_CODE), "as published"
        tokenizer = AutoTokenizer.from_pretrained(path, **OWN_CODE)
    except (OSError, ValueError):  # not here, and no hub
        templates = {file.stem: file for file in (Path(trl.__file__).parent / "chat_templates").glob("*.jinja")}
        kind, template = _begins(name, CONFIG_MAPPING), _begins(name, templates)
        if not kind or not template:
            advice = f"`hf download {name} --include '*.json' '*.jinja'` where there is a hub, or a folder would do"
            told = f'"{name}" is not here, no hub answers, and its name tells no architecture; {advice}'
            raise ParameterError("a rehearsal", [f"model_name_or_path: {told}"]) from None
        config, tokenizer = AutoConfig.for_model(kind), load_tokenizer(resolve_model(EMBEDDED_MODEL, cache_dir()))
        tokenizer.chat_template, how = templates[template].read_text("utf8"), "told by its name, as no hub answers"
        marks = {"<|endoftext|>", *re.findall(r"<\|\w+\|>|<\w+_of_turn>", tokenizer.chat_template)}
        tokenizer.add_special_tokens({"additional_special_tokens": sorted(marks)})
        tokenizer.pad_token, tokenizer.eos_token = "<|endoftext|>", end_of_turn(tokenizer)
        billions = re.search(r"(?<![\d.])([\d.]+)b\b", name.lower())
        if billions and float(billions[1]) < 5:  # as Qwen and Llama do it: the small ones have one table for both ends
            config.tie_word_embeddings = True
    shape, values = plan.shape_of(name), config.to_dict()
    grouped = shape.kv_heads < shape.heads if shape else config.num_key_value_heads < config.num_attention_heads
    sizes = _CHANGES["tiny"] | {"num_key_value_heads": 1 if grouped else 2, "eos_token_id": tokenizer.eos_token_id}
    sizes |= {"vocab_size": -(-len(tokenizer) // 128) * 128} | ({"tie_word_embeddings": shape.tied} if shape else {})
    sizes["layer_types"] = (values.get("layer_types") or [])[:2] or None
    values |= {name: size for name, size in sizes.items() if name in values}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(type(config).from_dict(values), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return f"a random {type(model).__name__} of {model.num_parameters() / 1e6:.0f} million parameters; kind {how}"


def _begins(name: str, kinds: Iterable[str]) -> str | None:
    """The longest of `kinds` with which a model's name begins: `Qwen/Qwen2.5-7B` with `qwen2_5`."""
    plain = re.sub(r"(?<=[a-z])-(?=\d)", "", name.rpartition("/")[2].lower().replace(".", "_"))
    return max((kind for kind in kinds if re.match(rf"{kind}(?![a-z])", plain)), key=len, default=None)


def few_records(params: DataParams, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Write the first records of each source to `folder`; returns what changes, and {source: why it is left out}.

    Where no source to train on can be read, the package's own records and synthetic problems take their place; these
    also stand beside records that leave the split train or dev empty.
    """
    gone, untested, splits = {}, {}, set()
    for name in sorted({*params.source_names, *params.benchmark_names} - {"synthetic"}):
        source = sources.SOURCES[name]
        place = source.folder_in(resolve(params.data_dir)) if params.data_dir else None
        try:
            content = source.files(place, cache_dir() / "sources" / name)
        except SourceError as error:
            gone[name] = str(error)
            continue
        for file, records in content.items():
            rows = [row for row in records[: max(4, RECORDS // len(content))] if not isinstance(row, Broken)]
            write_jsonl(folder / name / f"{file}.jsonl", rows)
        held_out = {"test"} | ({"dev"} if name == "convfinqa" else set())  # as notebook 01 has it
        found = {problem.split for problem in sources.load_source(name, folder).problems}
        splits |= found - held_out - ({"train"} if name not in params.source_names else set())
        if held_out.isdisjoint(found):
            untested[name] = "no test item among its first records"
    left = [name for name in params.source_names if name not in gone]
    gone |= {name: reason for name, reason in untested.items() if name in params.benchmark_names}
    if left and (tested := [name for name in params.benchmark_names if name not in gone]):
        left += [] if {"train", "dev"} <= splits or "synthetic" in left else ["synthetic"]
        return {"source_names": left, "benchmark_names": tested, "data_dir": str(folder)}, gone
    names = {"source_names": ["synthetic", *SHIPPED], "benchmark_names": SHIPPED, "sampling": "balanced"}
    return names | {"data_dir": "finr1/sources/samples"}, gone


def small(params: Params, processes: int) -> dict[str, Any]:
    """The sizes of a stage as a rehearsal has them; a batch is still one of whole groups."""
    values, most = params.model_dump(), _CHANGES["most"].get(params.stage, {})
    sizes = {name: min(values[name], size) if values[name] >= 0 else size for name, size in most.items()}
    if isinstance(params, GRPOParams):
        sizes |= {name: sizes[name] * params.num_iterations for name in ("max_steps", "save_steps", "eval_steps")}
        rows, least = sizes["per_device_train_batch_size"] * processes, sizes["gradient_accumulation_steps"]
        sizes["gradient_accumulation_steps"] = next(n for n in count(least) if rows * n % sizes["num_generations"] == 0)
    return sizes


def rehearse(
    preset: str, run: str, until: str | None = None, changes: Sequence[str] = (), force: Sequence[str] = (),
    max_cost: float | None = None,
) -> None:  # fmt: skip
    """Rehearse `preset` in `outputs/<run>` and print the table; arguments and errors as of `pipeline.run_preset`.

    With `max_cost`, roles that have a URL and a key are asked themselves, and notebook 02 stops at that.
    """
    import torch

    stages = [stage for stage in STAGES if "01" <= stage <= (until or "07_report")]  # 00 measures this machine alone
    asked, folder = list(pipeline.load_preset(preset, run, stages, changes).values()), outputs_root() / run
    untried, gpus, here, reasons, models = dict(_CHANGES["out_of_reach"]), torch.cuda.device_count(), [], {}, {}
    untried |= {} if gpus else {"a GPU": "its kernels, its memory, and NCCL between several"}
    url = f"http://127.0.0.1:{serve_stand_in(folder / '01_data' / 'problems.jsonl').server_port}/v1"
    for params in asked:
        values, role = params.model_dump(), getattr(params, "role", "")
        swaps = {name: (None, "of another run") for name, at in params.inputs().items() if at.parent != folder}
        if isinstance(params, DataParams):
            new, gone = few_records(params, folder / "records")
            swaps = {name: (value, "what is here; synthetic problems fill empty splits") for name, value in new.items()}
            untried |= {f"source {name}": reason for name, reason in gone.items()}
        if model := values.get("model_name_or_path"):
            place = folder / "tiny" / re.sub(r"\W+", "-", model)
            models[model] = models.get(model) or tiny_model(model, place)
            swaps["model_name_or_path"] = (str(place), models[model])
        if isinstance(params, TrainingParams):
            most = min(params.num_processes, gpus or max(2, os.cpu_count() or 1))
            swaps["num_processes"] = (most, f"GPUs here: {gpus}; cores: {os.cpu_count()}")
            if most == 1 < params.num_processes:
                untried[f"{params.stage}, distributed {params.distributed}"] = "one process has nobody to share with"
        for name, value, package, other, _ in NEEDED + _CHANGES["needed"]:
            if values.get(name) == value and not importlib.util.find_spec(package):
                swaps[name] = (other, f"{package} is not installed")
        if values.get(f"{role}_backend") in ("endpoint", "transformers", "vllm"):
            if max_cost and values[f"{role}_base_url"] and not missing_key(role):
                swaps |= {"max_cost": (max_cost, "--max-cost")} if role == "teacher" else {}
            else:
                told = "a stand-in that knows the golds"
                swaps |= {f"{role}_backend": ("endpoint", told), f"{role}_base_url": (url, told)}
                untried[f"{role} {values[f'{role}_model']}"] = "its key, its limits, its prices, what it refuses"
        if values.get("other_models"):
            swaps["other_models"] = ([f"{name}=stand-in@{url}" for name in params.others], "a stand-in for each")
        new = {name: value for name, (value, _) in swaps.items()}
        here.append(type(params)(**values | new | small(params, new.get("num_processes", 1))))
        reasons |= {(params.stage, name): reason for name, (_, reason) in swaps.items()}
    os.environ.setdefault(API_KEY, "rehearsal")  # the stand-in asks for none
    os.environ.update({} if gpus else {SHARDS_ON_A_CPU: "1"})
    pipeline.run_stages(here, stages if "all" in force else force, True)
    print(table(asked, here, reasons, untried))


def table(asked: Sequence[Params], here: Sequence[Params], reasons: dict, untried: dict[str, str]) -> str:
    """What ran as it will, what was replaced by what and why, what could not be tried, and what was measured."""
    import pandas as pd

    states = "as it will run", "cut in size", "replaced", "not tried here"
    rows, measured = [(states[3], name, reason) for name, reason in untried.items()], []
    for params, ran in zip(asked, here, strict=True):
        before, after, stage = params.model_dump(), ran.model_dump(), params.stage
        other = {name: f"{before[name]} -> {after[name]}" for name in before if before[name] != after[name]}
        same = [f"{name} {value}" for name, value in after.items() if name not in (*other, *ran.inputs())]
        cut = [f"{name} {change}" for name, change in other.items() if (stage, name) not in reasons]
        rows += [(states[0], stage, ", ".join(same[2:])), (states[1], stage, ", ".join(cut))]  # without run and seed
        swapped = {name: f"{other[name]} ({reasons[stage, name]})" for name in other if (stage, name) in reasons}
        rows += [(states[2], f"{stage}.{name}", change) for name, change in swapped.items()]
        record, log = manifest.read_manifest(stage_folder(ran)), read_metrics(stage_folder(ran))
        peaks = [*record["peak_memory_gib"].values(), *(row["peak_memory_gib"] for row in log)]
        each = [f"{row['train_runtime'] / row['step']:.2f}" for row in log if "train_runtime" in row]
        kl = next((f"{row['kl']:.1g}" for row in log if "kl" in row), "")  # 0 where the reference is what starts
        measured.append({"stage": stage, "peak GiB": max(peaks), "seconds a step": (each or [""])[-1], "first KL": kl})
    manifest.write_json(stage_folder(here[0]).parent / "rehearsal.json", {"rows": rows, "measured": measured})
    lines = []
    for state in states:
        told = [f"  {what}: {text}" for at, what, text in rows if at == state and text]
        lines += [f"\n{state}", *(textwrap.fill(line, 120, subsequent_indent="    ") for line in told)]
    return "\n".join([*lines, "", pd.DataFrame(measured).to_string(index=False)])
