"""NeMo Automodel: `ChatDataset` reads lines as they are, and hands messages and tools to the chat template.

It decodes `tools` that are one JSON string, and encodes arguments that are none, so that templates get strings. Of a
list of parts it takes the text alone. A call has its `function`, and a result names its call.
"""

from __future__ import annotations

from fastsft.trainers.trainer import UNREADABLE, Trainer

AUTOMODEL = Trainer(
    name="automodel",
    title="NeMo Automodel",
    source="nemo_automodel 0.7.0, nemo_automodel/components/datasets/llm/chat_dataset.py",
    format=("chat", "simple"),
    arguments=("string", "object"),
    tools=("list", "string"),
    file=("jsonl", "parquet"),
    stops=UNREADABLE | {"parts", "media_parts", "developer_role", "flat_calls", "no_call_id", "assistant_first"},
    takes=frozenset({"string_tools", "string_arguments", "null_content", "blank_line", "mixed_schemas"}),
)
