"""Types that several stages' parameters share, and the names of keys and models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from finr1.params.errors import did_you_mean

API_KEY = "FINR1_API_KEY"  # environment variable with the key of every endpoint that has none of its own
ANY_KEY = (API_KEY, "OPENAI_API_KEY")
RECIPE = ("base", "zero", "sft", "grpo")  # the models that the recipe makes, in the order of the benchmark's tables

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[float, Field(ge=0)]
TopP = Annotated[float, Field(gt=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
CheckOrder = Literal["standard", "with_question", "inputs_last", "with_question_inputs_last", "chinese"]
Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup", "cosine_with_restarts"]


def _known_source(name: str) -> str:
    from finr1.sources import SOURCES  # when a value is checked: an entry that was added to the table counts at once

    known = ("synthetic", *SOURCES)
    if name not in known:
        raise ValueError(f"should be one of {', '.join(known)}{did_you_mean(name, known)}")
    return name


SourceName = Annotated[str, AfterValidator(_known_source)]


def key_variable(model: str) -> str:
    """Environment variable with the key of one model of `other_models`: "DeepSeek-R1" -> FINR1_API_KEY_DEEPSEEK_R1.

    For a benchmark of several endpoints; where it is not set, the key of all endpoints is used. A role's is made alike:
    "teacher" -> FINR1_API_KEY_TEACHER.
    """
    return f"{API_KEY}_{''.join(char if char.isalnum() else '_' for char in model.strip()).upper()}"
