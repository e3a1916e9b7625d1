"""Let `python -m fastsft` be the command."""

from fastsft.cli.entry import begin

begin()
