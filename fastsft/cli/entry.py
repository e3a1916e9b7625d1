"""Where the command begins: signals first, then the 0.1 s in which it imports what it needs."""

from __future__ import annotations

import signal
from typing import NoReturn


def begin() -> NoReturn:
    """Run the command; Ctrl-C in its first moments ends it as any program, and not in a traceback of imports."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from fastsft.cli.main import main

    main()
