"""Let `python -m fastsft` be the command."""

from fastsft.cli import main

main()
