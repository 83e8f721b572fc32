"""What the page costs and how quick it is: ``python benchmarks/page.py``.

Six rigs of three cameras, 640x360 at 10 frames a second, show a pattern. The processor time of the
stream is measured with nobody looking and with clients that take all six mosaics at 5 frames a
second; the difference is what the mosaics cost. Then headless Chromium opens the page on a little
scene over RTSP, several times until its first picture, and stays for the events: how long after the
stream told an event, by its own clock, the page has drawn it.

``--record`` writes benchmarks/results/page.json and the table in docs/page.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import yaml

from benchmarks.readme import markdown, replace_table
from mambapro.cli import MissingError, add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_DONE, MODALITIES
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from tests.browser import chromium, find_chromium
from tests.live_run import LiveRun, live_rigs, mounts
from tests.rtsp import RtspServer
from tests.runtime_scenes import Walk, write_colour_model, write_scene

RESULT: Final = in_checkout("benchmarks/results/page.json")
PAGE: Final = in_checkout("docs/page.md")
HEADER: Final = ("the page", "measured", "needed")
RIGS: Final = 6
SETTLED_S: Final = 10.0
"""Rest after all rigs have begun: what they do at first takes more than what comes later, s."""
LOOKS: Final = 5
PATIENCE_S: Final = 60.0
SAME: Final = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]

WATCH: Final = """
window.drawn = {};
new MutationObserver(() => {
  for (const item of document.querySelectorAll("[data-event]")) {
    if (item.dataset.event in drawn) continue;
    drawn[item.dataset.event] = null;
    requestAnimationFrame(() => setTimeout(() => (drawn[item.dataset.event] = Date.now() / 1000)));
  }
}).observe(document, { childList: true, subtree: true });
"""
"""Notes when an event was painted: in the task after the frame that holds it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="length of each measurement, s (default: 20)"
    )
    parser.add_argument("--record", action="store_true", help="keep the figures")
    add_common_arguments(parser)
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    if find_chromium() is None:
        raise MissingError("the page is measured in Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "mosaics": mosaics(Path(folder) / "mosaics", arguments.seconds),
            "page": page(Path(folder) / "page", 3 * arguments.seconds),
        }
    print(markdown(HEADER, table(result)))
    if arguments.record:
        write_json(RESULT, {"environment": environment(), **result})
        replace_table(PAGE, "page", HEADER, table(result))
    if arguments.json:
        print_json_line(result)
    return EXIT_DONE


def mosaics(folder: Path, seconds: float) -> dict[str, Any]:
    """Return the share of a core that the stream takes with 0, 1 and 3 clients."""
    folder.mkdir()
    pattern = {m: {"uri": "pattern://?size=640x360&fps=10", "homography": SAME} for m in MODALITIES}
    rigs = [{"name": f"rig{n}", "cameras": pattern} for n in range(RIGS)]
    (folder / "rigs.yaml").write_text(yaml.safe_dump({"rigs": rigs}))
    settings = ["models.person=null", "models.vehicle=null"]
    shares: dict[int, list[float]] = {}
    rate = 0.0
    with LiveRun(folder / "rigs.yaml", folder / "out", settings) as stream:
        url = address(stream)
        wait_until_ready(url)
        time.sleep(SETTLED_S)
        for clients in (0, 1, 3, 0):  # nobody twice: what changes by itself shows
            with looking(url, clients) as counts:
                shares.setdefault(clients, []).append(share(url, seconds))
            rate = max(rate, counts[0] / seconds / RIGS) if clients == 1 else rate
    alone = float(np.mean(shares[0]))
    return {
        "cores_alone": shares[0],
        "cores_of_mosaics": shares[1][0] - alone,
        "cores_of_mosaics_for_3": shares[3][0] - alone,
        "pictures_per_s": rate,
    }


def page(folder: Path, seconds: float) -> dict[str, Any]:
    """Return how long the first picture and events take to the screen."""
    folder.mkdir()
    walks = {
        "gate": [Walk("a", 0.6, speed=150)],
        "yard": [Walk("a", 3.4, speed=150), Walk("b", 0.6, speed=150, leftwards=True)],
    }
    write_scene(folder, walks, 6.0)
    settings = [
        f"models.person={write_colour_model(folder / 'person.onnx')}", "models.vehicle=null",
        "match.decide_after=2", "live.warm_up_s=1.5", "sync.tolerance_s=0.05",
        "sinks.snapshots.enabled=true",
    ]  # fmt: skip
    with RtspServer(mounts(folder), folder) as server:
        rigs = live_rigs(folder, server, folder / "rigs.yaml")
        with LiveRun(rigs, folder / "out", settings) as stream:
            stream.until(lambda events: any(e["event"] == "sighting" for e in events))
            url = address(stream)
            first_s = [first_picture_s(url) for _ in range(LOOKS)]
            waits_s = event_waits_s(url, seconds)
    return {
        "first_picture_s": first_s,
        "events": len(waits_s),
        "event_to_screen_p50_s": float(np.quantile(waits_s, 0.5)),
        "event_to_screen_p95_s": float(np.quantile(waits_s, 0.95)),
    }


def first_picture_s(url: str) -> float:
    """Return the time from opening the page, nothing cached, to a picture of a rig, s."""
    with chromium() as browser:
        began_s = time.monotonic()
        browser.goto(url, wait_until="commit")
        browser.wait_for_selector("canvas[data-shown]")
        return time.monotonic() - began_s


def event_waits_s(url: str, seconds: float) -> list[float]:
    """Return the time from telling to drawing of every sighting in ``seconds``."""
    told: dict[str, float] = {}
    with chromium() as browser, following(url, told):
        browser.add_init_script(WATCH)
        browser.goto(url)
        browser.locator("#kinds input[value=all]").check(force=True)
        browser.wait_for_timeout(1000 * seconds)
        drawn = browser.evaluate("drawn")
    return [drawn[name] - told_s for name, told_s in told.items() if drawn.get(name)]


@contextmanager
def following(url: str, told: dict[str, float]) -> Iterator[None]:
    """Note when sightings are told, by the clock of who tells them."""
    answer = urllib.request.urlopen(f"{url}/api/live", timeout=PATIENCE_S)

    def read() -> None:
        for line in answer:
            if line.startswith(b"data: ") and b'"told_s"' in line:
                data = json.loads(line[6:])
                if data["event"]["event"] == "sighting":
                    told[data["event"]["id"]] = data["told_s"]

    thread = threading.Thread(target=read, daemon=True)  # ends with the stream
    thread.start()
    yield


@contextmanager
def looking(url: str, clients: int) -> Iterator[list[int]]:
    """Let ``clients`` take all mosaics; count their pictures."""
    counts = [0] * max(1, clients)
    stop = threading.Event()

    def read(number: int) -> None:
        with urllib.request.urlopen(f"{url}/api/mosaic", timeout=PATIENCE_S) as answer:
            while not stop.is_set() and (line := answer.readline()):
                if line.lower().startswith(b"content-length"):
                    answer.read(int(line.split(b":")[1]))
                    counts[number] += 1

    threads = [threading.Thread(target=read, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def share(url: str, seconds: float) -> float:
    """Return the processor time of the stream in ``seconds``, as a share of one core."""
    before_s, began_s = cpu_s(url), time.monotonic()
    time.sleep(seconds)
    return (cpu_s(url) - before_s) / (time.monotonic() - began_s)


def cpu_s(url: str) -> float:
    """Return the processor time of the stream so far, s."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=PATIENCE_S) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(x.split()[1] for x in lines if x.startswith("process_cpu_seconds_total")))


def wait_until_ready(url: str) -> None:
    """Wait until every rig has begun."""
    give_up_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_s:
        with suppress(urllib.error.HTTPError):  # 503: not yet
            urllib.request.urlopen(f"{url}/readyz", timeout=PATIENCE_S).close()
            return
        time.sleep(0.2)
    raise TimeoutError(f"no rig began within {PATIENCE_S:.0f} s")


def address(stream: LiveRun) -> str:
    """Return where the server of ``stream`` answers."""
    give_up_s = time.monotonic() + PATIENCE_S
    while "serving http" not in stream.log():
        stream.check()
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"it does not serve:\n{stream.log()[-2000:]}")
        time.sleep(0.1)
    return stream.log().split("serving ")[1].split()[0]


def table(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the rows."""
    mosaic, looks = result["mosaics"], result["page"]
    return [
        (
            f"{RIGS} mosaics at {mosaic['pictures_per_s']:.1f} fps for one client",
            f"{mosaic['cores_of_mosaics']:.2f} of a core",
            "0.25",
        ),
        ("the same for 3 clients", f"{mosaic['cores_of_mosaics_for_3']:.2f} of a core", ""),
        (
            "from opening the page to its first picture",
            f"{max(looks['first_picture_s']):.2f} s, worst of {LOOKS}",
            "2 s",
        ),
        (
            f"from an event to the screen, p95 of {looks['events']}",
            f"{1000 * looks['event_to_screen_p95_s']:.0f} ms",
            "500 ms",
        ),
    ]


if __name__ == "__main__":
    sys.exit(run(main))
