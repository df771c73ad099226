"""The base of all parameter models: strict where notebooks and YAML are lax. What is wrong is said in words.

These go wrong silently elsewhere: YAML reads `1e-5` as text, `papermill -p x false` passes a truthy string, an unknown
name is a line in a log, a name that a preset omits keeps the notebook's value.
"""

import difflib
import importlib.util
import re
import textwrap
from collections.abc import Iterable, Iterator
from functools import partial
from os.path import exists  # False, too, for what no file is called
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, NamedTuple, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from finr1 import paths
from finr1.generation.endpoint import addresses

Wrong = Iterator[tuple[str, str]]  # pairs of a parameter's name and what would be right
NEEDED = paths.data_beside(__file__, "needed.yaml")


class ParameterError(paths.MessageAlone, ValueError):
    """One or more wrong parameters of one stage; `problems` holds a line or more for each."""

    def __init__(self, where: str, problems: Iterable[str]):
        self.problems = list(problems)
        super().__init__("\n  ".join([f"wrong parameters for {where}", *self.problems]))


class Params(BaseModel):
    """Parameters of one stage: flat fields without defaults. Wrong ones raise ParameterError.

    `{run}` in a text becomes the run's name. A field whose name ends in `_stage` is an input, a stage's folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    stage: ClassVar[str]
    role: ClassVar[str]  # "teacher", "judge" or "verifier": the first word of the parameters of a model at an endpoint

    run: str  # name of the run, a plain folder name
    seed: Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy takes

    def __init_subclass__(cls, stage: str = "", role: str = "", **settings: Any):
        super().__init_subclass__(**settings)
        cls.stage, cls.role = stage, role

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ParameterError(self.stage, _problems(error, type(self).model_fields)) from None

    @classmethod
    def from_notebook(cls, namespace: dict[str, Any]) -> Self:
        """The parameters out of a notebook's `globals()`, checked, and so is what they need from outside of them."""
        values = {name: namespace[name] for name in cls.model_fields if name in namespace}
        if "run" in values:
            # `run = Run(params)` stands right below; running this cell again must still work.
            values["run"] = getattr(values["run"], "name", values["run"])
        # The cells of settings, of parameters and of papermill, as they ran last: a typo in them would change nothing.
        found = [(re.search(r"^run *= *(?=[\"'])|^run = above|^# Parameters", cell, re.MULTILINE), cell)
                 for cell in namespace.get("In", [])]  # fmt: skip
        cells = {match[0].replace(" ", ""): cell for match, cell in found if match}
        if "#Parameters" not in cells:  # a person runs this notebook
            values |= _of_the_demo(values)
        unknown = set(re.findall(r"^(\w+) *=(?!=)", "\n".join(cells.values()), re.MULTILINE)) - cls.model_fields.keys()
        params = cls(**values | {name: namespace.get(name) for name in sorted(unknown)})
        if missing := params.requirements():
            raise ParameterError(cls.stage, missing)
        return params

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """The parameters out of a flat YAML file, such as a preset's."""
        return cls(**read_flat_yaml(path).values)

    def to_yaml(self, path: Path) -> None:
        """Write a file that `from_yaml` and `papermill -f` read back to the same parameters; floats keep a point."""
        values = self.model_dump()
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=1000)
        with paths.replacing(path) as file:
            file.write(text.encode())

    def input_names(self) -> dict[str, str]:
        """Parameter -> folder as written, for each input stage."""
        return {name: folder for name, folder in self.model_dump().items() if name.endswith("_stage") and folder}

    def inputs(self) -> dict[str, Path]:
        """Parameter -> absolute folder, for each input stage."""
        return {name: paths.resolve(value) for name, value in self.input_names().items()}

    def table(self) -> list[dict[str, str]]:
        """One row per parameter that differs from preset `paper`, and whether the paper, or its README, states that."""
        values, sources = read_flat_yaml(paths.repository_root() / "params" / "paper" / f"{self.stage}.yaml")
        short, rows = partial(textwrap.shorten, width=48, placeholder=" ..."), []
        for name, value in self.model_dump().items():
            if name == "run" or name.endswith("_stage") or value == values[name]:
                continue
            stated = re.match(r"(paper|README)\b(?!.*(not stated|\bours\b))", sources[name])
            where = {"paper": "yes: ", "README": "its README: "}[stated[1]] if stated else "no"
            chosen = short(str(values[name]))
            rows.append({"parameter": name, "this run": short(str(value)), "preset paper": chosen,
                         "does the paper state it?": where + chosen * bool(stated)})  # fmt: skip
        return rows

    def conflicts(self) -> Wrong:
        """Parameters that are fine one by one and not together, each with values that would work."""
        if 0 < getattr(self, "temperature", 1) < 0.01:
            yield "temperature", "0 (greedy), or at least 0.01, would work: below, logits overflow"

    def missing(self) -> Wrong:
        """Parameters that need something outside of them: a package, a key in the environment, a folder of data."""
        for name, value, package, _, advice in NEEDED:
            if getattr(self, name, None) == value and importlib.util.find_spec(package) is None:
                yield name, advice

    def requirements(self) -> list[str]:
        """Lines about what is missing outside the parameters."""
        return self._lines(self.missing())

    def _lines(self, wrong: Wrong) -> list[str]:
        return [f"{_shown(name, getattr(self, name))}: {advice}" for name, advice in wrong]

    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: Any, info: Any) -> Any:
        """`value` as pydantic should see it: `{run}` filled in, None where papermill could only pass the word."""
        annotation = cls.model_fields[info.field_name].annotation
        kinds = [getattr(kind, "__origin__", kind) for kind in (annotation, *get_args(annotation))]
        if isinstance(value, str) and NoneType in kinds and value.lower() in ("none", "null", "~"):
            return None
        items = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(item, str) and items.count(item) > 1 for item in items):
            raise ValueError("should name each one once")
        for item in items:
            if type(item) is bool and {int, float}.intersection(kinds):
                raise ValueError("should be a number")  # pydantic takes True for 1
            if type(item) in (int, float) and bool in kinds:
                raise ValueError("should be true or false")  # ... and 1 for True
            if isinstance(item, str) and info.field_name != "run":  # which is stricter
                _check_text(item, info.field_name.endswith("_url"))
        if info.field_name == "preset" and value and value not in (known := paths.preset_names()):
            raise ValueError(f"no such preset{did_you_mean(str(value), known)}; there are: {', '.join(known)}")
        run = info.data.get("run", "{run}")  # the first field, so it is known by now
        return value.replace("{run}", run) if isinstance(value, str) else value

    @field_validator("run")
    @classmethod
    def _plain_folder_name(cls, run: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", run) or run.lower() == "cache":
            form = "letters, digits, '-', '_', '.', at most 100 of them (and not 'cache')"
            raise ValueError(f"should be a plain folder name: {form}")
        return run

    @model_validator(mode="after")
    def _no_conflicts(self) -> Self:
        if lines := self._lines(self.conflicts()):
            raise ValueError("\n".join(lines))
        return self


def _check_text(text: str, is_url: bool) -> None:
    """Raise ValueError for what no file, model or server is called, and for an address that may hold a key."""
    if re.search("[\x00-\x1f\x7f\ud800-\udfff]", text) or any(len(part.encode()) > 255 for part in text.split("/")):
        raise ValueError("should be one line of text, with at most 255 bytes between two slashes")
    where = text if is_url else text.partition(" {")[0]  # behind a model's address may stand its `extra`
    address = "://" in where and where[re.search(r"[\w+.-]*://", where).start() :]
    if is_url or address:
        addresses(address or where)  # several are replicas
    if re.search(r"(api[-_]?key|secret|password|authorization|bearer)\W{0,2}[:=]", text, re.IGNORECASE):
        raise ValueError("holds a key, which would be stored: keys come from the environment alone")


def _of_the_demo(values: dict[str, Any]) -> dict[str, str]:
    """Input stages that a person's run does not have, as `make demo` has made them; says so."""
    taken, run = {}, str(values.get("run"))
    for name, at in values.items():
        if name.endswith("_stage") and "{run}" in str(at) and not exists(paths.resolve(at.replace("{run}", run))):
            if exists(paths.resolve(demo := at.replace("{run}", "demo"))):
                taken[name] = demo
    if taken:
        print(f"outputs/{run} has no stages of its own for these yet, so it starts from {', '.join(taken.values())}")
    return taken


def quoted(value: Any) -> str:
    """A value as an error shows it: text in double quotes, on one line, long ones cut."""
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    text = "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in text)
    return text if len(text) <= 80 else text[:77] + "..."


def _shown(name: str, value: Any) -> str:
    """A parameter with its value, unless it is a request's body: somebody may have put a key there."""
    return name if name.endswith("_extra") or "{" in str(value) else f"{name} = {quoted(value)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean x?`, or nothing when no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _problems(error: ValidationError, known: Iterable[str]) -> list[str]:
    """pydantic's errors as our lines, in the order of the fields."""
    lines: list[str] = []
    for entry in error.errors():
        name = "".join(f"[{part}]" if isinstance(part, int) else str(part) for part in entry["loc"])
        kind, given = entry["type"], entry["input"]
        advice = entry["msg"].removeprefix("Input ").removeprefix("Value error, ")
        if kind == "extra_forbidden":  # its value is left out: it may be a key that somebody put there
            is_key = re.search(r"key|secret|password", name, re.IGNORECASE)
            hint = "; keys are read from the environment and never are parameters" if is_key else None
            lines.append(f"{name}: unknown parameter{hint or did_you_mean(name, known)}")
        elif kind == "missing":
            lines.append(f"{name}: missing; every parameter must be given a value")
        elif kind == "value_error" and not name:  # of a check across fields: it has named them already
            lines += advice.split("\n")
        elif "bare address" in advice or "holds a key" in advice:
            lines.append(f"{name}: {advice}")
        else:
            lines.append(f"{_shown(name, given)}: {advice}")
    return lines


class FlatYaml(NamedTuple):
    """A parameter file with one `name: value  # comment` a line, as plain `papermill -f` reads it, too."""

    values: dict[str, Any]
    comments: dict[str, str]


def read_flat_yaml(path: Path) -> FlatYaml:
    """Read a parameter file; raises ParameterError also for a name given twice, of which PyYAML takes the second."""
    try:
        text = Path(path).read_text("utf8")
        values = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: no UTF-8, a date that is none
        raise ParameterError(str(path), [f"not readable as YAML: {error}"]) from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ParameterError(str(path), ["should hold one `name: value` a line"])
    lines = re.findall(r"^(\w+):.*?(?:  # (.*))?$", text, re.MULTILINE)
    names = [name for name, _ in lines]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ParameterError(str(path), [f"{name}: given twice" for name in twice])
    return FlatYaml(values, dict(lines))
