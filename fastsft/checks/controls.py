"""Control tokens of a template in the words of a row.

A tokenizer takes `<|im_end|>` in a web page that a tool returned for the end of the turn, as the template's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from fastsft.checks.rules import Found

_encode = msgspec.json.Encoder().encode
# What looks like one in the text of a template. Tags in words (`<think>`, `<tool_call>`) are text to most tokenizers.
_IN_TEMPLATE = re.compile(
    r"<\|[^|<>\s]{1,60}\|>|<｜[^｜<>]{1,60}｜>|<(?:start|end)_of_\w{1,30}>|</?s>|<(?:bos|eos)>"
    r"|\[/?(?:INST|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|AVAILABLE_TOOLS|SYSTEM_PROMPT|ARGS)\]"
)


def control_tokens(templates: Iterable[str], special: Iterable[str]) -> tuple[str, ...]:
    """List the control tokens of templates, and the special ones of their tokenizer."""
    found = {token for text in templates for token in _IN_TEMPLATE.findall(text)}
    return tuple(sorted(filter(None, found | set(special))))


def controls_in(row: dict[str, Any], tokens: Iterable[str]) -> Iterator[Found]:
    """Find the first control token in what a row says."""
    whole = _encode(row).decode()
    present = [token for token in tokens if _inside(token) in whole]
    if not present:
        return
    parts = [(f"message {index}", message) for index, message in enumerate(row.get("messages", []))]
    parts += [(name, row[name]) for name in ("tools", "input", "output") if name in row]
    for where, part in parts:
        text = _encode(part).decode()
        for token in present:
            if _inside(token) in text:
                yield Found("control_tokens", f"{where}: {token}")
                return


def _inside(token: str) -> str:
    return _encode(token).decode()[1:-1]
