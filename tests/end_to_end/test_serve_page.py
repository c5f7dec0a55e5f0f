"""The status page in a real browser: it draws, it follows the daemon, it fetches nothing else."""

from __future__ import annotations

import io
import re
from importlib import resources

import pytest
from support.serve_plans import row_input, save, scale_plan
from support.serving import serving, wait_until

Image = pytest.importorskip("PIL.Image")

TOKEN = "0123456789abcdef0123"


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return save(scale_plan(), tmp_path_factory.mktemp("page") / "scale.plan")


def test_the_page_is_one_file_without_external_resources():
    text = resources.files("runtime_edge.serve").joinpath("status_page.html").read_text()
    addresses = set(re.findall(r"(?:https?:)?//[\w.]+[\w/.]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name space, never fetched
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", text)


def open_page(browser, served, **more):
    page = browser.new_page(viewport={"width": 1000, "height": 800}, **more)
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"http://{served.url}/")
    return page, requests, errors


def num_shown(page):
    """How often the page has drawn itself."""
    return int(page.evaluate("document.body.dataset.shown || 0"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_shows_latency_queue_and_memory(browser, plan, tmp_path, scheme):
    with serving(tmp_path, plans={"scale": plan}) as served:
        page, requests, errors = open_page(browser, served, color_scheme=scheme)
        wait_until(lambda: num_shown(page) >= 1, "the page shows something")
        for _ in range(20):
            assert served.infer("scale", row_input()).status == 200
        shown = num_shown(page)
        wait_until(lambda: num_shown(page) >= shown + 2, "the page follows")
        card = page.locator("section[data-plan=scale]")
        assert "READY" in card.inner_text()
        assert re.search(r"answered\s+20", card.inner_text())
        points = card.locator("svg polyline").evaluate_all(
            "lines => lines.map(line => line.getAttribute('points').split(' ').length)"
        )
        assert len(points) == 3  # p99, p50, waiting
        assert min(points) >= 3
        memory = page.locator("section[data-card=memory]")
        assert re.search(r"cpu: .* of .*GiB", memory.inner_text())
        assert memory.locator("svg polyline").count() == 1
        assert page.locator("#state").inner_text() == "ready"
        picture = Image.open(io.BytesIO(page.screenshot(path=tmp_path / "page.png")))
        background = picture.getpixel((2, picture.height - 2))[:3]
        assert (sum(background) > 600) == (scheme == "light")
        colours = picture.convert("RGB").getcolors(1 << 20)
        assert len(colours) > 50  # text, lines, anti-aliasing
        page.close()
        assert errors == []
        assert {url.partition(served.url)[2] for url in requests} == {"/", "/status.json"}


def test_the_page_asks_for_the_token(browser, plan, tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with serving(tmp_path, "--token-file", token, plans={"scale": plan}) as served:
        page, _, _ = open_page(browser, served)
        page.wait_for_selector("#token input", state="visible")
        assert "401" in page.locator("#state").inner_text()
        page.fill("#token input", TOKEN)
        page.click("#token button")
        page.wait_for_selector("section[data-plan=scale]")
        assert page.locator("#token").is_hidden()
        page.close()


def test_the_page_says_when_the_daemon_is_gone(browser, plan, tmp_path):
    with serving(tmp_path, plans={"scale": plan}) as served:
        page, _, _ = open_page(browser, served)
        page.wait_for_selector("section[data-plan=scale]")
    wait_until(
        lambda: page.locator("#state").inner_text().startswith("no answer"), "the page notices"
    )
    page.close()
