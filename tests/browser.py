"""The page of an output in a real browser: it draws, sorts, unfolds; what rows hold stays text, and nothing is loaded.

Run it with `tox -e browser`, which needs Debian's `chromium`; `CHROMIUM` may name another.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from builders import lines, rollout, said, user

import fastsft

sync_api = pytest.importorskip("playwright.sync_api", reason="tox -e browser installs playwright")
Image = pytest.importorskip("PIL.Image", reason="tox -e browser installs pillow")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
MARKUP = [
    "</pre></section></details><script>alert('script')</script>",
    "<img src='http://127.0.0.1:9/picture' onerror=\"alert('image')\">",
    "<svg onload=alert('svg')><use href='http://127.0.0.1:9/use'/></svg>",
    "<iframe src=\"javascript:alert('frame')\"></iframe><style>body{display:none}</style>",
    "<a href=\"javascript:alert('link')\" autofocus onfocus=alert('focus')>link</a>",
    '<meta http-equiv=refresh content="0;url=http://127.0.0.1:9/refresh"><base href=//127.0.0.1:9/>',
    '" onmouseover="alert(1)" x="',
    "$script $${body} ${style} {{7*7}} &lt;b&gt; \u202e\x00",
    "<!-- --><![CDATA[ ]]></title></textarea></noscript><script src=//127.0.0.1:9/x.js>",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.fail("no browser: install Debian's chromium (apt-get install chromium), or name one with CHROMIUM=PATH")
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        with playwright.chromium.launch(executable_path=CHROMIUM, args=arguments) as started:
            yield started


@pytest.fixture(scope="session")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of rollouts of three agents, whose words are markup wherever a rollout has words."""
    folder = tmp_path_factory.mktemp("page")
    told = []
    for number in range(40):
        words = MARKUP[number % len(MARKUP)]
        call = {"type": "function_call", "name": words, "arguments": '{"a": 1}', "call_id": "c"}
        result = {"type": "function_call_output", "call_id": "c", "output": words}
        thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": words}]}
        tool = {"type": "function", "name": words, "description": words, "parameters": {"type": "object"}}
        made = rollout(
            user(f"{number} {words}"), thought, call, result, said(words), reward=number % 4 / 2, tools=[tool]
        )
        told.append({**made, "agent_ref": {"name": f"{'abc'[number % 3]} {words}"}})
    path = folder / "<script>alert('name')<" / "in.jsonl"
    path.parent.mkdir()
    path.write_bytes(lines(*told) + b"<script>alert('refused')</script>\n" * 4 + b"\n" * 4)
    fastsft.convert(path, f"{folder}/out/", format="chat", name="train", reward_threshold=0.5)
    return fastsft.write_report(folder / "out")


class Opened:
    """A page in a window of its own, and what it did beside being drawn."""

    def __init__(self, browser: Any, url: str, **window: Any) -> None:
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.errors: list[str] = []
        self.context = browser.new_context(**window)
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.goto(url)

    def done(self) -> list[list[str]]:
        """Close it, and tell what was asked for beside the page, which dialogs came up, what went wrong."""
        self.context.close()
        return [self.requests[1:], self.dialogs, self.errors]


QUIET: list[list[str]] = [[], [], []]
SECTIONS = ["fates", "success", "lengths", "check", "rows", "files", "run"]


@pytest.fixture
def opened(browser: Any, page_path: Path) -> Iterator[Any]:
    windows: list[Opened] = []

    def open_page(**window: Any) -> Opened:
        windows.append(Opened(browser, page_path.as_uri(), **window))
        return windows[-1]

    yield open_page
    for window in windows:
        assert window.done() == QUIET


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_it_draws_every_section_in_light_and_dark_wide_and_narrow(opened, scheme, width):
    page = opened(color_scheme=scheme, viewport={"width": width, "height": 800}).page

    assert [one.get_attribute("id") for one in page.locator("main > section").all()] == SECTIONS
    assert all(one.is_visible() and one.bounding_box()["height"] > 60 for one in page.locator("main > section").all())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    flow = page.locator("svg.flow.wide" if width > 640 else "svg.flow.narrow")
    assert flow.is_visible()
    assert page.locator("svg.flow:visible").count() == 1
    assert page.evaluate(LABELS_OUTSIDE) == []
    drawn = Image.open(BytesIO(flow.screenshot())).convert("RGB")
    colours = {colour for _, colour in drawn.getcolors(drawn.width * drawn.height)}
    assert (255, 255, 255) in colours if scheme == "light" else (20, 24, 28) in colours
    assert set(FATES[scheme].values()) <= colours


FATES = {
    "light": {"kept": (23, 128, 109), "dropped": (183, 121, 31), "refused": (192, 57, 43), "blank": (152, 162, 173)},
    "dark": {"kept": (63, 184, 160), "dropped": (217, 164, 65), "refused": (229, 105, 91), "blank": (108, 119, 131)},
}
LABELS_OUTSIDE = """() => [...document.querySelectorAll("svg.flow")]
    .filter((svg) => svg.getBoundingClientRect().width)
    .flatMap((svg) => [...svg.querySelectorAll("text")].filter((text) => {
        const inner = text.getBoundingClientRect(), outer = svg.getBoundingClientRect();
        return inner.left < outer.left - 1 || inner.right > outer.right + 1
            || inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1;
    }).map((text) => text.textContent))"""


def test_tables_sort_by_what_their_columns_mean(opened):
    page = opened().page
    table = page.locator("#success table.sortable").nth(1)

    def column(number: int) -> list[str]:
        return [" ".join(text.split()) for text in table.locator(f"tbody td:nth-child({number})").all_inner_texts()]

    def click(number: int) -> list[str]:
        table.locator(f"thead th:nth-child({number}) button").click()
        return column(number)

    means = [float(text) for text in column(3)]
    agents = column(1)
    assert [float(text) for text in click(3)] == sorted(means, reverse=True)
    assert table.locator("thead th:nth-child(3)").get_attribute("aria-sort") == "descending"
    assert [float(text) for text in click(3)] == sorted(means)
    rates = click(4)
    assert [float(text.rstrip("%")) for text in rates] == sorted(
        (float(text.rstrip("%")) for text in rates), reverse=True
    )
    assert [agent[0] for agent in click(1)] == sorted(agent[0] for agent in agents)
    assert sorted(column(1)) == sorted(agents)
    assert table.locator("thead th[aria-sort]").count() == 1


def test_rows_unfold_one_by_one_and_all_at_once(opened):
    page = opened().page
    rows = page.locator("details.row")
    turns = rows.nth(3).locator(".turn").first

    assert rows.count() == 20
    assert not turns.is_visible()
    rows.nth(3).locator("> summary").click()
    assert turns.is_visible()
    page.get_by_role("button", name="Unfold all").click()
    assert page.locator("details.row[open]").count() == 20
    page.get_by_role("button", name="Fold all").click()
    assert page.locator("details.row[open]").count() == 0


def test_the_keyboard_unfolds_and_sorts(opened):
    page = opened().page
    page.locator("details.row > summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details.row[open]").count() == 1
    page.locator("#fates th button").nth(2).focus()
    page.keyboard.press("Enter")
    assert page.locator("#fates th[aria-sort=descending]").count() == 1


OURS = set(
    "a button code details div footer h1 h2 h3 h4 header li line main nav p path pre rect script section span strong "
    "summary svg table tbody td text th thead title tr ul".split()
)


def test_what_rows_hold_stays_text(opened):
    page = opened().page
    page.get_by_role("button", name="Unfold all").click()
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.mouse.wheel(0, 50_000)
    page.wait_for_load_state("networkidle")

    kinds = page.evaluate("[...new Set([...document.body.querySelectorAll('*')].map((one) => one.localName))].sort()")
    assert set(kinds) == OURS
    assert page.locator("script").count() == 1
    assert page.locator("body use, body image, body img, body iframe, body style, body meta, body base").count() == 0
    handlers = page.evaluate(
        "[...document.querySelectorAll('*')].flatMap((one) => [...one.attributes])"
        ".filter((one) => one.name.startsWith('on') || /javascript:/.test(one.name)).length"
    )
    assert handlers == 0
    said = page.locator("#rows pre").all_inner_texts()
    for words in MARKUP[:-2]:
        assert any(words in text for text in said), words
    assert any("$script $${body} ${style} {{7*7}} &lt;b&gt; \\u202e\\x00" in text for text in said)


def test_without_scripts_all_is_there(browser, page_path):
    window = Opened(browser, page_path.as_uri(), java_script_enabled=False)
    page = window.page

    assert page.locator("main > section").count() == len(SECTIONS)
    assert page.locator("th button, button.all").count() == 0
    page.locator("details.row > summary").nth(1).click()
    assert page.locator("details.row[open] .turn").first.is_visible()
    assert window.done() == QUIET


def test_from_a_server_nothing_is_asked_for_either(browser, page_path):
    handler = partial(SimpleHTTPRequestHandler, directory=str(page_path.parent))
    asked: list[str] = []
    handler.func.log_message = lambda self, *_: asked.append(self.path)  # type: ignore[method-assign,attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        window = Opened(browser, f"http://127.0.0.1:{server.server_address[1]}/{page_path.name}")
        window.page.wait_for_load_state("networkidle")
        assert window.done() == QUIET
        server.shutdown()
    assert set(asked) - {"/favicon.ico"} == {f"/{page_path.name}"}


def test_the_policy_stops_a_script_that_is_not_the_page_s_own(browser, page_path, tmp_path):
    """As a second wall: were something not escaped, it would not run."""
    broken = tmp_path / "broken.html"
    text = page_path.read_text().replace(
        "</main>", "<script>alert('unescaped')</script><img src='http://127.0.0.1:9/'></main>"
    )
    broken.write_text(text)
    window = Opened(browser, broken.as_uri())
    window.page.wait_for_load_state("networkidle")

    _, dialogs, errors = window.done()

    assert dialogs == []
    assert len([error for error in errors if "Content Security Policy" in error]) >= 2
