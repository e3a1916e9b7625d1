"""Axolotl: `type: chat_template` reads rows by Hugging Face datasets, and renders each beginning by the chat template.

It decodes arguments and `tools` that are JSON strings, which datasets cannot change. `message_field_training: weight`
trains on the turns that the model sampled. Of a list of parts it takes the text alone, so rows with images are left
out.
"""

from __future__ import annotations

from fastsft.trainers.trainer import UNREADABLE, Trainer

AXOLOTL = Trainer(
    name="axolotl",
    title="Axolotl",
    source="axolotl 0.19.0, axolotl/prompt_strategies/chat_template.py",
    format=("chat",),
    arguments=("string", "object"),
    tools=("string", "list"),
    loss=("own", None),
    marks=("weight",),
    file=("jsonl", "parquet"),
    stops=UNREADABLE | {"parts", "media_parts"},
    takes=frozenset({"string_tools", "string_arguments", "blank_line"}),
)
