"""TRL: `SFTTrainer` reads rows by Hugging Face datasets and hands messages and tools to the chat template.

It decodes `tools` that are one JSON string, which datasets cannot change, and arguments never: templates want objects,
and datasets from 5 on keeps these. Pairs are `prompt` and `completion`. An image takes a column of its own, so rows
with parts are left out. It trains on all of a conversation, or with `assistant_only_loss` on every assistant turn.
"""

from __future__ import annotations

from fastsft.trainers.trainer import UNREADABLE, Trainer

TRL = Trainer(
    name="trl",
    title="TRL",
    source="trl 1.16.0, trl/trainer/sft_trainer.py",
    format=("chat", "openai", "simple"),
    arguments=("object", "string"),
    tools=("string", "list"),
    pair=("prompt", "completion"),
    file=("jsonl", "parquet"),
    stops=UNREADABLE | {"parts", "media_parts"},
    loses=frozenset({"rounded_numbers"}),
    takes=frozenset({"string_tools", "blank_line"}),
)
