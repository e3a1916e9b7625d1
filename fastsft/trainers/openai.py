"""The OpenAI API: files for supervised fine-tuning of chat models, which a server checks line by line.

Arguments are JSON strings, tools a list; `weight` says which turns are learnt. There is no field for reasoning. A call
must have its result, which names it. Images are the user's, in the form of chat. What else the server takes cannot be
tried here, so a row has no other column.
"""

from __future__ import annotations

from fastsft.trainers.trainer import UNREADABLE, Trainer

OPENAI = Trainer(
    name="openai",
    title="the OpenAI API",
    source="OpenAI's OpenAPI document 2.3.0, FineTuneChatRequestInput; openai 3.57.0, openai/types/chat",
    format=("chat",),
    arguments=("string",),
    reasoning=("drop", "think"),
    loss=("own", None),
    marks=("weight",),
    takes_metadata=False,
    stops=UNREADABLE
    | {"blank_line", "last_role", "flat_calls", "arguments_no_string", "string_tools", "no_call_id", "media_place"}
    | {"unanswered_call", "orphan_tool_result", "function_name", "reasoning_field"},
    takes=frozenset({"string_arguments", "media_parts", "parts", "null_content", "developer_role", "mixed_schemas"}),
)
