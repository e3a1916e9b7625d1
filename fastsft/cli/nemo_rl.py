"""`fastsft nemo-rl`."""

from __future__ import annotations

from typing import Annotated, Any

from fastsft.cli.settings import with_settings
from fastsft.cli.words import Quiet, argument, in_panel, print_all
from fastsft.errors import UsageError
from fastsft.views.progress import ProgressLine


@with_settings("nemo-rl", panel="train", template="Render rows with the model's template; its tokenizer counts tokens.")
def nemo_rl(
    train: Annotated[list[str] | None, argument("TRAIN...", help="Files or folders of rows to learn from.")] = None,
    val: Annotated[
        list[str] | None, in_panel("input", metavar="VAL", help="Validate with these rows; repeatable.")
    ] = None,
    output: Annotated[
        str | None,
        in_panel(
            "output",
            "--output",
            "-o",
            metavar="FILE",
            help="Write the config to FILE; sft_gym_data.yaml, dpo.yaml or rm.yaml if not given.",
        ),
    ] = None,
    reward_model: Annotated[
        bool, in_panel("train", "--reward-model", help="Train a reward model on pairs, instead of DPO.")
    ] = False,
    checkout: Annotated[
        str | None,
        in_panel("train", "--nemo-rl", metavar="FOLDER", help="Extend the base config of this NeMo RL."),
    ] = None,
    model: Annotated[str, in_panel("train", metavar="NAME", help="The model: a name on the hub, or a folder.")] = (
        "Qwen/Qwen2.5-1.5B"
    ),
    sequence_length: Annotated[
        int | None, in_panel("train", metavar="N", help="Tokens of a row; what 99 % of the rows need if not given.")
    ] = None,
    global_batch: Annotated[
        int | None, in_panel("train", metavar="N", help="Rows a step; 128, or what there are rows for, if not given.")
    ] = None,
    micro_batch: Annotated[
        int | None, in_panel("train", metavar="N", help="Rows at once on a GPU; 4, or 2 pairs, if not given.")
    ] = None,
    epochs: Annotated[
        int | None, in_panel("train", metavar="N", help="How often each row is seen; 3, or 1 for pairs, if not given.")
    ] = None,
    val_period: Annotated[
        int, in_panel("train", metavar="N", help="Steps between two validations and checkpoints.")
    ] = 100,
    checkpoint_dir: Annotated[
        str | None,
        in_panel("train", metavar="FOLDER", help="Where checkpoints go; results/gym_sft (dpo, rm) if not given."),
    ] = None,
    images: Annotated[
        bool, in_panel("train", "--images", help="The model reads images, though its name does not say so.")
    ] = False,
    wandb: Annotated[bool, in_panel("train", help="Log to Weights & Biases. [default: --wandb]")] = True,
    project: Annotated[
        str | None, in_panel("train", metavar="NAME", help="The project there; nemo-gym-sft (dpo, rm) if not given.")
    ] = None,
    run: Annotated[
        str | None, in_panel("train", metavar="NAME", help="The name of the run; gym-sft-run-1 (dpo, rm) if not given.")
    ] = None,
    gpus: Annotated[int, in_panel("train", metavar="N", help="GPUs of a node.")] = 1,
    nodes: Annotated[int, in_panel("train", metavar="N", help="How many nodes.")] = 1,
    quiet: Quiet = False,
    **settings: Any,
) -> None:
    """Write NeMo RL's config for rows: SFT, DPO or a reward model.

    Pairs train by DPO, or a reward model. It prints the commands that do it, and what was found in the rows.
    """
    from fastsft.configs.nemo_rl import write_config
    from fastsft.configs.training import Training
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
    with ProgressLine(hidden=quiet) as line:
        written = write_config(
            train,
            val or [],
            output,
            training,
            reward_model=reward_model,
            checkout=checkout,
            on_progress=line.show,
            **settings,
        )
    if not quiet:
        print_all([config_told(written)])
