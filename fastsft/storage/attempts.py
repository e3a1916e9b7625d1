"""Ask a store for something: within limits of time and retries, and what fails is a sentence without keys.

The libraries retry requests; an answer that breaks off is asked for once more here. Their own messages hold addresses,
and those hold signatures, so a sentence says what kind of failure it was, the store's own code for it, and no more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TypeVar

from fastsft.errors import FailedRun, KeepsReceipts, UsageError

_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|SAS|CREDENTIAL|CONNECTION_STRING", re.IGNORECASE)
_LEAST_SECRET = 6  # characters of one that is looked for in messages

REQUEST_SECONDS = 60  # a request that takes longer is begun again; a part of 8 MiB at 140 kB/s
CONNECT_SECONDS = 10
RETRIES = 5  # of a request that failed or met a 5xx, after waits of 0.1 s, doubled each time
RETRY_SECONDS = 120  # behind which none begins
_TRIES = 2  # of all that, where an answer broke off

T = TypeVar("T")


class Changed(Exception):
    """An object is not the version that was found."""


def tried(call: Callable[[], T], url: str, verb: str) -> T:
    """Do what asks a store for something, once more where an answer broke off.

    Raises:
        FailedRun: The object has changed.
        KeepsReceipts: The store would not; the sentence says why.
        FileNotFoundError: Nothing is there.
    """
    for left in reversed(range(_TRIES)):
        try:
            return call()
        except (FileNotFoundError, ImportError, UsageError, FailedRun):
            raise
        except Changed:
            raise FailedRun(f"{url} changed while it was read") from None
        except Exception as error:
            if not left or _is_final(error):
                raise KeepsReceipts(f"cannot {verb} {url}: {why(error)}") from None
    raise AssertionError("unreachable")


def _is_final(error: Exception) -> bool:
    """Tell whether a store has said no, and would again."""
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError", "NotSupportedError"):
        return True
    return (status := _STATUS.search(str(error))) is not None and status[1].startswith("4")


_STATUS = re.compile(r"status code: (\d{3})([A-Za-z ]*)")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_NO_CREDENTIALS = re.compile(r"169\.254\.169\.254|169\.254\.170\.|metadata\.google|NoCredentials|Unable to locate cred")


def why(error: Exception) -> str:
    """Say in a few words why a store did not do something, without the addresses and keys that errors hold."""
    text = str(error)
    if _NO_CREDENTIALS.search(text):
        return "no credentials were found, or they could not be fetched"
    if status := _STATUS.search(text):
        code = f" ({found[1]})" if (found := _CODE.search(text)) else ""
        said = f"the store answered {status[1]}{status[2].rstrip()}{code}"
        return f"{said}; check the credentials in the environment" if status[1] in ("401", "403") else said
    if re.search(r"TimedOut|timed out|kind: Timeout|ConnectTimeout|ReadTimeout", text):
        return f"the store did not answer in {REQUEST_SECONDS:g} s"
    if re.search(r"connect|dns|error sending request", text, re.IGNORECASE):
        return "the store cannot be reached, or the connection broke off"
    if re.search(r"body|decod|incomplete", text, re.IGNORECASE):
        return "its answer broke off"
    return without_secrets(f"{type(error).__name__}: {text.partition(chr(10))[0][:200]}")


def without_secrets(text: str) -> str:
    """Leave out of a text what stands behind a question mark, and what the environment holds as a secret.

    >>> without_secrets("GET https://host/a?sig=abc failed")
    'GET https://host/a?… failed'
    """
    text = re.sub(r"\?\S+", "?…", text)
    for name, value in os.environ.items():
        if len(value) >= _LEAST_SECRET and _SECRET.search(name):
            text = text.replace(value, "…")
    return text
