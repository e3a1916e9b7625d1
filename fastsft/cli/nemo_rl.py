"""`fastsft nemo-rl`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fastsft.cli.settings import with_settings
from fastsft.cli.words import print_all
from fastsft.errors import UsageError
from fastsft.views.progress import ProgressBar


@with_settings("nemo-rl", template="Render rows with the model's template; its tokenizer counts tokens.")
def nemo_rl(
    train: Annotated[
        list[str] | None, typer.Argument(metavar="TRAIN...", help="Files or folders of rows to learn from.")
    ] = None,
    val: Annotated[list[str] | None, typer.Option(metavar="VAL", help="Validate with these rows; repeatable.")] = None,
    output: Annotated[str, typer.Option(metavar="FILE", help="Write the config to FILE.")] = "sft_gym_data.yaml",
    checkout: Annotated[
        str | None,
        typer.Option("--nemo-rl", metavar="FOLDER", help="Extend the base config of this NeMo RL."),
    ] = None,
    model: Annotated[str, typer.Option(metavar="NAME", help="The model: a name on the hub, or a folder.")] = (
        "Qwen/Qwen2.5-1.5B"
    ),
    sequence_length: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens of a row; what 99 % of the rows need if not given.")
    ] = None,
    global_batch: Annotated[
        int | None, typer.Option(metavar="N", help="Rows a step; 128, or what there are rows for, if not given.")
    ] = None,
    micro_batch: Annotated[int, typer.Option(metavar="N", help="Rows at once on a GPU.")] = 4,
    epochs: Annotated[int, typer.Option(metavar="N", help="How often each row is seen.")] = 3,
    val_period: Annotated[int, typer.Option(metavar="N", help="Steps between two validations and checkpoints.")] = 100,
    checkpoint_dir: Annotated[str, typer.Option(metavar="FOLDER", help="Where checkpoints go.")] = "results/gym_sft",
    images: Annotated[
        bool, typer.Option("--images", help="The model reads images, though its name does not say so.")
    ] = False,
    wandb: Annotated[bool, typer.Option(help="Log to Weights & Biases.")] = True,
    project: Annotated[str, typer.Option(metavar="NAME", help="The project there.")] = "nemo-gym-sft",
    run: Annotated[str, typer.Option(metavar="NAME", help="The name of the run.")] = "gym-sft-run-1",
    gpus: Annotated[int, typer.Option(metavar="N", help="GPUs of a node.")] = 1,
    nodes: Annotated[int, typer.Option(metavar="N", help="How many nodes.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Draw no progress bar.")] = False,
    **settings: Any,
) -> None:
    """Write the config with which NeMo RL trains on these rows, and print the commands that do it."""
    from fastsft.trainers.nemo_rl import write_config
    from fastsft.trainers.nemo_rl_config import Training
    from fastsft.views.findings import config_told

    if not train:
        raise UsageError("no rows to train on: name files or folders that fastsft convert wrote")
    training = Training(
        model=model,
        sequence_length=sequence_length,
        global_batch=global_batch,
        micro_batch=micro_batch,
        epochs=epochs,
        val_period=val_period,
        checkpoint_dir=checkpoint_dir,
        images=images,
        wandb=wandb,
        project=project,
        run=run,
        gpus=gpus,
        nodes=nodes,
    )
    with ProgressBar(hidden=quiet) as bar:
        written = write_config(train, val or [], output, training, checkout=checkout, on_progress=bar.show, **settings)
    print_all([config_told(written)])
