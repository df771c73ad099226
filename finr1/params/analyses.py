"""Parameters of the notebooks that a person runs once: 09 (several trainings) and 10 (two runs side by side)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field

from finr1 import paths
from finr1.params.base import Params, did_you_mean
from finr1.params.fields import Text


class AblationParams(Params):
    """09_ablation: arms (named sets of changed parameters, see the notebook) times seeds."""

    stage: ClassVar[str] = "09_ablation"
    num_seeds: Annotated[int, Field(ge=1)]  # seed, seed + 1, ...
    preset: Text  # that every arm changes
    arms: Annotated[list[Text], Field(min_length=2)]  # the first is what the others are compared with
    changes: list[Text]  # [STAGE.]NAME=VALUE in every arm

    @property
    def seeds(self) -> list[int]:
        """The seed of each training, data included."""
        return [self.seed + place for place in range(self.num_seeds)]

    def input_names(self) -> dict[str, str]:
        """The benchmark of each seed, which the notebook makes."""
        return {f"seed{seed}": f"outputs/{self.run}-{seed}/06_benchmark" for seed in self.seeds}

    def conflicts(self) -> Iterator[str]:
        if len(set(self.arms)) < len(self.arms):
            yield f"arms = {self.arms}: each arm once"
        for change in self.changes:
            if change.partition("=")[0].rpartition(".")[2] == "seed":
                yield f'changes, "{change}": seed and num_seeds name the seeds of all stages'


class CompareParams(Params):
    """10_compare: two runs that have a benchmark. A run is a folder of outputs/, or a path."""

    stage: ClassVar[str] = "10_compare"
    run_a: Text
    run_b: Text

    def input_names(self) -> dict[str, str]:
        """Both benchmarks."""
        runs = {"run_a": self.run_a, "run_b": self.run_b}
        return {name: str(paths.run_folder(run) / "06_benchmark") for name, run in runs.items()}

    def requirements(self) -> Iterator[str]:
        known = sorted(path.parent.name for path in paths.outputs_root().glob("*/06_benchmark"))
        for name, run in (("run_a", self.run_a), ("run_b", self.run_b)):
            if not paths.run_folder(run).is_dir():
                there = f"runs with a benchmark: {', '.join(known) or 'none'}"
                yield f'{name} = "{run}": no such run{did_you_mean(run, known)}; {there}'
