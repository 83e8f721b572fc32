"""A live run inside the test's process, with a server, and a client of it."""

import json
import time
import urllib.error
import urllib.request
from contextlib import ExitStack

import numpy as np
import requests
from prometheus_client.parser import text_string_to_metric_families

from runtime.config import ServerConfig
from runtime.operation.lifecycle import reload_rigs
from runtime.server import open_door, serving
from tests.runtime_scenes import ColourEngine
from tests.scene_cameras import InProcess, scene_rig

ANY_PORT = ServerConfig(port=0)


class Served:
    """A live run with a server."""

    def __init__(
        self,
        folder,
        monkeypatch,
        config=ANY_PORT,
        read_rigs=lambda: [scene_rig("gate")],
        **settings,
    ):
        self.read_rigs, self.output = read_rigs, folder
        with ExitStack() as owner:
            self.door = owner.enter_context(open_door(config))

            def tend(view):
                return serving(
                    self.door, config, view, lambda: reload_rigs(view.feed, self.read_rigs)
                )

            self.run = owner.enter_context(InProcess(folder, monkeypatch, tend, **settings))
            self.close = owner.pop_all().close

    def ask(self, path, method="GET", **headers):
        """Return status and body."""
        request = urllib.request.Request(self.door.url + path, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def answer(self, path, **headers):
        return json.loads(self.ask(path, **headers)[1])

    def scrape(self):
        """Return what gives our samples by name and values of labels, in any order."""
        families = text_string_to_metric_families(self.ask("/metrics")[1])
        samples = {
            frozenset((s.name, *s.labels.values())): s.value for f in families for s in f.samples
        }
        return lambda name, *labels: samples[frozenset((f"mambapro_{name}", *labels))]

    def send(self, method, path, **how):
        """Return the answer to a request with a body; ``how`` is what requests takes."""
        return requests.request(method, self.door.url + path, timeout=20, **how)

    @property
    def gallery(self):
        """Return the gallery of persons, to put somebody in."""
        return self.run.view.curator._desks["person"].gallery

    def know(self, *colours, rig="yard", time_s=None):
        """Put a template of somebody new in the gallery for each of ``colours``; return who."""
        identity = self.gallery.new_identity()
        for colour in colours:
            about = {"rig": rig, "track": 7, "mask": [1, 1, 1]}
            about["time_s"] = time.time() if time_s is None else time_s
            self.gallery.put(identity, embedding_of(colour), about)
        return identity

    def audit(self):
        """Return the lines of the audit log."""
        return [json.loads(line) for line in (self.output / "audit.jsonl").open()]

    def events(self):
        """Return the events on disk, the oldest first."""
        path = self.output / "events.jsonl"
        return [json.loads(line) for line in path.open()] if path.exists() else []


def crop_of(colour):
    """Return a crop of a block of one colour, R, G, B, (64, 32, 3)."""
    return np.full((64, 32, 3), colour, np.uint8)


def embedding_of(colour):
    """Return what the run's engine makes of three crops of one colour."""
    images = np.stack([crop_of(colour)] * 3)[None]
    return ColourEngine().embed(images, np.ones((1, 3), np.float32), np.array([-1]))[0]
