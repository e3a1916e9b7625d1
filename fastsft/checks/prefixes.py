"""Which chat templates render every beginning of a conversation as the beginning of the whole.

NeMo RL renders each beginning of a row and learns from what follows the first character that differs
(`get_formatted_message_log` in `nemo_rl/data/llm_message_utils.py`). A row of n turns so costs n renderings. A template
that goes through the messages once, front to back, and asks nothing of those still to come, cannot differ: what it has
written, or raised, up to a message it writes for every conversation that begins so. This is read off its syntax;
whatever is not surely so is rendered.
"""

from __future__ import annotations

from typing import Any

_MESSAGES = "messages"
_LOOKS_BACK = frozenset({"first", "index", "index0", "previtem", "cycle", "changed", "depth", "depth0"})


def is_safe(tree: Any) -> bool:
    """Tell whether a parsed template renders every beginning as the beginning of the whole.

    Args:
        tree: What `jinja2.Environment.parse` returns.
    """
    from jinja2 import nodes

    loops = [node for node in tree.find_all(nodes.For) if _is_messages(node.iter, nodes)]
    if len(loops) != 1:
        return False
    (loop,) = loops
    behind = _behind(tree.body, loop, nodes)
    if behind is None or not all(_writes_nothing(node, nodes) for node in behind):
        return False
    names = sum(1 for name in tree.find_all(nodes.Name) if name.name == _MESSAGES)
    return names == 1 + _backward_looks(tree, loop, nodes) and _looks_back_only(loop, nodes)


def _is_messages(node: Any, nodes: Any) -> bool:
    return isinstance(node, nodes.Name) and node.name == _MESSAGES


def _behind(body: list[Any], loop: Any, nodes: Any) -> list[Any] | None:
    """Return what stands behind the loop, which is at the top, or in a condition that has nothing else behind it."""
    for index, node in enumerate(body):
        if node is loop:
            return body[index + 1 :]
        if isinstance(node, nodes.If):
            for branch in (node.body, *(other.body for other in node.elif_), node.else_):
                inside = _behind(branch, loop, nodes)
                if inside is not None:
                    return inside + body[index + 1 :]
    return None


def _writes_nothing(node: Any, nodes: Any) -> bool:
    """Tell whether a node writes nothing where no generation prompt is asked for."""
    if isinstance(node, nodes.Output):
        return all(isinstance(part, nodes.TemplateData) and not part.data for part in node.nodes)
    if isinstance(node, nodes.If):
        asks = isinstance(node.test, nodes.Name) and node.test.name == "add_generation_prompt"
        return asks and not node.elif_ and not node.else_
    return isinstance(node, (nodes.Assign, nodes.AssignBlock, nodes.Macro))


def _backward_looks(tree: Any, loop: Any, nodes: Any) -> int:
    """Count the places that ask for a message that is surely there: the first, or the one at hand.

    `messages[loop.index0 - 1]` is the last of all in the first round.
    """
    inside = set(map(id, loop.find_all(nodes.Getitem)))
    count = 0
    for look in tree.find_all(nodes.Getitem):
        if not _is_messages(look.node, nodes):
            continue
        at = look.arg
        is_first = isinstance(at, nodes.Const) and at.value == 0
        is_same = id(look) in inside and _is_loop_attribute(at, "index0", nodes)
        count += is_first or is_same
    return count


def _is_loop_attribute(node: Any, name: str, nodes: Any) -> bool:
    found = isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name)
    return bool(found and node.node.name == "loop" and node.attr == name)


def _looks_back_only(loop: Any, nodes: Any) -> bool:
    """Tell whether the loop over the messages asks of its own place only what earlier messages decide."""
    if loop.test is not None or loop.recursive or loop.else_:
        return False
    inner = {
        id(name) for other in loop.find_all(nodes.For) for part in other.body for name in part.find_all(nodes.Name)
    }
    for name in loop.find_all(nodes.Name):
        if name.name != "loop" or id(name) in inner:
            continue
        if not _attribute_of(loop, name, nodes) & _LOOKS_BACK:
            return False
    return True


def _attribute_of(loop: Any, name: Any, nodes: Any) -> set[str]:
    """Return the attribute that is asked of a name, as a set; empty where it is used as a whole."""
    return {node.attr for node in loop.find_all(nodes.Getattr) if node.node is name}
