"""Real rows by the templates of real models: what NeMo RL stops at or changes is what `check --template` names.

Not collected by itself: `tox -e engines` runs it, with transformers, which renders, and TRL's copies of the templates.
NeMo RL's rendering is restated from `get_formatted_message_log` (`nemo_rl/data/llm_message_utils.py`, 7ea279a): every
beginning of a row is rendered, and what follows the first character that differs from the one before is the message.
"""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import fastsft
from fastsft.checks.rendering import ChatTemplate

theirs = pytest.importorskip("transformers.utils.chat_template_utils", reason="tox -e engines installs transformers")

SPEC = importlib.util.find_spec("trl")  # not imported, as that takes torch
FOLDER = Path(SPEC.submodule_search_locations[0], "chat_templates") if SPEC else None  # type: ignore[index]
NAMES = [
    "deepseekv3", "gemma3", "glm4moe", "gptoss", "llama3_1", "llama3_2", "nemotron_3_nano", "phi3_5", "qwen2_5",
    "qwen3", "qwen3_5_think", "qwen3_6",
]  # fmt: skip
SPECIAL = {"bos_token": "", "eos_token": ""}


def as_nemo_rl_renders(messages: list[Any], tools: Any, template: str) -> str:
    """What becomes of a row: `stops`, `changes` where the pieces are not the whole, or `whole`."""
    pieces, before = "", ""
    for end in range(1, len(messages) + 1):
        try:
            (now,), _ = theirs.render_jinja_template(
                conversations=[messages[:end]], tools=tools, chat_template=template, **SPECIAL
            )
        except Exception:
            return "stops"
        differs = next((at for at, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), None)
        pieces += now[min(len(before), len(now)) if differs is None else differs :]
        before = now
    return "whole" if pieces == before else "changes"


@pytest.mark.skipif(FOLDER is None, reason="no templates: TRL is not installed")
@pytest.mark.parametrize("layout", ["chat", "openai"])
def test_check_names_every_row_that_nemo_rl_does_not_render_whole(real_rollouts, tmp_path, layout):
    rows_path = tmp_path / "rows.jsonl"
    fastsft.convert(real_rollouts, rows_path, format=layout, reward_threshold=-1e9, allow="all")
    rows = [json.loads(line) for line in rows_path.read_bytes().splitlines()]
    missed, table = [], []
    for name in NAMES:
        path = FOLDER / f"{name}.jinja"
        text, template = path.read_text(encoding="utf-8"), ChatTemplate(str(path))
        outcomes = [as_nemo_rl_renders(row["messages"], row.get("tools"), text) for row in rows]
        named: list[set[str]] = []
        for number, row in enumerate(rows):
            named.append({found.kind for found in template.rendering_of(row).findings})
            expected = {"stops": "template_stops", "changes": "template_changes", "whole": ""}[outcomes[number]]
            if expected and expected not in named[-1]:
                missed.append((name, number, outcomes[number], named[-1]))
            if not expected and {"template_stops", "template_changes"} & named[-1]:
                missed.append((name, number, "whole", named[-1]))
        counts = Counter(outcomes)
        found = sum(bool({"template_stops", "template_changes"} & kinds) for kinds in named)
        table.append(f"{layout:<7}{name:<20}{counts['whole']:>6}{counts['stops']:>6}{counts['changes']:>9}{found:>9}")
    print(f"\n{'':27}{'whole':>6}{'stops':>6}{'changes':>9}{'named':>9}", *table, sep="\n")  # noqa: T201 - the matrix
    assert missed == []
