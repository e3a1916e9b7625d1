"""Every setting of a run, declared once: its name, type, default, help and check.

`Options` is the one value in which settings travel. The command's options, the keywords of the library and the table
in README come from its declarations; `tests/test_options.py` holds them together.
"""

from __future__ import annotations

import math
import os
import re
from functools import lru_cache
from typing import Annotated, Any, TypeVar, get_args

import msgspec

from fastsft import choices
from fastsft.errors import UsageError
from fastsft.execution.placement import Placement
from fastsft.formats import CHOICES, FORMATS
from fastsft.formats.pairs import PAIR_FORMATS, pair_layout
from fastsft.formats.row import PLAIN, Layout
from fastsft.pairing import Pairing
from fastsft.quantities import nbytes_of, part_of, pass_rate_of, refused_limit_of, sample_of, words_of
from fastsft.settings import Setting, check_values, flag_in, keyword_in, settings_of
from fastsft.storage.compression import SUFFIXES
from fastsft.trainers import TRAINERS
from fastsft.trainers.trainer import Trainer

DEFAULT_SHARD_NBYTES = 1_000_000_000
DEFAULT_MAX_LINE_NBYTES = 256_000_000
DEFAULT_STALL_SECONDS = 600.0
DEFAULT_RENDER_SECONDS = 10.0
DEFAULT_RETRIES = 2
DEFAULT_MAX_REFUSED_RECORDED = 1_000_000  # 0.2 GB
INDEX_NAME = "fastsft.index.parquet"  # where an index is found by itself, beside the first shard

# What a line can say of itself that keeps it out; `allow` lets it in. The order is that of asking.
GATES = ("masked", "failed", "unverified", "incomplete", "no_generation", "no_user_turn")
UNTRAINABLE = "untrainable:"  # begins the reason of rows in which `check` finds a fault; its name follows
# The panels of `--help`, in order, by name, with their titles; some have options of commands alone.
PANELS = {
    "input": "Input",
    "output": "Output",
    "rows": "Rows",
    "filter": "Filter, line by line",
    "choose": "Choose, comparing lines",
    "split": "Split",
    "check": "Check",
    "train": "Train",
    "run": "Run",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Split(msgspec.Struct, frozen=True):
    """One more output of a run: where, and the share of the tasks that goes there instead of to the main one."""

    output: str
    share: float


_LAID_OUT = ("convert", "index", "show")
_CHOOSES = ("convert", "show")
# The settings that `tasks` shares with `convert`.
_OF_TASKS = frozenset(
    "reward_threshold allow where pass_rate per_agent sample seed allow_empty max_refused max_refused_recorded shards "
    "shard_nbytes name max_line_nbytes fresh verify_inputs jobs backend address retries stall_seconds work log".split()
)
# Those that `pairs` shares with it.
_OF_PAIRS = frozenset(
    "arguments reasoning tools allow where max_tokens seed allow_empty max_refused max_refused_recorded shards "
    "shard_nbytes name compress max_line_nbytes fresh verify_inputs jobs backend address retries part stall_seconds "
    "work log".split()
)
_ALL = ("convert", "index", "stats")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is asked to do, but for its inputs and its output; `help(fastsft.convert)` says what each is."""

    trainer: Annotated[
        str | None,
        Setting(
            panel="rows",
            help=f"Make rows that the loader of a trainer reads: {', '.join(TRAINERS)}.",
            more="It sets the next five options and the kind of file. An option given beside it wins, or is refused "
            "if the trainer cannot read it. Rows at which the loader stops are dropped. [Trainers](trainers.md).",
            metavar="TRAINER",
            unset="none",
            flags=("--for",),
            choices=tuple(TRAINERS),
            noun="trainer",
            commands=(*_LAID_OUT, "check"),
        ),
    ] = None
    format: Annotated[
        str | None,
        Setting(
            panel="rows",
            help="The layout of rows.",
            more="[Which format](formats.md).",
            metavar="|".join(FORMATS),
            unset="`openai`, or the trainer's",
            choices=tuple(FORMATS),
            commands=_LAID_OUT,
        ),
    ] = None
    arguments: Annotated[
        str | None,
        Setting(
            panel="rows",
            help="For chat: arguments of calls as an object, or as the JSON string that the model wrote.",
            metavar="object|string",
            unset="`object`, or the trainer's",
            choices=get_args(choices.Arguments),
            commands=_LAID_OUT,
        ),
    ] = None
    reasoning: Annotated[
        str | None,
        Setting(
            panel="rows",
            help="For chat: reasoning in a field of its turn, in think tags in front of the text, or left out.",
            more="The field is `reasoning_content`, the tags are written as NeMo Gym writes them.",
            metavar="field|think|drop",
            unset="`field`, or the trainer's",
            choices=get_args(choices.Reasoning),
            commands=_LAID_OUT,
        ),
    ] = None
    loss: Annotated[
        str | None,
        Setting(
            panel="rows",
            help="Mark which assistant turns the model sampled.",
            more="[Loss where it belongs](formats.md#loss-where-it-belongs). Not for `simple`.",
            metavar="own",
            unset="no marks, or the trainer's",
            choices=get_args(choices.Loss),
            commands=_LAID_OUT,
        ),
    ] = None
    tools: Annotated[
        str | None,
        Setting(
            panel="rows",
            help="Tools as a list, or as one JSON string, which no loader alters.",
            more="TRL, Axolotl and NeMo Automodel read the string, NeMo RL does not. Not for `simple`.",
            metavar="list|string",
            unset="`list`, or the trainer's",
            choices=get_args(choices.Tools),
            commands=_LAID_OUT,
        ),
    ] = None
    provenance: Annotated[
        tuple[str, ...],
        Setting(
            panel="rows",
            help="Add to each row, under metadata, where it comes from: reward, agent, task, shard, line.",
            more="[Where a row comes from](formats.md#where-a-row-comes-from).",
            metavar="COLUMNS",
            unset="nothing",
            flags=("--with",),
            read=words_of,
            choices=get_args(choices.Provenance),
            noun="column for a row",
        ),
    ] = ()
    reward_threshold: Annotated[
        float,
        Setting(
            panel="filter",
            help="Keep rollouts with reward >= SCORE (no unit, usually 0 to 1).",
            more="A rollout without `reward` counts as 0.0. Also spelled `--reward_threshold`.",
            metavar="SCORE",
            flags=("--reward-threshold", "--reward_threshold"),
            commands=(*_CHOOSES, "stats"),
        ),
    ] = 0.95
    max_reward: Annotated[
        float | None,
        Setting(
            panel="filter",
            help="Keep rollouts with reward <= SCORE.",
            metavar="SCORE",
            unset="no limit",
            commands=_CHOOSES,
        ),
    ] = None
    allow: Annotated[
        tuple[str, ...],
        Setting(
            panel="filter",
            help=f"Keep rollouts flagged as {', '.join(GATES[:-1])} or {GATES[-1]}, or all.",
            metavar="GATE,...",
            unset="none",
            read=words_of,
            choices=(*GATES, "all"),
            noun="gate",
            commands=(*_CHOOSES, "stats"),
        ),
    ] = ()
    trainable: Annotated[
        bool,
        Setting(
            panel="filter",
            help="Leave out rows in which `fastsft check` finds a fault; see --template.",
            more="They count as `untrainable:` and the name of the [finding](trainers.md#will-it-train). Duplicates "
            "are left to `--dedup`.",
            commands=_CHOOSES,
        ),
    ] = False
    template: Annotated[
        str | None,
        Setting(
            panel="filter",
            help="Judge rows as a chat template renders them: a tokenizer's folder, or FILE.jinja.",
            more="Used by `--trainable`, and by `--max-tokens`, which counts with the tokenizer in the folder.",
            metavar="PATH",
            unset="what is recorded",
            read=os.fspath,
            commands=(*_CHOOSES, "check", "report", "nemo-rl"),
        ),
    ] = None
    where: Annotated[
        str | None,
        Setting(
            panel="filter",
            help="Keep lines for which EXPR is true, SQL as in \"agent = 'math' AND calls > 0\".",
            more="[The columns](choosing.md#the-columns).",
            metavar="EXPR",
            unset="all",
            commands=_CHOOSES,
        ),
    ] = None
    max_tokens: Annotated[
        int | None,
        Setting(
            panel="filter",
            help="Keep rollouts of at most N tokens, as recorded; those without a count are kept.",
            metavar="N",
            unset="no limit",
            noun="most tokens",
            least=1,
            commands=(*_CHOOSES, "check"),
        ),
    ] = None
    pass_rate: Annotated[
        tuple[float, float] | None,
        Setting(
            panel="choose",
            help="Keep tasks whose share of rollouts at or above the threshold lies in the band.",
            metavar="LOW:HIGH",
            unset="all",
            read=pass_rate_of,
            commands=_CHOOSES,
        ),
    ] = None
    dedup: Annotated[
        bool, Setting(panel="choose", help="Keep the first of rows with the same content.", commands=_LAID_OUT)
    ] = False
    pairs: Annotated[
        bool,
        Setting(
            panel="choose", help="Hash the turns of chat rows too, which `fastsft pairs` needs.", commands=("index",)
        ),
    ] = False
    best_of: Annotated[
        int | None,
        Setting(
            panel="choose",
            help="Keep the best N of a task: highest reward, then shortest.",
            metavar="N",
            unset="all",
            noun="number of the best",
            least=1,
            commands=_CHOOSES,
        ),
    ] = None
    per_task: Annotated[
        int | None,
        Setting(
            panel="choose",
            help="Keep at most N of a task, at random.",
            metavar="N",
            unset="all",
            noun="most of a task",
            least=1,
            commands=_CHOOSES,
        ),
    ] = None
    per_agent: Annotated[
        int | None,
        Setting(
            panel="choose",
            help="Keep at most N of an agent, at random.",
            metavar="N",
            unset="all",
            noun="most of an agent",
            least=1,
            commands=_CHOOSES,
        ),
    ] = None
    sample: Annotated[
        int | str | None,
        Setting(
            panel="choose",
            help="Keep N lines, or P percent of them, at random.",
            metavar="N|P%",
            unset="all",
            commands=_CHOOSES,
        ),
    ] = None
    seed: Annotated[
        int,
        Setting(panel="choose", help="Seed of the random choices.", metavar="N", commands=_CHOOSES),
    ] = 0
    allow_empty: Annotated[
        bool,
        Setting(
            panel="output",
            help="Succeed, and write no rows, even if none are kept.",
            more="Without it, such a run fails, says why, and leaves earlier output as it is.",
        ),
    ] = False
    max_refused: Annotated[
        int | str | None,
        Setting(
            panel="output",
            help="Publish nothing if more lines are refused: a count, or a share such as 1%.",
            more="The share is of the non-blank lines.",
            metavar="LIMIT",
            unset="no limit",
        ),
    ] = None
    max_refused_recorded: Annotated[
        int | None,
        Setting(
            panel="output",
            help="List the first N refused lines beside the rows; all are counted.",
            metavar="N",
            unset="1,000,000",
            noun="number of refused lines that are listed",
            least=0,
        ),
    ] = DEFAULT_MAX_REFUSED_RECORDED
    shards: Annotated[
        int | None,
        Setting(
            panel="output",
            help="Write N shards whose row counts differ by one at most.",
            more="Fewer if there are fewer rows. Rows are written twice, as their number must be known first.",
            metavar="N",
            unset="by size",
            noun="number of shards",
            least=1,
        ),
    ] = None
    shard_nbytes: Annotated[
        int | None,
        Setting(
            panel="output",
            help="Write shards of at most SIZE: 500MB, 64MiB.",
            more="Shards are as full as whole [spans](scale.md) allow. A span larger than SIZE is divided; a row "
            "longer than SIZE has a shard of its own.",
            metavar="SIZE",
            unset="1GB",
            keyword="shard_size",
            read=nbytes_of,
            noun="shard size",
            least=1,
        ),
    ] = None
    name: Annotated[
        str,
        Setting(panel="output", help="Name shards NAME-00000-of-00004.jsonl.", metavar="NAME"),
    ] = "train"
    compress: Annotated[
        str | None,
        Setting(
            panel="output",
            help="Compress shards; a single file is compressed if it ends in .gz or .zst.",
            metavar="|".join(SUFFIXES),
            unset="plain",
            choices=tuple(SUFFIXES),
            noun="compression",
        ),
    ] = None
    card: Annotated[
        bool,
        Setting(
            panel="output",
            help="Write a dataset card beside shards: README.md, as the Hugging Face hub reads it.",
            more="[A dataset card](report.md#a-dataset-card). A README.md that is not fastsft's is never overwritten.",
        ),
    ] = False
    max_line_nbytes: Annotated[
        int,
        Setting(
            panel="input",
            help="Refuse lines longer than SIZE, without holding them in memory.",
            metavar="SIZE",
            unset="256MB",
            keyword="max_line",
            read=nbytes_of,
            noun="longest line",
            least=1,
            commands=(*_ALL, "show"),
        ),
    ] = DEFAULT_MAX_LINE_NBYTES
    fresh: Annotated[
        bool,
        Setting(
            panel="run",
            help="Start over instead of resuming an interrupted run.",
            more="[Interrupted runs](internals.md#interrupted-runs).",
            changes_bytes=False,
        ),
    ] = False
    verify_inputs: Annotated[
        bool,
        Setting(
            panel="run",
            help="Hash the inputs, and resume only from spans whose bytes are unchanged.",
            more="Without it, size and modification time decide.",
            changes_bytes=False,
        ),
    ] = False
    jobs: Annotated[
        int | None,
        Setting(
            panel="run",
            help="Run N worker processes; 1 stays in this process.",
            metavar="N",
            unset="all cores from 96 MiB of input on, else 1",
            noun="number of jobs",
            least=1,
            commands=(*_ALL, "show", "check", "verify", "publish", "nemo-rl"),
            changes_bytes=False,
        ),
    ] = None
    backend: Annotated[
        str | None,
        Setting(
            panel="run",
            help="Do the work on joblib's own processes, or on a Ray or a Dask cluster.",
            more="Needs `pip install 'fastsft[ray]'` or `'fastsft[dask]'`; [more](scale.md#on-a-cluster).",
            metavar="loky|ray|dask",
            unset="processes of this machine",
            choices=get_args(choices.Backend),
            commands=(*_ALL, "check"),
            changes_bytes=False,
        ),
    ] = None
    address: Annotated[
        str | None,
        Setting(
            panel="run",
            help="Join the cluster at ADDRESS.",
            metavar="ADDRESS",
            unset="the one the backend finds, or a new one on this machine",
            commands=(*_ALL, "check"),
            changes_bytes=False,
        ),
    ] = None
    retries: Annotated[
        int,
        Setting(
            panel="run",
            help="Redo a span up to N times if its worker is lost.",
            more="After that, the run fails and names the span.",
            metavar="N",
            noun="number of retries",
            least=0,
            commands=(*_ALL, "check"),
            changes_bytes=False,
        ),
    ] = DEFAULT_RETRIES
    part: Annotated[
        tuple[int, int] | None,
        Setting(
            panel="run",
            help="Do only the I-th of N parts of the work; auto takes I and N from a Slurm array.",
            more="The last part to finish publishes; [more](scale.md#in-parts).",
            metavar="I/N|auto",
            unset="all of it",
            read=part_of,
            changes_bytes=False,
        ),
    ] = None
    stall_seconds: Annotated[
        float,
        Setting(
            panel="run",
            help="Treat a worker as lost if one span takes it longer than SECONDS.",
            more="Another worker then does the span, as after a worker was killed.",
            metavar="SECONDS",
            unset="600",
            noun="time for a span",
            least=1,
            commands=(*_ALL, "check"),
            changes_bytes=False,
        ),
    ] = DEFAULT_STALL_SECONDS
    render_seconds: Annotated[
        float,
        Setting(
            panel="run",
            help="Stop a chat template that takes longer than SECONDS for one row.",
            more="It runs in its own process, with 4 GiB of memory. `check` names the row; `convert` fails.",
            metavar="SECONDS",
            unset="10",
            noun="time for a row",
            least=1,
            commands=(*_CHOOSES, "check", "report", "nemo-rl"),
            changes_bytes=False,
        ),
    ] = DEFAULT_RENDER_SECONDS
    work: Annotated[
        str | None,
        Setting(
            panel="output",
            help="Write rows for a store to FOLDER first; on a cluster, one that all machines see.",
            more="It needs room for all of them; [more](scale.md#from-and-to-a-store).",
            metavar="FOLDER",
            unset="`TMPDIR`",
            read=os.fspath,
            changes_bytes=False,
        ),
    ] = None
    # No option, as each has a command: what is made of the rollouts that are chosen.
    makes: Annotated[
        str,
        Setting(
            panel="rows", help="Make rows to imitate, or NeMo Gym task rows.", choices=("rows", "tasks"), commands=()
        ),
    ] = "rows"
    log: Annotated[
        bool,
        Setting(
            panel="run",
            help="Log progress to stderr: a line a minute, and one for each phase.",
            more="For runs whose output goes to a file; it replaces the progress line.",
            commands=(*_ALL, "check"),
            changes_bytes=False,
        ),
    ] = False
    # For `rows`, which gives what would be written one by one: no option.
    file: Annotated[
        str | None,
        Setting(panel="rows", help="The kind of file.", choices=("jsonl", "parquet"), commands=()),
    ] = None
    pairing: Annotated[
        Pairing | None,
        Setting(panel="rows", help="How rollouts are compared, where pairs are made.", commands=()),
    ] = None
    # For tests and benchmarks: no option. Shards of a run hold whole spans; otherwise it never changes a byte.
    span_nbytes: Annotated[
        int | None,
        Setting(
            panel="run", help="Bytes of input in a span.", noun="span size", least=1, commands=(), changes_bytes=False
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, naming what can.

        Raises:
            UsageError: A value is out of its range, or two contradict each other.
        """
        check_values(self)
        if self.target is not None:
            _check_target(self, self.target)
        laid_out = self.layout.format
        for name in LAYOUT_CHOICES:
            if getattr(self, name) is not None and name not in CHOICES[laid_out]:
                able = " or ".join(other for other in FORMATS if name in CHOICES[other])
                raise UsageError(f"{flag_of(name)} belongs to the format {able}, and this is {laid_out}")
        if len(set(self.provenance)) < len(self.provenance):
            raise UsageError("--with names a column twice")
        if not math.isfinite(self.reward_threshold):
            raise UsageError(f"the reward threshold must be a finite number, not {self.reward_threshold}")
        if self.max_reward is not None and not self.max_reward >= self.reward_threshold:
            raise UsageError(
                f"no reward lies between the threshold {self.reward_threshold} and the maximum {self.max_reward}"
            )
        if self.pass_rate is not None and not 0 <= self.pass_rate[0] <= self.pass_rate[1] <= 1:
            raise UsageError("a pass rate lies between two shares of 0 to 1, the smaller first, as 0.1:0.9")
        if self.template is not None and self.max_tokens is None and not self.trainable:
            raise UsageError("--template is for --max-tokens and --trainable, and neither is given")
        if self.pairs and laid_out != "chat":
            raise UsageError("--pairs hashes the turns of chat rows: add --format chat")
        if self.sample is not None:
            sample_of(self.sample)
        if self.max_refused is not None:
            refused_limit_of(self.max_refused)
        if self.part is not None and self.fresh:
            raise UsageError(
                "--fresh would undo what other parts have done; remove their folder, .NAME.fastsft, instead"
            )
        if self.address is not None and self.backend not in ("ray", "dask"):
            raise UsageError("--address is of a cluster: name its kind, --backend ray or dask")
        if self.shards is not None and self.shard_nbytes is not None:
            raise UsageError("shards are cut by count or by size, not by both")
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"a shard name has letters, digits, '.', '_' and '-' alone, not {self.name!r}")

    def shown(self) -> dict[str, Any]:
        """Return the settings that what is written depends on, by name, for the report."""
        settings = msgspec.to_builtins(self)
        command = "pairs" if self.pairing is not None else "convert" if self.makes == "rows" else None
        settings = {
            name: settings[name]
            for name, setting in declared().items()
            if setting.changes_bytes and (command is None or command in setting.commands or name in LAYOUT_CHOICES)
        }
        if self.pairing is not None:
            settings["pairing"] = self.pairing.shown()
        layout = self.layout
        chosen = {name: getattr(layout, name) if name in CHOICES[layout.format] else None for name in LAYOUT_CHOICES}
        return settings | chosen | {"format": layout.format, "file": self.file_kind, "allow": sorted(self.allow)}

    @property
    def target(self) -> Trainer | None:
        """The trainer that rows are made for; None where they are for none."""
        return TRAINERS[self.trainer] if self.trainer is not None else None

    @property
    def layout(self) -> Layout:
        """What is chosen about rows: by itself, else by the trainer, else what `Layout` has."""
        target = self.target
        given = {name: value for name in _OF_TRAINERS if (value := getattr(self, name)) is not None}
        if self.pairing is not None:
            return pair_layout(self.pairing.format, given)
        if target is None:
            chosen: dict[str, Any] = {name: getattr(PLAIN, name) for name in _OF_TRAINERS}
        else:
            chosen = {name: getattr(target, name)[0] for name in _OF_TRAINERS}
            chosen |= {"marks": target.marks, "media": target.media, "pair": target.pair}
        return Layout(**(chosen | given))

    @property
    def file_kind(self) -> str:
        """The kind of file that rows are written to, `jsonl` or `parquet`."""
        return self.file or (self.target.file[0] if self.target is not None else "jsonl")

    def target_note(self) -> str | None:
        """Say in a sentence what the trainer sets; None without one."""
        target, layout = self.target, self.layout
        if target is None:
            return None
        given = [name for name in _OF_TRAINERS if getattr(self, name) is not None]
        names = [name for name in _OF_TRAINERS if name not in given and name in ("format", *CHOICES[layout.format])]
        words = [f"{flag_of(name)} {value}" for name in names if (value := getattr(layout, name)) is not None]
        kind = ", Parquet" if self.file_kind == "parquet" else ""
        return f"rows for {target.title}: {' '.join(words) or 'as you chose'}{kind} (fastsft docs trainers)"

    @property
    def placement(self) -> Placement:
        """Where spans are done."""
        return Placement(
            jobs=self.jobs,
            backend=self.backend,
            address=self.address,
            stall_seconds=self.stall_seconds,
            retries=self.retries,
        )

    @property
    def gates(self) -> tuple[str, ...]:
        """List the gates that are closed, in the order of asking."""
        return tuple(gate for gate in GATES if not {gate, "all"} & set(self.allow))

    @property
    def judges_rows(self) -> bool:
        """Tell whether rows themselves are judged, which an index knows nothing of."""
        return self.template is not None or self.trainable

    @property
    def may_compare(self) -> bool:
        """Tell whether a criterion is asked for that may compare lines; which do, `selection/criteria.py` says."""
        asked = (self.where, self.pass_rate, self.best_of, self.per_task, self.per_agent, self.sample)
        return (
            self.makes != "rows"
            or self.pairing is not None
            or self.dedup
            or self.places_lines
            or any(value is not None for value in asked)
        )

    @property
    def places_lines(self) -> bool:
        """Tell whether rows say what only the table of all lines tells: a number in the shard, a task."""
        return not {"line", "task"}.isdisjoint(self.provenance)

    def refuses_too_many(self, refused: int, lines: int | None) -> bool:
        """Tell whether so many refused among so many lines that are not blank exceed `max_refused`.

        With `lines` None, before all are known, only a count can be exceeded.
        """
        if self.max_refused is None:
            return False
        count, share = refused_limit_of(self.max_refused)
        return refused > count if share is None else lines is not None and refused > share * lines


LAYOUT_CHOICES = ("arguments", "reasoning", "loss", "tools")  # what a format may have no choice of
_OF_TRAINERS = ("format", *LAYOUT_CHOICES)


def _check_target(options: Options, target: Trainer) -> None:
    """Make sure that a trainer reads what was asked for beside it.

    Raises:
        UsageError: It does not.
    """
    for name in _OF_TRAINERS:
        value, read = getattr(options, name), getattr(target, name)
        if value is not None and value not in read:
            known = " or ".join(f"{flag_of(name)} {one}" for one in read if one is not None)
            why = f"it reads {known}" if known else "it reads no marks"
            raise UsageError(f"{flag_of(name)} {value} is not for {target.title}: {why}")
    if options.provenance and not target.takes_metadata:
        raise UsageError(f"--with is not for {target.title}: what it does with another column is not known")
    if options.compress is not None and target.file[0] == "parquet":
        raise UsageError(f"--compress is not for {target.title}: it reads Parquet, which is compressed inside")


@lru_cache(maxsize=2)
def declared(kind: type[Options | Pairing] = Options) -> dict[str, Setting]:
    """Return what is declared of each field of `Options`, or of `Pairing`, in order."""
    shared = {"tasks": _OF_TASKS, "pairs": _OF_PAIRS} if kind is Options else {}
    return {
        name: msgspec.structs.replace(
            one, commands=(*one.commands, *(command for command, names in shared.items() if name in names))
        )
        for name, one in settings_of(kind).items()
    }


def keyword_of(name: str, kind: type[Options | Pairing] = Options) -> str:
    """Return what the library calls a field."""
    return keyword_in(kind, name)


def flag_of(name: str, kind: type[Options | Pairing] = Options) -> str:
    """Return what the command calls a field."""
    return flag_in(kind, name)


def options_of(keywords: dict[str, Any]) -> Options:
    """Build the settings from the library's keywords, or the command's words.

    Raises:
        UsageError: A value is of the wrong type, out of its range, or contradicts another.
    """
    return _converted(_settings_in(keywords, Options), Options)


def pair_options_of(keywords: dict[str, Any]) -> Options:
    """Build the settings of pairs from the library's keywords, or the command's words.

    Raises:
        UsageError: A value is of the wrong type, out of its range, or contradicts another.
    """
    pairing = _converted(_settings_in(keywords, Pairing), Pairing)
    settings = {
        name: value for name, value in _settings_in(keywords, Options).items() if "pairs" in declared()[name].commands
    }
    choices_of = pairing.laid_out.choices
    for name in LAYOUT_CHOICES:
        value = settings.get(name)
        if value is not None and value not in choices_of.get(name, ()):
            able = " or ".join(other for other, known in PAIR_FORMATS.items() if value in known.choices.get(name, ()))
            belongs = f"belongs to the format {able}" if able else "is of no format of pairs"
            raise UsageError(f"{flag_of(name)} {value} {belongs}, and this is {pairing.format}")
    return _converted({**settings, "pairing": pairing}, Options)


def _settings_in(keywords: dict[str, Any], kind: type[Options | Pairing]) -> dict[str, Any]:
    settings = {}
    for name, setting in declared(kind).items():
        if keyword_of(name, kind) in keywords:
            value = keywords[keyword_of(name, kind)]
            is_written = isinstance(value, (str, os.PathLike)) or setting.read is words_of
            settings[name] = setting.read(value) if setting.read and is_written else value
    return settings


Asked = TypeVar("Asked", Options, Pairing)


def _converted(settings: dict[str, Any], kind: type[Asked]) -> Asked:
    try:
        return msgspec.convert(settings, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"a setting has the wrong type: {error}") from None
