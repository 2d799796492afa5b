"""The page of a plan: whole in itself, safe with any name, and its three views stay on one step.

The last is looked at in Chromium itself, which a test finds as `chromium`, `google-chrome` or in
$CHROMIUM; without one those tests are skipped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Page, sync_playwright

from graphnet.builtin import SGD
from graphnet.graph import stated_machine
from graphnet.inspection import Heading, breakdown, page, to_data
from graphnet.model import Model
from graphnet.plan import Plan
from graphnet.sdk import load_registry
from tests.support.models import Acme

UNET: dict[str, Any] = {
    "input": {"channels": 3},
    "layers": [
        {"id": "head", "conv2d": {"out_channels": 8, "kernel_size": 3, "padding": 1}},
        {"id": "act", "acme/swish": {}},
        {"id": "down", "conv2d": {"out_channels": 16, "kernel_size": 2, "stride": 2}},
        {"id": "mid", "conv2d": {"out_channels": 16, "kernel_size": 3, "padding": 1}},
        {"id": "up", "upsampling": {"out_channels": 8, "kernel_size": 2, "stride": 2}},
        {"id": "skip", "add": {}, "inputs": ["up", "act"]},
        {"id": "tail", "conv2d": {"out_channels": 3, "kernel_size": 3, "padding": 1}},
    ],
}
HEADING = Heading("unet", ["2x3x16x16"], "float32", training=True)


def plan_of(description: dict[str, Any], shape: tuple[int, ...]) -> Plan:
    model = Model(description, registry=load_registry(plugins=[Acme()], entry_points=False))
    return model.plan(shape, loss="mse", optimizer=SGD(lr=0.1))


def data_of(plan: Plan) -> dict[str, Any]:
    return to_data(breakdown(plan, stated_machine(torch.device("cpu"))))


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    return data_of(plan_of(UNET, (2, 3, 16, 16)))


# -- the text ----------------------------------------------------------------------------------------


class _Outline(HTMLParser):
    """Every attribute, every tag, and the text of each script."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: list[str] = []
        self.texts: dict[str, list[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend(attrs)

    def handle_data(self, data: str) -> None:
        if self.tags:
            self.texts.setdefault(self.tags[-1], []).append(data)


def outline(text: str) -> _Outline:
    parser = _Outline()
    parser.feed(text)
    return parser


def test_page_asks_the_network_for_nothing(data: dict[str, Any]) -> None:
    text = page(data, HEADING)
    found = outline(text)
    for name in ("src", "srcset", "action", "data"):
        assert name not in dict(found.attributes)
    links = [value for name, value in found.attributes if name == "href"]
    assert links == ["data:,"]
    addresses = set(re.findall(r"https?://[^\s\"']+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of a vocabulary, not a place
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|importScripts", text)


def test_page_holds_the_plan_as_it_is(data: dict[str, Any]) -> None:
    found = outline(page(data, HEADING))
    embedded = next(text for text in found.texts["script"] if text.lstrip().startswith("{"))
    assert json.loads(embedded) == json.loads(json.dumps(data))
    assert found.texts["title"][:1] == ["unet: training step on 2x3x16x16, float32, eager executor"]


EVIL = '</script><script>window.broken=1</script><img src=x onerror="window.broken=1">'


def evil(data: dict[str, Any]) -> dict[str, Any]:
    """The plan with a name that would break a page that trusts it."""
    text = json.dumps(data)
    return json.loads(text.replace('"mid', json.dumps(f"{EVIL}mid")[:-1]))  # type: ignore[no-any-return]


def test_names_from_a_file_end_no_script(data: dict[str, Any]) -> None:
    heading = Heading(EVIL, ["1x1"], "float32", training=False)
    plain, found = outline(page(data, HEADING)), outline(page(evil(data), heading))
    assert found.tags == plain.tags
    assert EVIL in "".join(found.texts["title"])


# -- in a browser ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    program = next((path for name in names if name and (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed (apt-get install chromium), and $CHROMIUM names none")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"] if os.getuid() == 0 else []
        )
        yield launched
        launched.close()


class _Shown:
    """A page on the screen, with what it asked for and what went wrong in it."""

    def __init__(self, browser: Browser, path: Path, data: dict[str, Any], **options: Any) -> None:
        path.write_text(page(data, HEADING), encoding="utf-8")
        self.context = browser.new_context(offline=True, **options)
        self.page: Page = self.context.new_page()
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("request", self.requested)
        self.page.goto(path.as_uri())
        self.page.wait_for_function("document.documentElement.dataset.ready === 'true'")

    def requested(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.problems.append(request.url)

    def chosen(self) -> dict[str, Any]:
        """The step that each view shows as the chosen one."""
        found: dict[str, Any] = self.page.evaluate(
            """() => ({
                graph: [...document.querySelectorAll('.node.chosen')].map(n => +n.dataset.step),
                table: [...document.querySelectorAll('tr.chosen')].map(r => +r.dataset.step),
                detail: document.querySelector('#detail h3')?.textContent ?? '',
                mark: document.querySelector('#chart .mark').getAttribute('visibility'),
                address: location.hash,
            })"""
        )
        return found

    def visible(self, selector: str, inside: str) -> bool:
        """Whether an element is on the screen, within its scrolling box."""
        return bool(
            self.page.evaluate(
                """([selector, inside]) => {
                    const e = document.querySelector(selector).getBoundingClientRect();
                    const b = document.querySelector(inside).getBoundingClientRect();
                    return e.top >= b.top - 1 && e.bottom <= b.bottom + 1;
                }""",
                [selector, inside],
            )
        )


@pytest.fixture
def shown(browser: Browser, data: dict[str, Any], tmp_path: Path) -> Iterator[_Shown]:
    made = _Shown(browser, tmp_path / "plan.html", data, viewport={"width": 1280, "height": 800})
    yield made
    assert made.problems == []
    made.context.close()


def agrees(found: dict[str, Any], step: int, call: str) -> None:
    assert found == {
        "graph": [step],
        "table": [step],
        "detail": f"Step {step}: {call}",
        "mark": "visible",
        "address": f"#step-{step}",
    }


def test_every_step_is_in_the_graph_and_in_the_table(shown: _Shown, data: dict[str, Any]) -> None:
    count = len(data["steps"])
    assert shown.page.locator(".node").count() == count
    assert shown.page.locator("#table-scroll tbody tr").count() == count
    assert shown.page.locator("#chart path[data-category]").count() == 5


def test_click_in_the_table_shows_in_graph_and_memory(shown: _Shown, data: dict[str, Any]) -> None:
    last = len(data["steps"]) - 1
    shown.page.locator(f"#row-{last}").click()
    agrees(shown.chosen(), last, data["steps"][last]["call"])
    assert shown.visible(f".node[data-step='{last}']", "#graph-scroll")


def test_click_in_the_graph_scrolls_the_table_there(shown: _Shown, data: dict[str, Any]) -> None:
    last = len(data["steps"]) - 1
    assert not shown.visible(f"#row-{last}", "#table-scroll")
    node = shown.page.locator(f".node[data-step='{last}']")
    node.scroll_into_view_if_needed()
    node.click()
    agrees(shown.chosen(), last, data["steps"][last]["call"])
    assert shown.visible(f"#row-{last}", "#table-scroll")


def test_click_in_the_timeline_chooses_the_step_under_it(
    shown: _Shown, data: dict[str, Any]
) -> None:
    box = shown.page.locator("#chart").bounding_box()
    assert box is not None
    count = len(data["steps"])
    wanted = count // 3
    x = box["x"] + 62 + (box["width"] - 62 - 14) * (wanted + 0.5) / count
    shown.page.mouse.click(x, box["y"] + box["height"] / 2)
    agrees(shown.chosen(), wanted, data["steps"][wanted]["call"])


def test_hovering_the_timeline_names_the_values_alive(shown: _Shown, data: dict[str, Any]) -> None:
    box = shown.page.locator("#chart").bounding_box()
    assert box is not None
    step = data["peak"]["step"]
    x = box["x"] + 62 + (box["width"] - 62 - 14) * (step + 0.5) / len(data["steps"])
    shown.page.mouse.move(x, box["y"] + 60)
    tip = shown.page.locator("#tip")
    text = tip.inner_text()
    assert text.startswith(f"step {step}: {data['steps'][step]['call']}")
    assert data["peak"]["alive"][0] in text
    shown.page.mouse.move(5, 5)
    assert not tip.is_visible()


def test_keys_walk_through_the_steps(shown: _Shown, data: dict[str, Any]) -> None:
    press = shown.page.keyboard.press
    calls = [step["call"] for step in data["steps"]]
    press("ArrowDown")
    agrees(shown.chosen(), 0, calls[0])
    press("PageDown")
    agrees(shown.chosen(), 10, calls[10])
    press("ArrowUp")
    agrees(shown.chosen(), 9, calls[9])
    press("End")
    agrees(shown.chosen(), len(calls) - 1, calls[-1])
    press("p")
    agrees(shown.chosen(), data["peak"]["step"], calls[data["peak"]["step"]])
    press("Escape")
    found = shown.chosen()
    assert (found["graph"], found["table"], found["mark"]) == ([], [], "hidden")


def test_neighbours_are_the_steps_that_give_and_take_values(
    shown: _Shown, data: dict[str, Any]
) -> None:
    steps = data["steps"]
    number = next(step["step"] for step in steps if step["call"] == "skip")
    made = {value["name"] for value in steps[number]["makes"]}
    near = {s["step"] for s in steps if made & set(s["reads"])}
    near |= {
        s["step"] for s in steps if set(steps[number]["reads"]) & {v["name"] for v in s["makes"]}
    }
    shown.page.locator(f"#row-{number}").click()
    script = "() => [...document.querySelectorAll('.node.near')].map(n => +n.dataset.step)"
    assert set(shown.page.evaluate(script)) == near - {number}


def test_address_leads_to_a_step(browser: Browser, data: dict[str, Any], tmp_path: Path) -> None:
    shown = _Shown(browser, tmp_path / "plan.html", data)
    shown.page.goto((tmp_path / "plan.html").as_uri() + "#step-4")
    shown.page.reload()
    agrees(shown.chosen(), 4, data["steps"][4]["call"])
    shown.context.close()


def test_name_that_looks_like_markup_is_shown_as_text(
    browser: Browser, data: dict[str, Any], tmp_path: Path
) -> None:
    shown = _Shown(browser, tmp_path / "plan.html", evil(data))
    number = next(s["step"] for s in data["steps"] if s["node"] == "mid")
    shown.page.locator(f"#row-{number}").click()
    assert EVIL in shown.chosen()["detail"]
    assert shown.page.evaluate("window.broken") is None
    assert shown.page.locator("img").count() == 0
    assert shown.problems == []
    shown.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(
    browser: Browser, data: dict[str, Any], tmp_path: Path, scheme: Any
) -> None:
    """The contrast of WCAG 2.2, 1.4.3, of words on panels and on the boxes of every phase."""
    shown = _Shown(browser, tmp_path / "plan.html", data, color_scheme=scheme)
    pairs = [("--text", "--panel"), ("--text", "--ground"), ("--faint", "--panel")]
    pairs += [("--text", f"--{phase}-soft") for phase in ("forward", "reverse", "update")]
    for text, ground in pairs:
        colours = [
            shown.page.evaluate(
                "name => getComputedStyle(document.documentElement).getPropertyValue(name)", name
            )
            for name in (text, ground)
        ]
        one, other = (luminance(colour.strip()) for colour in colours)
        assert (max(one, other) + 0.05) / (min(one, other) + 0.05) >= 4.5, (text, ground)
    shown.context.close()


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_two_thousand_steps_can_be_walked_through(browser: Browser, tmp_path: Path) -> None:
    conv = {"conv2d": {"out_channels": 2, "kernel_size": 3, "padding": 1}}
    layers = [{"id": f"n{i}", **(conv if i % 2 else {"acme/swish": {}})} for i in range(800)]
    plan = plan_of({"input": {"channels": 2}, "layers": layers}, (1, 2, 4, 4))
    data = data_of(plan)
    assert len(data["steps"]) > 2000
    shown = _Shown(browser, tmp_path / "plan.html", data)
    last = len(data["steps"]) - 1
    for key, step in (("End", last), ("PageUp", last - 10), ("Home", 0)):
        shown.page.keyboard.press(key)
        agrees(shown.chosen(), step, data["steps"][step]["call"])
        assert shown.visible(f"#row-{step}", "#table-scroll")
        assert shown.visible(f".node[data-step='{step}']", "#graph-scroll")
    assert shown.problems == []
    shown.context.close()


def test_narrow_screen_scrolls_in_one_direction_only(
    browser: Browser, data: dict[str, Any], tmp_path: Path
) -> None:
    size: Any = {"width": 420, "height": 900}
    shown = _Shown(browser, tmp_path / "plan.html", data, viewport=size)
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 420
    shown.page.locator("#row-3").click()
    agrees(shown.chosen(), 3, data["steps"][3]["call"])
    shown.context.close()
