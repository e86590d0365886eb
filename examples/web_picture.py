"""Picture of the page of `genprior serve` for the documentation, taken in Chromium.

    python examples/web_picture.py web.jpg

It starts the server, opens a photo of 200 x 150 pixels, paints a hole and restores it with the
default settings. Then it draws two samples. It prints when the hole was filled, in seconds after
the start of the server, and how many requests of the page left the machine. It needs
`pip install -e ".[test,web]"` and Chromium.
"""

import io
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from skimage import data

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
VIEW = {"width": 885, "height": 585}
# A stroke of the brush and a rectangle, in pixels of the image.
STROKE, RECTANGLE = [(55, 18), (85, 30), (100, 12)], [(90, 116), (106, 132)]


def drag(page: Page, points: list[tuple[int, int]]) -> None:
    """Draws with the mouse from point to point, in pixels of the image."""
    left, top, zoom = page.evaluate(
        "(() => { const b = stage.getBoundingClientRect();"
        " return [b.left + view.x, b.top + view.y, view.zoom]; })()")
    first, *others = [(left + zoom * x, top + zoom * y) for x, y in points]
    page.mouse.move(*first)
    page.mouse.down()
    for point in others:
        page.mouse.move(*point, steps=8)
    page.mouse.up()


def run(page: Page) -> None:
    """Presses Run and waits for the result."""
    page.locator("#run").click()
    expect(page.locator("#status")).to_contain_text("evaluations, noise")


def screens(page: Page, photo: bytes, begin: float) -> list[Image.Image]:
    """Returns pictures of the page with the hole, with the result, and with the std map."""
    taken = []

    def take() -> None:
        taken.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))

    page.locator("#file").set_input_files(
        {"name": "photo.png", "mimeType": "image/png", "buffer": photo})
    expect(page.locator("#facts")).to_contain_text("photo.png")
    page.locator("#size").fill("9")
    drag(page, STROKE)
    page.keyboard.press("r")
    drag(page, RECTANGLE)
    take()
    run(page)
    print(f"filled {time.perf_counter() - begin:.1f} s after the start of the server")
    take()
    page.locator("#solver").select_option("diffpir")
    for name, value in (("steps", 12), ("samples", 2)):
        page.locator(f"#{name}").fill(str(value))
    run(page)
    page.get_by_text("Std map").click()
    drag(page, [(98, 124)])
    take()
    return taken


def main(path: Path) -> None:
    """Runs the server and Chromium, and writes the picture."""
    file = io.BytesIO()
    Image.fromarray(data.chelsea()[50:200, 100:300]).save(file, "PNG")
    begin = time.perf_counter()
    command = [sys.executable, "-u", "-m", "genprior", "serve", "--port", "0"]
    requests: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            with sync_playwright() as driver:
                expect.set_options(timeout=3_000_000)
                browser = driver.chromium.launch(
                    executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
                page = browser.new_page(viewport=VIEW)
                page.on("request", lambda request: requests.append(request.url))
                page.goto(address)
                taken = screens(page, file.getvalue(), begin)
                browser.close()
        finally:
            server.terminate()
    local = (address, "data:", "blob:")
    print(f"{len(requests)} requests, {sum(not r.startswith(local) for r in requests)} elsewhere")
    sheet = Image.new("RGB", (VIEW["width"], 3 * VIEW["height"] + 16), "white")
    for k, screen in enumerate(taken):
        sheet.paste(screen, (0, k * (VIEW["height"] + 8)))
    sheet.save(path, quality=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
