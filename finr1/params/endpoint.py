"""A stage that asks a model, perhaps behind an endpoint: what has to be there before it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

from finr1.params.base import Params
from finr1.params.fields import ANY_KEY, API_KEY, key_variable

_ENDPOINT_NEEDS = {"model": "the model's name", "base_url": "a URL such as http://HOST:PORT/v1"}


class EndpointParams(Params):
    """What distillation, filtering and GRPO share: a model that is asked, perhaps behind an endpoint."""

    role: ClassVar[str]  # "teacher", "judge" or "verifier": the first word of its parameters

    def endpoint(self) -> tuple[str, dict[str, str | None]] | None:
        """Parameter that asks for the endpoint and the parameters that it needs; None when none is asked for."""
        asking = f"{self.role}_backend"
        needed = {name: getattr(self, name) for name in (f"{self.role}_model", f"{self.role}_base_url")}
        return (asking, needed) if getattr(self, asking) == "endpoint" else None

    @property
    def key_env(self) -> str:
        """Environment variable with this role's key: its own (FINR1_API_KEY_TEACHER) where set, else FINR1_API_KEY.

        Teacher, judge and verifier may sit with three providers, and none is to see the others' keys.
        """
        own = key_variable(self.role)
        return own if os.environ.get(own) else API_KEY

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if wanted := self.endpoint():
            asking, needed = wanted
            for name, value in needed.items():
                if value is None:
                    yield f'{name} = None: {asking} = "endpoint" needs {_ENDPOINT_NEEDS[name.partition("_")[2]]}'
        backend = getattr(self, f"{self.role}_backend")
        if backend in ("transformers", "vllm") and getattr(self, f"{self.role}_model") is None:
            yield f'{self.role}_model = None: {self.role}_backend = "{backend}" needs a hub id or a folder'

    def requirements(self) -> Iterator[str]:
        yield from super().requirements()
        own = key_variable(self.role)
        if (wanted := self.endpoint()) and not any(os.environ.get(key) for key in (own, *ANY_KEY)):
            yield (
                f'{wanted[0]} = "endpoint": the environment variable {API_KEY} is not set; '
                f"`export {API_KEY}=...` (any text for a server that asks for no key), or {own} for this one alone"
            )
