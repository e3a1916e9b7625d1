"""What is to be trained and how: what a person says, and what an algorithm fills in where nobody does."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from fastsft.errors import UsageError
from fastsft.escape import escaped


class Algorithm(NamedTuple):
    """One of NeMo RL's algorithms that train on files of rows.

    Attributes:
        name: What its base config, its script and its block in the config are named by.
        rows: What its batches count.
        metric: What the best checkpoint is told by, of those for validation.
        epochs: How often each row is seen, if nobody says.
        micro_batch: Rows at once on a GPU, if nobody says.
    """

    name: str
    rows: str
    metric: str
    epochs: int
    micro_batch: int

    @property
    def base(self) -> str:
        """The path of its base config in a checkout of NeMo RL."""
        return f"examples/configs/{self.name}.yaml"

    @property
    def output(self) -> str:
        """Where its config goes, if nobody says."""
        return "sft_gym_data.yaml" if self.name == "sft" else f"{self.name}.yaml"


SFT = Algorithm("sft", "rows", "val:val_loss", 3, 4)
# A pair is two sequences, and DPO holds a second model: half as many at once, as the base config has it.
DPO = Algorithm("dpo", "pairs", "val:validation-default_loss", 1, 2)
REWARD_MODEL = Algorithm("rm", "pairs", "val:validation-default_loss", 1, 2)


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be trained and how; the defaults are those of NeMo Gym's guides, None where the algorithm has its own.

    Attributes:
        model: A model on the hub, or its folder.
        sequence_length: Tokens; None for what 99 % of the rows need.
        global_batch: Rows a step; None for 128, or what there are rows for.
        micro_batch: Rows at once on a GPU.
        epochs: How often each row is seen.
        val_period: Steps between two validations, and between two checkpoints.
        checkpoint_dir: Where checkpoints go.
        images: Whether the model reads images, where its name and its config do not say so.
        wandb: Whether to log to Weights & Biases.
        project: Its project.
        run: The name of the run.
        gpus: GPUs of a node.
        nodes: How many nodes.
    """

    model: str = "Qwen/Qwen2.5-1.5B"
    sequence_length: int | None = None
    global_batch: int | None = None
    micro_batch: int | None = None
    epochs: int | None = None
    val_period: int = 100
    checkpoint_dir: str | None = None
    images: bool = False
    wandb: bool = True
    project: str | None = None
    run: str | None = None
    gpus: int = 1
    nodes: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing.

        Raises:
            UsageError: One is below 1.
        """
        names = ("sequence_length", "global_batch", "micro_batch", "epochs", "val_period", "gpus", "nodes")
        for name in names:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"the {name.replace('_', ' ')} must be at least 1, not {value}")
        for text in (self.model, self.checkpoint_dir, self.project, self.run):
            if text is not None:
                check_name(text)

    def filled(self, algorithm: Algorithm) -> Filled:
        """Fill in what an algorithm has its own values of.

        Its checkpoints lie apart, as NeMo RL goes on from whatever lies there.
        """
        name = algorithm.name
        return Filled(
            self.micro_batch or algorithm.micro_batch,
            self.epochs or algorithm.epochs,
            self.checkpoint_dir if self.checkpoint_dir is not None else f"results/gym_{name}",
            self.project if self.project is not None else f"nemo-gym-{name}",
            self.run if self.run is not None else f"gym-{name}-run-1",
        )


class Filled(NamedTuple):
    """What an algorithm has its own values of, where nobody says others."""

    micro_batch: int
    epochs: int
    checkpoint_dir: str
    project: str
    run: str


def check_name(text: str) -> None:
    """Make sure that NeMo RL reads a name or a path from its config as it is.

    Raises:
        UsageError: It takes it for something else, or YAML cannot hold it.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"NeMo RL's config is UTF-8, and this name is not: {text!r}") from None
    if "${" in text:
        raise UsageError(f"NeMo RL's config takes ${{ for a reference, so no name can hold it: {text}")
    if text == "???":
        raise UsageError("NeMo RL's config takes ??? for what is not given yet, so it can be no name")
    if escaped(text) != text:
        raise UsageError(f"NeMo RL's config cannot hold a name with characters that are not printed: {escaped(text)}")
