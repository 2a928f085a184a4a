"""Home, a device and its dashboard look as in docs/screens: compared coarsely, since each browser has its own letters.

`python -m bench.screens` makes the pictures anew where a page was meant to change.
"""

from __future__ import annotations

import base64

import pytest

from bench import screens

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(300)]

# Both pictures in cells of 16 pixels of the page: how many of the cells differ by more than a tenth of the brightness.
COMPARE = """async ([one, other, width]) => {
  const cells = async (data) => {
    const image = await createImageBitmap(await (await fetch(`data:image/webp;base64,${data}`)).blob());
    const [w, h] = [Math.round(width / 16), Math.round(image.height / image.width * width / 16)];
    const canvas = new OffscreenCanvas(w, h), ctx = canvas.getContext("2d");
    ctx.imageSmoothingQuality = "high";
    ctx.drawImage(image, 0, 0, w, h);
    return { h, w, data: ctx.getImageData(0, 0, w, h).data };
  };
  const [a, b] = [await cells(one), await cells(other)];
  const high = Math.min(a.h, b.h);
  let apart = Math.abs(a.h - b.h) * a.w;
  for (let at = 0; at < high * a.w * 4; at += 4) {
    const far = [0, 1, 2].map((c) => Math.abs(a.data[at + c] - b.data[at + c]));
    if (Math.max(...far) > 26) apart += 1;
  }
  return apart / (high * a.w);
}"""
ALLOWED = 0.01
# How wide these words are in the letters that the pictures were made with: with others everything stands elsewhere.
LETTERS = """() => {
  const ctx = new OffscreenCanvas(1, 1).getContext("2d");
  ctx.font = `15px ${getComputedStyle(document.body).fontFamily}`;
  return ctx.measureText("Each point is the mean of 5 min").width;
}"""
WIDTH = 210.1  # pixels


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    from playwright.sync_api import sync_playwright

    with screens.standing_center(tmp_path_factory.mktemp("looks")) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=screens.CHROMIUM, args=screens.FLAGS)
        yield browser, url
        browser.close()


def apart(browser, one, other, width):
    page = browser.new_page()
    found = page.evaluate(COMPARE, [base64.b64encode(one).decode(), base64.b64encode(other).decode(), width])
    page.close()
    return found


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (390, "dark")])
def test_the_pages_look_as_in_the_documents(standing, width, theme):
    browser, url = standing
    page = screens.open_page(browser, width, theme)
    for name in ("home", "device", "dashboard"):
        screens.go(page, url + screens.PAGES[name])
        if page.evaluate(LETTERS) != pytest.approx(WIDTH, abs=1):
            pytest.skip("the pictures were made with other fonts than this machine has: install fonts-liberation")
        known = (screens.SCREENS / f"{name}-{width}-{theme}.webp").read_bytes()
        assert apart(browser, screens.picture(page), known, width) < ALLOWED, name
    # It would be seen: a chart without its curve, a gauge without its arc, words in another place.
    page.evaluate("document.querySelectorAll('.plot, .gauge svg').forEach((e) => { e.style.visibility = 'hidden'; })")
    assert apart(browser, screens.picture(page), known, width) > ALLOWED
    page.context.close()
