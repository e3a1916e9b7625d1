"""What can be found in rows: one place, with what it does and what to do about it."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of finding.

    Attributes:
        meaning: What is wrong and what it does.
        fix: What to do about it.
        options: The words for `fastsft convert` after which it is gone; None where converting does not help.
        is_note: Whether rows may train all the same, so that it is told and no fault.
    """

    meaning: str
    fix: str
    options: str | None = None
    is_note: bool = False


_AGAIN = "convert the rollouts again with fastsft"
_PAIRS_AGAIN = "make the pairs again with fastsft pairs"
_FOR = "convert with --for and the trainer's name"
_LEAVE_OUT = "leave such rows out: fastsft convert --trainable"

KINDS = {
    "bad_json": Kind(
        "not strict JSON in valid UTF-8; most loaders stop at it",
        f"{_AGAIN}; a torn last line is a copy that did not finish",
        "",
    ),
    "blank_line": Kind("an empty line; NeMo RL and others parse every line and stop", "remove it: sed -i '/^\\s*$/d'"),
    "line_end": Kind(
        "a raw U+2028, U+2029 or U+0085; some loaders split the line there", f"escape it, or {_AGAIN}", ""
    ),
    "bad_number": Kind(
        "a number that no double holds; five of seven readers stop", f"{_AGAIN}, which refuses the line", ""
    ),
    "repeated_key": Kind(
        "a key stands twice in one object; some readers stop, others differ in which counts", _AGAIN, ""
    ),
    "not_a_row": Kind(
        "neither a conversation nor an input and an output, nor a pair of sides; the trainer finds no `messages`",
        "if it is a rollout, fastsft convert makes a row of it",
        "",
    ),
    "no_rows": Kind("a file without a row; NeMo RL stops at it", "leave the file out"),
    "mixed_rows": Kind(
        "rows of several kinds in one file (conversations, inputs and outputs, formats of preferences), which no "
        "loader reads",
        "convert all with one --format",
        "",
    ),
    "unknown_role": Kind(
        "a turn of a role that templates do not know: they stop, or leave it out", _LEAVE_OUT, "--trainable"
    ),
    "bad_content": Kind(
        "content is neither text nor a list of parts; templates stop or render it as Python writes it", _AGAIN, ""
    ),
    "last_role": Kind(
        "the last turn is not the assistant's; NeMo RL's whole load stops at one such row, or of a pair it learns to "
        "say what the user or a tool says",
        f"{_AGAIN}, which cuts what stands behind it",
        "",
    ),
    "no_user_turn": Kind(
        "nobody asks: TRL and Qwen3.6's template stop, and under Qwen2.5 NeMo RL puts the system prompt under loss",
        "convert without --allow no_user_turn",
        "",
    ),
    "alternation": Kind("the user has two turns in a row, which some templates refuse", _LEAVE_OUT, "--trainable"),
    "empty_turn": Kind("an assistant turn with nothing in it teaches to say nothing", _LEAVE_OUT, "--trainable"),
    "stray_think_tag": Kind(
        "a `</think>` without a `<think>` before it stands in the assistant's text: thought is taught as the answer",
        _LEAVE_OUT,
        "--trainable",
    ),
    "bad_call": Kind(
        "a call without a name, or of no known form, or an id on two calls; templates stop", _LEAVE_OUT, "--trainable"
    ),
    "bad_arguments": Kind("arguments of a call are not a JSON object; templates stop or write nonsense", _AGAIN, ""),
    "unanswered_call": Kind(
        "the conversation goes on though a call has no result; several templates and APIs stop",
        _LEAVE_OUT,
        "--trainable",
    ),
    "orphan_tool_result": Kind("a result of a call that nobody made", _LEAVE_OUT, "--trainable"),
    "undeclared_tool": Kind(
        "a call to a function that the row's tools do not have: the model learns to make functions up",
        f"put the function into the rollout's tools, or {_LEAVE_OUT}",
        "--trainable",
    ),
    "bad_tool": Kind("tools are not a list of objects with names; templates stop", _AGAIN, ""),
    "duplicate": Kind("the same row again; it counts twice in training", "convert with --dedup", "--dedup"),
    "too_long": Kind(
        "more tokens than --max-tokens; NeMo RL gives such a row no loss, or a pair of which one side is so long, "
        "others cut it",
        "convert with --max-tokens and --template, or train with a longer sequence",
        "--max-tokens {tokens} --template {template}",
    ),
    "media_parts": Kind(
        "images, sounds or files in the form of chat (`image_url`): NeMo RL trains without the picture, text templates "
        "stop or leave it out",
        "convert with --for nemo-rl for that trainer, or leave such rows out: fastsft convert --trainable",
        "--for nemo-rl",
    ),
    "template_stops": Kind(
        "the chat template raises, at the row or at a beginning of it, which NeMo RL renders too",
        "see what it says; --format chat suits most templates, and --trainable --template leaves the others out",
        "--trainable --template {template}",
    ),
    "template_loses": Kind(
        "text, a call or a result of the row is not in what the template renders",
        "use the model's own template and the format that it knows, or --trainable --template",
        "--trainable --template {template}",
    ),
    "template_encodes_twice": Kind(
        "arguments are a JSON string and the template encodes them again",
        "convert with --arguments object",
        "--arguments object",
    ),
    "template_changes": Kind(
        "what is rendered of the beginning of a row changes as the row goes on; NeMo RL renders turn by turn, and "
        "trains on another text than the model sees",
        "use a template that leaves earlier turns alone, or leave such rows out: --trainable --template",
        "--trainable --template {template}",
    ),
    "control_tokens": Kind(
        "the template's own control tokens stand in what a row says: the tokenizer takes them for the real ones, and a "
        "tool result ends its turn",
        "leave such rows out: fastsft convert --trainable --template",
        "--trainable --template {template}",
    ),
    "columns": Kind("a pair whose columns the trainer does not read", _FOR, ""),
    "file_kind": Kind("a file of a kind that the trainer does not read", _FOR, ""),
    "flat_calls": Kind(
        "calls without `function`, as the openai format has them; the loader stops at one",
        _FOR,
        "--format chat",
        is_note=True,
    ),
    "arguments_no_string": Kind(
        "arguments are objects, and the loader wants JSON strings",
        _FOR,
        "--format chat --arguments string",
        is_note=True,
    ),
    "rounded_numbers": Kind(
        "numbers in arguments with more than ten decimals, to which Hugging Face datasets rounds them",
        "nothing, if that is near enough; else leave such rows out",
        is_note=True,
    ),
    "list_tools": Kind(
        "tools are a list, which no column of Parquet holds as it is",
        _FOR,
        "--tools string",
        is_note=True,
    ),
    "no_call_id": Kind(
        "a result does not say which call it answers; the loader stops",
        "convert with --format chat",
        "--format chat",
        is_note=True,
    ),
    "function_name": Kind(
        "a function's name has other characters than letters, digits, _ and -, or more than 64; or a tool is none",
        f"leave such rows out: {_FOR}",
        "",
        is_note=True,
    ),
    "media_place": Kind(
        "images that are not the user's, sounds, videos or files, which are refused",
        f"leave such rows out: {_FOR}",
        "",
        is_note=True,
    ),
    "no_turns_taken": Kind(
        "behind a first system turn, user (or results) and assistant do not take turns; the row is left out",
        f"leave such rows out: {_FOR}",
        "",
        is_note=True,
    ),
    "assistant_first": Kind(
        "the assistant has the first turn; the loader renders what stands before each, and stops at nothing",
        f"leave such rows out: {_FOR}",
        "",
        is_note=True,
    ),
    "text_beside_calls": Kind(
        "text or reasoning in a turn with calls, of which the loader reads the calls alone",
        "nothing, if the model is meant to call without a word; else another trainer",
        is_note=True,
    ),
    "reasoning_field": Kind(
        "reasoning in a field, which the loader does not read",
        _FOR,
        "--format chat --reasoning think",
        is_note=True,
    ),
    "no_tools": Kind(
        "calls, and no tools at all",
        "see whether the rollouts have responses_create_params.tools, or leave such rows out: --where 'calls = 0'",
        "--where calls=0",
        is_note=True,
    ),
    "two_assistant_turns": Kind(
        "the assistant has two turns in a row: two responses, or one that was cut in two and teaches to stop before "
        "each call, as by the guide's script; strict templates stop",
        f"{_AGAIN}, which keeps what one response says in one turn",
        "",
        is_note=True,
    ),
    "late_system": Kind(
        "a system turn behind others; Qwen3.5 stops at it",
        "leave such rows out for that model: --trainable --template",
        "--trainable --template {template}",
        is_note=True,
    ),
    "developer_role": Kind(
        "a developer's turn; several templates do not know the role",
        "convert with --format chat, where it is the system's",
        "--format chat",
        is_note=True,
    ),
    "null_content": Kind(
        "content is null beside calls, as the OpenAI API has it; gpt-oss stops at it", _AGAIN, "", is_note=True
    ),
    "parts": Kind(
        "content with images, sounds or files; text templates stop at it, or leave it out",
        "train a model that reads them, or convert with --format simple to have them refused",
        "--format simple",
        is_note=True,
    ),
    "string_arguments": Kind(
        "arguments are JSON strings; Qwen2.5, gpt-oss and Llama encode them twice, Qwen3.5, Nemotron 3 and GLM-4 stop",
        "convert with --arguments object for these",
        "--arguments object",
        is_note=True,
    ),
    "long_integer": Kind(
        "an integer of 39 digits or more in arguments or tools; Polars stops at it",
        "convert with --format chat --arguments string --tools string, which readers do not look into",
        "--format chat --arguments string --tools string",
        is_note=True,
    ),
    "case_keys": Kind(
        "keys of one object in arguments or tools differ in case alone; DuckDB stops at them",
        "convert with --format chat --arguments string --tools string, which readers do not look into",
        "--format chat --arguments string --tools string",
        is_note=True,
    ),
    "string_tools": Kind(
        "tools are one JSON string, which TRL, Axolotl and NeMo Automodel read; NeMo RL stops at it",
        "convert with --tools list for NeMo RL",
        "--tools list",
        is_note=True,
    ),
    "mixed_schemas": Kind(
        "the schemas of tools differ between rows: Hugging Face datasets before version 5 fills keys in with null, "
        "and version 5 changes their numbers (0.6 to 0.6000000000000001)",
        "convert with --tools string for trainers that read it; for NeMo RL nothing, as the config of fastsft nemo-rl "
        "reads rows as they are",
        "--tools string",
        is_note=True,
    ),
    "reasoning_lost": Kind(
        "reasoning of a turn is not in what the template renders, as many templates keep the last turn's alone",
        "nothing, if the model is meant to forget it; else --reasoning drop leaves all of it out",
        "--reasoning drop",
        is_note=True,
    ),
}

# What pairs of sides have beside that; pairs are made of rollouts again, not of rows.
OF_PAIRS = {
    "bad_pair": Kind(
        "not the shape of its format of preferences: another number of completions than two, a rank that is no number, "
        "a side that is neither messages nor text, a label that is not true or false; loaders stop",
        _PAIRS_AGAIN,
    ),
    "tie": Kind("neither side is the better one; NeMo RL's whole load stops at a pair with equal ranks", _PAIRS_AGAIN),
    "same_sides": Kind(
        "both sides say the same: the loss stays where it began, whatever the model learns",
        f"{_PAIRS_AGAIN}, which never pairs them",
    ),
    "other_context": Kind(
        "the sides differ before their last message, so the last ones answer different contexts, and NeMo RL puts loss "
        "on the last alone",
        "make pairs of one assistant turn on a shared context: fastsft pairs --turn first-difference",
    ),
    "tools_dropped": Kind(
        "tools or calls: NeMo RL shows no template the tools of a pair, so the model learns to call what it does not "
        "see",
        "for tools, train with TRL: fastsft pairs --format trl",
        is_note=True,
    ),
    "object_arguments": Kind(
        "arguments of calls are objects: NeMo RL loads pairs with Hugging Face datasets, which before version 5 fills "
        "the keys of all rows in with null, and version 5 changes their numbers (0.6 to 0.6000000000000001)",
        "write them as JSON strings, as fastsft pairs does",
        is_note=True,
    ),
    "results_trained": Kind(
        "a side has turns that are not the assistant's, such as tool results: TRL puts loss on all behind the prompt",
        "make pairs of one assistant turn: fastsft pairs --turn first-difference",
        is_note=True,
    ),
    "longer_chosen": Kind(
        "the chosen sides are longer: what DPO learns first is to say more",
        "bound the lengths: fastsft pairs --length-ratio 0.5:2, or train with length normalisation "
        "(preference_average_log_probs in NeMo RL)",
        is_note=True,
    ),
    "uneven_labels": Kind(
        "good and bad sides are not as many as each other; TRL's KTO wants weights that even them",
        "even them: fastsft pairs --format kto --balance, or set desirable_weight and undesirable_weight",
        is_note=True,
    ),
}
KINDS |= OF_PAIRS
