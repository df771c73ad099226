"""A stage that asks a model, perhaps behind an endpoint: what has to be there before it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

from finr1.params.base import Params
from finr1.params.fields import ANY_KEY, API_KEY, key_variable


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

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        asks_endpoint = self.backend == "endpoint"
        if asks_endpoint or self.backend in ("transformers", "vllm"):
            needed = {f"{self.role}_model": "the model's name" if asks_endpoint else "a hub id or a folder"}
            if asks_endpoint:
                needed[f"{self.role}_base_url"] = "a URL such as http://HOST:PORT/v1"
            for name, what in needed.items():
                if getattr(self, name) is None:
                    yield f'{name} = None: {self.role}_backend = "{self.backend}" needs {what}'

    def requirements(self) -> Iterator[str]:
        yield from super().requirements()
        own = key_variable(self.role)
        if self.backend == "endpoint" and not any(os.environ.get(key) for key in (own, *ANY_KEY)):
            yield (
                f'{self.role}_backend = "endpoint": the environment variable {API_KEY} is not set; '
                f"`export {API_KEY}=...` (any text for a server that asks for no key), or {own} for this role only"
            )
