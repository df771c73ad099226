"""A preset's plan: memory of each training phase on one GPU, and work with hours and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from finr1.params import STAGES, ParameterError, Params
from finr1.paths import preset_names
from finr1.plan.memory import GIB, grpo_memory, sft_memory
from finr1.plan.shapes import shape_of
from finr1.plan.work import CHARS_PER_TOKEN, PAGE_CHARS, SYNTHETIC_PROMPT, Assumptions, Work, cost_rows, plan_work

_LONG_PAGE = 3  # the longest page of FinQA is about three times the median


@dataclass(frozen=True)
class Plan:
    """What a preset needs. `memory`: phase -> part -> GiB for each process; `costs`: one row a kind of work."""

    preset: str
    gpus: int  # that the larger of SFT and GRPO asks for; 0: planned for a CPU
    memory: dict[str, dict[str, float]]
    work: list[Work]
    costs: list[dict[str, Any]]
    assumptions: Assumptions
    sampled_gib: float  # 16-bit weights that each vLLM process has to hold

    @property
    def vllm_gib(self) -> float:
        """GiB that colocated vLLM gets; 0 without it."""
        return self.memory["05 GRPO generate"]["vLLM"]

    @property
    def peak_gib(self) -> float:
        """GiB that one process needs in the phase that needs most."""
        return max(sum(parts.values()) for parts in self.memory.values())


def read_preset(preset: str, changes: Sequence[str] = ()) -> dict[str, Params]:
    """The parameters of every stage of `params/<preset>`, with `[STAGE.]NAME=VALUE` changed.

    Raises ParameterError for an unknown preset, a wrong name or a wrong value.
    """
    from finr1.pipeline import load_preset

    return load_preset(preset, preset, list(STAGES), changes)


def make_plan(preset: str, changes: Sequence[str] = (), gpu: bool | None = None) -> Plan:
    """Plan `preset`; `changes` are parameters (`05_grpo.max_steps=10`) or assumptions (`mfu_train=0.3`).

    `gpu`: for GPUs or for a CPU; None: for GPUs where the preset trains more than a billion parameters.
    """
    names = {field.name for field in fields(Assumptions)}
    pairs = dict(change.partition("=")[::2] for change in changes)
    assumptions = Assumptions().changed(pairs)
    presets = read_preset(preset, [change for change in changes if change.partition("=")[0] not in names])
    sft, grpo = presets["04_sft"], presets["05_grpo"]
    shape = shape_of(sft.model_name_or_path)
    if gpu is None:
        gpu = shape.parameters > 1e9
    gpus = max(sft.num_processes, grpo.num_processes) if gpu else 0
    phases = grpo_memory(shape, grpo, assumptions.gpu_gib if gpu else None, longest_prompt(presets))
    memory = {"04 SFT": sft_memory(shape, sft, gpu, longest_row(presets))}
    memory |= {f"05 GRPO {phase}": parts for phase, parts in phases.items()}
    work = plan_work(presets, assumptions)
    sampled = 2 * shape.parameters / GIB
    return Plan(preset, gpus, memory, work, cost_rows(work, assumptions, gpus or 1), assumptions, sampled)


def longest_prompt(presets: dict[str, Params]) -> int:
    """Tokens of a long prompt: the whole page where it is cut, three median pages where it is not."""
    data = presets["01_data"]
    if not set(data.source_names) & {"finqa", "convfinqa"}:
        return 2 * SYNTHETIC_PROMPT
    return SYNTHETIC_PROMPT + int((data.max_context_chars or _LONG_PAGE * PAGE_CHARS) / CHARS_PER_TOKEN)


def longest_row(presets: dict[str, Params]) -> int:
    """Tokens of the longest row of SFT: `max_length`, or less where the teacher cannot write so much."""
    teacher = presets["02_distillation"]
    written = 4 * SYNTHETIC_PROMPT if teacher.teacher_backend in ("scripted", "derived") else teacher.max_tokens
    return min(presets["04_sft"].max_length, longest_prompt(presets) + written)


def fits_here(count: int, gib: float) -> list[dict[str, Any]]:
    """One row a preset: GiB that it needs for each process, and whether `count` GPUs (0: a CPU) of `gib` have that.

    A preset that can't be planned (a model of an unknown shape, a wrong parameter) has None for all of it.
    """
    rows = []
    for preset in preset_names():
        try:
            found = make_plan(preset, [f"gpu_gib={gib}"] if count else [], gpu=count > 0)
        except (ParameterError, ValueError):  # another preset's fault must not end this one's plan
            rows.append({"preset": preset, "processes": None, "GiB each": None, "fits": None})
            continue
        processes = max(count and found.gpus, 1)
        fits = found.peak_gib <= gib and (count == 0 or found.gpus <= count)
        rows.append({"preset": preset, "processes": processes, "GiB each": found.peak_gib, "fits": fits})
    return rows


def advice(plan: Plan, count: int, gib: float) -> list[str]:
    """What to know before this plan is run on `count` GPUs (0: a CPU) of `gib` GiB, in a few lines."""
    size = plan.gpus or 1
    phase, parts = max(plan.memory.items(), key=lambda item: sum(item[1].values()))
    part = max(parts, key=parts.get)
    lines = [f"{phase} needs most: {plan.peak_gib:.1f} GiB in each process, {parts[part]:.1f} of them for {part}"]
    if plan.gpus and not count:
        lines.append("this machine has no GPU: a model of this size will not train here in reasonable time")
    elif plan.gpus > count:
        lines.append(f"the preset asks for {size} GPUs, here are {count}: lower num_processes")
    elif plan.peak_gib > gib:
        lines.append(f"here are {gib:.0f} GiB: lower per_device_train_batch_size or lengths, or use LoRA or QLoRA")
    if plan.gpus and plan.peak_gib > plan.assumptions.gpu_gib:
        lines.append(f"more than the {plan.assumptions.gpu_gib:.0f} GiB assumed for a GPU")
    if plan.vllm_gib and plan.vllm_gib < plan.sampled_gib:
        lines.append(
            f"vLLM's {plan.vllm_gib:.1f} GiB do not hold the {plan.sampled_gib:.1f} GiB of weights: raise "
            "vllm_gpu_memory_utilization or vllm_tensor_parallel_size"
        )
    if not plan.gpus:
        lines.append("without a GPU: sampling uses a bf16 copy of the policy, fastest on CPUs")
    return lines
