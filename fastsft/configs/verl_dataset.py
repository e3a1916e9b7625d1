"""The class with which verl reads what Parquet has no type for: arguments and tools that are JSON strings.

    data.custom_cls.path=pkg://fastsft.configs.verl_dataset data.custom_cls.name=JsonColumnsDataset

verl's own class hands the strings on, at which its tokenizer stops, and null for what a turn has not, which some
templates take for something. It is imported by verl alone; fastsft does not need it.
"""

from __future__ import annotations

import json
from typing import Any

from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset


class JsonColumnsDataset(MultiTurnSFTDataset):
    """`MultiTurnSFTDataset`, of rows that `fastsft convert --for verl` wrote."""

    tools: Any  # of each row: a list, a JSON string, or what pandas has for nothing

    def _read_files_and_process(self) -> None:
        super()._read_files_and_process()
        if self.tools is not None:
            self.tools = [json.loads(tools) if isinstance(tools, str) else None for tools in self.tools]

    def _build_messages(self, example: dict[str, Any]) -> list[dict[str, Any]]:
        return [_decoded(message) for message in super()._build_messages(example)]


def _decoded(message: dict[str, Any]) -> dict[str, Any]:
    turn = {name: value for name, value in message.items() if value is not None}
    for call in turn.get("tool_calls", ()):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return turn
