"""The page in headless Chromium, on a live run: what an operator sees and does."""

import re
from contextlib import ExitStack

import pytest

from runtime.config import SinksConfig, SnapshotsConfig
from runtime.server.door import VARIABLE
from tests.browser import chromium, require_chromium
from tests.runtime_scenes import Walk
from tests.scene_cameras import scene_rig
from tests.test_page import TOKEN, Served

WALKS = {"gate": Walk("a", 0.4, speed=150), "yard": Walk("b", 1.8, speed=150)}
NOBODY = Walk("a", 1e6)
"""Comes after the end of a round."""


@pytest.fixture
def serve(tmp_path, monkeypatch):
    require_chromium()
    monkeypatch.delenv(VARIABLE, raising=False)
    with ExitStack() as owner:

        def start(*rigs, snapshots=True, walks=WALKS):
            sinks = SinksConfig(snapshots=SnapshotsConfig(enabled=snapshots))
            served = Served(
                tmp_path / "out",
                monkeypatch,
                rigs=[scene_rig(name) for name in rigs],
                walks=walks,
                sinks=sinks,
            )
            owner.callback(served.close)
            return served

        yield start


def shown(page, rig):
    """Return how many pictures of a rig were shown, and whether there is something on it."""
    return page.evaluate(
        """(rig) => {
            const canvas = [...document.querySelectorAll(".rig")]
                .find((card) => card.getAttribute("aria-label") === rig)?.querySelector("canvas");
            if (!canvas?.dataset.shown) return 0;
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            return new Set(data).size > 20 ? Number(canvas.dataset.shown) : -1;
        }""",
        rig,
    )


def test_an_operator_watches_and_corrects(serve):
    served = serve("gate", "yard")
    with chromium() as page:
        page.goto(served.door.url)
        page.wait_for_selector("canvas[data-shown]")
        until_shown(page, "Rig gate")
        until_shown(page, "Rig yard")

        # A match appears, with both sides in all modalities and its score against the threshold.
        match = page.locator(".match").first
        match.wait_for()
        until_so(page, "document.querySelectorAll('.match .crops img').length >= 6")
        pairs = match.locator("figure.crops")
        assert pairs.count() == 2
        for side in range(2):
            assert pairs.nth(side).locator("img").count() == 3
        said = match.locator(".numbers").inner_text()
        value, least = map(float, re.fullmatch(r"([\d.]+) of ([\d.]+)", said).groups())
        assert value >= least == 0.9
        assert page.locator("#no-pictures").is_hidden()

        # Both are known, and have a row in the timeline.
        rows = page.locator("#identity-rows tr")
        until_so(page, "document.querySelectorAll('#identity-rows tr').length === 2")
        until_so(page, "document.querySelectorAll('#timeline-plot rect').length >= 2")

        # Rename, by keyboard.
        row = page.locator("tr[data-identity=P1]")
        row.locator("[data-item]").focus()
        page.keyboard.press("r")
        page.keyboard.type("Ada <b>")
        page.keyboard.press("Enter")
        until_so(
            page, "document.querySelector('tr[data-identity=P1] .who').textContent === 'Ada <b>'"
        )
        assert served.run.view.curator.identity("person", "P1")[0].name == "Ada <b>"

        # Merge, after it was asked for.
        page.get_by_role("button", name="Merge P2").click()
        page.get_by_label("Who they are the same as").select_option("P1")
        page.locator("#ask-yes").click()
        until_so(page, "document.querySelectorAll('#identity-rows tr').length === 1")
        assert served.run.view.curator.identity("person", "P1")[0].aliases == ("P2",)

        # Delete: Cancel leaves all as it is, the button does not.
        page.get_by_role("button", name="Delete Ada").click()
        assert page.locator("#ask-no").evaluate("e => e === document.activeElement")
        page.keyboard.press("Enter")
        page.wait_for_selector("#ask-dialog", state="hidden")
        assert rows.count() >= 1
        page.get_by_role("button", name="Delete Ada").click()
        page.locator("#ask-yes").click()
        until_so(page, "!document.querySelector('tr[data-identity=P1]')")
        names = {i.identity for i in served.run.view.curator.identities("person")}
        assert not names & {"P1", "P2"}
        assert page.told == []


def until_so(page, words):
    """Wait until an expression holds; Playwright's own wait is kept out by the page's policy."""
    for _ in range(200):
        if page.evaluate(words):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"it never came that {words}")


def until_shown(page, rig, more=3):
    before = max(0, shown(page, rig))
    for _ in range(100):
        if shown(page, rig) >= before + more:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"no pictures of {rig}")


def test_a_dead_camera_turns_red_and_green_again(serve):
    served = serve("gate")
    with chromium() as page:
        page.goto(served.door.url)
        camera = page.locator(".camera", has_text="TIR")
        page.wait_for_selector("#health[data-level=ok]")
        assert camera.get_attribute("data-state") == "live"
        fine = colour(camera)
        served.run.cameras["gate-tir"].reason = "connection refused"
        served.run.cameras["gate-tir"].state = "lost"
        page.wait_for_selector(".camera[data-state=lost]")
        red, green, blue = colour(camera)
        assert red > 1.5 * max(green, blue)
        assert fine[1] > fine[0]
        assert camera.get_attribute("aria-label") == "TIR lost, connection refused"
        assert page.locator("#health").inner_text() == "1 camera away"
        for modality in ("rgb", "nir"):
            served.run.cameras[f"gate-{modality}"].state = "lost"
        page.wait_for_selector(".rig.dead .veil:visible")
        for modality in ("rgb", "nir", "tir"):
            served.run.cameras[f"gate-{modality}"].state = "live"
        page.wait_for_selector("#health[data-level=ok]")
        assert colour(camera) == fine
        assert page.told == []


def colour(camera):
    said = camera.locator(".dot").evaluate("e => getComputedStyle(e).backgroundColor")
    return tuple(int(n) for n in re.findall(r"\d+", said)[:3])


def test_the_token_is_asked_for_and_kept_for_the_tab_only(serve, monkeypatch):
    monkeypatch.setenv(VARIABLE, TOKEN)
    served = serve("gate")
    with chromium() as page:
        page.goto(served.door.url)
        page.get_by_role("textbox", name="Token").fill("wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#token-wrong:not(:empty)")
        page.get_by_role("textbox", name="Token").fill(TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("canvas[data-shown]")
        assert page.evaluate("[document.cookie, Object.values(localStorage).join()]") == ["", ""]
        page.reload()
        page.wait_for_selector("canvas[data-shown]")
        other = page.context.new_page()
        other.goto(served.door.url)
        other.wait_for_selector("#token-dialog[open]")


def test_it_says_so_when_there_is_nothing(serve):
    served = serve("gate", walks={"gate": NOBODY})
    with chromium() as page:
        page.goto(served.door.url)
        page.wait_for_selector(".nobody")
        assert page.locator("#no-identities").is_visible()
        assert page.locator("#no-matches").is_visible()
        assert page.told == []


def test_it_says_how_to_get_the_pictures_that_are_off(serve):
    served = serve("gate", snapshots=False)
    with chromium() as page:
        page.goto(served.door.url)
        page.wait_for_selector(".match .route")
        assert "sinks.snapshots.enabled=true" in page.locator("#no-pictures").inner_text()
        assert page.told == []


def test_it_comes_back_when_the_server_does(serve):
    served = serve("gate")
    with chromium() as page:
        page.goto(served.door.url)
        page.wait_for_selector("#health[data-level=ok]")
        served.close()
        page.wait_for_selector("#health[data-level=bad]")
        assert page.locator("#health").inner_text() == "Connection lost"


@pytest.mark.parametrize("size", [(1280, 800), (1024, 768), (768, 1024)], ids=str)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_and_text_can_be_read(serve, size, scheme):
    served = serve("gate")
    viewport = {"width": size[0], "height": size[1]}
    with chromium(viewport=viewport, color_scheme=scheme) as page:
        page.goto(served.door.url)
        page.wait_for_selector(".match")
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert page.evaluate(UNNAMED) == []
        assert page.evaluate(FAINT) == []


UNNAMED = """() => [...document.querySelectorAll("button, a, input, select, canvas, svg[role]")]
  .filter((e) => e.checkVisibility())
  .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length))
  .map((e) => e.outerHTML)"""

# WCAG 2: contrast of text with what is behind it, at least 4.5.
FAINT = """() => {
  const rgb = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) =>
    0.2126 * light(r / 255) + 0.7152 * light(g / 255) + 0.0722 * light(b / 255);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const [r, g, b, a = 1] = rgb(getComputedStyle(e).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const holdsText = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const onPicture = "canvas, svg, svg *, option, .veil, img + small";
  return [...document.querySelectorAll(`body *:not(${onPicture})`)]
    .filter((e) => e.checkVisibility() && holdsText(e))
    .map((e) => {
      const both = [rgb(getComputedStyle(e).color), ground(e)].map(luminance);
      const [a, b] = both.sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), e.outerHTML.slice(0, 90)];
    })
    .filter(([ratio]) => ratio < 4.5);
}"""


def test_every_shortcut_works_and_is_listed(serve):
    served = serve("gate")
    with chromium() as page:
        page.goto(served.door.url)
        page.wait_for_selector("#identity-rows tr")
        page.keyboard.press("?")
        assert page.locator("#help-dialog").is_visible()
        assert page.locator("#help-keys dt").count() >= 9
        page.keyboard.press("Escape")
        for key, section in enumerate(("live", "matches", "timeline", "identities", "charts"), 1):
            page.keyboard.press(str(key))
            assert page.evaluate("document.activeElement.id") == section
        page.keyboard.press("/")
        page.keyboard.type("nobody")
        page.wait_for_selector("#no-identities:visible")
        page.locator("#filter").fill("")
        page.keyboard.press("Escape")
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.keyboard.press("t")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
        page.keyboard.press("4")
        page.keyboard.press("j")
        assert page.evaluate("document.activeElement.closest('tr').dataset.identity") == "P1"
        page.keyboard.press("Enter")
        page.wait_for_selector("#who-dialog .sighting")
        page.keyboard.press("Escape")
        page.keyboard.press("Delete")
        assert page.locator("#ask-title").inner_text() == "Delete P1?"
        page.keyboard.press("Escape")
        assert page.locator("#ask-dialog").is_hidden()
        assert page.told == []
