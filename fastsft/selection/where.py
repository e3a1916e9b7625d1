"""What the words of `--where` say before Polars reads them: it opens files at some, and crashes at many."""

from __future__ import annotations

import re

from fastsft.errors import UsageError

_TOKEN = re.compile(
    r"""
    (?P<literal> '(?:[^']|'')*' )
    | (?P<quoted> "[^"]*" | `[^`]*` )
    | (?P<space> \s+ | --[^\n]* | /\*.*?\*/ )
    | (?P<number> \d[\w.]* )
    | (?P<word> [^\W\d]\w* )
    | (?P<operator> <=> | <> | [<>!=]= | \|\| | :: | // | [-+*/%^&|<>=!~\[] )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_OPERATORS = frozenset("AND OR XOR NOT IS LIKE ILIKE BETWEEN WHEN COLLATE NULLIF".split())
_MOST_OPERATORS = 250  # each is a level of the expression: Polars crashes at 480 remainders, and needs 20 s for 800 OR
_MOST_WORDS = 500  # and a minute for a list of 1,000 columns
_MOST_NULLIF = 8  # each reads its argument twice
# With one of these behind a bracket, SQL reads from what is named there: a file, an address.
_QUERIES = frozenset("SELECT FROM VALUES WITH TABLE".split())
_PREFIXES = frozenset("E R B X N Q RB BR NQ".split())  # of literals with other rules for what ends them


def functions_in(text: str) -> set[str]:
    """List the functions of an expression, in capitals; keywords before a bracket are among them.

    Raises:
        UsageError: It has a query in it, or so much that Polars would crash or not end.
    """
    functions: set[str] = set()
    words: list[str] = []
    operators = 0
    before = ("other", "(", 0)
    for match in _TOKEN.finditer(text):
        kind, token = str(match.lastgroup), match[0]
        name = token.strip('"`').upper()
        if kind == "space":
            continue
        if token == "$" or (kind == "literal" and before[1].upper() in _PREFIXES and before[2] == match.start()):
            raise UsageError("--where takes text in single quotes, without anything in front of them")
        if kind == "word" and (name == "SELECT" or (name in _QUERIES and before[1] == "(")):
            raise UsageError(f"--where is of one line and its run, and reads from nothing else: {name} is not taken")
        if token == "(" and before[0] in ("word", "quoted"):
            functions.add(before[1].strip('"`').upper())
        if kind == "operator":
            operators += before[1] not in ("(", ",")  # where it is a sign
        elif kind in ("word", "quoted"):
            words.append(name)
            operators += name in _OPERATORS
        before = (kind, token, match.end())
    if operators > _MOST_OPERATORS or len(words) > _MOST_WORDS or words.count("NULLIF") > _MOST_NULLIF:
        problem = f"--where is too long for Polars: {operators:,} operators and {len(words):,} words"
        raise UsageError(f"{problem}, of {_MOST_OPERATORS} and {_MOST_WORDS}; a list says more: line IN (1, 5, 9)")
    return functions
