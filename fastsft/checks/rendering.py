"""Render rows with a chat template as transformers does, and count tokens; jinja2 and tokenizers are extras.

The template is untrusted: it runs in jinja2's immutable sandbox. Source: transformers'
`utils/chat_template_utils.py` and `tokenization_utils_base.py`: the environment, its filters and globals, which
file of a tokenizer's folder holds the template (a `chat_template.jinja` replaces what `tokenizer_config.json` says),
and where special tokens stand.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from fastsft.checks.controls import control_tokens, controls_in
from fastsft.checks.pieces import Piece, pieces_of
from fastsft.checks.prefixes import is_safe
from fastsft.checks.rules import Found
from fastsft.errors import UsageError
from fastsft.formats.calls import ASSISTANT
from fastsft.storage.files import read_file

_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Rendering(msgspec.Struct):
    """What rendering a row gave.

    Attributes:
        findings: What it does to the row.
        tokens: How many the text has; None where nobody counts them, or the template raises.
        stops: What the template raises; None where it does not.
        beyond: Beyond which limit it went, as the end of a sentence; None where it did not.
        pieces: What each turn adds to the text; empty where nobody asked.
    """

    findings: list[Found] = []
    tokens: int | None = None
    stops: str | None = None
    beyond: str | None = None
    pieces: list[Piece] = []


class ChatTemplate:
    """A template, and its tokenizer where a folder has one.

    Raises:
        UsageError: There is none at the path, it cannot be read, or an extra is not installed.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        if self._path.is_char_device():  # which may have no end
            raise UsageError(f"cannot read the template {path}: it is not a regular file")
        try:
            if self._path.is_dir():
                config = _json_of(self._path / "tokenizer_config.json")
                templates = _templates_of(self._path, config)
                self._special = _special_tokens(self._path, config)
                self._tokenizer = _tokenizer_of(self._path / "tokenizer.json")
            else:
                templates = {"default": read_file(self._path).decode()}
                self._special = {"bos_token": "", "eos_token": ""}
                self._tokenizer = None
        except OSError as error:
            raise UsageError(f"cannot read the template {path}: {error.strerror}") from None
        except (ValueError, LookupError, TypeError) as error:
            raise UsageError(f"cannot read the template {path}: {type(error).__name__}: {error}") from None
        if not templates:
            raise UsageError(f"{path} has no chat template: no chat_template.jinja, none in tokenizer_config.json")
        compiled = {name: _compiled(text, path) for name, text in templates.items()}
        self._compiled = {name: template for name, (template, _) in compiled.items()}
        self._safe = {name: is_safe for name, (_, is_safe) in compiled.items()}
        special = _special_of_tokenizer(self._path) | set(self._special.values()) if self._path.is_dir() else set()
        self._control = control_tokens(templates.values(), special)

    @property
    def counts_tokens(self) -> bool:
        """Tell whether there is a tokenizer."""
        return self._tokenizer is not None

    def special(self, name: str) -> str:
        """Return the text of a special token; empty where there is none."""
        return self._special.get(name, "")

    def tokens(self, text: str) -> int:
        """Count the tokens of a rendered row."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def rendered(self, messages: list[Any], tools: Any) -> str:
        """Render a conversation, raising whatever the template raises."""
        # transformers 5 hands reasoning over under the name that gpt-oss reads, too.
        messages = [
            {"thinking": message["reasoning_content"], **message} if message.get("reasoning_content") else message
            for message in messages
        ]
        text: str = self._compiled[self._name_for(tools)].render(
            messages=messages, tools=tools, documents=None, add_generation_prompt=False, **self._special
        )
        return text

    def _name_for(self, tools: Any) -> str:
        name = "tool_use" if tools is not None and "tool_use" in self._compiled else "default"
        return name if name in self._compiled else next(iter(self._compiled))

    def cut(self, row: dict[str, Any]) -> Rendering:
        """Render a row turn by turn, and return what each adds.

        Raises:
            MemoryError: The template wants more than there is.
        """
        try:
            return Rendering(pieces=pieces_of(self, *_conversation_of(row)))
        except MemoryError:
            raise
        except Exception as error:
            return Rendering(stops=_told(error))

    def rendering_of(self, row: dict[str, Any], *, finds: bool = True) -> Rendering:
        """Render a row, and count its tokens where there is a tokenizer; with `finds`, find what becomes of it.

        Raises:
            MemoryError: The template wants more than there is.
        """
        messages, tools = _conversation_of(row)
        try:
            text = self.rendered(messages, tools)
            tokens = self.tokens(text) if self.counts_tokens else None
        except MemoryError:
            raise
        except Exception as error:
            stops = _told(error)
            return Rendering([Found("template_stops", stops)], stops=stops)
        if not finds:
            return Rendering(tokens=tokens)
        found = [*_lost(messages, tools, text), *self._of_beginnings(messages, tools, text)]
        return Rendering([*found, *controls_in(row, self._control)], tokens)

    def _of_beginnings(self, messages: list[Any], tools: Any, text: str) -> Iterator[Found]:
        """Find the first beginning of a row at which rendering stops, and the first that the next does not continue.

        NeMo RL renders each beginning and learns from what follows the first character that differs from the one
        before (`get_formatted_message_log`).
        """
        if self._safe[self._name_for(tools)]:
            return
        before, has_changed = "", False
        for end in range(1, len(messages) + 1):
            try:
                now = self.rendered(messages[:end], tools) if end < len(messages) else text
            except MemoryError:
                raise
            except Exception as error:
                yield Found("template_stops", f"the beginning up to message {end - 1}: {_told(error)}")
                return
            if not has_changed and not now.startswith(before):
                has_changed = True
                yield Found("template_changes", f"with message {end - 1}")
            before = now


def _told(error: Exception) -> str:
    """Say what a template raised; its text may be no text that JSON can hold."""
    return f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace").decode()


def _conversation_of(row: dict[str, Any]) -> tuple[list[Any], Any]:
    if "messages" in row:
        tools = row.get("tools")
        return row["messages"], msgspec.json.decode(tools) if isinstance(tools, str) else tools
    return [{"role": "user", "content": row["input"]}, {"role": ASSISTANT, "content": row["output"]}], None


def _lost(messages: list[Any], tools: Any, text: str) -> Iterator[Found]:
    """Find what a row says and its rendered text does not."""
    for index, message in enumerate(messages):
        for said in _texts_of(message.get("content")):
            if not _is_in(said, text):
                # A template may part a text at its tags, and trims what it parts.
                pieces = [piece.strip() for piece in said.replace("<think>", "</think>").split("</think>")]
                what = "reasoning_lost" if len(pieces) > 1 and _is_in(pieces[-1], text) else "template_loses"
                yield Found(what, f"message {index}: {message.get('role')} text")
        reasoning = message.get("reasoning_content")
        if isinstance(reasoning, str) and not _is_in(reasoning, text):
            yield Found("reasoning_lost", f"message {index}")
        for call in message.get("tool_calls") or []:
            called = call.get("function", call)
            arguments = called.get("arguments")
            if isinstance(arguments, str):
                again = json.dumps(arguments, ensure_ascii=False)[1:-1]
                if again != arguments and again in text:
                    yield Found("template_encodes_twice", f"message {index}: call {called['name']}")
                    continue  # so what it says is there in another form
                arguments = json.loads(arguments)
            words = [called["name"], *arguments, *(value for value in arguments.values() if isinstance(value, str))]
            if not all(_is_in(word, text) for word in words):
                yield Found("template_loses", f"message {index}: call {called['name']}")
    for tool in tools or []:
        function = tool.get("function", tool)
        if not _is_in(str(function.get("name", "")), text):
            yield Found("template_loses", f"the tool {function.get('name')}")


def _is_in(said: str, text: str) -> bool:
    """Tell whether a rendered text has what was said: trimmed, or as JSON, as some templates write results."""
    trimmed = said.strip()
    return trimmed in text or any(json.dumps(one, ensure_ascii=False)[1:-1] in text for one in (said, trimmed))


def _texts_of(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content or [] if isinstance(part.get("text"), str)]


def _compiled(text: str, path: str) -> tuple[Any, bool]:
    """Compile a template, and tell whether every beginning is rendered as the beginning of the whole."""
    try:
        import jinja2
        from jinja2.ext import Extension, loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ModuleNotFoundError:
        raise UsageError("a chat template needs jinja2: pip install jinja2") from None

    class Generation(Extension):  # type: ignore[misc, unused-ignore] # an extra
        """`{% generation %}…{% endgeneration %}`, which marks what a trainer learns; rendered as what is inside."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 wants a class attribute

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **forms: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **forms)

    extensions = [Generation, loopcontrols]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    try:
        return environment.from_string(text), is_safe(environment.parse(text))
    except (
        jinja2.TemplateError,
        SyntaxError,
        RecursionError,
    ) as error:  # it becomes Python, which has limits of its own
        raise UsageError(f"the template {path} cannot be read: {error}") from None


def _json_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(read_file(path), type=dict) if path.exists() else {}
    return found


def _templates_of(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    files = {}
    if (folder / "chat_template.jinja").exists():
        files["default"] = read_file(folder / "chat_template.jinja").decode()
    for path in sorted(folder.glob("additional_chat_templates/*.jinja")):
        files[path.stem] = read_file(path).decode()
    said = config.get("chat_template")
    if files or said is None:
        return files
    if isinstance(said, str):
        return {"default": said}
    return {entry["name"]: entry["template"] for entry in said}


def _special_tokens(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    said = dict(config)
    if "added_tokens_decoder" not in config:  # an older folder keeps them in a file of their own
        said |= _json_of(folder / "special_tokens_map.json")
    tokens = {}
    for name in _TOKENS:
        token = said.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            tokens[name] = token
    return tokens


def _special_of_tokenizer(folder: Path) -> set[str]:
    """Return the texts that a tokenizer takes for one special token each."""
    added = [*_json_of(folder / "tokenizer.json").get("added_tokens", [])]
    added += _json_of(folder / "tokenizer_config.json").get("added_tokens_decoder", {}).values()
    return {token["content"] for token in added if isinstance(token, dict) and token.get("special")}


def _tokenizer_of(path: Path) -> Any:
    if not path.exists():
        return None
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        raise UsageError("counting tokens needs tokenizers: pip install tokenizers") from None
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the workers are the threads
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise ValueError(f"{path.name}: {error}") from None
    tokenizer.no_truncation()  # such settings are saved with it, and would hide how long a row is
    tokenizer.no_padding()
    return tokenizer
