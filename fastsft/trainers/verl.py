"""verl: `MultiTurnSFTDataset` reads Parquet, and hands each message to the chat template by itself.

Parquet has a type for each column, so arguments and tools, which differ from row to row, are JSON strings there, and
what a turn lacks is null. verl hands them on as they are: the class in `fastsft/configs/verl_dataset.py` decodes them.
An image is a mark in a text and a column of its own, so rows with parts are left out.
"""

from __future__ import annotations

from fastsft.trainers.trainer import UNREADABLE, Trainer

VERL = Trainer(
    name="verl",
    title="verl",
    source="verl 0.9.1, verl/utils/dataset/multiturn_sft_dataset.py",
    format=("chat",),
    arguments=("string",),
    tools=("string",),
    file=("parquet",),
    stops=UNREADABLE | {"parts", "media_parts", "null_content", "arguments_no_string", "list_tools"},
    takes=frozenset({"string_tools", "string_arguments"}),
)
