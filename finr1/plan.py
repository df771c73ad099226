"""A preset before anything is spent: GiB by process (benchmarks/plan_calibration.py), tokens, FLOPs, hours, cost."""

import argparse
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from finr1.models import native_dtype, resolve_model
from finr1.params import STAGES, GRPOParams, Params, TrainingParams
from finr1.paths import cache_dir, data_beside
from finr1.pipeline import load_preset

GIB = 2**30
CUDA_CONTEXT, CPU_PROCESS = 1.0, 0.75  # GiB of a process without any model; the second is measured, with torch and TRL
HEAD_TILE = 4096 * 32768  # logits that TRL computes at once on a GPU: trl/kernels/chunked_logprob.py
CHAT, SOLUTION, VERDICT = 75, 55, 150  # mean tokens: of a synthetic problem and its solution (measured), of a judge
PAGE_CHARS, CHARS_PER_TOKEN = 4000, 3.5  # median page of FinQA, whose longest is three times as long; both measured
PAGES = {"finqa", "convfinqa"}  # sources whose questions come with a page of a report
SCRIPTED = ("scripted", "derived")  # teachers that are no model

_STATED = data_beside(__file__, "plan.yaml")
ASSUMED, KNOWN = _STATED["assumed"], _STATED["shapes"]


class Shape(NamedTuple):
    """A decoder with grouped-query attention and a gated MLP (Llama, Qwen), as its config.json states it."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool  # the head is the embedding
    head_size: int

    @property
    def linear_parameters(self) -> int:
        """Parameters of all blocks' q, k, v, o, gate, up and down: what QLoRA stores in 4 bits."""
        attention = 2 * (self.heads + self.kv_heads) * self.head_size
        return self.layers * self.hidden * (attention + 3 * self.intermediate)

    @property
    def parameters(self) -> int:
        """All parameters but norms and biases, which are less than a thousandth."""
        return self.linear_parameters + self.vocabulary * self.hidden * (1 if self.tied else 2)


def shape_of(model: str) -> Shape | None:
    """Shape of a model folder or a hub id: known, or read from its config without asking the hub; None: unknown."""
    if known := KNOWN.get(model) or KNOWN.get(model.rpartition("/")[2].removesuffix("-Instruct")):
        return Shape(**known)
    from transformers import AutoConfig

    try:
        asked = {"local_files_only": True, "trust_remote_code": False}
        text = AutoConfig.from_pretrained(resolve_model(model, cache_dir()), **asked).get_text_config()
        head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        shape = Shape(text.num_hidden_layers, text.hidden_size, text.intermediate_size, text.num_attention_heads,
                      text.num_key_value_heads, text.vocab_size, text.tie_word_embeddings, head_size)  # fmt: skip
    except (OSError, ValueError, KeyError, AttributeError):  # no config here, or of a kind without these sizes
        return None
    return None if any("expert" in name for name in text.to_dict()) else shape  # formulas for one dense MLP in a block


def training_memory(shape: Shape, params: TrainingParams, prompt: float, length: float, gpu_gib: float | None) -> dict:
    """GiB by part in each process that trains on rows of `length` tokens, `prompt` of them given; `gpu_gib`: of a GPU.

    Weights, gradients and Adam's moments in fp32 are 4, 4 and 8 bytes for each parameter, split over the processes but
    by DDP (ZeRO, arXiv 1910.02054; its bf16 moves bytes from part to part, not in sum). QLoRA (arXiv 2305.14314) has
    4.127 bits for each weight of a block, the rest in 16. LoRA (arXiv 2106.09685) is on every linear layer of a block.
    A block keeps for each token (arXiv 2205.05198), in units of `hidden`: 16 bytes for norms and residuals in fp32;
    queries, keys, values and attention's output; five copies by autocast. A CPU (no `gpu_gib`) keeps attention, too.
    """
    from finr1.cpu import PREFILL_TOKENS, SCORED_AT_ONCE

    bf16 = params.bf16 and (gpu_gib or native_dtype() == "bfloat16")
    size, width = shape.parameters, 2 if bf16 else 4
    shards, full = 1 if params.distributed == "ddp" else params.num_processes, params.peft == "full"
    tokens = params.per_device_train_batch_size * length
    heads = 2 * (shape.heads + shape.kv_heads) * shape.head_size
    trained = size if full else shape.layers * params.lora_r * (7 * shape.hidden + heads + 3 * shape.intermediate)
    nf4 = shape.linear_parameters * 0.516 + (size - shape.linear_parameters) * 2
    frozen = {"full": 0, "lora": size * (width if gpu_gib else 4), "qlora": nf4}[params.peft]
    weights = (frozen + 4 * trained) / shards
    if full and bf16 and shards == 1:
        weights += 2 * size  # autocast's copies, kept for the backward pass

    block = shape.hidden * (16 + (9 if bf16 else 4) * width) + shape.intermediate * 4 * width
    block += 0 if gpu_gib else shape.heads * length * (4 + width)  # attention without sdpa: in fp32 and again
    # With checkpointing each block's input, and one block computed again.
    blocks = shape.layers * shape.hidden * 4 + block if params.gradient_checkpointing else shape.layers * block
    if gpu_gib:  # one tile of logits, and the head's gradient
        logits = HEAD_TILE * width + (4 * shape.vocabulary * shape.hidden if full else 0)
    else:  # logits, in fp32, their log-softmax, and the gradients of the two
        logits = min(tokens, SCORED_AT_ONCE) * shape.vocabulary * (2 * width + 12)
    activations, vllm = tokens * blocks + logits, 0.0
    if isinstance(params, GRPOParams):
        if params.beta and full:  # the reference model; with an adapter it is the policy with the adapter off
            weights += 4 * size / shards
        if params.use_vllm and gpu_gib:  # taken whole, at the start
            vllm = params.vllm_gpu_memory_utilization * gpu_gib * GIB
        else:  # it samples first: keys and values of all rows, and the prompts in one block
            cache = 2 * shape.layers * shape.kv_heads * shape.head_size * width * length
            rows = params.per_device_train_batch_size * params.gradient_accumulation_steps
            copy = size * width if shards > 1 or not gpu_gib else 0  # whole weights; on a CPU our copy samples
            activations = max(activations, rows * (cache + min(prompt, PREFILL_TOKENS) * block) + copy)
    parts = {"weights": weights, "gradients": 4 * trained / shards, "optimizer": 8 * trained / shards,
             "activations": activations, "vLLM": vllm}  # fmt: skip
    return {"process": CUDA_CONTEXT if gpu_gib else CPU_PROCESS} | {name: n / GIB for name, n in parts.items()}


def forward_flops(shape: Shape | None, length: float) -> float:
    """FLOPs of a token in a row of `length`: 2 N (arXiv 2001.08361), and attention (arXiv 2204.02311, appendix B)."""
    return math.nan if shape is None else 2 * shape.parameters + 4 * shape.layers * shape.hidden * length / 2


def work_table(stages: dict[str, Params], prompt: float, assumed: dict[str, float], gpus: int) -> list[dict[str, Any]]:
    """One row per kind of work, in order: tokens, FLOPs, hours on `gpus` GPUs, cost; `prompt` is the mean in tokens.

    Teacher and judge cost what 02 says an endpoint asks, wherever they run. The looks of 04 and 05 are left out.
    """
    data, teacher, judge, sft, grpo, benchmark = (stages[name] for name in list(STAGES)[1:7])
    shape, scripted = shape_of(sft.model_name_or_path), teacher.teacher_backend in SCRIPTED
    answer = SOLUTION if scripted else min(assumed["reasoning_tokens"], teacher.max_tokens)
    traces = data.num_train * teacher.num_samples
    # A judge is asked about answer and reasoning of each trace, and in five orders in the study.
    asked = 2 * traces + 5 * judge.study_items if judge.judge_backend == "endpoint" else 0
    rows = sft.max_steps * sft.batch_size if sft.max_steps > 0 else sft.num_train_epochs * min(judge.num_sft, traces)
    updated, written = grpo.max_steps * grpo.batch_size, min(answer, grpo.max_completion_length)
    sampled = updated / grpo.num_iterations + grpo.pass_rate_candidates * grpo.pass_rate_samples
    models = 3 + (benchmark.zero_stage is not None) + len(benchmark.other_models)  # base, SFT, GRPO and others
    benchmarks = len(data.benchmark_names) if benchmark.sampling == "paper" else 1
    answers = models + (models - 1) * benchmark.num_samples  # of an item; the base answers greedily alone
    items = benchmark.num_items * benchmarks * answers
    # A trained token costs three forward passes, two with a frozen base, and one more with checkpointing.
    passes, again = ((3 if of.peft == "full" else 2) + of.gradient_checkpointing for of in (sft, grpo))
    work = [  # stage, rows, and in each row the tokens read, written and trained (in so many passes)
        ("02 teacher", 0 if scripted else traces, prompt, answer, 0, 0),
        ("03 judge", asked, prompt + answer, VERDICT, 0, 0),
        ("04 SFT", rows, 0, 0, min(prompt + answer, sft.max_length), passes),
        ("05 GRPO samples", sampled, prompt, written, 0, 0),  # those for the pass rates, too
        ("05 GRPO update", updated, prompt + written if grpo.beta else 0, 0, prompt + written, again),
        ("06 benchmark", items, prompt, min(answer, benchmark.max_tokens), 0, 0),
    ]
    table, peak = [], assumed["gpu_tflops"] * 3600 / 1e6  # exaFLOPs in an hour
    for stage, rows, read, written, trained, passes in work:
        cost = flops = writing = 0.0
        if stage < "04":  # teacher and judge
            cost = rows * (read * teacher.prompt_price + written * teacher.completion_price) / 1e6
        else:
            flops = rows * (read * forward_flops(shape, read) + passes * trained * forward_flops(shape, trained)) / 1e18
            writing = rows * written * forward_flops(shape, 2 * read + written) / 1e18
        hours = (flops / assumed["mfu_train"] + writing / assumed["mfu_decode"]) / peak
        table.append({
            "stage": stage, "read": rows * read, "written": rows * written, "trained": rows * trained,
            "exaFLOPs": flops, "exaFLOPs writing": writing, "hours": hours / gpus,
            "cost": cost + hours * assumed["gpu_hour_price"],
        })  # fmt: skip
    return table


def make_plan(preset: str, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Plan `preset`, for GPUs where it trains more than a billion parameters, else for a CPU (`gpus` is 0).

    `changes` are parameters (`05_grpo.max_steps=10`) or assumptions (`mfu_train=0.3`). `memory` is by stage and part,
    in each process; for a model of unknown shape it is empty, and `peak_gib` NaN. Raises ValueError for a wrong change.
    """
    pairs = {change: change.partition("=")[::2] for change in changes}
    assumed = ASSUMED | {name: float(value) for name, value in pairs.values() if name in ASSUMED}
    for name, value in assumed.items():
        if not (0 < value < math.inf or (name, value) == ("gpu_hour_price", 0.0)):
            raise ValueError(f"{name} = {value}: should be above 0, and finite")
    stages = load_preset(preset, preset, list(STAGES), [c for c, (name, _) in pairs.items() if name not in ASSUMED])
    data, teacher, sft, grpo = (stages[name] for name in ("01_data", "02_distillation", "04_sft", "05_grpo"))
    shape, processes = shape_of(sft.model_name_or_path), max(sft.num_processes, grpo.num_processes)
    on_gpu = shape.parameters > 1e9 if shape else processes > 1 or grpo.use_vllm
    gpus, gpu_gib = (processes, assumed["gpu_gib"]) if on_gpu else (0, None)

    page, longest = 0.0, 2.0 * CHAT  # tokens of the mean page and of the longest prompt
    if PAGES & set(data.source_names):
        page = (data.max_context_chars or PAGE_CHARS) / CHARS_PER_TOKEN
        longest = CHAT + page * (1 if data.max_context_chars else 3)
    answer, memory = (6 * SOLUTION if teacher.teacher_backend in SCRIPTED else teacher.max_tokens), {}
    if shape:
        memory = {"04 SFT": training_memory(shape, sft, longest, min(sft.max_length, longest + answer), gpu_gib)}
        memory["05 GRPO"] = training_memory(shape, grpo, longest, longest + grpo.max_completion_length, gpu_gib)
    peak = max((sum(parts.values()) for parts in memory.values()), default=math.nan)
    costs = work_table(stages, CHAT + page, assumed, max(gpus, 1))
    return {"gpus": gpus, "peak_gib": peak, "memory": memory, "costs": costs, "assumptions": assumed}


def print_plan(options: argparse.Namespace) -> int:
    """Print the plan."""
    import pandas as pd

    plan = make_plan(options.preset, options.set)
    memory, costs = pd.DataFrame(plan["memory"]), pd.DataFrame(plan["costs"]).set_index("stage")
    memory.loc["all"], costs.loc["all"] = memory.sum(), costs.sum(skipna=False)
    print(f"GiB in each process, on {plan['gpus']} GPUs (0: a CPU)")
    print(memory.round(2) if plan["memory"] else "unknown")
    print("\nTokens, FLOPs, hours and money\n" + costs.to_string(float_format="{:,.2f}".format, na_rep="unknown"))
    print("\nAssumed, --set changes them:", *(f"{name}={value:g}" for name, value in plan["assumptions"].items()))
    return 0
