"""Locks on files and folders, held for as long as a descriptor is open."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

_SHARING_SECONDS = 600.0
_SECONDS_BETWEEN_TRIES = 0.1


def open_lock(path: Path) -> int:
    """Open a file to lock it; it is made where it is not there.

    Raises:
        OSError: It cannot be opened.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)


def open_folder(folder: Path) -> int:
    """Open a folder to lock it.

    Raises:
        OSError: It cannot be opened.
    """
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def flock(file: int, *, shared: bool) -> bool:
    """Lock an open file or folder; tell whether the file system has locks.

    Who shares a lock waits a while for who holds it alone, which is while parts are put together.

    Raises:
        BlockingIOError: Another process has locked it.
    """
    until = time.monotonic() + (_SHARING_SECONDS if shared else 0.0)
    while True:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
            time.sleep(_SECONDS_BETWEEN_TRIES)
        except OSError:
            return False
        else:
            return True


def become_alone(file: int) -> bool:
    """Turn a shared lock into one of this process alone; tell whether nobody else shares it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def share(file: int) -> None:
    """Turn a lock of this process alone into a shared one, where the file system has locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError:
        return
