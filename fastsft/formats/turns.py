"""Rollout -> turns: the one place that decides what the turns of a rollout are, whatever the layout.

A turn is one model response: its reasoning, its text and its calls. Without recorded token ids a response is what
the assistant does between two turns of others. With them an item with ids of its own ends a response (NeMo Gym
records the ids of a response on its last item), so what follows belongs to another. Layouts write turns down; which
there are, whose they are, and whether a line has a row at all is settled here.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.escape import excerpt
from fastsft.formats.calls import ASSISTANT, Called, call_of, chat_shaped_calls, id_of
from fastsft.formats.content import NO_TEXT, Content, content_of, one_content
from fastsft.formats.reasoning import Piece, reasoning_of, reasoning_of_turn, split_thoughts
from fastsft.formats.results import TOOL, pair_results
from fastsft.formats.row import Layout
from fastsft.rollouts.rollout import ABSENT, Item, Rollout, is_string
from fastsft.rollouts.token_ids import has_ids, same_ids, split_at_last_sampled

_NOTHING_SAID: tuple[Content, ...] = (NO_TEXT, [])
_RESULT_ROLES = (TOOL, "function")  # the latter in an older dialect


class Note(msgspec.Struct, frozen=True, gc=False):
    """What is known of an assistant turn beside what every layout writes down.

    Attributes:
        reasoning: What it thinks, in pieces.
        pieces: What it says and thinks, in order and as written; empty where that is its content.
        answer: The last text of it that the output has; None where that is its content.
        says: Whether a text or a call of it is the output's.
        thinks: Whether some of its reasoning is the output's.
        is_empty: Whether it is a message of the output in which the assistant says nothing.
        is_own: Whether the model sampled it.
    """

    reasoning: tuple[Raw, ...] = ()
    pieces: tuple[Piece, ...] = ()
    answer: Content | None = None
    says: bool = False
    thinks: bool = False
    is_empty: bool = False
    is_own: bool = False


# Nearly all turns are one of these: notes are shared, as making one takes a fifth of the time of a short turn.
_OF_PROMPT = Note()
_SAID, _OWN = Note(says=True), Note(says=True, is_own=True)
_EMPTY = Note(is_empty=True, is_own=True)


class Turn(msgspec.Struct, omit_defaults=True, gc=False):
    """One turn of a conversation, as the `openai` layout writes it once `note` and `call_id` are taken out of it.

    Attributes:
        role: Who speaks.
        content: What is said, without the assistant's reasoning.
        tool_calls: The assistant's calls.
        weight: 1 on the model's own turns and 0 on other assistant turns, where marks are asked for.
        loss_mask: The same.
        note: What else is known of an assistant turn; None for others.
        call_id: Which call a result answers, a JSON string; `ABSENT` where nobody knows.
    """

    role: str
    content: Content
    tool_calls: list[Called] = []
    weight: int | None = None
    loss_mask: int | None = None
    note: Note | None = None
    call_id: Raw = ABSENT


class Conversation(msgspec.Struct, gc=False):
    """The turns of a rollout.

    Attributes:
        turns: Prompt and output, oldest first; the last is the output's assistant.
        cut: How many turns behind it were left out.
        prompt: How many of the turns are the prompt's alone.
        has_thoughts: Whether some turn has reasoning.
        instructions: The system text beside the prompt, a JSON string; None for none.
    """

    turns: list[Turn]
    cut: int
    prompt: int
    has_thoughts: bool
    instructions: Raw | None


def conversation(rollout: Rollout, *, merges: bool = True, thought_is_text: bool = False) -> Conversation:
    """Return the turns of a rollout, up to the last in which the output's assistant says or calls something.

    With `merges`, an output goes on with the assistant turn that ends the prompt; where turns are marked as the
    model's own or not, these are two. With `thought_is_text`, reasoning is something said.

    Raises:
        Refused: An item cannot become a turn, results are missing, or the output has no assistant turn.
    """
    talk = _Talk(thought_is_text)
    talk.add(rollout.prompt, "user")
    if not merges:
        talk.end_turn()
    sampled, behind = split_at_last_sampled(rollout.output)
    talk.begin_output(rollout, is_recorded=sampled is not rollout.output)
    prompt = len(talk.turns)
    talk.add(sampled, ASSISTANT)
    talk.end_turn()
    end = talk.end
    if behind:
        talk.is_sampled = False
        talk.add(behind, ASSISTANT)
        talk.end_turn()
    if not end:
        raise Refused("no_assistant_turn", "the output has no assistant turn, or one of reasoning alone")
    turns = talk.turns
    if cut := len(turns) - end:
        del turns[end:]
    if talk.is_unpaired:
        pair_results(turns)
    instructions = None if rollout.instructions in _NO_INSTRUCTIONS else _instructions_of(rollout)
    return Conversation(turns, cut, prompt, talk.has_thoughts, instructions)


class _Talk:
    """The turns so far, and the assistant's turn that goes on.

    Attributes:
        turns: The finished turns.
        end: How many of them there are up to the last assistant turn of the output.
        has_thoughts: Whether one of them has reasoning.
        is_unpaired: Whether it is not plain which call each result answers, and that they stand in order.
        is_sampled: Whether what follows is not behind the last sampled response.
    """

    def __init__(self, thought_is_text: bool) -> None:
        self._thought_is_text = thought_is_text
        self.turns: list[Turn] = []
        self.end = 0
        self.has_thoughts = False
        self.is_unpaired = False
        self.is_sampled = True
        self._output_of: Rollout | None = None  # once the output has begun
        self._pieces: list[Piece] = []
        self._calls: list[Called] = []
        self._begun_pieces = 0  # how many of them are the prompt's
        self._begun_calls = 0
        self._calls_made = 0
        self._ended: Item | None = None  # the item that ended the response at hand
        self._is_own = False
        self._is_recorded = False

    def begin_output(self, rollout: Rollout, *, is_recorded: bool) -> None:
        """Take what follows for the output; with `is_recorded`, the ids of some of its items are."""
        self._output_of = rollout
        self._is_recorded = is_recorded
        self._begun_pieces, self._begun_calls = len(self._pieces), len(self._calls)

    def add(self, items: list[Item], roleless: str) -> None:
        """Add items; a message without a role is of the role `roleless`, the rule of NeMo Gym's SFT guide."""
        turns = self.turns
        for item in items:
            kind = item.type if item.type in _ITEM_KINDS else kind_of(item)
            if kind == "message":
                role = roleless if item.role is None else item.role
                if role != ASSISTANT:
                    self._add_other(item, role)
                    continue
            elif kind == "function_call_output":
                if self._pieces or self._calls:
                    self.end_turn()
                self._ended = None
                call_id = id_of(item.call_id)
                if not call_id or (turns and turns[-1].role == TOOL):
                    self.is_unpaired = True
                turns.append(Turn(TOOL, content_of(item.output), call_id=call_id))
                continue
            if self._ended is not None:
                self._begin_response(item)
            ended = bool(item.generation_token_ids) and self._output_of is not None and has_ids(item)
            if kind == "function_call":
                call = call_of(item)
                if not call.id:
                    call.id = Raw(b'"unnamed_call_%d"' % self._calls_made)
                self._calls_made += 1
                self._calls.append(call)
            elif kind == "message":
                self._add_said(item, ended)
            elif kind == "reasoning":
                self._pieces += [(text, len(self._calls), True) for text in reasoning_of(item)]
            else:
                raise AssertionError(f"no turn for item kind {kind}")
            if ended:
                self._ended, self._is_own = item, True

    def _begin_response(self, item: Item) -> None:
        """Begin another response right behind one that ended.

        Raises:
            Refused: What stood between the two is missing.
        """
        ended, calls = self._ended, self._calls
        assert ended is not None
        assert self._output_of is not None
        if same_ids(item, ended):
            return  # two items of one response that both have its ids
        self.end_turn()
        is_captured = self._output_of.marks.token_capture not in (ABSENT, Raw(b"null"))
        if self.is_sampled and (calls or is_captured):
            what = f"results of {len(calls)} calls are" if calls else "what was said is"
            why = " (_ng_token_capture: the output was rebuilt from sampled items alone)" if is_captured else ""
            raise Refused("results_missing", f"{what} missing between two responses of the model{why}")

    def _add_said(self, item: Item, ended: bool) -> None:
        if item.reasoning_content or item.reasoning:
            self._pieces += [(text, len(self._calls), True) for text in reasoning_of_turn(item)]
        content = content_of(item.content)
        if content in _NOTHING_SAID:
            content = item.refusal if is_string(item.refusal) else NO_TEXT  # which a chat-shaped turn has instead
        if not ended or content != NO_TEXT:  # ids without content are no turn
            self._pieces.append((content, len(self._calls), False))
        if item.tool_calls or item.function_call:
            for call in chat_shaped_calls(item, ASSISTANT):
                if not call.id:
                    call.id = Raw(b'"unnamed_call_%d"' % self._calls_made)
                self._calls_made += 1
                self._calls.append(call)

    def _add_other(self, item: Item, role: str) -> None:
        if self._pieces or self._calls:
            self.end_turn()
        self._ended = None
        content = content_of(item.content)
        if item.refusal and content == NO_TEXT and is_string(item.refusal):
            content = item.refusal
        if item.tool_calls or item.function_call:
            chat_shaped_calls(item, role)  # which only the assistant may make
        if role in _RESULT_ROLES:
            self.is_unpaired = True
            call_id = id_of(item.tool_call_id) or id_of(item.call_id)
            self.turns.append(Turn(TOOL, content, call_id=call_id))
        else:
            self.turns.append(Turn(role, content))

    def end_turn(self) -> None:
        """Finish the assistant's turn, if it has anything in it."""
        pieces, calls = self._pieces, self._calls
        if pieces or calls:
            content: Content = pieces[0][0] if pieces else NO_TEXT
            is_plain = not pieces or (len(pieces) == 1 and not pieces[0][2])
            if is_plain and not self._begun_pieces and (isinstance(content, list) or b"think" not in bytes(content)):
                note = self._note_of(content != NO_TEXT or len(calls) > self._begun_calls)
            else:
                content, note = self._split()
            self.turns.append(Turn(ASSISTANT, content, calls, note=note))
            if note.says or note.is_empty or (note.thinks and self._thought_is_text):
                self.end = len(self.turns)
            self._pieces, self._calls = [], []
        self._begun_pieces = self._begun_calls = 0
        self._ended, self._is_own = None, False

    def _note_of(self, says: bool) -> Note:
        if self._output_of is None:
            return _OF_PROMPT
        is_own = self._is_own or not self._is_recorded
        if says:
            return _OWN if is_own else _SAID
        return _OF_PROMPT if self._begun_calls else (_EMPTY if is_own else Note(is_empty=True))

    def _split(self) -> tuple[Content, Note]:
        """Take a turn of several pieces apart: what it says, and what is known beside."""
        pieces, begun, is_output = self._pieces, self._begun_pieces, self._output_of is not None
        texts, thoughts = split_thoughts(pieces, len(self._calls))
        self.has_thoughts = self.has_thoughts or bool(thoughts)
        spoken = [text for text in (texts[begun:] if begun else texts) if text != NO_TEXT]
        says = bool(spoken) or len(self._calls) > self._begun_calls
        is_whole = is_output and not begun and not self._begun_calls
        note = Note(
            reasoning=tuple([thought for _, thought in thoughts]),
            pieces=tuple(pieces),
            answer=_last_text(pieces, texts, begun),
            says=is_output and says,
            thinks=is_output and bool(thoughts) and thoughts[-1][0] >= begun,
            is_empty=is_whole and not says and all(piece == NO_TEXT for piece, _, _ in pieces),
            is_own=is_output and (self._is_own or not self._is_recorded),
        )
        return one_content([text for text in texts if text != NO_TEXT] if begun else spoken), note


def without_thoughts(turns: list[Turn]) -> list[Turn]:
    """Leave out the turns that are reasoning alone, for layouts that hold none."""
    return [turn for turn in turns if turn.content != NO_TEXT or turn.tool_calls or not _thinks(turn)]


def _thinks(turn: Turn) -> bool:
    return turn.note is not None and bool(turn.note.reasoning)


def mark(turn: msgspec.Struct, layout: Layout, *, is_own: bool) -> None:
    """Mark a turn of a row as the model's own or not, in the fields that the layout has for it."""
    for name in layout.marks:
        setattr(turn, name, int(is_own))


def is_imitable(turn: Turn) -> bool:
    """Tell whether a turn is the output's assistant's and says or calls something, or is an empty message."""
    return turn.note is not None and (turn.note.says or turn.note.is_empty)


def is_of_output(turn: Turn) -> bool:
    """Tell whether a turn is the output's assistant's, or a prompt's that the output goes on with."""
    return turn.note is not None and (turn.note.says or turn.note.is_empty or turn.note.thinks)


def _last_text(pieces: list[Piece], texts: list[Content], begun: int) -> Content:
    """Return what is left of the last text, from piece `begun` on; of those of reasoning alone nothing is."""
    for index in range(len(pieces) - 1, begun - 1, -1):
        piece, _, is_thought = pieces[index]
        if not is_thought and (texts[index] != NO_TEXT or piece == NO_TEXT):
            return texts[index]
    return NO_TEXT


def kind_of(item: Item) -> str:
    """Name what an item is: one of the kinds that become turns.

    Raises:
        Refused: It is of another kind.
    """
    if item.type in _ITEM_KINDS:
        return item.type
    if item.type is not None:
        raise Refused("unknown_item", f"item type {excerpt(item.type.encode())} has no place in a row")
    if item.role is None and not item.content:
        raise Refused("unknown_item", "an item has neither a type nor a role")
    return "message"


_ITEM_KINDS = frozenset({"message", "function_call", "function_call_output", "reasoning"})


def _instructions_of(rollout: Rollout) -> Raw | None:
    if rollout.instructions in _NO_INSTRUCTIONS:
        return None
    if not is_string(rollout.instructions):
        raise Refused("bad_content", f"instructions are not a string, found {excerpt(rollout.instructions)}")
    return rollout.instructions


_NO_INSTRUCTIONS = (ABSENT, Raw(b"null"), NO_TEXT)
