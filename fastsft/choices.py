"""The closed choices of settings as types, so that a wrong word is found before anything runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Literal, TypeAlias, TypedDict

FormatName: TypeAlias = Literal["openai", "chat", "simple"]
Arguments: TypeAlias = Literal["object", "string"]
Reasoning: TypeAlias = Literal["field", "think", "drop"]
Loss: TypeAlias = Literal["own"]
Tools: TypeAlias = Literal["list", "string"]
TrainerName: TypeAlias = Literal["nemo-rl", "trl", "axolotl", "verl", "llama-factory", "openai", "automodel"]
Gate: TypeAlias = Literal["masked", "failed", "unverified", "incomplete", "no_generation", "no_user_turn", "all"]
Provenance: TypeAlias = Literal["reward", "agent", "task", "shard", "line"]
Compression: TypeAlias = Literal["gz", "zst"]
Backend: TypeAlias = Literal["loky", "ray", "dask"]


class RowOptions(TypedDict, total=False):
    """The keywords of `fastsft.rows`: those of `convert`, but for what is said of files."""

    trainer: TrainerName | None
    format: FormatName | None
    arguments: Arguments | None
    reasoning: Reasoning | None
    loss: Loss | None
    tools: Tools | None
    provenance: str | Iterable[Provenance]
    reward_threshold: float
    max_reward: float | None
    allow: str | Iterable[Gate]
    where: str | None
    max_tokens: int | None
    template: str | os.PathLike[str] | None
    trainable: bool
    pass_rate: tuple[float, float] | str | None
    dedup: bool
    best_of: int | None
    per_task: int | None
    per_agent: int | None
    sample: int | str | None
    seed: int
    allow_empty: bool
    max_refused: int | str | None
    max_line: int | str
    jobs: int | None
    backend: Backend | None
    address: str | None
    retries: int
    stall_seconds: float
    render_seconds: float
