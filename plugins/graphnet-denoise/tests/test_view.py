"""The page that is served while a run trains, and for a folder of images: by requests, and in a browser."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphnet_denoise.report.live import LiveFolder, LiveRun
from graphnet_denoise.report.serving import PageServer
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

import graphnet as gn
from graphnet.cli import run as graphnet_command
from graphnet.errors import DataError, InputError

OPTIONS = gn.CompileOptions()
RECORDS: list[dict[str, Any]] = [
    {"kind": "start", "step": 0, "config": {"name": "mine"}, "device": "cpu", "precision": "float32"},
    {"kind": "epoch", "epoch": 1, "step": 10, "loss": 0.5, "metrics": {"psnr": 20.5}, "elapsed_s": 3.0},
    {"kind": "epoch", "epoch": 2, "step": 20, "loss": 0.3, "metrics": {"psnr": 25.25}, "elapsed_s": 6.0},
]  # fmt: skip


def save_model(path: Path, factor: float) -> None:
    """A model that multiplies each value."""
    conv = {"out_channels": 3, "kernel_size": 1, "bias": False}
    description = {"input": {"channels": 3}, "layers": [{"conv2d": conv}]}
    weights = {"conv2d_1.weight": torch.eye(3).reshape(3, 3, 1, 1) * factor}
    gn.Model(description, weights=weights).save(path)


def write_log(run: Path, *, records: int) -> None:
    (run / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in RECORDS[:records]))


def pixels_of(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (3, 40, 60), dtype=np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "my images"
    folder.mkdir()
    for seed, name in enumerate(("one.png", "two.png")):
        Image.fromarray(pixels_of(seed).transpose(1, 2, 0)).save(folder / name)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that has finished an epoch, and has written a model that halves each value."""
    folder = tmp_path / "run"
    folder.mkdir()
    write_log(folder, records=2)
    save_model(folder / "model.safetensors", 0.5)
    return folder


@contextmanager
def served(shown: LiveRun | LiveFolder) -> Iterator[PageServer]:
    with shown, PageServer(shown) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(
    server: PageServer, place: str, *, method: str = "GET", host: str | None = None
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.putrequest(method, place, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    return connection.getresponse()


def asked(server: PageServer, place: str) -> Any:
    answer = ask(server, f"/{server.token}/{place}")
    assert answer.status == 200
    return json.loads(answer.read())


def test_only_those_who_know_the_address_get_the_page(run: Path) -> None:
    with served(LiveRun(run, [], most=4, options=OPTIONS)) as server:
        assert server.server_address[0] == "127.0.0.1"
        page = f"/{server.token}/"
        assert ask(server, page).status == 200
        assert ask(server, page, host=f"localhost:{server.server_port}").status == 200
        for place in ("/", "//", "/version", "/x/version", page[:-2] + "/", page.rstrip("/")):
            assert ask(server, place).status == 404
        for place in ("x", "pictures", "pictures/9", "pictures/-1", f"pictures/{'9' * 99}", "../"):
            assert ask(server, page + place).status == 404
        for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1"):
            assert ask(server, page, host=host).status == 403
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD", "BREW"):
            assert ask(server, page, method=method).status == 405


def test_every_answer_says_what_a_page_may_do(run: Path) -> None:
    with served(LiveRun(run, [], most=4, options=OPTIONS)) as server:
        found = ask(server, f"/{server.token}/").getheader("Content-Security-Policy") or ""
        assert "default-src 'none'" in found
        assert re.search(r"script-src 'sha256-[^;]*;", found)
        assert "unsafe-inline" not in re.findall("script-src [^;]*", found)[0]
        for place in ("/", f"/{server.token}/version"):
            answer = ask(server, place)
            assert answer.getheader("Content-Security-Policy") == "default-src 'none'"
            assert answer.getheader("X-Content-Type-Options") == "nosniff"


def test_the_number_changes_with_the_log_and_with_the_model(run: Path) -> None:
    with served(LiveRun(run, [], most=0, options=OPTIONS)) as server:
        numbers = [asked(server, "version")["version"]]

        def changed() -> bool:
            numbers.append(asked(server, "version")["version"])
            return bool(numbers[-1] != numbers[-2])

        server.shown._pool.submit(int).result()  # type: ignore[attr-defined]  # the images are made
        changed()
        assert not changed()
        write_log(run, records=3)
        assert changed()
        assert not changed()
        save_model(run / "best.safetensors", 0.25)
        assert changed()
        assert [one["epoch"] for one in asked(server, "data")["run"]["epochs"]] == [1, 2]


def test_a_run_that_has_nothing_yet_says_so(tmp_path: Path, images: Path) -> None:
    with served(LiveRun(tmp_path, [images], most=4, options=OPTIONS)) as server:
        assert "not begun its log yet" in asked(server, "data")["remark"]
        write_log(tmp_path, records=2)
        data = asked(server, "data")
        assert "not written a model yet" in data["remark"]
        assert "not begun" not in data["remark"]
        (tmp_path / "log.jsonl").write_text("3\n")
        assert "log.jsonl:1: not a record" in asked(server, "data")["remark"]


def test_an_image_of_a_folder_is_denoised_when_it_is_asked_for(images: Path) -> None:
    (images / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    save_model(images.parent / "half.safetensors", 0.5)
    with served(LiveFolder(images, images.parent / "half.safetensors", options=OPTIONS)) as server:
        data = asked(server, "data")
        assert [one["name"] for one in data["pictures"]] == ["bad.png", "one.png", "two.png"]
        assert "bad.png" in asked(server, data["pictures"][0]["address"])["error"]
        found = asked(server, data["pictures"][1]["address"])
        assert (found["name"], found["width"], found["height"]) == ("one.png", 60, 40)
        removed = found["numbers"]["removed, standard deviation in 255ths"]
        assert removed == pytest.approx(pixels_of(0).std() / 2, rel=1e-4)
        shutil.copy(images / "one.png", images / "three.png")
        assert len(asked(server, "data")["pictures"]) == 4


def test_the_plan_of_the_network_is_that_of_a_convolution(run: Path, images: Path) -> None:
    with served(LiveRun(run, [images], most=1, options=OPTIONS)) as server:
        asked(server, "version")
        server.shown._pool.submit(int).result()  # type: ignore[attr-defined]
        network = asked(server, "data")["network"]
    (layer,) = [one for one in network["layers"] if "conv2d" in one["kernel"]]
    assert (layer["layer"], layer["shape"]) == ("conv2d_1", "1x3x256x256")
    size = 3 * 256 * 256 * 4
    assert layer["bytes"] == 2 * size + 9 * 4  # reads the image and the weights, writes an image
    assert network["peak"]["bytes"] >= 2 * size
    assert layer["seconds"] > 0


def test_what_cannot_be_viewed_is_refused_in_words(
    images: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: object) -> str:
        assert graphnet_command(["view", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    assert "found nothing" in refused(run / "gone")
    assert "Leave out --model" in refused(run, "--model", "x.safetensors")
    assert "is a folder of images" in refused(images, "x.png")
    assert "no such image" in refused(run, "gone.png")
    with served(LiveRun(run, [], most=0, options=OPTIONS)) as server:
        assert "Give another one" in refused(run, "--port", server.server_port)


@pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) == signal.SIG_IGN, reason="the shell ignores Ctrl-C here"
)
def test_ctrl_c_ends_the_command_with_status_0(run: Path) -> None:
    command = [sys.executable, "-m", "graphnet", "view", str(run)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        first = started.stdout.readline()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{40,}/\n", first)
        started.send_signal(signal.SIGINT)
        _, errors = started.communicate(timeout=60)
    assert started.returncode == 0
    assert "Traceback" not in errors


# -- in a browser ------------------------------------------------------------------------------------


@contextmanager
def opened(server: PageServer) -> Iterator[Page]:
    """The page on the screen; nothing may go wrong in it, and it may ask for nothing from elsewhere."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    program = next((path for name in names if name and (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed (apt-get install chromium), and $CHROMIUM names none")
    problems: list[str] = []
    own = (server.address, "data:", "blob:")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"] if os.getuid() == 0 else []
        )
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.on(
            "request",
            lambda one: None if one.url.startswith(own) else problems.append(one.url),
        )
        page.goto(server.address)
        yield page
        browser.close()
    assert problems == []


def drag_divider(page: Page, share: float) -> None:
    viewer, line = (page.locator(at).bounding_box() for at in ("#viewer", "#divider"))
    assert viewer is not None
    assert line is not None
    y = line["y"] + line["height"] / 2
    page.mouse.move(line["x"] + line["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(viewer["x"] + viewer["width"] * share, y, steps=3)
    page.mouse.up()


def removed(page: Page) -> Any:
    return page.locator("#numbers tr", has_text="removed, standard deviation")


@pytest.mark.slow
def test_the_page_follows_a_run_and_keeps_what_was_chosen(run: Path, images: Path) -> None:
    half = pixels_of(1).std() / 2
    with served(LiveRun(run, [images], most=4, options=OPTIONS)) as server, opened(server) as page:
        expect(page.locator("#summary")).to_contain_text("psnr 20.5")
        expect(page.locator("#which option")).to_have_count(2, timeout=30_000)
        page.locator("#which").select_option("two.png")
        expect(removed(page)).to_contain_text(f"{half:.2f}")
        drag_divider(page, 0.25)
        page.locator("#zooms button", has_text="8:1").click()
        page.locator("#sides button", has_text="what was removed").click()
        left = page.locator("#left img")
        before = left.bounding_box()

        write_log(run, records=3)
        save_model(run / "model.safetensors", 0.75)
        expect(removed(page)).to_contain_text(f"{half / 2:.2f}", timeout=30_000)
        expect(page.locator("#summary")).to_contain_text("psnr 25.25")
        assert page.locator("#which").input_value() == "two.png"
        assert page.locator("#divider").get_attribute("aria-valuenow") == "25"
        assert page.locator("#tag-right").inner_text() == "what was removed"
        assert left.bounding_box() == before

        page.locator("#graph summary").click()
        frame = page.frame_locator("#graph iframe")
        expect(frame.locator(".node").first).to_be_visible()
        frame.locator(".node").first.click()
        expect(frame.locator("#detail h3")).to_contain_text("Step 0")
        assert page.locator("#layers tbody tr").count() == len(network_layers(server))
        expect(page.locator("#memory .curve")).to_have_count(1)


def network_layers(server: PageServer) -> list[Any]:
    found: list[Any] = server.shown.data()["network"]["layers"]
    return found


@pytest.mark.slow
def test_the_page_shows_a_folder_image_by_image(images: Path) -> None:
    save_model(images.parent / "half.safetensors", 0.5)
    shown = LiveFolder(images, images.parent / "half.safetensors", options=OPTIONS)
    with served(shown) as server, opened(server) as page:
        expect(page.locator("h1")).to_have_text("my images")
        expect(removed(page)).to_be_visible(timeout=30_000)
        assert page.locator("#loss").is_hidden()
        page.locator("#which").select_option("two.png")
        expect(removed(page)).to_contain_text(f"{pixels_of(1).std() / 2:.2f}")
        drag_divider(page, 0.75)
        assert page.locator("#divider").get_attribute("aria-valuenow") == "75"
        assert [made["name"] for made in shown._made.values()] == ["one.png", "two.png"]


def test_a_folder_without_images_is_no_folder_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder with images"):
        LiveFolder(tmp_path, None, options=OPTIONS)
    with (
        pytest.raises(InputError, match="cannot be used"),
        served(LiveRun(tmp_path, [], most=0, options=OPTIONS)) as server,
    ):
        PageServer(server.shown, port=server.server_port)
