"""What breaks readers: JSON that is not quite JSON, texts that are not quite text, and their fates.

The kinds are those of the public collections, JSONTestSuite and the Big List of Naughty Strings; the documents and
texts are our own. A fate here follows from RFC 8259 and README's table alone, never from what fastsft did.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from builders import Json, assistant, call, line, raw_call, returned, rollout, said, system, tool, turn, user
from naive_reader import as_written

# "A value for the row nests deeper than 64 levels (DuckDB fails at 128), or the line deeper than 10,000."
MAX_DEPTH, MAX_LINE_DEPTH = 64, 10_000

# What a document is, and its fate as the whole line, the content of a message, a call's argument, a value in a tool's
# schema, the value of an unknown field, a key in an unknown field, and a key of a call's arguments. Arguments are a
# string that holds JSON: what is wrong with it is wrong with the arguments, not with the line.
PLACES = ("line", "content", "argument", "schema", "unknown", "unknown_key", "argument_key")
TWICE = "bad_json+bad_json"  # a line feed makes two lines of one, both torn

FATES = {
    "string": "not_object kept kept kept kept kept kept",
    "number": "not_object bad_content kept kept kept bad_json bad_arguments",
    "literal": "not_object bad_content kept kept kept bad_json bad_arguments",
    "null": "not_object kept kept kept kept bad_json bad_arguments",  # null content says nothing
    "list": "not_object bad_content kept kept kept bad_json bad_arguments",
    "list of objects": "not_object unknown_part kept kept kept bad_json bad_arguments",  # parts without a type
    "no parts": "not_object kept kept kept kept bad_json bad_arguments",  # content of no parts says nothing
    "object": "no_prompt bad_content kept kept kept bad_json bad_arguments",
    "beyond a double": "not_object bad_content bad_number bad_number kept bad_json bad_arguments",
    "object beyond a double": "no_prompt bad_content bad_number bad_number kept bad_json bad_arguments",
    "nothing": "blank bad_json bad_arguments bad_json bad_json bad_json bad_arguments",
    "not JSON": "bad_json bad_json bad_arguments bad_json bad_json bad_json bad_arguments",
    "not UTF-8": "bad_utf8 bad_utf8 bad_utf8 bad_utf8 bad_utf8 bad_utf8 bad_utf8",
    "torn by a line feed": f"{TWICE} {TWICE} bad_arguments {TWICE} {TWICE} {TWICE} bad_arguments",
    "cut by a line feed": f"{TWICE} {TWICE} kept {TWICE} {TWICE} {TWICE} bad_arguments",
    # Arguments and a schema are one level themselves, an unknown field stands one level deep, content four.
    "deep for a row": "not_object bad_content too_deep too_deep kept bad_json bad_arguments",
    "objects in lists, deep for a row": "not_object unknown_part too_deep too_deep kept bad_json bad_arguments",
    "object deep for a row": "no_prompt bad_content too_deep too_deep kept bad_json bad_arguments",
    "deep for content": "not_object too_deep too_deep too_deep kept bad_json bad_arguments",
    "deep for a field": "not_object too_deep too_deep too_deep too_deep bad_json bad_arguments",
    "deep for a line": "too_deep too_deep too_deep too_deep too_deep bad_json bad_arguments",
}


class Document(NamedTuple):
    """Bytes that are JSON or nearly so, and which of the kinds above they are."""

    name: str
    data: bytes
    kind: str

    def fate(self, place: str) -> str:
        return FATES[self.kind].split()[PLACES.index(place)]


def _documents(kind: str, family: str, *written: str | bytes) -> Iterator[Document]:
    for one in written:
        data = one.encode() if isinstance(one, str) else one
        yield Document(f"{family} {ascii(data)[1:].strip(chr(39))[:60]}", data, kind)


def _named(kind: str, **written: str | bytes) -> Iterator[Document]:
    for name, one in written.items():
        yield Document(name.replace("_", " "), one.encode() if isinstance(one, str) else one, kind)


def _lists(depth: int, inside: str = "") -> str:
    return "[" * depth + inside + "]" * depth


def _objects(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def documents() -> list[Document]:
    """Numbers, strings, lists, objects and what is around them: fit, unfit, and where readers differ."""
    made = [
        # Numbers that the grammar has. Their written form is kept.
        *_documents("number", "number", "0", "-0", "7", "-1", "1234567890", "0.0", "-0.0", "1.50", "0e1", "0E+1"),
        *_documents("number", "number", "0e-0", "1e5", "1E5", "1e+5", "1E-05", "1.5e3", "-1e-2", "4.9e-324", "1e-999"),
        *_documents("number", "number", "0e999", "9007199254740993", "-9223372036854775809", "18446744073709551616"),
        *_documents("number", "number", "1" * 300, "1.7976931348623157e308", "0." + "1" * 400),
        *_documents("number", "number", "3.141592653589793238462643"),
        *_documents("number", "spaced number", " 1", "1 ", "\t1\r", "  -1.0  "),
        *_documents("beyond a double", "number", "1e999", "-1e999", "1E+400", "1.8e308", "123e4567890"),
        *_named("beyond a double", ten_to_the_400="1" + "0" * 400, minus_ten_to_the_5000="-1" + "0" * 5000),
        *_documents("list", "list", "[1e-400]", "[-0]", "[1.0, 1, 1e0]"),
        # Numbers of other languages.
        *_documents("not JSON", "number", "+1", "-", "--1", "+-1", "- 1", "-+1", "01", "-01", "00", "012", "1.", "-1."),
        *_documents("not JSON", "number", ".5", "-.5", "1.e1", "0.e1", "1..2", "1.2.3", "1e", "1E", "1e+", "1e-"),
        *_documents("not JSON", "number", "1eE2", "1e1.5", "e1", "0x1", "0x1F", "1x", "0b1", "0o7", "1L", "1f"),
        *_documents("not JSON", "number", "1_000", "1 000", "1,000", "NaN", "nan", "-NaN", "Infinity", "-Infinity"),
        *_documents(
            "not JSON", "number", "+Infinity", "inf", "Inf", "1#INF", "1a", "1-2", "1/2", "$1", "1%", "１", "٣"
        ),
        *_documents("not JSON", "number", "½", "∞", "−1", "1\u00a0", "1\u2028"),
        *_documents("not JSON", "list", "[1e]", "[-]", "[1.]", "[.1]", "[NaN]", "[0x1]", "[1 2]", "[-Infinity]"),
        *_documents("not JSON", "list", "[++1]"),
        # Literals.
        *_documents("literal", "literal", "true", "false", " true", "false\r"),
        *_documents("null", "literal", "null", "\tnull "),
        *_documents("not JSON", "literal", "tru", "fals", "nul", "n", "truee", "True", "TRUE", "False", "NULL", "Null"),
        *_documents("not JSON", "literal", "None", "undefined", "nil", "yes", "a", "true false", "nullnull", "&null"),
        *_documents("not JSON", "literal", "*"),
        # Strings that the grammar has.
        *_documents("string", "string", '""', '" "', '"a"', r'"\"\\\/\b\f\n\r\t"', r'"\u0000"', r'"\u001f\u007f"'),
        *_documents("string", "string", r'"\u00e9\u00E9"', r'"\uD834\uDD1E"', r'"\ud83d\ude00"', r'"\uDBFF\uDFFF"'),
        *_documents("string", "string", r'"\ufffe\uFFFF\ufdd0"', r'"\u2028\u2029\u0085"', r'"\\u0041"'),
        *_documents(
            "string", "string", r'"\u005C\u0022"', '"\x7f"', '"é数😀"', '"\u0080\u0085\u009f"', '"\u2028\u2029"'
        ),
        *_documents("string", "string", '"\ufeff"', '"\ufffe"', '"\U0010ffff"', '"\U000e0041"', '"\ue000"'),
        *_documents("string", "string", '"a/*b*/c//d"', '"[1,"', '"{}:,"', r'"\\"', r'"\\\""', r'"\\\\n"', ' "a" '),
        *_documents("string", "string", '"a"\r', '"\'"', '"0"', '"null"'),
        *_named("string", long_string='"' + "a" * 70_000 + '"', long_string_of_escapes='"' + r"\u00e9" * 9_000 + '"'),
        # Strings that it has not.
        *_documents("not JSON", "string", '"', '"a', 'a"', r'"\"', '"\\', '"a\\', "'a'", "`a`", "“a”", '"a""', '""a"'),
        *_documents("not JSON", "string", r'"\a"', r'"\x00"', r'"\0"', r'"\v"', r"'\''", r'"\'"', r'"\U0001F600"'),
        *_documents("not JSON", "string", r'"\é"', r'"\u"', r'"\u00"', r'"\u00A"', r'"\u00G0"', r'"\u+041"'),
        *_documents("not JSON", "string", r'"\u 041"', r'"\u{41}"', r'"\N"', r'"\u0x41"', r'"\ "', r'"\1"'),
        *_documents("not JSON", "string", r'"\u００４１"', r"\u0041", r"\"a\""),
        *_documents("not JSON", "raw control", '"\x00"', '"a\x00b"', '"\t"', '"\x01"', '"\x08"', '"\x0b"', '"\x0c"'),
        *_documents("not JSON", "raw control", '"\r"', '"\x1b[31m"', '"\x1e"', '"\x1f"', '"\\\x00"', '"\\\t"'),
        # Half a pair is no code point, so UTF-8, and a row, cannot hold it.
        *_documents("not JSON", "surrogate", r'"\ud800"', r'"\uDFFF"', r'"\ud800\ud800"', r'"\udc00\ud800"'),
        *_documents("not JSON", "surrogate", r'"\ud800a"', r'"\ud800\n"', r'"\ud83d\ud83d\ude00"', r'"a\udc00"'),
        *_documents("not JSON", "surrogate", r'"\ud800\u0041"', r'"\ud800\u"', r'"\ud800\udc0"', r'"\ud800\\udc00"'),
        *_documents("not JSON", "surrogate", r'["\udead"]', r'{"\ud8":1}', r'{"\ud800": 1}', r'{"a": {"\udfff": 1}}'),
        # Lists.
        *_documents("no parts", "list", "[]", "[ ]", " [\t] \r"),
        *_documents("list", "list", "[1]", "[[]]", "[null, true]", '["a", {}]', "[1,2 , 3]", "[[[[]]]]", '[""]'),
        *_documents("list", "list", "[[], {}]"),
        *_documents("list of objects", "list", "[{}]", '[{"a":1}]', "[ {} , {} ]"),
        *_documents("not JSON", "list", "[", "]", "[1", "1]", "[1,", "[,", "[,1]", "[1,]", "[1,,2]", "[,]", "[1,,]"),
        *_documents("not JSON", "list", "[[]", "[]]", '["a" "b"]', '["a": 1]', "[1: 2]", "[1;2]", "[*]", "[}", "[1}"),
        *_documents("not JSON", "list", "(1)", "<1>", "[x", "[1]]", "[\x0c1]", "[\x0b]", "[1]\x0c", "[1]\x00"),
        *_documents("not JSON", "list", "\x00[1]", "[\xa01]", "[1]\u2028", "[\u30001]", "[1,\u200b2]", "[1]\u2060"),
        *_documents("not JSON", "list", "[1\x1e]", "[a]", "[\\n]", "[\\u0020]", "[\u20601]", "[1]\\r"),
        # Objects. Of a repeated key the last value counts, and a row has it once.
        *_documents("object", "object", "{}", "{ }", '{"a":1}', '{"": ""}', '{"a":{"b":[{}]}}', ' {"a" : 1} '),
        *_documents("object", "object", '{"a":1,"b":2}'),
        *_documents("object", "repeated key", '{"a":1,"a":2}', '{"a":1,"a":1}', r'{"a":1,"\u0061":2}'),
        *_documents("object", "repeated key", '{"a":[],"a":{"b":1,"b":2}}'),
        *_documents("object", "object", r'{"\u0000":0}', '{"__proto__":{"a":1}}', '{"A":1,"a":2}'),
        *_documents("object", "object", '{"\u2028":"\u2029"}'),
        *_documents("object beyond a double", "object", '{"a":1e999}', '{"a":[{"b":-1E400}]}'),
        *_documents("not JSON", "object", "{", "}", '{"a"', '{"a":', '{"a":1', '{"a":1,', '{"a":1,}', '{,"a":1}'),
        *_documents("not JSON", "object", '{"a":1,,"b":2}', '{"a"}', '{"a",1}', '{"a" 1}', '{"a"::1}', "{:1}", "{1:1}"),
        *_documents("not JSON", "object", "{null:1}", "{[]:1}", "{{}:1}", "{a:1}", "{'a':1}", '{"a":1 "b":2}'),
        *_documents("not JSON", "object", '{"a"=1}', '{"a"=>1}', '{"a":}', "{,}", "{]", "{}}", '{"a":1}}'),
        *_documents("not JSON", "object", '{"a":1;"b":2}', '{"a":/**/1}', '{"a":1}#', '{"a":b}', '{"a" "b"}'),
        *_documents("not JSON", "object", '{"a":1]'),
        # What stands around a value.
        *_documents("nothing", "nothing", "", " ", "\t", "\r", " \t\r ", "\x0b", "\x0c", "\x0c \x0b"),
        *_documents("not JSON", "other space", "\xa0", "\u2028", "\u3000", "\u200b", "\ufeff", "\x1c", "\x85", "\x00"),
        *_documents("not JSON", "other space", "\u180e"),
        *_documents("not JSON", "comment", "//", "/**/", "1//a", "1/**/", "/*a*/1", "1#a", "#", "1--a", "<!--a-->1"),
        *_documents("not JSON", "comment", "/1", "[1/*"),
        *_documents("not JSON", "trailing", "1 1", "{}{}", "[][]", '"a" "b"', "null,", ",null", "{},", '{} "a"'),
        *_documents("not JSON", "trailing", "[1]x", "1;", "{}\\"),
        *_documents("not JSON", "byte order mark", "\ufeff{}", "\ufeff1", '\ufeff"a"', "[\ufeff1]", "{}\ufeff"),
        *_documents("not JSON", "byte order mark", "\ufeff\ufeff[]"),
        *_documents("not JSON", "other language", "<a/>", "a: 1", "a=1", "a,b", "---", "${a}", "{{a}}", "@", "\\"),
        *_documents("not JSON", "other language", "await", "() => 1", "x'00'", 'b"a"', 'u"a"', 'r"a"', 'f"a"'),
        *_documents("not JSON", "other language", '"a"+"b"', '"a" + 1', '"""a"""', "Symbol()"),
        *_documents("not JSON", "framing", "\x1e{}", ")]}',{}", "while(1);{}", "data: {}", "callback({})", "2:{}"),
        *_documents("not JSON", "framing", "{}\x04"),
        *_documents("not JSON", "UTF-16 without its mark", "[]".encode("utf-16-le"), '"a"'.encode("utf-16-be")),
        *_documents("not JSON", "UTF-16 without its mark", "1".encode("utf-32-le")),
        # Bytes that are not UTF-8.
        *_documents("not UTF-8", "UTF-16", "[]".encode("utf-16"), "\ufeff{}".encode("utf-16-be"), b'"\xff\xfea\x00"'),
        *_documents("not UTF-8", "overlong", b'"\xc0\x80"', b'"\xc0\xaf"', b'"\xc1\xbf"', b'"\xe0\x80\xaf"'),
        *_documents("not UTF-8", "overlong", b'"\xf0\x80\x80\xaf"', b'"\xf8\x88\x80\x80\x80"'),
        *_documents("not UTF-8", "overlong", b'"\xfc\x84\x80\x80\x80\x80"', b'"\xe0\x9f\xbf"', b"\xc1\x9b]"),
        *_documents("not UTF-8", "cut", b'"\xc3"', b'"\xe2\x80"', b'"\xf0\x9f\x98"', b'"\xe6\x95', b'"\xf0'),
        *_documents("not UTF-8", "cut", b"[1]\xc3", b"\xe2"),
        *_documents("not UTF-8", "continuation", b'"\x80"', b'"\xbf\xbf"', b'"a\x85b"', b'"\xc3\xa9\xa9"', b"\xa0"),
        *_documents("not UTF-8", "continuation", b"1\x80"),
        *_documents("not UTF-8", "surrogate", b'"\xed\xa0\x80"', b'"\xed\xbf\xbf"', b'"\xed\xa0\xbd\xed\xb8\x80"'),
        *_documents("not UTF-8", "surrogate", b'{"\xed\xb0\x80":1}'),
        *_documents("not UTF-8", "beyond", b'"\xf4\x90\x80\x80"', b'"\xf5\x80\x80\x80"', b'"\xfe"', b'"\xff"', b"\xff"),
        *_documents("not UTF-8", "beyond", b"[\xff]"),
        *_documents("not UTF-8", "Latin-1", "é".encode("latin-1"), '"é"'.encode("latin-1")),
        *_documents("not UTF-8", "Latin-1", '["naïve"]'.encode("latin-1")),
        *_documents("not UTF-8", "broken both ways", b"{\xff", b'[1,,"\x80"]', b'"\xff', b"\\\xff"),
        # Line feeds, which JSON allows between tokens and lines do not.
        *_documents("cut by a line feed", "line feed", "[1,\n2]", '{\n"a":1}', "[\r\n]", '["a"\n,"b"]'),
        *_documents("torn by a line feed", "line feed", '"a\nb"', '["a\n"]', "tr\nue", '"\\\n"', '{"a\n":1}'),
        # Depth.
        *_named(
            "list",
            lists_as_deep_as_a_row_allows=_lists(MAX_DEPTH - 1),
        ),
        *_named("list of objects", lists_and_objects_as_deep_as_a_row_allows='[{"a":' * 31 + "[]" + "}]" * 31),
        *_named("object", objects_as_deep_as_a_row_allows=_objects(MAX_DEPTH - 1)),
        *_named(
            "deep for a row",
            lists_deeper_than_a_row_allows=_lists(MAX_DEPTH),
            lists_100_deep=_lists(100),
            lists_1000_deep=_lists(1_000, "1"),
            lists_5000_deep=_lists(5_000, '"]"'),
        ),
        *_named("objects in lists, deep for a row", lists_and_objects_3000_deep='[{"":' * 1500 + "1" + "}]" * 1500),
        *_named("object deep for a row", objects_64_deep=_objects(MAX_DEPTH), objects_5000_deep=_objects(5_000)),
        *_named("deep for content", lists_deep_as_a_field_allows=_lists(MAX_LINE_DEPTH - 1)),
        *_named("deep for a field", lists_deep_as_a_line_allows=_lists(MAX_LINE_DEPTH)),
        *_named(
            "deep for a line",
            lists_one_deeper_than_a_line_allows=_lists(MAX_LINE_DEPTH + 1),
            lists_100000_deep=_lists(100_000),
            objects_20000_deep=_objects(20_000),
            open_lists_100000_deep="[" * 100_000,
            open_lists_and_objects_20000_deep='[{"":' * 10_000,
        ),
        *_named(
            "not JSON",
            open_lists_60_deep="[" * 60,
            open_lists_500_deep="[" * 500,
            open_lists_5000_deep="[" * 5_000,
            fault_3000_deep=_lists(3_000, "1,"),
            fault_before_it_is_too_deep="[" * 3_000 + "x" + "[" * 10_000,
            fault_between_deep_and_too_deep=f"[{_lists(3_000)}, x, {'[' * 10_000}",
            brackets_of_other_kinds_where_it_is_too_deep="[" * 9_000 + "{" * 9_000,
            open_objects_60_deep='{"a":' * 60,
            closing_brackets_100000="]" * 100_000,
            one_bracket_too_many="[" * 60 + "]" * 61,
            mixed_brackets="[" * 60 + "}" * 60,
            deep_fault=_lists(60, "1,"),
        ),
    ]
    names = [document.name for document in made]
    assert len(set(names)) == len(names), [name for name in names if names.count(name) > 1]
    return made


def placed(document: bytes, place: str) -> bytes:
    """Write a line that has a document at one of the places."""
    here = {
        "line": b"HERE",
        "content": _around(rollout(user("HERE"), said("4"))),
        "argument": line(rollout(user("?"), raw_call("f", '{"a": HERE}'))),
        "schema": _around(rollout(user("?"), said("4"), tools=[_function({"a": "HERE"})])),
        "unknown": _around({"x": "HERE", **rollout(user("?"), said("4"))}),
        "unknown_key": _around({"x": {"HERE": 1}, **rollout(user("?"), said("4"))}),
        "argument_key": line(rollout(user("?"), raw_call("f", "{HERE: 1}"))),
    }
    written = _inside_a_string(document) if place.startswith("argument") else document
    return here[place].removesuffix(b"\n").replace(b"HERE", written) + b"\n"


def _around(value: Any) -> bytes:
    return line(value).replace(b'"HERE"', b"HERE")


def _inside_a_string(data: bytes) -> bytes:
    """Escape bytes as JSON does inside a string; they need not be UTF-8."""
    escapes = {0x22: b'\\"', 0x5C: b"\\\\", **{byte: b"\\u%04x" % byte for byte in range(0x20)}}
    return b"".join(escapes.get(byte, bytes([byte])) for byte in data)


def _function(parameters: Json, name: str = "f", description: str = "") -> Json:
    return {"type": "function", "name": name, "description": description, "parameters": parameters}


def row_with(value: Any, place: str) -> Json:
    """Write the row of a kept line out, with the decoded document where it belongs."""
    asked, answered = turn("user", "?"), assistant("4")
    match place:
        case "content":
            return {"messages": [turn("user", value or ""), answered]}
        case "argument":
            return {"messages": [asked, assistant(calls=[("f", {"a": value})])]}
        case "argument_key":
            return {"messages": [asked, assistant(calls=[("f", {value: as_written("1")})])]}
        case "schema":
            tools = [{"name": "f", "description": "", "parameters": {"a": value}}]
            return {"messages": [asked, answered], "tools": tools}
        case _:
            return {"messages": [asked, answered]}


# Texts. All are kept as they are, wherever they stand, but for what THOUGHTS says.


def texts() -> dict[str, str]:
    """Texts that break shells, templates, databases, terminals, spreadsheets and readers of text, by name."""
    words = (
        "undefined undef null NULL (null) nil NIL None NaN Infinity -Infinity INF true false True FALSE TRUE yes no on "
        "off hasOwnProperty then constructor __proto__ prototype toString __class__ __init__ self this eval exec "
        "import COM1 CON NUL AUX LPT9 .. . / \\ ~ * ? # ! % & | ; : , - -- --help -rf @ $ ^ = == => <> >< [] {} () "
        "0 1 -1 1.0 1.00 $1.00 1/2 1E2 1E02 -1E+02 1/0 0/0 0x0 0xffffffff 0xabad1dea 1,000.00 1.000,00 1'000 01000 08 "
        "2.2250738585072011e-308 123456789012345678901234567890 ٠١٢٣ ⁰⁴⁵ ₀₁₂ ½ Ω ÷ 9e999 1_000 +1 .5 5. 1e "
        "2000-02-30 12:60 1970-01-01T00:00:00Z P1D"
    ).split()
    made = {f"word {word}": word for word in words}
    made |= {f"control {code:02x}": f"a{chr(code)}b" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))}
    made |= {
        f"character {code:04x}": f"a{chr(code)}b"
        for code in (
            *(0xA0, 0xAD, 0x034F, 0x0600, 0x061C, 0x06DD, 0x070F, 0x115F, 0x1680, 0x17B4, 0x180E),
            *range(0x2000, 0x2010),
            *range(0x2028, 0x2030),
            *range(0x205F, 0x2070),
            *(0x3000, 0x3164, 0xD7FF, 0xE000, 0xF8FF, 0xFDD0, 0xFDEF, 0xFE0E, 0xFE0F, 0xFEFF, 0xFFA0),
            *(0xFFF9, 0xFFFA, 0xFFFB, 0xFFFC, 0xFFFD, 0xFFFE, 0xFFFF, 0x10000, 0x110BD, 0x1D173, 0x1FFFE),
            *(0x1FFFF, 0xE0001, 0xE0041, 0xE007F, 0xF0000, 0xFFFFF, 0x10FFFE, 0x10FFFF),
        )
    }
    made |= {
        "nothing": "",
        "one space": " ",
        "only spaces": " " * 40,
        "only white space": " \t\r\n\v\f\x85\xa0\u2003\u3000",
        "only line feeds": "\n\n\n",
        "only zero width": "\u200b\u200c\u200d\u2060\ufeff",
        "spaces around": "  a  ",
        "line feeds around": "\r\na\r\n",
        "line ends of all kinds": "a\nb\rc\r\nd\ve\ff\x1cg\x1dh\x1ei\x85j\u2028k\u2029l",
        "byte order mark first": "\ufeffa",
        "byte order mark swapped": "\ufffea",
        "symbols": "!@#$%^&*()`~<>?:\"{}|\\';/.,-=_+[]",
        "quotes": "'\"''\"\"`´‘’“”„«»",
        "backslashes": "\\\\ \\n \\u0041 \\x41 \\0 \\' \\\" \\",
        "escapes of escapes": '\\\\\\"\\\\\\\\u2028',
        "json inside": '{"a": "b\\n", "c": [1, null]}',
        "json string inside": '"\\"a\\""',
        "half of json": '{"a": [1, "',
        "end of a value": '"}]}\n{"messages": []}',
        "combining": "e\u0301 \u0301 Z\u0351\u036b\u0343\u0320\u031d\u032aa\u0336\u0322l\u0334g\u0489o\u0e49",
        "many combining": "o" + "\u0300" * 3000,
        "not normalized": "\u212b \u00c5 A\u030a \ufb01 \u1e9e \u0130 \u0131 \u017f \uac00 \u1100\u1161",
        "upside down": "ʇɐɥʍ",
        "full width and mathematical": "ＡＢＣ 𝐀𝑩𝓒𝔻 Ⓐ",
        "look-alikes": "раураӏ аdmіn",
        "right to left": "שלום עולם مرحبا بالعالم",
        "mixed directions": "abc אבג 123 دهو xyz",
        "bidi overrides": "\u202eevil\u202c \u202aa\u202c \u2066b\u2069 \u200fc\u200e",
        "bidi not closed": "file\u202egnp.exe",
        "long ligature": "﷽ ﷺ",
        "chinese japanese korean": "田中さんにあげて 部落格 사회과학원 𠜎𠜱𠝹 㐀",
        "indic and south-east asian": "क्षि நி สวัสดี ខ្មែរ မြန်မာ",
        "other planes": "𓀀 𒀀 𐎠 𝄞 🀄 𞤀",
        "emoji": "😀 👩🏽 ❤️ ☠︎ 1️⃣",
        "joined emoji": "👨\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 👩🏿\u200d❤️\u200d💋\u200d👨🏻 🧑\u200d🚀",
        "flags": "🇺🇸🇷🇺🇸 🇦🇫🇦 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "tag characters": "\U000e0001\U000e0069\U000e0067\U000e006e\U000e006f\U000e0072\U000e0065\U000e007f",
        "variation selectors": "a\ufe0f\U000e0100\U000e01ef",
        "private use": "\ue000\uf8ff\U000f0000\U0010fffd",
        "noncharacters": "\ufdd0\ufffe\uffff\U0001ffff\U0010ffff",
        "replacement": "\ufffd\ufffd",
        "mojibake": "Ã© â€™ ï»¿",
        "script": "<script>alert(1)</script>",
        "script in an attribute": '"><img src=x onerror=alert`1`//>',
        "script address": "javascript:/*--></title></style></textarea>*/alert(1)",
        "svg": "<svg/onload=alert(1)><!--<![CDATA[",
        "entities": "&lt;&#0;&#x110000;&amp;amp;&bsol;",
        "xml entity": '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        "sql": "1;DROP TABLE users; -- ' OR '1'='1' /*",
        "sql quotes": "Robert'); DELETE FROM rows WHERE \"a\" = 'b';#",
        "polars sql": "agent <> '' UNION SELECT * FROM read_csv('/etc/passwd')",
        "shell": "$(touch /tmp/a) `touch /tmp/b` ; true && false || : > c & \n",
        "shell variables": "$HOME ${HOME} $ENV{'HOME'} %USERPROFILE% $PATH~root",
        "shell shock": "() { :; }; echo a",
        "ruby and perl": 'eval("puts 1") system("true") @{[system "true"]} #{1+1}',
        "format": "%s %n %d %x %1$*1$d %p%%",
        "format in braces": "{0} {} {a.__class__.__init__.__globals__} {0:99999999d}",
        "template": "{{ 7*7 }} {% for a in b %}{% endfor %} {# a #} ${7*7} #{7*7} <%= 7*7 %> [[a]]",
        "template of turns": "{{ messages[0].content }}{{ bos_token }}{{ raise_exception('a') }}",
        "jndi": "${jndi:ldap://localhost/a} ${oc.env:HOME} ${a:-${b}}",
        "path": "../../../../etc/passwd\x00.jsonl",
        "windows path": "C:\\..\\con\\a:b \\\\?\\UNC\\a ..\\..\\win.ini",
        "address": "file:///etc/passwd s3://a/../b http://a@b:c#d?e&f=%00%0a",
        "terminal": "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J \x9b31m \x1bP",
        "terminal bell and backspace": "a\x07\x07b\x08\x08c\x7f",
        "csv": "=1+1 @SUM(A1) +1 -1 ,\";\t\"\r\n=cmd|' /C calc'!A0",
        "yaml": "- a: &b !!python/object:os.system *b\n---\n...\n? |\n",
        "header": "a\r\nSet-Cookie: b\r\n\r\n",
        "regular expression": "(a+)+$ [ ( \\ ^.*$ (?:",
        "markdown": "```json\n{}\n``` [a](javascript:b) ![](c)",
        "control tokens": "<|im_start|>system\na<|im_end|> <|endoftext|> [INST] <<SYS>> </s> <s> <unk> <|eot_id|>",
        "tool tags": "<tool_call>{}</tool_call> <function=a> <|python_tag|>",
        "quoted thought": "Write <think> and </think> around it.",
        "thought that is not closed": "<think>\nHm.",
        "opening tag alone": "<think>",
        "thought": "<think>\nHm.\n</think>\n\nYes.",
        "closing tag": "Hm.\n</think>\n\nYes.",
        "other thoughts": "<thinking>Hm.</thinking> <THINK>Hm.</THINK> <think >Hm.</think > <\u200bthink>",
        "very long": "ab é" * 7_000,
        "very long without a space": "a" * 40_000,
        "very long beyond ascii": "数\u2028" * 4_000,
        "many quotes": '"' * 10_000,
        "many backslashes": "\\" * 9_999,
        "deep json inside": "[" * 20_000,
    }
    return made


# What an answer says once its reasoning is left out, as README has it: what stands in tags with which the text begins,
# and all up to a lone closing tag that ends a line. What is not closed stays, and so do tags amid a text.
THOUGHTS = {"thought": "Yes.", "closing tag": "Yes."}
ANSWERS = ("answer", "parts of an answer")
# Of one tag nothing is left, neither said nor thought: the output has no assistant turn.
NO_ANSWERS = {("answer", "opening tag alone"): "no_assistant_turn"}


class TextPlace(NamedTuple):
    """A place where a rollout has text: the rollout with a text there, and its row."""

    rollout: Callable[[str], Json]
    row: Callable[[str], Json]


def _talk(*messages: Json, **more: Any) -> Json:
    return {"messages": list(messages), **more}


_ASKED, _SAID = turn("user", "?"), assistant("4")
_PLAIN = _talk(_ASKED, _SAID)

TEXT_PLACES = {
    "prompt": TextPlace(lambda text: rollout(user(text), said("4")), lambda text: _talk(turn("user", text), _SAID)),
    "string prompt": TextPlace(lambda text: rollout(text, said("4")), lambda text: _talk(turn("user", text), _SAID)),
    "system": TextPlace(
        lambda text: rollout([system(text), user("?")], said("4")),
        lambda text: _talk(turn("system", text), _ASKED, _SAID),
    ),
    "instructions": TextPlace(
        lambda text: rollout(user("?"), said("4"), instructions=text),
        lambda text: _talk(*([turn("system", text)] if text else []), _ASKED, _SAID),  # empty ones are none
    ),
    "answer": TextPlace(lambda text: rollout(user("?"), said(text)), lambda text: _talk(_ASKED, assistant(text))),
    "parts of an answer": TextPlace(
        lambda text: rollout(user("?"), said(text, "2")), lambda text: _talk(_ASKED, assistant(f"{text}2"))
    ),
    "result": TextPlace(
        lambda text: rollout(user("?"), call("f"), returned(text), said("4")),
        lambda text: _talk(_ASKED, assistant(calls=[("f", {})]), tool(text), _SAID),
    ),
    "name of a call": TextPlace(
        lambda text: rollout(user("?"), call(text)), lambda text: _talk(_ASKED, assistant(calls=[(text, {})]))
    ),
    "argument": TextPlace(
        lambda text: rollout(user("?"), call("f", a=text)),
        lambda text: _talk(_ASKED, assistant(calls=[("f", {"a": text})])),
    ),
    "key of an argument": TextPlace(
        lambda text: rollout(user("?"), call("f", **{text: text})),
        lambda text: _talk(_ASKED, assistant(calls=[("f", {text: text})])),
    ),
    "unescaped argument": TextPlace(
        lambda text: rollout(user("?"), raw_call("f", json.dumps({text: [text]}, ensure_ascii=False))),
        lambda text: _talk(_ASKED, assistant(calls=[("f", {text: [text]})])),
    ),
    "arguments that are an object": TextPlace(
        lambda text: rollout(user("?"), raw_call("f", {text: [{text: text}]})),
        lambda text: _talk(_ASKED, assistant(calls=[("f", {text: [{text: text}]})])),
    ),
    "tool": TextPlace(
        lambda text: rollout(user("?"), said("4"), tools=[_function({text: {text: [text]}}, text, text)]),
        lambda text: _talk(
            _ASKED, _SAID, tools=[{"name": text, "description": text, "parameters": {text: {text: [text]}}}]
        ),
    ),
    "tool of another kind": TextPlace(
        lambda text: rollout(user("?"), said("4"), tools=[{"type": "custom", "a": {text: text}}]),
        lambda text: _talk(_ASKED, _SAID, tools=[{"type": "custom", "a": {text: text}}]),
    ),
    "unknown field": TextPlace(lambda text: {"x": text, **rollout(user("?"), said("4"))}, lambda _: _PLAIN),
    "unknown key": TextPlace(lambda text: {text: 1, **rollout(user("?"), said("4"))}, lambda _: _PLAIN),
    "key of an unknown field": TextPlace(
        lambda text: {**rollout(user("?"), said("4")), "x": [{text: {text: text}}]}, lambda _: _PLAIN
    ),
    "unknown field of an item": TextPlace(
        lambda text: rollout({**user("?"), text: text}, {**said("4"), text: text}), lambda _: _PLAIN
    ),
}
