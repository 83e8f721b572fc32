"""Changes a gallery until it is killed; says of each change when it is acknowledged.

`python tests/gallery_writer.py FOLDER FIRST`: goes on with change number FIRST.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from mambapro.spec import ModelSpec
from runtime.config import GalleryConfig
from runtime.gallery import open_gallery

SPEC = ModelSpec("person", (64, 32), 24, 4, "space-one", "0" * 64)
CONFIG = GalleryConfig(keep=True, templates=3, capacity=40)


def unit(seed):
    vector = np.random.default_rng(seed).normal(size=24).astype(np.float32)
    return vector / np.linalg.norm(vector)


def change(gallery, number):
    """Make one of the changes that a gallery can make; which one follows from ``number`` alone."""
    known = sorted(i.identity for i in gallery.identities())
    draw = np.random.default_rng([5, number])
    one, other = (known[draw.integers(len(known))] if known else "" for _ in range(2))
    kind = draw.choice(["new", "again", "delete", "merge", "rename"], p=[0.4, 0.3, 0.1, 0.1, 0.1])
    payload = {"time_s": float(number)}
    if kind == "new" or not known:
        gallery.put(gallery.new_identity(), unit(number), payload)
    elif kind == "delete":
        gallery.delete(one)
    elif kind == "merge" and one != other:
        gallery.merge(one, into=other)
    elif kind == "rename":
        gallery.rename(one, f"name {number}")
    else:
        gallery.put(one, unit(number), payload)


def content(gallery):
    """Return all that is known, without the random ids of points."""
    templates = {
        i.identity: [(r.embedding.tobytes(), r.payload) for r in gallery.templates_of(i.identity)]
        for i in gallery.identities()
    }
    return gallery.new_identity(), gallery.identities(), templates


def main():
    print("ready", flush=True)
    gallery = open_gallery(Path(sys.argv[1]), SPEC, CONFIG)
    number = int(sys.argv[2])
    while True:
        change(gallery, number)
        print(number, flush=True)
        number += 1


if __name__ == "__main__":
    main()
