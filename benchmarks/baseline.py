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
ELSEWHERE = ("previous_response_id", "prompt", "conversation")
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
        elif kind == "input_video":
            url = part.get("video_url") if part.get("video_url") is not None else part.get("video")
            url = url.get("url") if isinstance(url, dict) else url
            need(isinstance(url, str), "bad_content")
            parts.append({"type": "video_url", "video_url": {"url": url}})
        elif kind in ("image_url", "input_audio", "video_url", "file"):
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


def call_of(name: Any, arguments: Any, namespace: Any = None) -> Json:
    need(isinstance(name, str), "bad_item")
    need(isinstance(namespace, (str, type(None))), "bad_item")
    name = f"{namespace}__{name}" if namespace else name
    if arguments is None or (isinstance(arguments, str) and (arguments.isspace() or arguments in ("", "null"))):
        return {"name": name, "arguments": {}}
    if isinstance(arguments, str):
        try:
            arguments = strict(arguments)
        except ValueError:
            raise UnusableError("bad_arguments") from None
    need(isinstance(arguments, dict), "bad_arguments")
    return {"name": name, "arguments": arguments}


def tools_in(rollout: Json) -> list[Json]:
    """List the tools of the request, else of the response; those of a namespace by the names that models see."""
    params, response = rollout["responses_create_params"], rollout.get("response")
    tools = params.get("tools") or (response.get("tools") if isinstance(response, dict) else None) or []
    need(isinstance(tools, list), "bad_tool")
    flat = []
    for tool in tools:
        if not (isinstance(tool, dict) and tool.get("type") == "namespace"):
            flat.append(tool)
            continue
        for member in tool.get("tools") or []:
            member = dict(member)
            if member.get("type") == "function":
                said = dict(member.get("function", member))
                need(isinstance(said.get("name"), str), "bad_tool")
                said["name"] = f"{tool['name']}__{said['name']}" if tool.get("name") else said["name"]
                member = {"type": "function", "function": said}
            flat.append(member)
    for tool in flat:
        tool_of(tool)
    return flat


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


def thought_in(item: Json) -> list[str]:
    for value in (item.get("content"), item.get("summary")):
        if isinstance(value, str) and value:
            return [value]
        if isinstance(value, list):
            need(all(isinstance(part, dict) for part in value), "bad_item")
            if texts := [part["text"] for part in value if isinstance(part.get("text"), str) and part["text"]]:
                return texts
    return []


def think_tags_in(text: Any, *, thought: bool, goes_on: bool) -> tuple[str, Any]:
    """Split a text that begins with reasoning in tags; the first may be missing."""
    if not isinstance(text, str):
        return "", text
    match = re.fullmatch(r"\s*<think>(.*?)</think>(.*)", text, re.DOTALL)
    if not match and goes_on:  # a call ends it
        match = re.fullmatch(r"\s*<think>(.*)()", text, re.DOTALL)
    if not match and not thought:
        behind = r"\r?\n.*|" if goes_on else r"\r?\n.*\S.*"
        match = re.fullmatch(rf"((?:(?!<think>|</think>\r?(?:\n|\Z)).)*)</think>({behind})", text, re.DOTALL)
        ends_line = re.search(r"</think>\r?(\n|\Z)", text)
        before, *others = text.split("</think>")
        if not match and not ends_line and len(others) == 1 and "<think>" not in before:
            after = others[0]
            ends_word = before[-1:] and not before[-1].isspace() and before[-1] not in "\"'`“‘«(<"
            ends_sentence = before.rstrip(" \t")[-1:] in [*".!?:;)]}"]
            if (ends_word or ends_sentence) and (goes_on or after.strip()):
                match = re.fullmatch(r"(.*)</think>(.*)", text, re.DOTALL)
    return (match[1].strip("\r\n"), match[2].lstrip("\r\n")) if match else ("", text)


def spoken_turn(events: list[Json]) -> Json:
    """Return the turn of what the assistant thought, said and called at once."""
    knows = any(event.get("thought") for event in events)
    spoken = [index for index, event in enumerate(events) if event.get("said", "") != ""]
    texts: dict[int, Any] = {index: "" for index, event in enumerate(events) if "said" in event}
    thoughts: dict[int, list[str]] = {index: event.get("thought", []) for index, event in enumerate(events)}
    begun = ""  # reasoning that goes on in the next text
    for index, then in itertools.zip_longest(spoken, spoken[1:]):
        text = events[index]["said"]
        texts[index] = ""
        if isinstance(text, str):
            on = then is not None and isinstance(events[then]["said"], str)
            on = on and not any("called" in event for event in events[index:then])
            on = on and not events[then]["said"].lstrip().startswith("<think>")
            if not begun and text.strip() == "<think>" and (knows or not on):
                continue
            if on and "</think>" not in text and (begun or text.lstrip().startswith("<think>")):
                begun += text
                continue
            text, begun = begun + text, ""
        goes_on = then is not None or any("called" in event for event in events[index:])
        inside, texts[index] = think_tags_in(text, thought=knows, goes_on=goes_on)
        thoughts[index] = [inside] if inside else []
    said = [texts[index] for index in spoken if texts[index] != ""]
    content: Any = "".join(said) if all(isinstance(text, str) for text in said) else []
    for text in said if content == [] else []:
        content += [{"type": "text", "text": text}] if isinstance(text, str) else text
    ours = [index for index, event in enumerate(events) if event["ours"]]
    answers = [texts[index] for index in ours if index in texts and (texts[index] or not events[index]["said"])]
    return {
        "role": "assistant",
        "content": content,
        "thoughts": [text for index in sorted(thoughts) for text in thoughts[index]],
        "calls": [event["called"] for event in events if "called" in event],
        "says": any("called" in events[index] or texts.get(index, "") != "" for index in ours),
        "empty": len(ours) == len(events) and all(event.get("said") == "" for event in events),
        "answer": answers[-1] if answers else "",
    }


def has_ids(item: Json) -> bool:
    ids = item.get("generation_token_ids")
    return isinstance(ids, (list, str, dict)) and bool(ids) and not (ids == [0] and item.get("prompt_token_ids") == [0])


def turns_in(rollout: Json) -> list[Json]:
    """Return the turns of a rollout up to the last of the output's assistant, each with what is known of it."""
    prompt, output = parts_of(rollout)
    sampled = max(
        (index for index, item in enumerate(output) if isinstance(item, dict) and has_ids(item)), default=None
    )
    last = len(output) if sampled is None else sampled + 1
    captured = rollout.get("_ng_token_capture") is not None
    made = 0
    runs: list[tuple[str, list[Json]]] = []  # what the assistant does at once, and whole turns of others
    ended: Json | None = None
    for index, item in enumerate([*prompt, *output], -len(prompt)):
        need(isinstance(item, dict), "bad_item")
        ours = index >= 0
        if index == last:
            ended = None
            runs.append(("end", []))
        kind = item.get("type") or ("message" if "role" in item or "content" in item else None)
        need(kind in ("message", "reasoning", "function_call", "function_call_output"), "unknown_item")
        role = item.get("role", "assistant" if ours else "user") if kind == "message" else "assistant"
        calls = [(item.get("call_id"), item)] if kind == "function_call" else []
        if kind == "message":
            calls = [(call.get("id"), call["function"]) for call in item.get("tool_calls") or []]
            calls += [(None, item["function_call"])] if item.get("function_call") else []
        need(not calls or role == "assistant", "bad_item")
        said = (
            content_of(item.get("output" if kind == "function_call_output" else "content"))
            if calls == [] or (kind == "message")
            else ""
        )
        said = "" if kind == "reasoning" or (said == [] and role == "assistant") else said
        if kind == "message" and said == "" and isinstance(item.get("refusal"), str):
            said = item["refusal"]
        if kind == "function_call_output" or (kind == "message" and role in ("tool", "function")):
            identities = [item.get("tool_call_id")] if kind == "message" else []
            identities = [one for one in (*identities, item.get("call_id")) if one is not None]
            need(all(isinstance(one, str) for one in identities[:1]), "bad_item")
            ended = None
            runs.append(
                ("other", [{"role": "tool", "content": said, "identity": identities[0] if identities else None}])
            )
            continue
        if role != "assistant":
            ended = None
            runs.append(("other", [{"role": role, "content": said, "of_prompt": not ours}]))
            continue
        goes_on = bool(runs) and runs[-1][0] == "assistant"
        if ended is not None:
            names = ("prompt_token_ids", "generation_token_ids")
            if not (has_ids(item) and all(item.get(name) == ended.get(name) for name in names)):
                missing = captured or (goes_on and any("called" in event for event in runs[-1][1]))
                need(not (missing and index < last), "results_missing")
                goes_on = False
            ended = None if not goes_on else ended
        if not goes_on:
            runs.append(("assistant", []))
        events = runs[-1][1]
        if kind == "reasoning":
            events.append({"thought": thought_in(item), "ours": ours})
        if kind == "message":
            need(isinstance(item.get("reasoning_content"), (str, type(None))), "bad_item")
            thoughts = [item[name] for name in ("reasoning_content", "reasoning") if isinstance(item.get(name), str)]
            if thoughts := [text for text in thoughts if text][:1]:
                events.append({"thought": thoughts, "ours": ours})
            if not (ours and has_ids(item) and said == ""):
                events.append({"said": said, "ours": ours})
        for identity, called in calls:
            call = call_of(called.get("name"), called.get("arguments", {}), called.get("namespace"))
            need(isinstance(identity, (str, type(None))), "bad_item")
            events.append(
                {"called": call | {"id": f"unnamed_call_{made}" if identity is None else identity}, "ours": ours}
            )
            made += 1
        if ours and has_ids(item):
            ended = item
    turns: list[Json] = []
    end = limit = 0
    for kind, events in runs:
        if kind == "end":
            limit = 1
        if kind == "other":
            turns += events
        events = [event for event in events if event.get("thought") != []] if kind == "assistant" else []
        if events:
            turns.append(spoken_turn(events))
            if not limit and (turns[-1]["says"] or turns[-1]["empty"]):
                end = len(turns)
    need(end, "no_assistant_turn")
    turns = turns[:end]
    answer_calls(turns)
    return turns


def answer_calls(turns: list[Json]) -> None:
    """Put the results of a batch of calls in the order of the calls, and name the call of those that name none."""
    waiting: list[Json] = []
    batch: list[Json] = []
    index = 0
    while index < len(turns):
        if turns[index]["role"] != "tool":
            batch = turns[index].get("calls", [])
            waiting += batch
            index += 1
            continue
        run = list(itertools.takewhile(lambda turn: turn["role"] == "tool", turns[index:]))
        for named in (True, False):
            for result in run:
                if (result["identity"] is not None) == named and "call" not in result:
                    first = [call for call in waiting if any(call is one for one in batch)] if not named else []
                    able = [call for call in waiting if not named or call["id"] == result["identity"]]
                    chosen = (first or able or [None])[0]
                    if chosen is not None:
                        waiting = [call for call in waiting if call is not chosen]
                        result["call"] = chosen
                        result["identity"] = chosen["id"]
        spots = [spot for spot, result in enumerate(run) if any(result.get("call") is call for call in batch)]
        ordered = [result for call in batch for result in run if result.get("call") is call]
        for spot, result in zip(spots, ordered, strict=True):
            turns[index + spot] = result
        index += len(run)
        batch = []


def only_spoken(turns: list[Json]) -> list[Json]:
    """Leave out turns of reasoning alone."""
    return [turn for turn in turns if not (turn.get("thoughts") and turn["content"] == "" and not turn["calls"])]


def to_openai(rollout: Json) -> Json:
    turns = turns_in(rollout)
    tools = [tool_of(tool) for tool in tools_in(rollout)]
    messages = [{"role": "system", "content": text}] if (text := instructions_of(rollout)) else []
    for turn in only_spoken(turns):
        calls = [{"name": call["name"], "arguments": call["arguments"]} for call in turn.get("calls", [])]
        messages.append({name: turn[name] for name in ("role", "content")} | ({"tool_calls": calls} if calls else {}))
    return {"messages": messages} | ({"tools": tools} if tools else {})


def instructions_of(rollout: Json) -> str:
    return str(rollout["responses_create_params"].get("instructions") or "")


def to_chat(rollout: Json) -> Json:
    found = turns_in(rollout)
    kept = [
        turn for turn in found if turn["role"] != "assistant" or turn["content"] or turn["thoughts"] or turn["calls"]
    ]
    turns = list(kept)
    while turns and not turns[-1].get("says"):
        turns.pop()
    messages = []
    for turn in turns or [*kept, found[-1]]:
        message = {"role": "system" if turn["role"] == "developer" else turn["role"], "content": turn["content"]}
        if turn.get("thoughts"):
            message["reasoning_content"] = "\n\n".join(turn["thoughts"])
        if turn.get("calls"):
            message["tool_calls"] = [
                {"id": call["id"], "type": "function", "function": {name: call[name] for name in ("name", "arguments")}}
                for call in turn["calls"]
            ]
        if turn.get("identity"):
            message["tool_call_id"] = turn["identity"]
        messages.append(message)
    if instructions := instructions_of(rollout):
        leading = list(itertools.takewhile(lambda turn: turn["role"] == "system", messages))
        texts: list[Any] = [instructions, *(turn["content"] for turn in leading if turn["content"] != "")]
        content: Any = "\n\n".join(texts) if all(isinstance(text, str) for text in texts) else []
        for text in texts if content == [] else []:
            content += [{"type": "text", "text": text}] if isinstance(text, str) else text
        messages = [{"role": "system", "content": content}, *messages[len(leading) :]]
    tools = [chat_tool_of(tool) for tool in tools_in(rollout)]
    return {"messages": messages} | ({"tools": tools} if tools else {})


def chat_tool_of(tool: Any) -> Json:
    flat = tool_of(tool)
    if tool.get("type") != "function":
        return flat
    said = tool.get("function", tool)
    return {"type": "function", "function": {name: value for name, value in flat.items() if name in said}}


def to_simple(rollout: Json) -> Json:
    found = turns_in(rollout)
    tools_in(rollout)
    turns = only_spoken(found)
    texts = [index for index, turn in enumerate(turns) if turn.get("says") or turn.get("empty")]
    texts = [index for index in texts if turns[index]["answer"] != "" or not turns[index]["calls"]]
    need(texts, "not_text")
    asked = [turn for turn in turns if turn["role"] == "user" and turn["of_prompt"]]
    asked = asked or [turn for turn in turns[: texts[-1]] if turn["role"] == "user"]
    question, answer = asked[-1]["content"] if asked else "", turns[texts[-1]]["answer"]
    need(isinstance(question, str) and isinstance(answer, str), "not_text")
    return {"input": question, "output": answer}


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
    metadata = response.get("metadata")
    if isinstance(metadata, dict) and is_set(metadata.get("ng_no_generation")):
        return "no_generation"
    try:
        asks = any(turn["role"] == "user" for turn in turns_in(rollout))
    except UnusableError:  # it is told why it has no row, but where nobody asks anyway
        prompt, output = parts_of(rollout)
        items = [item for item in [*prompt, *output] if isinstance(item, dict)]
        said = [item for item in items if item.get("type", "message") == "message"]
        asks = not output or any(item.get("role") == "user" for item in said)
        asks = asks or any("role" not in item for item in prompt if item in said)
    return None if asks else "no_user_turn"


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
        elsewhere = [rollout["responses_create_params"].get(name) for name in ELSEWHERE]
        need(all(value is None for value in elsewhere), "prompt_elsewhere")
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
