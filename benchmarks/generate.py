"""Seeded rollouts of a chosen shape and size, in the form that NeMo Gym writes; no downloads.

usage: python benchmarks/generate.py FOLDER [--shape mixed] [--lines 2000 | --size 1GB] [--shards 4] [--kept 0.5]

Shapes:
    mixed    what a collection of environments gives, lines of about 20 KB: short answers and long, tool
             calls one after another and at once, reasoning, several turns, token ids, and now and then
             each of the oddities that real files have
    short    one question, one answer, about 2 KB
    tools    40 calls and their results
    tokens   token ids and log-probabilities, 200 KB and more
    unicode  mostly text that is not ASCII, written raw
    attempts eight rollouts of each task, about 15 KB: half of them one answer, half with calls; now and then two begin
             with the same turn

The texts are made of words without meaning; what is real is the structure: the fields, their
order, the share of each shape, and what text looks like to a parser (escapes, code, line feeds).
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]

_WORDS = (
    "the of a to and in is that for it as with be on not this are by from at or an have was we can if one all "
    "reward rollout shard agent token answer therefore value compute function return result user model query"
).split()
_WIDE = list("数据模型训练结果答案问题因此函数返回计算用户任务奖励行данныемодельответзадачафункцияéü✓🙂…")
# What keeps a rollout out of training, and what only looks as if it did.
_MARKS: list[Json] = [
    {"mask_sample": True},
    {"instance_config": {"problem": "p", "mask_sample": True}},
    {"_ng_failure_class": "timeout"},
    {"verification_skipped": True},
    {"truncated": True},
    {"mask_sample": "yes", "instance_config": [1], "_ng_failure_class": False, "truncated": None, "agent_ref": 3},
    {"mask_sample": False, "instance_config": {"mask_sample": 1}, "verification_skipped": 1, "_ng_task_index": "0"},
]
_TOOLS = ["search", "read_file", "run_code", "get_weather", "submit"]


class Maker:
    """Makes rollouts; the same seed and shape give the same ones."""

    def __init__(self, seed: int, kept: float) -> None:
        self.random = random.Random(seed)
        self.kept = kept
        self.count = 0
        self.task: tuple[list[Json], list[Json], list[Json] | None] = ([], [], None)
        # Texts are cut from paragraphs made once: making each word again would take longer than converting it.
        self.plain = [self._paragraph(_WORDS, " ") for _ in range(200)]
        self.wide = [self._paragraph(_WIDE, "") for _ in range(200)]

    def _paragraph(self, words: list[str], between: str) -> str:
        text = between.join(self.random.choices(words, k=self.random.randint(20, 90)))
        ends = [".\n", ".\n\n", '\n```python\nprint("x\\n")\n```\n', ' — "quoted", ', ": \\frac{1}{2}\n"]
        return text + self.random.choice(ends)

    def text(self, length: int, *, wide: bool = False) -> str:
        pool = self.wide if wide else self.plain
        parts: list[str] = []
        while length > 0:
            parts.append(self.random.choice(pool))
            length -= len(parts[-1])
        return "".join(parts)

    # Items, with the fields that NeMo Gym writes.

    def user(self, length: int, **more: Any) -> Json:
        return {"content": self.text(length), "role": "user", "type": "message", **more}

    def said(self, length: int, *, wide: bool = False, **more: Any) -> Json:
        part = {"annotations": [], "text": self.text(length, wide=wide), "type": "output_text", "logprobs": None}
        return {
            "id": self.name("msg"),
            "content": [part],
            "role": "assistant",
            "status": "completed",
            "type": "message",
            **more,
        }

    def thought(self, length: int) -> Json:
        summary = [{"text": self.text(length), "type": "summary_text"}]
        return {"id": self.name("rs"), "summary": summary, "type": "reasoning", "encrypted_content": None}

    def call(self, length: int = 60) -> Json:
        arguments = {
            "query": self.text(length),
            "limit": self.random.randint(1, 50),
            "ratio": self.random.choice([0.5, 1.0, 1e-3]),
        }
        if self.random.random() < 0.2:
            arguments["filter"] = {"tags": ["a", "b"], "deep": {"x": None}}
        name = self.random.choice(_TOOLS)
        return {
            "arguments": json.dumps(arguments),
            "call_id": self.name("call"),
            "name": name,
            "type": "function_call",
            "id": self.name("fc"),
            "status": "completed",
        }

    def returned(self, call: Json, length: int = 300) -> Json:
        return {
            "call_id": call["call_id"],
            "output": json.dumps({"result": self.text(length)}),
            "type": "function_call_output",
            "id": None,
            "status": None,
        }

    def calls(self, count: int, length: int = 300) -> list[Json]:
        made = [self.call() for _ in range(count)]
        return [*made, *(self.returned(call, length) for call in made)]

    def tokens(self, count: int) -> Json:
        ids = self.random.choices(range(150_000), k=200)
        logs = [-self.random.expovariate(2) for _ in range(200)]
        return {
            "prompt_token_ids": ids * (count // 800),
            "generation_token_ids": ids * (count // 200),
            "generation_log_probs": logs * (count // 200),
        }

    def tools(self) -> list[Json]:
        return [
            {
                "name": name,
                "parameters": {
                    "properties": {
                        "query": {"type": "string", "description": "What to look for."},
                        "limit": {"type": "integer", "default": 10},
                    },
                    "required": ["query"],
                    "type": "object",
                    "additionalProperties": False,
                },
                "strict": True,
                "type": "function",
                "description": f"The tool {name}.",
            }
            for name in _TOOLS
        ]

    def name(self, prefix: str) -> str:
        return f"{prefix}_{self.random.getrandbits(64):016x}"

    def rollout(self, prompt: Any, output: list[Any], *, tools: list[Json] | None = None, **params: Any) -> Json:
        reward = (
            self.random.choice([1.0, 1.0, 1.0, 0.97, 2.5])
            if self.random.random() < self.kept
            else self.random.choice([0.0, 0.0, 0.5, -1.0])
        )
        self.count += 1
        params = {
            "background": None,
            "include": None,
            "input": prompt,
            "instructions": None,
            "max_output_tokens": None,
            "metadata": None,
            "model": None,
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": None,
            "store": None,
            "temperature": 1.0,
            "text": None,
            "tool_choice": "auto",
            "tools": tools or [],
            "top_p": None,
            **params,
        }
        response = {
            "id": self.name("resp"),
            "created_at": 1_753_983_920.0,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": None,
            "model": "model",
            "object": "response",
            "output": output,
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": tools or [],
            "status": "completed",
            "usage": None,
        }
        return {
            "responses_create_params": params,
            "response": response,
            "reward": reward,
            "_ng_task_index": self.count // 4,
            "_ng_rollout_index": self.count % 4,
            "agent_ref": {"type": "responses_api_agents", "name": f"agent_{self.count % 3}"},
        }

    # Shapes.

    def short(self) -> Json:
        return self.rollout([self.user(250)], [self.said(350)])

    def many_tools(self) -> Json:
        output: list[Json] = [self.thought(200)]
        while sum(item["type"] == "function_call" for item in output) < 40:
            output += self.calls(self.random.choice([1, 1, 1, 2]), 500)
        return self.rollout([self.user(600)], [*output, self.said(400)], tools=self.tools())

    def many_tokens(self) -> Json:
        return self.rollout([self.user(600)], [self.said(4000, **self.tokens(8000))])

    def unicode(self) -> Json:
        prompt = {"content": self.text(2000, wide=True), "role": "user", "type": "message"}
        return self.rollout([prompt], [self.said(4000, wide=True)])

    def mixed(self) -> Json:
        kinds: list[tuple[int, Callable[[], Json]]] = [
            (30, lambda: self.rollout([self.user(1500)], [self.thought(9000), self.said(1500)])),
            (15, lambda: self.rollout([self.system(), self.user(3000)], [self.said(2500)])),
            (
                15,
                lambda: self.rollout(
                    [self.user(900)],
                    [self.thought(800), *self.calls(2, 2500), self.thought(500), *self.calls(1, 2500), self.said(500)],
                    tools=self.tools(),
                ),
            ),
            (
                10,
                lambda: self.rollout(
                    [self.user(900)],
                    [item for _ in range(8) for item in (self.said(150), *self.calls(1, 3000))] + [self.said(700)],
                    tools=self.tools(),
                ),
            ),
            (
                8,
                lambda: self.rollout(
                    [self.user(300)], [self.said(300), self.user(200), self.said(300), self.user(200), self.said(300)]
                ),
            ),
            (6, lambda: self.rollout([self.user(600)], [self.said(2000, **self.tokens(3000))])),
            (5, self.unicode),
            (5, self.short),
            (6, self.odd),
        ]
        make = self.random.choices([make for _, make in kinds], [share for share, _ in kinds])[0]
        return make()

    def attempt(self) -> Json:
        if self.count % 8 == 0:
            tools = self.random.choice([None, self.tools()])
            begin = [self.thought(600), self.said(200), *(self.calls(1, 1500) if tools else [])]
            self.task = ([self.user(900)], begin, tools)
        task_index = self.count // 8
        prompt, begin, tools = self.task
        if tools is None:
            output = [self.thought(4000), self.said(2500)]
        else:
            output = list(begin) if self.random.random() < 0.3 else []
            for _ in range(self.random.randint(1, 6)):
                output += [self.thought(600), self.said(150), *self.calls(1, 1500)]
            output.append(self.said(500))
        made = self.rollout(prompt, output, tools=tools)
        return {**made, "_ng_task_index": task_index, "agent_ref": {"name": "agent"}}

    def system(self, role: str = "system") -> Json:
        return {"content": self.text(400), "role": role, "type": "message"}

    def odd(self) -> Json:
        """One of the shapes that are rare in real files and break simpler converters."""
        chat_call = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"query": "x"}'}}
        chat_prompt = [
            self.user(50),
            {"role": "assistant", "content": None, "tool_calls": [chat_call]},
            {"role": "tool", "content": "found", "tool_call_id": "c1"},
            {"role": "user", "content": "And now?"},
        ]
        image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "high"}
        parts = [{"type": "input_text", "text": self.text(50)}, {"type": "input_text", "text": "more"}]
        two_parts = {**self.said(60), "content": [{"type": "output_text", "text": text} for text in ("one, ", "two")]}
        prompt = [self.user(80)]
        nested = [
            {
                "type": "function",
                "function": {"name": "search", "description": "Find.", "parameters": {"type": "object"}},
            }
        ]
        choices: list[Callable[[], Json]] = [
            lambda: self.rollout(self.text(200), [self.said(100)]),
            lambda: self.rollout(chat_prompt, [self.said(100)]),
            lambda: self.rollout([{"role": "user", "content": [*parts, image]}], [self.said(100)]),
            lambda: self.rollout([{"role": "user", "content": parts}], [self.said(100)]),
            lambda: self.rollout([self.system("developer"), *prompt], [self.said(60), *self.calls(2)], tools=nested),
            lambda: self.rollout(prompt, [self.said(60), self.call()], tools=self.tools()),
            lambda: self.rollout(prompt, [self.said(60), self.user(30)]),
            lambda: self.rollout(prompt, [two_parts]),
            lambda: self.rollout([], [self.system(), *prompt, self.said(60)]),
            lambda: self.rollout(
                prompt, [[*prompt, self.said(20)], [*prompt, self.said(20), self.user(20), self.said(20)]]
            ),
            lambda: self.rollout([*prompt, self.thought(50), *self.calls(1)], [self.said(60)], tools=self.tools()),
            lambda: self.rollout(prompt, [self.said(60)], instructions="Be brief."),
            lambda: self.rollout(prompt, [self.thought(60)]),
            lambda: self.rollout(prompt, [{**self.call(), "arguments": "[1]"}, self.said(20)]),
            lambda: self.rollout(prompt, [{"type": "web_search_call", "id": "ws"}, self.said(20)]),
            lambda: {**self.rollout(prompt, [self.said(60)]), "reward": None},
            lambda: {**self.rollout(prompt, []), "response": None},
            lambda: {**self.rollout(prompt, [self.said(60)]), **self.random.choice(_MARKS)},
        ]
        return self.random.choice(choices)()


SHAPES: dict[str, Callable[[Maker], Json]] = {
    "mixed": Maker.mixed,
    "short": Maker.short,
    "tools": Maker.many_tools,
    "tokens": Maker.many_tokens,
    "unicode": Maker.unicode,
    "attempts": Maker.attempt,
}


def lines(shape: str, *, seed: int = 0, kept: float = 0.5) -> Iterator[bytes]:
    """Give rollouts without end, each a line of JSON; raw text in every second one, escapes in the others."""
    maker = Maker(seed, kept)
    make = SHAPES[shape]
    while True:
        ascii_only = shape != "unicode" and maker.count % 2 == 1
        yield json.dumps(make(maker), ensure_ascii=ascii_only).encode() + b"\n"


def write(
    folder: Path, shape: str, *, count: int | None, nbytes: int, shards: int, seed: int = 0, kept: float = 0.5
) -> list[Path]:
    """Write shards of rollouts, `count` lines in all, or about `nbytes` where it is None; give their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{shape}-{index:05}.jsonl" for index in range(shards)]
    source = lines(shape, seed=seed, kept=kept)
    for index, path in enumerate(paths):
        left = nbytes // shards
        todo = None if count is None else count // shards + (index < count % shards)
        with path.open("wb") as file:
            while todo if todo is not None else left > 0:
                line = next(source)
                left -= file.write(line)
                todo = None if todo is None else todo - 1
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="mixed")
    parser.add_argument("--lines", type=int, help="how many rollouts (default: 2000)")
    parser.add_argument("--size", help="how many bytes instead, as 1GB")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--kept", type=float, default=0.5, help="share of rollouts above the threshold")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    nbytes = 0
    if chosen.size:
        from fastsft.quantities import nbytes_of

        nbytes = nbytes_of(chosen.size)
    count = chosen.lines if chosen.lines is not None or chosen.size else 2000
    paths = write(
        chosen.folder,
        chosen.shape,
        count=count,
        nbytes=nbytes,
        shards=chosen.shards,
        seed=chosen.seed,
        kept=chosen.kept,
    )
    megabytes = sum(path.stat().st_size for path in paths) / 1e6
    print(f"{megabytes:,.1f} MB of rollouts in {len(paths)} shards in {chosen.folder}")


if __name__ == "__main__":
    main()
