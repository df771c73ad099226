"""What the parameters of several stages share: types, the names of keys, and a model that is asked at an endpoint."""

from __future__ import annotations

import os
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from finr1.params.base import Params, Wrong, did_you_mean

API_KEY = "FINR1_API_KEY"  # environment variable with the key of every endpoint that has none of its own

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
AtLeastTwo = Annotated[int, Field(ge=2)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
AboveZero = Annotated[float, Field(gt=0)]
TopP = Annotated[float, Field(gt=0, le=1)]
Text = Annotated[str, Field(min_length=1)]


def _known_source(name: str) -> str:
    from finr1.sources import SOURCES  # when a value is checked: an entry that was added to the table counts at once

    known = ("synthetic", *SOURCES)
    if name not in known:
        raise ValueError(f"should be one of {', '.join(known)}{did_you_mean(name, known)}")
    return name


SourceName = Annotated[str, AfterValidator(_known_source)]


def key_variable(model: str) -> str:
    """Environment variable with the key of one model or role: "DeepSeek-R1" -> FINR1_API_KEY_DEEPSEEK_R1.

    Where it is not set, the key of all endpoints is used.
    """
    return f"{API_KEY}_{''.join(char if char.isalnum() else '_' for char in model.strip()).upper()}"


def missing_key(model: str) -> str | None:
    """What to do where the environment holds no key for a model or role; None where it does."""
    own = key_variable(model)
    if any(os.environ.get(name) for name in (own, API_KEY, "OPENAI_API_KEY")):
        return None
    export = f"`export {API_KEY}=...` (any text for a server that asks for no key), or {own} for it only"
    return f"the environment variable {API_KEY} is not set; {export}"


class EndpointParams(Params):
    """What distillation, filtering, GRPO and the benchmark share: a model that is asked, perhaps behind an endpoint."""

    role: ClassVar[str]  # "teacher", "judge" or "verifier": the first word of its parameters

    @property
    def backend(self) -> str:
        """The value of `<role>_backend`: "endpoint", or what answers in its place."""
        return getattr(self, f"{self.role}_backend")

    @property
    def key_env(self) -> str:
        """Environment variable with this role's key: its own (FINR1_API_KEY_TEACHER) where set, else FINR1_API_KEY.

        Teacher, judge and verifier may sit with three providers, and none is to see the others' keys.
        """
        own = key_variable(self.role)
        return own if os.environ.get(own) else API_KEY

    def conflicts(self) -> Wrong:
        yield from super().conflicts()
        needed = {"endpoint": ("model", "base_url"), "transformers": ("model",), "vllm": ("model",)}
        for name in (f"{self.role}_{part}" for part in needed.get(self.backend, ())):
            if getattr(self, name) is None:
                example = "a URL such as http://HOST:PORT/v1" if name.endswith("url") else "a name, hub id or folder"
                yield name, f'{self.role}_backend = "{self.backend}" needs {example}'

    def missing(self) -> Wrong:
        yield from super().missing()
        if self.backend == "endpoint" and (advice := missing_key(self.role)):
            yield f"{self.role}_backend", advice
