"""Let `python -m fastsft` be the command."""

from fastsft.cli.main import main

main()
