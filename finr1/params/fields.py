"""Types that the parameters of several stages share, and the names of keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from finr1.params.base import did_you_mean
from finr1.records import RECIPE  # noqa: F401  (parameters name the recipe's models)

API_KEY = "FINR1_API_KEY"  # environment variable with the key of every endpoint that has none of its own
ANY_KEY = (API_KEY, "OPENAI_API_KEY")

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
    """Environment variable with the key of one model or role: "DeepSeek-R1" -> FINR1_API_KEY_DEEPSEEK_R1.

    Where it is not set, the key of all endpoints is used.
    """
    return f"{API_KEY}_{''.join(char if char.isalnum() else '_' for char in model.strip()).upper()}"
