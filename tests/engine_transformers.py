"""Rows are rendered as transformers renders them; tox -e engines runs it, not the tests, as it installs that."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import generate
import pytest

import fastsft
from fastsft.checks.rendering import ChatTemplate

theirs = pytest.importorskip("transformers.utils.chat_template_utils", reason="tox -e engines installs transformers")

TEMPLATES = sorted((Path(__file__).parent / "data" / "templates").glob("*.jinja"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("rows")
    (folder / "in.jsonl").write_bytes(b"".join(islice(generate.lines("mixed", seed=9, kept=1.0), 300)))
    real = sorted((Path(__file__).resolve().parent.parent.parent / "shared" / "rollouts").glob("*.jsonl"))
    made = []
    for form in ({"format": "openai"}, {"format": "chat"}, {"format": "chat", "arguments": "string"}):
        fastsft.convert([folder / "in.jsonl", *real], folder / "rows.jsonl", reward_threshold=-1e9, **form)
        made += [json.loads(line) for line in (folder / "rows.jsonl").read_bytes().split(b"\n")[:-1]]
    return made


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_the_same_text_or_the_same_error(path, rows):
    ours, text = ChatTemplate(str(path)), path.read_text()

    def outcome(render: Any, row: dict[str, Any]) -> str | tuple[str, str]:
        try:
            return str(render(row))
        except Exception as error:
            return type(error).__name__, str(error)

    def rendered(row: dict[str, Any]) -> str:
        special = {"bos_token": "", "eos_token": ""}
        texts, _ = theirs.render_jinja_template(
            [row["messages"]], tools=row.get("tools"), chat_template=text, **special
        )
        return str(texts[0])

    assert len(rows) > 500
    for row in rows:
        assert outcome(lambda row: ours.rendered(row["messages"], row.get("tools")), row) == outcome(rendered, row)
