"""The base of all parameter models: strict where notebooks and YAML are lax.

Each of these was seen to go wrong silently: YAML reads `1e-5` as text, `papermill -p x false` passes a truthy string,
an unknown name only logs a warning, a name that a preset omits keeps the notebook's value.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from finr1 import paths
from finr1.params.errors import ParameterError, problems_of, unknown
from finr1.params.yaml_file import read_flat_yaml, write_flat_yaml

# papermill opens each cell that it injects with this line.
_INJECTED = "# Parameters"


class Params(BaseModel):
    """Parameters of one stage: flat fields without defaults. Wrong ones raise ParameterError.

    Text may hold `{run}`, which becomes the run's name. A field whose name ends in `_stage` is an input: the folder of
    an earlier stage.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())
    stage: ClassVar[str]

    run: str  # name of the run, a plain folder name
    seed: int

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ParameterError(self.stage, problems_of(error, type(self).model_fields)) from None

    @classmethod
    def from_notebook(cls, namespace: dict[str, Any]) -> Self:
        """The parameters out of a notebook's `globals()`, and what the stage needs from the environment, checked."""
        values = {name: namespace[name] for name in cls.model_fields if name in namespace}
        if "run" in values:
            # `run = Run(params)` stands right below; running this cell again must still work.
            values["run"] = getattr(values["run"], "name", values["run"])
        injected = [name for name in _injected_names(namespace) if name not in cls.model_fields]
        if injected:
            raise ParameterError(cls.stage, [unknown(name, cls.model_fields) for name in dict.fromkeys(injected)])
        params = cls(**values)
        params.check_requirements()
        return params

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """The parameters out of a flat YAML file, as `to_yaml` and the presets have it."""
        return cls(**read_flat_yaml(path).values)

    def to_yaml(self, path: Path) -> None:
        """Write a file that `from_yaml` and `papermill -f` read back to the same parameters."""
        write_flat_yaml(path, self.model_dump())

    def input_names(self) -> dict[str, str]:
        """Parameter -> folder as written, for each input stage; of a list `x_stages`, `x_stages[0]` and so on."""
        values = self.model_dump()
        lists = {name: value for name, value in values.items() if name.endswith("_stages")}
        return {name: value for name, value in values.items() if name.endswith("_stage") and value is not None} | {
            f"{name}[{place}]": value for name, folders in lists.items() for place, value in enumerate(folders)
        }

    def inputs(self) -> dict[str, Path]:
        """Parameter -> absolute folder, for each input stage."""
        return {name: paths.resolve(value) for name, value in self.input_names().items()}

    def table(self) -> list[dict[str, Any]]:
        """Rows for the table "this run | the paper"; the paper's values and sources are `params/paper/<stage>.yaml`."""
        paper = read_flat_yaml(paths.repository_root() / "params" / "paper" / f"{self.stage}.yaml")
        return [
            {
                "parameter": name,
                "this run": value,
                "the paper": paper.values.get(name),
                "source": paper.comments.get(name, ""),
            }
            for name, value in self.model_dump().items()
        ]

    def conflicts(self) -> Iterator[str]:
        """Lines about parameters that are fine alone and not together, each with values that would work."""
        yield from ()

    def requirements(self) -> Iterator[str]:
        """Lines about what is missing outside the parameters: a key in the environment, a folder of data."""
        yield from ()

    def check_requirements(self) -> None:
        """Raise ParameterError when something outside the parameters is missing. Called right before a stage runs."""
        if missing := list(self.requirements()):
            raise ParameterError(self.stage, missing)

    @field_validator("run")
    @classmethod
    def _plain_folder_name(cls, run: str) -> str:
        allowed = run.isascii() and run.replace("-", "").replace("_", "").replace(".", "").isalnum()
        if not allowed or run[0] in ".-" or run == "cache":
            raise ValueError("should be a plain folder name: letters, digits, '-', '_', '.' (and not 'cache')")
        return run

    @model_validator(mode="before")
    @classmethod
    def _prepare(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        run = values.get("run")
        return {name: _prepared(value, cls.model_fields.get(name), run) for name, value in values.items()}

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_values_for_numbers(cls, value: Any, info: Any) -> Any:
        # pydantic takes True for 1; here it is a slip.
        field = cls.model_fields[info.field_name]
        if isinstance(value, bool) and (_accepts(field, int) or _accepts(field, float)):
            raise ValueError("should be a whole number" if _accepts(field, int) else "should be a number")
        return value

    @model_validator(mode="after")
    def _no_conflicts(self) -> Self:
        if found := list(self.conflicts()):
            raise ValueError("\n".join(found))
        return self


def _accepts(field: FieldInfo, kind: type) -> bool:
    annotation = field.annotation
    is_union = get_origin(annotation) in (types.UnionType, Union)
    return kind in (get_args(annotation) if is_union else (annotation,))


def _prepared(value: Any, field: FieldInfo | None, run: Any) -> Any:
    """`value` as pydantic should see it: `{run}` filled in, and `None` where papermill could only pass the word."""
    if isinstance(value, list):
        return [_prepared(entry, None, run) for entry in value]
    if not isinstance(value, str):
        return value
    if field is not None and _accepts(field, types.NoneType) and value.lower() in ("none", "null", "~"):
        return None
    return value.replace("{run}", run) if isinstance(run, str) else value


def _injected_names(namespace: dict[str, Any]) -> Iterator[str]:
    """Names that papermill assigned: it knows no schema, so a typo would otherwise vanish in the namespace."""
    for source in namespace.get("In", []):
        if source.startswith(_INJECTED):
            for node in ast.parse(source).body:
                if isinstance(node, ast.Assign):
                    yield from (target.id for target in node.targets if isinstance(target, ast.Name))
