"""What a rollout is: the prompt and what followed, as structs whose leaves are raw JSON.

The leaves that a row repeats stay `Raw`, so that text is never unescaped and escaped again.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

ABSENT = Raw(b"")  # a field that the line does not have; `Raw | None` cannot be decoded


class Item(msgspec.Struct, gc=False):
    """One element of the prompt or of the model's output.

    Attributes:
        type: `message`, `function_call`, `function_call_output` or `reasoning`;
            None in chat-shaped turns, which have only a role.
        role: Who speaks, for messages.
        content: A JSON string or a list of parts, for messages; a list of texts for reasoning.
        name: The called function, a JSON string, for calls.
        namespace: What the called function is grouped under, a JSON string; most have none.
        arguments: A JSON string that holds a JSON object, for calls.
        output: What the function returned, a JSON string or a list of parts.
        call_id: Which call a call is, or a result answers, a JSON string.
        summary: What a reasoning item tells of the reasoning, a list of texts.
        tool_calls: The calls of a chat-shaped assistant turn, a list.
        function_call: The one call of an older chat-shaped turn, an object.
        tool_call_id: Which call a chat-shaped result answers, a JSON string.
        reasoning_content: The reasoning of a chat-shaped assistant turn, a JSON string.
        reasoning: The same by the name that vLLM and others give it now.
        refusal: What a chat-shaped assistant turn says instead of content, a JSON string.
        prompt_token_ids: The tokens that the model saw before it sampled this item, a list.
        generation_token_ids: The tokens that it sampled, a list.
    """

    type: str | None = None
    role: str | None = None
    content: Raw = ABSENT
    name: Raw = ABSENT
    namespace: Raw = ABSENT
    arguments: Raw = ABSENT
    output: Raw = ABSENT
    call_id: Raw = ABSENT
    summary: Raw = ABSENT
    tool_calls: Raw = ABSENT
    function_call: Raw = ABSENT
    tool_call_id: Raw = ABSENT
    reasoning_content: Raw = ABSENT
    reasoning: Raw = ABSENT
    refusal: Raw = ABSENT
    prompt_token_ids: Raw = ABSENT
    generation_token_ids: Raw = ABSENT


class Marks(msgspec.Struct, gc=False):
    """What a line says of itself on top, beside the conversation; whatever stands there, the line is usable."""

    mask_sample: Raw = ABSENT
    instance_config: Raw = ABSENT
    failure_class: Raw = msgspec.field(name="_ng_failure_class", default=ABSENT)
    verification_skipped: Raw = ABSENT
    truncated: Raw = ABSENT
    agent_ref: Raw = ABSENT
    task_source: Raw = ABSENT
    token_capture: Raw = msgspec.field(name="_ng_token_capture", default=ABSENT)
    task_index: Raw = msgspec.field(name="_ng_task_index", default=ABSENT)


class ResponseMarks(msgspec.Struct, gc=False):
    """What the response says of itself beside the output."""

    status: Raw = ABSENT
    incomplete_details: Raw = ABSENT
    usage: Raw = ABSENT
    metadata: Raw = ABSENT
    tools: Raw = ABSENT


class Rollout(msgspec.Struct, frozen=True, gc=False):
    """One scored attempt at a task: one input line.

    Attributes:
        prompt: What the model was given, oldest first; may be empty.
        output: What followed, oldest first; may be empty.
        reward: Score of the whole attempt, finite, no unit, usually 0.0 to 1.0.
            A line without one counts as 0.0, the rule of NeMo Gym's SFT guide;
            None where the line says null, which is how a NaN arrives.
        tools: The tools on offer, a JSON list; null or `ABSENT` for none. Where the request names none, the response's.
        instructions: A system text beside the prompt, a JSON string; null or `ABSENT` for none.
        metadata: What the request carries beside the conversation, an object; `ABSENT` for nothing.
        marks: What the line says of itself.
        response: What the response says of itself; None without a response.
    """

    prompt: list[Item]
    output: list[Item]
    reward: float | None = 0.0
    tools: Raw = ABSENT
    instructions: Raw = ABSENT
    metadata: Raw = ABSENT
    marks: Marks = msgspec.field(default_factory=Marks)
    response: ResponseMarks | None = None


_any = msgspec.json.Decoder()


def comparable(item: Item) -> list[object]:
    """Return what makes an item the same as its repetition, whatever escapes and dialect of parts it is written in."""
    content = decoded(item.content)
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        content = "".join(part["text"] for part in content)
    elif isinstance(content, list):
        content = [_comparable_part(part) for part in content]
    rest = [*(decoded(raw) for raw in (item.name, item.arguments, item.output)), decoded(item.tool_calls) or None]
    return [item.type or "message", "user" if item.role is None else item.role, content, *rest]


def _comparable_part(part: object) -> object:
    if not isinstance(part, dict):
        return part
    return {key: value for key, value in part.items() if value is not None and (key, value) != ("detail", "auto")}


def decoded(raw: Raw) -> object:
    """Decode a value; what cannot be decoded is given as its bytes, and what is absent as None."""
    try:
        return _any.decode(raw) if raw else None
    except (msgspec.DecodeError, RecursionError):  # a number beyond a double, or too deep
        return bytes(raw)


QUOTE = ord('"')
_JSON_TYPES = {
    QUOTE: "string",
    ord("["): "list",
    ord("{"): "object",
    ord("n"): "null",
    ord("t"): "boolean",
    ord("f"): "boolean",
}


def json_type(raw: Raw) -> str:
    """Name the type of a well-formed JSON value without decoding it: its first byte tells.

    >>> json_type(Raw(b"[1, 2]")), json_type(Raw(b"-1")), json_type(ABSENT)
    ('list', 'number', 'absent')
    """
    return _JSON_TYPES.get(memoryview(raw)[0], "number") if raw else "absent"


def is_string(raw: Raw) -> bool:
    """Tell whether a well-formed JSON value is a string; `json_type` for where it nearly always is."""
    return bool(raw) and memoryview(raw)[0] == QUOTE
