"""The one thing that a YAML of lm-evaluation-harness cannot say, a chat of several turns."""

from __future__ import annotations

from collections.abc import Callable

from lm_eval.api.task import ConfigurableTask


class ChatTask(ConfigurableTask):
    """A task whose rows hold their whole chat in `messages`: system prompt, earlier turns, question."""

    def __init__(self, config: dict) -> None:
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def fewshot_context(
        self, doc: dict, *_, apply_chat_template: bool = False, chat_template: Callable | None = None, **__
    ) -> str | list[dict]:
        """The row's chat in the model's template, ready for the assistant's turn.

        Raises `ValueError` without `--apply_chat_template`: the prompt would be another one than ours.
        """
        if not (apply_chat_template and chat_template):
            raise ValueError("finr1's tasks are chats: run lm_eval with --apply_chat_template")
        return chat_template(doc["messages"], add_generation_prompt=True)
