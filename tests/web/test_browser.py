"""The page in Chromium: paint a hole with the mouse, restore it, compare pixels."""

import base64
import io
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import photo
from webpage import TOKEN, Page, file_of, serving, until

from genprior.web.restoration import Restorer

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
expect = playwright.expect
SIZE = (48, 64)


@pytest.fixture(scope="module")
def server(weights: Path) -> Iterator[Page]:
    with serving(Restorer({"tiny": str(weights)}, "cpu", 2**24)) as page:
        yield page


@pytest.fixture(scope="module")
def tab() -> Iterator[object]:
    """A tab of Chromium, shared by the tests: its start takes most of their time."""
    expect.set_options(timeout=30_000)
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium.new_page(viewport={"width": 1000, "height": 760})
        chromium.close()


@pytest.fixture
def page(tab, server: Page) -> Iterator[object]:
    """The page, new; it must throw no error, and send nothing elsewhere."""
    page, requests, errors = tab, [], []
    listeners = {"request": lambda request: requests.append(request.url),
                 "pageerror": lambda error: errors.append(str(error))}
    for event, listener in listeners.items():
        page.on(event, listener)
    page.goto(server.address)
    expect(page.locator("#prior")).to_have_value("tiny")
    yield page
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    assert not errors
    outside = [url for url in requests if not url.startswith((server.address, "data:", "blob:"))]
    assert not outside


def drop(page, data: bytes, name: str, event: str = "drop") -> None:
    """Drops or pastes a file, as a browser reports it."""
    page.evaluate(
        """([text, name, event]) => {
            const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            const files = new DataTransfer();
            files.items.add(new File([bytes], name));
            window.dispatchEvent(event === "drop"
                ? new DragEvent("drop", {dataTransfer: files, cancelable: true})
                : new ClipboardEvent("paste", {clipboardData: files}));
        }""",
        [base64.b64encode(data).decode(), name, event],
    )


def opened(page, data: bytes | None = None, name: str = "my photo.png") -> None:
    drop(page, file_of(photo(size=SIZE)) if data is None else data, name)
    expect(page.locator("#facts")).to_contain_text(name)


def at(page, x: float, y: float) -> tuple[float, float]:
    """Position on the screen of a point of the image."""
    zoom, left, top, box_left, box_top = page.evaluate(
        "(() => { const b = stage.getBoundingClientRect();"
        " return [view.zoom, view.x, view.y, b.left, b.top]; })()"
    )
    return box_left + left + zoom * x, box_top + top + zoom * y


def drag(page, *points: tuple[float, float], button: str = "left") -> None:
    places = [at(page, *point) for point in points]
    page.mouse.move(*places[0])
    page.mouse.down(button=button)
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up(button=button)


def hole(page) -> np.ndarray:
    """The painted mask, (H, W) bool."""
    width, height, opacity = page.evaluate(
        "[mask.width, mask.height, Array.from(new Uint32Array(mask.getContext('2d')"
        ".getImageData(0, 0, mask.width, mask.height).data.buffer), (v) => v >>> 24)]"
    )
    return np.array(opacity).reshape(height, width) >= 128


def set_size(page, size: int) -> None:
    page.locator("#size").fill(str(size))


def on_screen(page, x: float, y: float) -> list[int]:
    """Colour of the canvas at a point of the image."""
    return page.evaluate(
        "([x, y]) => { render(); return Array.from(screen_.getContext('2d').getImageData("
        "view.x + view.zoom * x, view.y + view.zoom * y, 1, 1).data.slice(0, 3)); }", [x, y]
    )


def saved(page, button: str) -> tuple[str, np.ndarray]:
    with page.expect_download() as download:
        page.locator(button).click()
    with Image.open(download.value.path()) as image:
        return download.value.suggested_filename, np.asarray(image)


def run(page, **settings: object) -> None:
    for name, value in settings.items():
        field = page.locator(f"#{name}")
        (field.select_option if name in ("solver", "prior") else field.fill)(str(value))
        field.dispatch_event("change")
    page.locator("#run").click()
    expect(page.locator("#status")).to_contain_text("evaluations, noise")
    expect(page.locator("#status")).to_be_in_viewport(ratio=1)
    expect(page.locator("#error")).to_have_text("")


def test_a_painted_hole_is_filled_and_all_else_is_kept(page) -> None:
    opened(page)
    set_size(page, 6)
    drag(page, (10, 10), (30, 20))
    drag(page, (40, 30), (50, 30))  # several strokes before one run
    painted = hole(page)
    for x, y in ((10, 10), (20, 15), (45, 30)):  # on the strokes, and 4 pixels beside them
        assert painted[y, x] and not painted[y + 5, x - 4]
    assert 200 < painted.sum() < 400
    run(page, samples=3, steps=2)
    name, result = saved(page, "#download")
    assert name == "my photo.genprior.png"
    np.testing.assert_array_equal(result[~painted], photo(size=SIZE)[~painted])
    assert (result != photo(size=SIZE)).any(-1)[painted].mean() > 0.9

    inside, outside = (20, 15), (5, 40)
    assert on_screen(page, 20.5, 15.5) == result[15, 20].tolist()
    page.mouse.move(*at(page, *outside))
    page.mouse.down()  # press and hold
    assert on_screen(page, 20.5, 15.5) == photo(size=SIZE)[15, 20].tolist()
    page.mouse.up()
    assert on_screen(page, 20.5, 15.5) == result[15, 20].tolist()

    samples = []
    for k in (1, 2, 3):
        page.locator("#sample").fill(str(k))
        expect(page.locator("#sampleText")).to_have_text(f"{k} of 3")
        name, sample = saved(page, "#download")
        assert name == f"my photo.genprior.sample-{k - 1:02d}.png"
        np.testing.assert_array_equal(sample[~painted], photo(size=SIZE)[~painted])
        samples.append(sample)
    assert (samples[0] != samples[1]).any()

    page.get_by_text("Std map").click()
    for point, known in ((outside, True), (inside, False)):
        page.mouse.move(*at(page, point[0] + 0.5, point[1] + 0.5))
        text = page.locator("#cursor").inner_text()
        assert text.startswith(f"x {point[0]}, y {point[1]}: std ")
        assert (float(text.split()[5]) == 0) == known
    assert page.locator("#command").inner_text() == (
        "genprior inpaint 'my photo.png' --mask 'my photo.mask.png' --prior "
        + page.evaluate("result.command.split('--prior ')[1]")
    )
    page.get_by_text("Edit", exact=True).click()
    name, mask = saved(page, "#saveMask")
    assert name == "my photo.mask.png"
    np.testing.assert_array_equal(mask[..., 0] == 255, painted)


def test_tools_undo_zoom_and_pan_keep_the_strokes(page) -> None:
    opened(page)
    drag(page, (10, 10), (30, 20))
    first = hole(page)
    page.keyboard.press("r")
    drag(page, (40.2, 30.2), (49.7, 37.7))
    both = hole(page)
    box = np.zeros(SIZE, bool)
    box[30:38, 40:50] = True
    np.testing.assert_array_equal(both, first | box)
    page.keyboard.press("Control+z")
    np.testing.assert_array_equal(hole(page), first)
    page.keyboard.press("Control+Shift+z")
    np.testing.assert_array_equal(hole(page), both)

    size = int(page.locator("#size").input_value())
    page.keyboard.press("]")
    assert int(page.locator("#size").input_value()) > size
    page.keyboard.press("[")
    before = page.evaluate("view.zoom")
    page.mouse.move(*at(page, 20, 15))
    page.mouse.wheel(0, -150)
    until(lambda: page.evaluate("view.zoom") > before)
    x = page.evaluate("view.x")
    page.keyboard.down("Space")
    drag(page, (20, 15), (24, 15))
    page.keyboard.up("Space")
    assert page.evaluate("view.x") > x
    drag(page, (24, 15), (20, 15), button="middle")
    np.testing.assert_array_equal(hole(page), both)
    assert page.locator("input[name=pen]:checked").input_value() == "rectangle"

    page.keyboard.press("e")
    drag(page, (45, 34))  # at the new zoom, the pointer still hits the pixel
    assert not hole(page)[34, 45] and hole(page).sum() < both.sum()
    page.locator("#clear").click()
    assert not hole(page).any()
    page.locator("#undo").click()
    page.locator("#undo").click()
    np.testing.assert_array_equal(hole(page), both)


def test_enlarging_a_pasted_jpeg_gives_a_jpeg(page) -> None:
    drop(page, file_of(photo(), "JPEG"), "", "paste")
    expect(page.locator("#facts")).to_contain_text("pasted.jpg: 32 × 24, JPEG")
    page.get_by_text("Enlarge").click()
    assert page.locator("#noise").input_value() == "0.01"
    run(page, factor=3, steps=2)
    with page.expect_download() as download:
        page.locator("#download").click()
    with Image.open(download.value.path()) as image:
        assert image.format == "JPEG" and image.size == (96, 72)
    assert saved(page, "#downloadPNG")[1].shape == (72, 96, 3)


def test_a_run_is_stopped_by_its_button_and_by_a_reload(
    page, server: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def endless(self, settings, parts, progress):
        try:
            for k in range(10**5):
                progress(k + 1, 10**5)
                time.sleep(0.01)
        finally:
            ended.set()

    monkeypatch.setattr(Restorer, "restore", endless)
    for leave in (lambda: page.locator("#stop").click(), page.reload):
        ended.clear()
        opened(page)
        page.get_by_text("Denoise").click()
        page.locator("#run").click()
        expect(page.locator("#status")).to_contain_text(" left")
        assert not ended.is_set()
        leave()
        assert ended.wait(5)
        until(lambda: not server.queue._jobs)
        if page.locator("#facts").inner_text():
            expect(page.locator("#status")).to_have_text("Stopped.")
            expect(page.locator("#run")).to_be_enabled()


def test_hostile_uploads_get_a_message(page) -> None:
    opened(page)
    name = "<img src=x onerror=alert(1)>.png"
    drop(page, b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", name)
    expect(page.locator("#error")).to_contain_text("the image: not an image")
    drop(page, file_of(photo())[:300], name)
    expect(page.locator("#error")).to_contain_text("damaged or cut short")
    drop(page, file_of(np.zeros((5000, 5000), np.uint8)), name)
    expect(page.locator("#error")).to_contain_text("more than 16777216")
    page.evaluate("choices.max_bytes = 100")
    drop(page, file_of(photo()), name)
    expect(page.locator("#error")).to_contain_text("are accepted: shrink it")
    page.evaluate("choices.max_bytes = 2 ** 26")
    opened(page, name=name)
    assert page.locator("#facts img").count() == 0
    expect(page.locator("#error")).to_have_text("")
    page.locator("#run").click()
    expect(page.locator("#error")).to_contain_text("no pixel is marked")
    page.locator("#steps").fill("0")
    page.locator("#run").click()
    expect(page.locator("#error")).to_contain_text("Steps must be a number from 1")


def test_a_wrong_token_shows_no_page(tab, server: Page) -> None:
    page = tab
    response = page.goto(server.address.replace(TOKEN, "wrong"))
    assert response.status == 403 and "wrong token" in page.inner_text("body")
    assert page.locator("button").count() == 0


@pytest.mark.slow
def test_a_file_of_20_megabytes_opens_at_its_size(page, tmp_path: Path) -> None:
    ramp = np.arange(2600, dtype=np.uint16)
    large = np.zeros((2600, 2600, 3), np.uint8)
    large[:] = (ramp[:, None] // 11)[..., None]
    file = tmp_path / "large.bmp"
    Image.fromarray(large).save(file)
    assert file.stat().st_size > 20_000_000
    page.locator("#file").set_input_files(file)
    expect(page.locator("#facts")).to_contain_text("large.bmp: 2600 × 2600, BMP", timeout=60_000)
    set_size(page, 40)
    drag(page, (1300, 1300), (1500, 1300))
    run(page, steps=1, solver="hqs")
    with page.expect_download() as download:
        page.locator("#download").click()
    data = Path(download.value.path()).read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "BMP" and image.size == (2600, 2600)
        changed = (np.asarray(image) != large).any(-1)
    rows, columns = np.nonzero(changed)
    assert rows.min() > 1270 and rows.max() < 1330
    assert columns.min() > 1270 and columns.max() < 1530
