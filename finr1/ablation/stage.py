"""The ablation's own folder, `outputs/<name>/ablation`: a stage like any other, made from the seeds' benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from finr1.ablation.table import ablation_rows, ablation_steps, render
from finr1.evaluation import Sample
from finr1.manifest import write_json
from finr1.params import Params
from finr1.records import read_jsonl
from finr1.run import Run

TABLE, TEXT = "ablation.json", "ablation.txt"
HOW_TO_MAKE = (
    "No ablation yet. `python -m finr1 ablation --preset demo --seeds 42 1 2` runs all four arms and then this "
    "notebook; in another run, ablation_stage names its folder."
)


class AblationParams(Params):
    """One ablation: which preset, which seeds. Its inputs are the benchmarks of the runs `<run>_seed<seed>`."""

    stage: ClassVar[str] = "ablation"
    preset: Annotated[str, Field(min_length=1)]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("should be different seeds: one that is given twice would count as two")
        return seeds

    def input_names(self) -> dict[str, str]:
        """Parameter -> folder, for the benchmark of each seed."""
        return {f"seed{seed}_stage": f"outputs/{seed_run(self.run, seed)}/06_benchmark" for seed in self.seeds}


def seed_run(name: str, seed: int, zero: bool = False) -> str:
    """Name of the run of one seed, or of its arm without SFT."""
    return f"{name}_seed{seed}{'_zero' if zero else ''}"


def write_ablation(params: AblationParams) -> dict[str, Any]:
    """Compute the table from the seeds' samples and complete the stage. Raises MissingStage without a benchmark."""
    run = Run(params)
    folders = params.inputs()
    samples = {seed: list(read_jsonl(folders[f"seed{seed}_stage"] / "samples.jsonl", Sample)) for seed in params.seeds}
    sources = sorted({sample.source for rows in samples.values() for sample in rows})
    table = {"seeds": params.seeds, "preset": params.preset, "sources": sources,
             "rows": ablation_rows(samples), "steps": ablation_steps(samples)}  # fmt: skip
    write_json(run.path(TABLE), table)
    run.path(TEXT).write_text(render(table["rows"], table["steps"]) + "\n", encoding="utf8")
    run.finish({"rows": table["rows"], "steps": table["steps"]}, outputs=[TABLE, TEXT])
    return table


def read_ablation(folder: Path) -> dict[str, Any]:
    """{seeds, preset, sources, rows, steps} of a complete ablation; see `ablation_rows` and `ablation_steps`."""
    return json.loads((folder / TABLE).read_text("utf8"))
