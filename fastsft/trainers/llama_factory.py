"""LLaMA-Factory: `formatting: openai` reads rows by Hugging Face datasets, and renders turns by templates of its own.

Behind one system turn the user (or the results of calls) and the assistant must take turns, else the row is left out
with a warning. Reasoning is read in think tags in the text. Of a turn with calls only the calls are read: what is said
or thought beside them is lost. Calls are decoded from `function` as they are, and arguments that are a string are
encoded twice.
"""

from __future__ import annotations

from fastsft.trainers.trainer import UNREADABLE, Trainer

LLAMA_FACTORY = Trainer(
    name="llama-factory",
    title="LLaMA-Factory",
    source="llamafactory 0.9.5, llamafactory/data/converter.py",
    format=("chat", "simple"),
    reasoning=("think", "field", "drop"),
    tools=("string", "list"),
    file=("jsonl", "parquet"),
    stops=UNREADABLE
    | {"parts", "media_parts", "null_content", "developer_role", "flat_calls", "no_turns_taken", "string_arguments"},
    loses=frozenset({"text_beside_calls", "reasoning_field"}),
    takes=frozenset({"string_tools", "blank_line"}),
)
