"""Plain `json` and a for loop, written from the page's rules and README's table: our yardstick, and our oracle.

It shares no code with fastsft, decodes every line whole and holds one line at a time.

usage: python benchmarks/baseline.py INPUT... --output OUT [--format openai|chat|simple] [--reward_threshold 0.95]
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

Json = dict[str, Any]
TEXT_PARTS = {"text", "input_text", "output_text", "refusal"}
REASONING_PARTS = {"reasoning_text", "summary_text"}


class UnusableError(Exception):
    """The line has no place among the rows; the message is the reason's code."""


def need(condition: object, reason: str) -> None:
    if not condition:
        raise UnusableError(reason)


def strict(text: str | bytes) -> Any:
    """Decode JSON that every reader takes: no NaN, no infinity, no lone surrogate."""

    def number(digits: str) -> float:
        value = float(digits)
        need(math.isfinite(value), "bad_number")
        return value

    def constant(name: str) -> None:
        raise ValueError(name)

    value = json.loads(text, parse_float=number, parse_constant=constant)
    json.dumps(value, ensure_ascii=False).encode()  # raises for a lone surrogate
    return value


def content_of(value: Any) -> str | list[Json]:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    need(isinstance(value, list) and all(isinstance(part, dict) for part in value), "bad_content")
    value = [part for part in value if part.get("type") not in REASONING_PARTS]
    if all(is_text(part) for part in value):
        return "".join(text_of(part) for part in value)
    parts: list[Json] = []
    for part in value:
        kind = part.get("type")
        if is_text(part):
            parts.append({"type": "text", "text": text_of(part)})
        elif kind == "input_image":
            url = part.get("image_url")
            need(isinstance(url, (str, dict)), "bad_content")
            image = {"url": url, "detail": part.get("detail") or "auto"} if isinstance(url, str) else url
            parts.append({"type": "image_url", "image_url": image})
        elif kind in ("image_url", "input_audio", "file"):
            parts.append(part)
        else:
            raise UnusableError("unknown_part")
    return parts


def is_text(part: Json) -> bool:
    return part.get("type") in TEXT_PARTS or (part.get("type") is None and "text" in part)


def text_of(part: Json) -> str:
    text = part.get("text", part.get("refusal"))
    need(isinstance(text, str), "bad_content")
    return str(text)


def call_of(name: Any, arguments: Any) -> Json:
    need(isinstance(name, str), "bad_item")
    if isinstance(arguments, str):
        try:
            arguments = strict(arguments)
        except ValueError:
            raise UnusableError("bad_arguments") from None
    need(isinstance(arguments, dict), "bad_arguments")
    return {"name": name, "arguments": arguments}


def turns_of(items: list[Json], roleless: str) -> list[Json]:
    turns: list[Json] = []
    pending: list[Json] = []

    def flush() -> None:
        if pending:
            turns.append({"role": "assistant", "content": "", "tool_calls": pending.copy()})
            pending.clear()

    for item in items:
        need(isinstance(item, dict), "bad_item")
        kind = item.get("type") or ("message" if "role" in item or "content" in item else None)
        if kind == "function_call":
            pending.append(call_of(item.get("name"), item.get("arguments", {})))
        elif kind == "function_call_output":
            flush()
            turns.append({"role": "tool", "content": content_of(item.get("output"))})
        elif kind == "message":
            flush()
            turn = {"role": item.get("role", roleless), "content": content_of(item.get("content"))}
            if turn["content"] == "" and isinstance(item.get("refusal"), str):
                turn["content"] = item["refusal"]
            calls = [call["function"] for call in item.get("tool_calls") or []]
            calls += [item["function_call"]] if item.get("function_call") else []
            need(not calls or turn["role"] == "assistant", "bad_item")
            if calls:
                turn["tool_calls"] = [call_of(call.get("name"), call.get("arguments", {})) for call in calls]
            turns.append(turn)
        elif kind != "reasoning":
            raise UnusableError("unknown_item")
    flush()
    return turns


def tool_of(tool: Any) -> Json:
    need(isinstance(tool, dict), "bad_tool")
    if tool.get("type") != "function":
        return dict(tool)
    function = tool.get("function", tool)
    need(isinstance(function.get("name"), str), "bad_tool")
    return {
        "name": function["name"],
        "description": function.get("description", ""),
        "parameters": function.get("parameters", {}),
    }


def parts_of(rollout: Json) -> tuple[list[Json], list[Json]]:
    """Give the prompt's items and the output's items, without the prompt that a list of lists repeats."""
    params = rollout.get("responses_create_params")
    need(isinstance(params, dict), "no_prompt")
    prompt = params.get("input")
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    need(isinstance(prompt, list), "no_prompt")
    output = rollout.get("output")
    if not isinstance(output, list):
        response = rollout.get("response")
        output = response.get("output") if isinstance(response, dict) else None
    need(isinstance(output, list), "no_output")
    if not output or not all(isinstance(element, list) for element in output):
        return prompt, output
    output = output[-1]
    system = [{"role": "system", "content": params.get("instructions")}]
    for repeated in (system + prompt, prompt):
        if list(map(essence, output[: len(repeated)])) == list(map(essence, repeated)):
            return prompt, output[len(repeated) :]
    return prompt, output


def essence(item: Json) -> list[Any]:
    content = item.get("content")
    if isinstance(content, list) and all(isinstance(part.get("text"), str) for part in content):
        content = "".join(part["text"] for part in content)
    rest = [item.get(name) for name in ("name", "arguments", "output", "tool_calls")]
    return [item.get("type", "message"), item.get("role", "user"), content, *rest]


def to_openai(rollout: Json) -> Json:
    prompt_items, output_items = parts_of(rollout)
    prompt, output = turns_of(prompt_items, "user"), turns_of(output_items, "assistant")
    while output and output[-1]["role"] != "assistant":
        output.pop()
    need(output, "nothing_to_imitate")
    params = rollout["responses_create_params"]
    system = [{"role": "system", "content": params["instructions"]}] if params.get("instructions") else []
    row: Json = {"messages": [*system, *prompt, *output]}
    if tools := [tool_of(tool) for tool in params.get("tools") or []]:
        row["tools"] = tools
    return row


def thought_in(item: Json) -> list[str]:
    for value in (item.get("summary"), item.get("content")):
        if isinstance(value, str) and value:
            return [value]
        if isinstance(value, list):
            need(all(isinstance(part, dict) for part in value), "bad_item")
            if texts := [part["text"] for part in value if isinstance(part.get("text"), str) and part["text"]]:
                return texts
    return []


def think_tags_in(text: Any, *, thought: bool, goes_on: bool) -> tuple[str, Any]:
    """Part a text that begins with reasoning in tags; the first may be missing where the closing one ends a line."""
    if not isinstance(text, str):
        return "", text
    match = re.fullmatch(r"\s*<think>(.*?)</think>(.*)", text, re.DOTALL)
    if not match and goes_on:  # a call ends it
        match = re.fullmatch(r"\s*<think>(.*)()", text, re.DOTALL)
    if not match and not thought:
        behind = r"\r?\n.*|" if goes_on else r"\r?\n.*\S.*"
        match = re.fullmatch(rf"((?:(?!<think>|</think>\r?(?:\n|\Z)).)*)</think>({behind})", text, re.DOTALL)
    return (match[1].strip("\r\n"), match[2].lstrip("\r\n")) if match else ("", text)


def spoken_turn(events: list[Json]) -> tuple[list[Json], bool]:
    """Give the turn of what the assistant thought, said and called in one go, and whether the output says any of it."""
    thoughts = [text for event in events for text in event.get("thought", [])]
    thought = bool(thoughts)
    calls = [event["called"] for event in events if "called" in event]
    ours = any(event["ours"] for event in events if event.get("thought") or "called" in event)
    spoken = [place for place, event in enumerate(events) if event.get("said") not in (None, "", [])]
    said: list[Any] = []
    begun = ""  # reasoning that goes on in the next text
    for place, then in itertools.zip_longest(spoken, spoken[1:]):
        text = events[place]["said"]
        if isinstance(text, str):
            on = then is not None and isinstance(events[then]["said"], str)
            on = on and not any("called" in event for event in events[place:then])
            on = on and not events[then]["said"].lstrip().startswith("<think>")
            if not begun and text.strip() == "<think>" and (thought or not on):
                continue
            if on and "</think>" not in text and (begun or text.lstrip().startswith("<think>")):
                begun += text
                continue
            text, begun = begun + text, ""
        goes_on = then is not None or any("called" in event for event in events[place:])
        inside, rest = think_tags_in(text, thought=thought, goes_on=goes_on)
        thoughts += [inside] if inside else []
        said += [rest] if rest != "" else []
        ours |= events[place]["ours"] and (inside, rest) != ("", "")
    content: Any = "".join(said) if all(isinstance(text, str) for text in said) else []
    for text in said if content == [] else []:
        content += [{"type": "text", "text": text}] if isinstance(text, str) else text
    turn: Json = {"role": "assistant", "content": content}
    turn |= {"reasoning_content": "\n\n".join(thoughts)} if thoughts else {}
    turn |= {"tool_calls": calls} if calls else {}
    return [turn] if content != "" or thoughts or calls else [], ours


def to_chat(rollout: Json) -> Json:
    prompt, output = parts_of(rollout)
    made = 0
    open_calls: list[str] = []
    events: list[Json] = []  # what the assistant does, and whole turns of others
    for place, item in enumerate([*prompt, *output]):
        need(isinstance(item, dict), "bad_item")
        ours = place >= len(prompt)
        kind = item.get("type") or ("message" if "role" in item or "content" in item else None)
        role = item.get("role", "assistant" if ours else "user")
        calls = [(item.get("call_id"), item)] if kind == "function_call" else []
        if kind == "message":
            calls = [(call.get("id"), call["function"]) for call in item.get("tool_calls") or []]
            calls += [(None, item["function_call"])] if item.get("function_call") else []
        need(not calls or kind == "function_call" or role == "assistant", "bad_item")
        if kind == "reasoning":
            events.append({"thought": thought_in(item), "ours": ours})
        elif kind == "message" and role == "assistant":
            said = content_of(item.get("content"))
            said = item["refusal"] if said == "" and isinstance(item.get("refusal"), str) else said
            need(isinstance(item.get("reasoning_content"), (str, type(None))), "bad_item")
            thoughts = [item[name] for name in ("reasoning_content", "reasoning") if isinstance(item.get(name), str)]
            events.append({"thought": [text for text in thoughts if text][:1], "ours": ours})
            events.append({"said": said, "ours": ours})
        elif kind == "message" and role not in ("tool", "function"):
            said = content_of(item.get("content"))
            said = item["refusal"] if said == "" and isinstance(item.get("refusal"), str) else said
            events.append({"turn": {"role": "system" if role == "developer" else role, "content": said}})
        elif kind in ("message", "function_call_output"):
            said = content_of(item.get("content" if kind == "message" else "output"))
            if kind == "message":
                said = item["refusal"] if said == "" and isinstance(item.get("refusal"), str) else said
            identities = [item.get("tool_call_id")] if kind == "message" else []
            identities = [one for one in (*identities, item.get("call_id")) if one is not None]
            need(all(isinstance(one, str) for one in identities[:1]), "bad_item")
            identity = identities[0] if identities else open_calls[0] if open_calls else None
            if identity in open_calls:
                open_calls.remove(identity)
            events.append(
                {
                    "turn": {"role": "tool", "content": said}
                    | ({"tool_call_id": identity} if identity is not None else {})
                }
            )
        elif kind != "function_call":
            raise UnusableError("unknown_item")
        for identity, called in calls:
            call = call_of(called.get("name"), called.get("arguments", {}))
            need(isinstance(identity, (str, type(None))), "bad_item")
            identity = f"unnamed_call_{made}" if identity is None else identity
            made += 1
            open_calls.append(identity)
            events.append({"called": {"id": identity, "type": "function", "function": call}, "ours": ours})
    turns: list[Json] = []
    end = 0
    for spoken, run in itertools.groupby(events, lambda event: "turn" not in event):
        group = list(run)
        turn, ours = spoken_turn(group) if spoken else ([event["turn"] for event in group], False)
        turns += turn
        if ours:
            end = len(turns)
    need(end, "nothing_to_imitate")
    turns = turns[:end]
    params = rollout["responses_create_params"]
    if instructions := params.get("instructions"):
        leading = list(itertools.takewhile(lambda turn: turn["role"] == "system", turns))
        texts: list[Any] = [instructions, *(turn["content"] for turn in leading if turn["content"] != "")]
        content: Any = "\n\n".join(texts) if all(isinstance(text, str) for text in texts) else []
        for text in texts if content == [] else []:
            content += [{"type": "text", "text": text}] if isinstance(text, str) else text
        turns = [{"role": "system", "content": content}, *turns[len(leading) :]]
    row: Json = {"messages": turns}
    if tools := [chat_tool_of(tool) for tool in params.get("tools") or []]:
        row["tools"] = tools
    return row


def chat_tool_of(tool: Any) -> Json:
    flat = tool_of(tool)
    if tool.get("type") != "function":
        return flat
    said = tool.get("function", tool)
    return {"type": "function", "function": {name: value for name, value in flat.items() if name in said}}


def to_simple(rollout: Json) -> Json:
    prompt, output = parts_of(rollout)
    for item in prompt + output:
        kind = item.get("type") or ("message" if "role" in item or "content" in item else None)
        need(kind in ("message", "reasoning", "function_call", "function_call_output"), "unknown_item")

    def text_of(item: Json) -> str:
        text = content_of(item.get("content"))
        if text == "" and isinstance(item.get("refusal"), str):
            text = item["refusal"]
        need(isinstance(text, str), "not_text")
        return str(text)

    def last(items: list[Json], role: str) -> Any:
        for item in reversed(items):
            if (
                item.get("type", "message") == "message"
                and item.get("role", role) == role
                and (item.get("content") is not None or isinstance(item.get("refusal"), str))
            ):
                return item
        return None

    asked, said = last(prompt, "user"), last(output, "assistant")
    need(said is not None, "nothing_to_imitate")
    return {"input": text_of(asked) if asked is not None else "", "output": text_of(said)}


FORMATS = {"openai": to_openai, "chat": to_chat, "simple": to_simple}


def gate_of(rollout: Json) -> str | None:
    """Give what a rollout says of itself that keeps it out of training, whatever its reward."""

    def is_set(value: Any) -> bool:
        return value is not None and value is not False

    config, response = rollout.get("instance_config"), rollout.get("response")
    response = response if isinstance(response, dict) else {}
    if rollout.get("mask_sample") is True or (isinstance(config, dict) and config.get("mask_sample") is True):
        return "masked"
    if is_set(rollout.get("_ng_failure_class")):
        return "failed"
    if rollout.get("verification_skipped") is True:
        return "unverified"
    cut = is_set(response.get("incomplete_details")) or rollout.get("truncated") is True
    if cut or (is_set(response.get("status")) and response["status"] != "completed"):
        return "incomplete"
    return None


def row_of(line: bytes, *, layout: str = "openai", reward_threshold: float = 0.95, gated: bool = True) -> Json | str:
    """Give the row of a line, or the reason why it has none; an empty string for a blank line."""
    if not line.strip():
        return ""
    try:
        rollout = strict(line.decode())
    except UnicodeDecodeError:
        return "bad_utf8"
    except ValueError:
        return "bad_json"
    if not isinstance(rollout, dict):
        return "not_object"
    try:
        parts_of(rollout)
        reward = rollout.get("reward", 0.0)
        is_number = isinstance(reward, (int, float)) and not isinstance(reward, bool)
        need(reward is None or is_number, "reward_type")
        if gated and (gate := gate_of(rollout)):
            return gate
        if reward is None:
            return "no_reward"
        if reward < reward_threshold:
            return "below_threshold"
        return FORMATS[layout](rollout)
    except UnusableError as unusable:
        return str(unusable)


def convert(inputs: list[Path], output: Path, *, layout: str = "openai", reward_threshold: float = 0.95) -> int:
    """Write the rows of all inputs to one file, and give their number; as on the page, no gate is closed."""
    count = 0
    with output.open("w", encoding="utf-8", newline="\n") as rows:
        for path in inputs:
            with path.open("rb") as lines:
                for line in lines:
                    row = row_of(line, layout=layout, reward_threshold=reward_threshold, gated=False)
                    if isinstance(row, dict):
                        rows.write(json.dumps(row, ensure_ascii=False) + "\n")
                        count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--format", choices=FORMATS, default="openai")
    parser.add_argument("--reward_threshold", type=float, default=0.95)
    chosen = parser.parse_args()
    print(convert(chosen.inputs, chosen.output, layout=chosen.format, reward_threshold=chosen.reward_threshold), "rows")


if __name__ == "__main__":
    main()
