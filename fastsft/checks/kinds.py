"""What can be found in rows: one place, with what it does and how it is mended."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of finding.

    Attributes:
        meaning: What is wrong and what it does.
        fix: What to do about it.
        is_note: Whether rows may train all the same, so that it is told and no fault.
    """

    meaning: str
    fix: str
    is_note: bool = False


_AGAIN = "convert again with fastsft"

KINDS = {
    "bad_json": Kind(
        "not strict JSON in valid UTF-8; most loaders stop at it",
        "write the file anew; a torn last line is a copy that did not finish",
    ),
    "blank_line": Kind("an empty line; NeMo RL and others parse every line and stop", "remove it: sed -i '/^\\s*$/d'"),
    "line_end": Kind(
        "a raw U+2028, U+2029 or U+0085; some loaders split the line there", f"escape it, or {_AGAIN}, which does"
    ),
    "bad_number": Kind("a number that no double holds; five of seven readers stop", "write it as a string"),
    "repeated_key": Kind("a key stands twice in one object; some readers stop, others differ in which counts", _AGAIN),
    "not_a_row": Kind(
        "neither a conversation nor an input and an output; the trainer finds no `messages`",
        "check that this is a file of rows, not of rollouts; fastsft convert makes rows",
    ),
    "no_rows": Kind("a file without a row; NeMo RL stops at it", "leave the file out"),
    "mixed_rows": Kind(
        "conversations and pairs of input and output in one file, which no loader reads",
        "convert all with one --format",
    ),
    "unknown_role": Kind(
        "a turn of a role that templates do not know: they stop, or leave it out",
        "give it a role that they know, or leave the row out",
    ),
    "bad_content": Kind(
        "content is neither text nor a list of parts; templates stop or render it as Python writes it", _AGAIN
    ),
    "last_role": Kind(
        "the last turn is not the assistant's; NeMo RL's whole load stops at one such row",
        f"cut the turns behind it, or {_AGAIN}, which does",
    ),
    "alternation": Kind(
        "turns in an order that no chat has: the user twice in a row, or nobody but the assistant",
        "join the two turns, or leave the row out",
    ),
    "empty_turn": Kind("an assistant turn with nothing in it teaches to say nothing", "leave the row out"),
    "bad_call": Kind("a call without a name, or of no known form; templates stop", _AGAIN),
    "bad_arguments": Kind("arguments of a call are not a JSON object; templates stop or write nonsense", _AGAIN),
    "unanswered_call": Kind(
        "the conversation goes on though a call has no result; several templates and APIs stop",
        "leave the row out, or put the result in",
    ),
    "unasked_result": Kind("a result of a call that nobody made", "leave the row out, or put the call in"),
    "undeclared_tool": Kind(
        "a call to a function that the row's tools do not have: the model learns to make functions up",
        "put the function into the rollout's tools, or leave the row out",
    ),
    "bad_tool": Kind("tools are not a list of objects with names; templates stop", _AGAIN),
    "duplicate": Kind("the same row again; it counts twice in training", "convert with --dedup"),
    "too_long": Kind(
        "more tokens than --max-tokens; NeMo RL gives such a row no loss, others cut it",
        "convert with --max-tokens, or train with a longer sequence",
    ),
    "template_stops": Kind("the chat template raises", "see what it says; `--format chat` suits most templates"),
    "template_loses": Kind(
        "text, a call or a result of the row is not in what the template renders",
        "use the model's own template, and the format that it knows",
    ),
    "template_encodes_twice": Kind(
        "arguments are a JSON string and the template encodes them again", "convert with --arguments object"
    ),
    "template_changes": Kind(
        "what is rendered of the beginning of a row changes as the row goes on; NeMo RL renders turn by turn, and "
        "trains on another text than the model sees",
        "use a template that leaves earlier turns alone (with reasoning kept), or --reasoning drop",
    ),
    "no_tools": Kind("calls, and no tools at all", "see whether the rollouts have responses_create_params.tools", True),
    "two_assistant_turns": Kind(
        "the assistant has two turns in a row, as the layout `openai` has where it says something and calls; strict "
        "templates stop",
        "convert with --format chat, where they are one",
        True,
    ),
    "late_system": Kind("a system turn behind others; Qwen3.5 stops at it", "leave the row out for that model", True),
    "developer_role": Kind(
        "a developer's turn; several templates do not know the role",
        "convert with --format chat, where it is the system's",
        True,
    ),
    "null_content": Kind(
        "content is null beside calls, as the OpenAI API has it; gpt-oss stops at it", "write an empty string", True
    ),
    "parts": Kind(
        "content with images, sounds or files; text templates stop at it, or leave it out",
        "train a model that reads them, or convert with --format simple to have them refused",
        True,
    ),
    "string_arguments": Kind(
        "arguments are JSON strings; Qwen2.5, gpt-oss and Llama encode them twice, Qwen3.5, Nemotron 3 and GLM-4 stop",
        "convert with --arguments object for these",
        True,
    ),
    "mixed_schemas": Kind(
        "objects of one place have different keys, or one place has values of different types: a loader with a type "
        "for each column fills keys in with null, or stops",
        "set use_preserving_dataset: true in NeMo RL (fastsft nemo-rl does), or convert with --format chat "
        "--arguments string",
        True,
    ),
    "reasoning_lost": Kind(
        "reasoning of a turn is not in what the template renders, as many templates keep the last turn's alone",
        "nothing, if the model is meant to forget it",
        True,
    ),
}
