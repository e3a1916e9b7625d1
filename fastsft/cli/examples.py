"""Two examples of each command, for its help; a test runs them."""

from __future__ import annotations

# By the name of the command, empty for none: what each does, and its words.
EXAMPLES: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "": (
        ("what is there, before anything is chosen", "fastsft stats rollouts/"),
        ("rows of the attempts worth imitating", "fastsft convert rollouts/ -o train.jsonl --format chat"),
    ),
    "convert": (
        ("every solved rollout, as a conversation", "fastsft convert rollouts/ -o train.jsonl --format chat"),
        (
            "the best two of each task, some tasks for validation",
            "fastsft convert rollouts/ -o sft/train.jsonl --val sft/val.jsonl --best-of 2",
        ),
    ),
    "pairs": (
        ("the best and the worst of each task, for NeMo RL", "fastsft pairs rollouts/ -o dpo.jsonl"),
        (
            "for TRL, some tasks for validation",
            "fastsft pairs rollouts/ -o dpo/train.jsonl --val dpo/val.jsonl --format trl",
        ),
    ),
    "index": (
        ("beside the rollouts, where convert finds it", "fastsft index rollouts/ -o rollouts/"),
        ("for convert --format chat --dedup", "fastsft index rollouts/ -o all.parquet --format chat --dedup"),
    ),
    "stats": (
        ("rewards, tasks, lengths, agents", "fastsft stats rollouts/"),
        ("the same for a program, and as a picture", "fastsft stats rollouts/ --json --plot rewards.png"),
    ),
    "tasks": (
        ("tasks that the model solves at times", "fastsft tasks rollouts/ -o tasks.jsonl --pass-rate 0.1:0.9"),
        (
            "those it never solves, some for validation",
            "fastsft tasks rollouts/ -o hard.jsonl --val val.jsonl --pass-rate 0:0",
        ),
    ),
    "show": (
        ("the first three lines, and what becomes of each", "fastsft show rollouts/"),
        ("what lost against another attempt at its task", "fastsft show rollouts/ --best-of 1 --reason not_best"),
    ),
    "check": (
        ("what any trainer would stop at", "fastsft check train.jsonl"),
        (
            "what the model's chat template loses, and rows that are too long",
            "fastsft check sft/ --template Qwen3-4B/ --max-tokens 8192",
        ),
    ),
    "report": (
        ("a page beside the rows, in a browser", "fastsft report sft/ --open"),
        ("with tokens counted", "fastsft report train.jsonl --template Qwen3-4B/ -o page.html"),
    ),
    "verify": (
        ("a file and its report", "fastsft verify train.jsonl"),
        ("shards in a folder, or in a store", "fastsft verify sft/"),
    ),
    "publish": (
        ("what all parts have done", "fastsft publish sft/"),
        ("the same, by eight workers", "fastsft publish sft/ --jobs 8"),
    ),
    "slurm": (
        ("64 tasks of 8 cores", "fastsft slurm --parts 64 --cpus 8 rollouts/ -o sft/ | bash"),
        (
            "a script to look at first",
            "fastsft slurm --sbatch '-p cpu' rollouts/ -o sft/ --best-of 4 > job.sh",
        ),
    ),
    "docs": (
        ("which pages there are", "fastsft docs"),
        ("one of them", "fastsft docs choosing"),
    ),
    "nemo-rl": (
        ("a config, and the commands that train with it", "fastsft nemo-rl train.jsonl"),
        (
            "with validation, on a node of eight GPUs",
            "fastsft nemo-rl sft/train.jsonl --val sft/val.jsonl --gpus 8",
        ),
    ),
}
