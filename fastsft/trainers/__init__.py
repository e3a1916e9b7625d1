"""The trainers that rows are made for: a file for each, and one line below."""

from __future__ import annotations

from fastsft.trainers.automodel import AUTOMODEL
from fastsft.trainers.axolotl import AXOLOTL
from fastsft.trainers.llama_factory import LLAMA_FACTORY
from fastsft.trainers.nemo_rl import NEMO_RL
from fastsft.trainers.openai import OPENAI
from fastsft.trainers.trainer import Trainer
from fastsft.trainers.trl import TRL
from fastsft.trainers.verl import VERL

TRAINERS: dict[str, Trainer] = {
    one.name: one for one in (NEMO_RL, TRL, AXOLOTL, VERL, LLAMA_FACTORY, OPENAI, AUTOMODEL)
}
