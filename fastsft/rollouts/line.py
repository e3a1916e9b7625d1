"""What an input line is: how it is decoded into a rollout, and why it is refused.

One typed pass per line builds the items and nothing else: what is not declared
here (token ids, log-probabilities, captures; megabytes a line) is skipped without
being built, and the leaves that a row repeats stay `Raw`, so that text is never
unescaped and escaped again. That pass costs about as much as reading `reward` alone.

A line that the typed pass does not take is decoded once more, field by field, to
say why it is refused, or to read one of the shapes that are too rare to pay for in
every line (a string prompt, lists of lists). What a line gives depends on its bytes alone.
"""

from __future__ import annotations

import threading
from typing import Any

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.escape import excerpt
from fastsft.rollouts.depth import prune_deep_values
from fastsft.rollouts.rollout import ABSENT, Item, Marks, ResponseMarks, Rollout, comparable, json_type
from fastsft.rollouts.sizes import FEW_NBYTES, check_items, check_leaves, is_list_of_lists


class _Elsewhere(msgspec.Struct, gc=False):
    """Where else a prompt may lie: stored by a server, of which the line knows a name alone."""

    previous_response_id: Raw = ABSENT
    prompt: Raw = ABSENT
    conversation: Raw = ABSENT


class _Params(_Elsewhere, kw_only=True, gc=False):
    input: list[Item] | str
    tools: Raw = ABSENT
    instructions: Raw = ABSENT
    metadata: Raw = ABSENT


class _Response(ResponseMarks, gc=False):
    output: list[Item] | None = None


class _Reward:
    """What stands for a reward in a decoded line; the values are kept aside by `_Decoding`."""


_REWARD = _Reward()


class _Line(Marks, kw_only=True, gc=False):
    params: _Params = msgspec.field(name="responses_create_params")
    response: _Response | None = None
    output: list[Item] | None = None
    reward: _Reward = _REWARD


class _Rewarded(msgspec.Struct, gc=False):
    reward: _Reward = _REWARD


class _LooseParams(_Elsewhere, kw_only=True, gc=False):
    input: Raw = ABSENT
    tools: Raw = ABSENT
    instructions: Raw = ABSENT
    metadata: Raw = ABSENT


class _LooseResponse(ResponseMarks, gc=False):
    output: Raw = ABSENT


class _LooseLine(Marks, gc=False):
    params: Raw = msgspec.field(name="responses_create_params", default=ABSENT)
    response: Raw = ABSENT
    output: Raw = ABSENT
    reward: Raw = ABSENT


# Built once per process: they cannot be pickled, so they are never passed around.
_grammar = msgspec.json.Decoder(Raw)
_loose_line = msgspec.json.Decoder(_LooseLine)
_loose_params = msgspec.json.Decoder(_LooseParams)
_loose_response = msgspec.json.Decoder(_LooseResponse)
_encode = msgspec.json.Encoder().encode
_number = msgspec.json.Decoder(float)
_items = msgspec.json.Decoder(list[Item])
_values = msgspec.json.Decoder(list[Raw])


class _Decoding(threading.local):
    """Decodes lines, and keeps every value that a line has for `reward`: of a repeated key msgspec gives the last.

    It costs 0.07 us a line. Looking for the key in the bytes takes 0.4 s/GB of the real mix.
    """

    def __init__(self) -> None:
        self.rewards: list[object] = []
        self.line = msgspec.json.Decoder(_Line, dec_hook=self._keep).decode
        self.rewarded = msgspec.json.Decoder(_Rewarded, dec_hook=self._keep).decode

    def _keep(self, _: type, reward: object) -> _Reward:
        self.rewards.append(reward)
        return _REWARD


_decoding = _Decoding()


def rollout_of(line: bytes | memoryview) -> Rollout:
    """Decode one line, which must be valid UTF-8.

    The rollout's raw leaves refer to the memory of the line.

    Raises:
        Refused: The line is not a usable rollout.
    """
    rewards = _decoding.rewards
    rewards.clear()
    if is_long := len(line) > FEW_NBYTES:
        check_items(line)
    try:
        try:
            found = _decoding.line(line)
        except msgspec.ValidationError:
            return _other_shape(line)  # well-formed so far, but of another shape
        except msgspec.DecodeError:
            raise
        except ValueError:  # an integer with thousands of digits
            return _other_shape(line)
        reward: Any = rewards[0] if rewards else 0.0
        if type(reward) is int and -_MOST_EXACT < reward < _MOST_EXACT:
            reward = float(reward)
        if len(rewards) > 1 or type(reward) not in _REWARD_TYPES:
            return _other_shape(line)
        params, output, prompt = found.params, found.output, found.params.input
        if output is None:
            if found.response is None or found.response.output is None:
                return _other_shape(line)
            output = found.response.output
        if isinstance(prompt, str):
            prompt = [Item(type="message", role="user", content=Raw(_encode(prompt)))]
        tools, response = params.tools, found.response
        if not (params.previous_response_id in _UNSET and params.prompt in _UNSET and params.conversation in _UNSET):
            _check_prompt_is_here(params)
        if response is not None and response.tools and tools in _NO_TOOLS:
            tools = response.tools
        if is_long:
            check_leaves([*prompt, *output], tools)
        return Rollout(prompt, output, reward, tools, params.instructions, params.metadata, found, response)
    except msgspec.DecodeError as error:
        raise Refused("bad_json", f"not a JSON object: {error}") from None
    except RecursionError:
        # The decoder's own limit (996 levels on Python 3.10, 1,497 on 3.12, 9,998 on 3.13) must not decide.
        return rollout_of(prune_deep_values(bytes(line)))


def _other_shape(line: bytes | memoryview) -> Rollout:
    """Read a line field by field: the rare shapes, and the reason of every refusal."""
    _grammar.decode(line)
    try:
        found = _loose_line.decode(line)
    except msgspec.ValidationError:
        raise Refused("not_object", f"the line is not a JSON object, found {excerpt(line)}") from None
    prompt, params = _prompt(found.params)
    response = _response_of(found)
    output = _output(found, response, prompt, params.instructions)
    _check_prompt_is_here(params)
    tools = params.tools
    if response is not None and response.tools and tools in _NO_TOOLS:
        tools = response.tools
    reward = _reward(found.reward)
    _check_reward_is_one(line)
    check_leaves([*prompt, *output], tools)
    return Rollout(prompt, output, reward, tools, params.instructions, params.metadata, found, response)


_REWARD_TYPES = (float, type(None))
_MOST_EXACT = 1 << 53  # integers beyond it are read once more, as they may be beyond a double


def _check_reward_is_one(line: bytes | memoryview) -> None:
    """Refuse a line with several rewards, the last of which is fit: readers differ about which of them counts."""
    rewards = _decoding.rewards
    rewards.clear()
    try:
        _decoding.rewarded(line)
        is_one = len(rewards) <= 1
    except (msgspec.ValidationError, ValueError):  # one is beyond a double
        is_one = False
    if not is_one:
        raise Refused("repeated_key", "the line has several rewards, and readers differ about which of them counts")


_UNSET = (ABSENT, Raw(b"null"))
_NO_TOOLS = (*_UNSET, Raw(b"[]"), Raw(b"{}"))


def _check_prompt_is_here(params: _Elsewhere) -> None:
    for name in _Elsewhere.__struct_fields__:
        if getattr(params, name) not in _UNSET:
            problem = f"the prompt is stored elsewhere: {name} is {excerpt(getattr(params, name))}"
            raise Refused("prompt_elsewhere", problem)


def _response_of(line: _LooseLine) -> _LooseResponse | None:
    try:
        return _loose_response.decode(line.response)
    except msgspec.DecodeError:
        return None


def _reward(raw: Raw) -> float | None:
    if not raw:
        return 0.0
    if json_type(raw) == "null":
        return None
    try:
        return _number.decode(raw)
    except msgspec.DecodeError:
        raise Refused("reward_type", f"reward is not a finite number, found {excerpt(raw)}") from None


def _prompt(raw: Raw) -> tuple[list[Item], _LooseParams]:
    try:
        params = _loose_params.decode(raw)
    except msgspec.DecodeError:
        raise Refused("no_prompt", f"responses_create_params is not an object, found {excerpt(raw)}") from None
    match json_type(params.input):
        case "list":
            return _items_of(params.input, "prompt"), params
        case "string":
            return [Item(type="message", role="user", content=params.input)], params
        case _:
            problem = f"responses_create_params.input is neither a string nor a list, found {excerpt(params.input)}"
            raise Refused("no_prompt", problem)


def _output(line: _LooseLine, response: _LooseResponse | None, prompt: list[Item], instructions: Raw) -> list[Item]:
    """Return the output's items; of a list of lists the last, as each repeats the prompt and extends the one before."""
    raw = line.output
    if json_type(raw) != "list":  # an environment may use the name for something else
        if response is None:
            problem = f"no list `output`, and `response` is not an object, found {excerpt(line.response)}"
            raise Refused("no_output", problem)
        raw = response.output
    if json_type(raw) != "list":
        raise Refused("no_output", f"neither `output` nor `response.output` is a list, found {excerpt(raw)}")
    if is_list_of_lists(raw):
        return _without_prompt(_items_of(_values.decode(raw)[-1], "output"), prompt, instructions)
    return _items_of(raw, "output")


def _without_prompt(items: list[Item], prompt: list[Item], instructions: Raw) -> list[Item]:
    """Take the repeated prompt from the front of an output, with the instructions before it if they are there too."""
    asked = [comparable(item) for item in prompt]
    for before in (*([Item(role=role, content=instructions)] for role in ("system", "developer")), []):
        given = [comparable(item) for item in before] + asked
        if [comparable(item) for item in items[: len(given)]] == given:
            return items[len(given) :]
    return items


def _items_of(raw: Raw, where: str) -> list[Item]:
    try:
        return _items.decode(raw)
    except msgspec.ValidationError as error:
        raise Refused("bad_item", f"an item of the {where} has the wrong type: {error}") from None
