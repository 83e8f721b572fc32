"""Searching by uploaded pictures, and what strangers may send."""

import asyncio
import io
import random
import socket
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from starlette.exceptions import HTTPException

from mambapro.preprocess import read_picture
from runtime.config import ServerConfig
from runtime.server.door import VARIABLE
from runtime.server.limits import JSON_BYTES, BodyLimit, Turnstile
from runtime.server.search import BODY_BYTES, PATH
from runtime.server.uploads import MOST_BYTES, MOST_PIXELS, picture_of
from tests.served import Served, crop_of, embedding_of

RED, BLUE, GREEN = (200, 30, 30), (30, 30, 200), (30, 200, 30)
TOKEN = "a-token-of-thirty-two-characters"


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    config = ServerConfig(port=0, searches_per_s=1000.0, search_burst=1000)
    run = Served(tmp_path / "out", monkeypatch, config=config)
    yield run
    run.close()


def file_of(picture, suffix=".png"):
    return cv2.imencode(suffix, np.ascontiguousarray(picture[:, :, ::-1]))[1].tobytes()


def noise(height=64, width=32):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def search(served, files, **fields):
    return served.send("POST", PATH, files=files, data={"subject": "person", **fields})


def triplet(colour, suffix=".png"):
    return {m: ("x", file_of(crop_of(colour), suffix)) for m in ("rgb", "nir", "tir")}


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_it_finds_who_resembles_the_pictures(served, suffix):
    red, blue = served.know(RED, rig="yard", time_s=5000.0), served.know(BLUE)
    served.send("PATCH", f"/api/identities/person/{blue}", json={"name": "Bо 王"})
    answer = search(served, triplet(BLUE, suffix), limit=2)
    assert answer.status_code == 200, answer.text
    first, second = answer.json()
    assert (first["identity"], first["name"], first["accepted"]) == (blue, "Bо 王", True)
    assert first["score"] == pytest.approx(1.0, abs=1e-3)
    assert (second["identity"], second["accepted"], second["threshold"]) == (red, False, 0.9)
    assert second["score"] == pytest.approx(float(embedding_of(RED) @ embedding_of(BLUE)), abs=1e-2)
    assert (second["seen_at"], second["seen_s"]) == ("yard", 5000.0)
    assert second["template"] == served.gallery.templates_of(red)[0].point
    assert len(search(served, triplet(BLUE), limit=1).json()) == 1
    line = served.audit()[-1]
    assert (line["what"], line["subject"], line["found"]) == ("search", "person", 1)


def test_a_modality_that_is_not_sent_is_masked(served, monkeypatch):
    served.know(RED)
    masks = []
    engine = served.run.view.curator._desks["person"].engine
    embed = engine.embed

    def spied(images, mask, camera):
        masks.append((mask[0].tolist(), camera.tolist()))
        return embed(images, mask, camera)

    monkeypatch.setattr(engine, "embed", spied)
    files = {"nir": ("n", file_of(crop_of(RED))), "tir": ("t", file_of(crop_of(RED)))}
    assert search(served, files).status_code == 200
    assert ([0.0, 1.0, 1.0], [-1]) in masks


def test_many_templates_of_few_hide_nobody(served):
    for _ in range(4):
        served.know(*[RED] * 20)
    last = served.know(GREEN)
    found = [f["identity"] for f in search(served, triplet(RED), limit=8).json()]
    assert last in found


def test_searching_leaves_no_trace_in_the_gallery(served):
    served.know(RED)
    assert search(served, triplet(GREEN)).status_code == 200
    # Who passes meanwhile may be kept; who was searched for may not.
    assert max(float(r.embedding @ embedding_of(GREEN)) for r in served.gallery.contents()[1]) < 0.9
    assert "x" not in [p.name for p in served.output.iterdir()]


def test_a_tall_picture_is_resized_as_the_stream_does(served):
    served.know(RED)
    files = {"rgb": ("x", file_of(np.full((901, 333, 3), RED, np.uint8), ".jpg"))}
    assert search(served, files).status_code == 200


def png_of_size(width, height, data=b""):
    """Return a PNG that says it is that large, as a bomb does."""

    def chunk(kind, body):
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def jpeg_of_size(width, height):
    """Return a JPEG whose header lies."""
    data = bytearray(file_of(noise(), ".jpg"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def gif():
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "GIF")
    return out.getvalue()


PNG, JPEG = file_of(noise()), file_of(noise(), ".jpg")
BAD_PICTURES = {
    "empty": (b"", 415),
    "text": (b"hello", 415),
    "gif": (gif(), 415),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
    "only the magic of png": (PNG[:8], 415),
    "png bomb": (png_of_size(60000, 60000, zlib.compress(bytes(10_000_000), 9)), 422),
    "png without pixels": (png_of_size(64, 64), 422),
    "empty png": (png_of_size(0, 0), 415),
    "jpeg bomb": (jpeg_of_size(65000, 65000), 422),
    "png cut off": (PNG[: len(PNG) // 2], 422),
    "jpeg cut off": (JPEG[: len(JPEG) // 2], 422),
    "too many pixels": (file_of(np.zeros((4097, 4096, 3), np.uint8)), 422),
    "too long": (PNG + bytes(MOST_BYTES), 413),
}


@pytest.mark.parametrize("bad", BAD_PICTURES)
def test_bad_pictures_are_refused(served, bad):
    data, status = BAD_PICTURES[bad]
    answer = search(served, {"rgb": ("x.png", data, "image/png")})
    assert answer.status_code == status, answer.text
    assert "rgb" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "files", "status"),
    [
        ({}, {}, 422),
        ({"subject": "robot"}, {"rgb": ("x", PNG)}, 422),
        ({"subject": "vehicle"}, {"rgb": ("x", PNG)}, 404),
        ({"limit": 0}, {"rgb": ("x", PNG)}, 422),
        ({"limit": 101}, {"rgb": ("x", PNG)}, 422),
        ({"limit": "many"}, {"rgb": ("x", PNG)}, 422),
        ({"rig": "nowhere"}, {"rgb": ("x", PNG)}, 422),
        ({"rig": "gate"}, {"rgb": ("../../x\r\n\x00", PNG)}, 200),
        ({"rgb": "no file"}, {}, 422),
    ],
)
def test_bad_fields_are_refused(served, fields, files, status):
    served.know(RED)
    answer = search(served, files or {"other": ("x", b"y")}, **fields)
    assert answer.status_code == status, answer.text


def test_bodies_of_another_kind_are_refused(served):
    for body, kind, status in [
        (b"{}", "application/json", 422),
        (b"--x", "multipart/form-data", 400),
        (b"--x\r\nnonsense", "multipart/form-data; boundary=x", 422),
        (b"subject=person", "application/x-www-form-urlencoded", 422),
        (b"", "multipart/form-data; boundary=x", 422),
    ]:
        answer = served.send("POST", PATH, data=body, headers={"content-type": kind})
        assert answer.status_code == status, (body, kind, answer.text)
        assert isinstance(answer.json()["detail"], str)


def test_a_body_that_is_too_long_is_not_read(served):
    """By its own announcement, and by count when it announces nothing."""
    host, port = served.door.listener.getsockname()
    with socket.create_connection((host, port), timeout=10) as client:
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BODY_BYTES + 1}\r\n\r\n"
        )
        client.sendall(head.encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 413")
    block, given = bytes(1 << 20), 0

    def endless():
        nonlocal given
        yield b'--x\r\nContent-Disposition: form-data; name="rgb"; filename="a"\r\n\r\n'
        while given < 10 * BODY_BYTES:
            given += len(block)
            yield block

    try:
        answer = served.send(
            "POST",
            PATH,
            data=endless(),
            headers={"content-type": "multipart/form-data; boundary=x"},
        )
        assert answer.status_code == 413
    except OSError:  # the connection was closed while it was sending
        pass
    assert given < 3 * BODY_BYTES
    assert served.ask("/api/rigs")[0] == 200


def test_many_parts_are_refused(served):
    files = [("rgb", (f"{n}", PNG)) for n in range(2000)]
    assert search(served, files).status_code == 400


def test_searches_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, TOKEN)
    config = ServerConfig(port=0, searches_per_s=0.1, search_burst=2)
    served = Served(tmp_path / "out", monkeypatch, config=config)
    try:
        bearer = {"authorization": f"Bearer {TOKEN}"}
        files = {"rgb": ("x", PNG)}
        statuses = [
            served.send("POST", PATH, files=files, data={"subject": "person"}, headers=bearer)
            for _ in range(3)
        ]
        assert [a.status_code for a in statuses] == [200, 200, 429]
        assert 1 <= int(statuses[2].headers["retry-after"]) <= 10
        assert search(served, files).status_code == 401
        assert {line["by"] for line in served.audit()} == {"token"}
        assert TOKEN not in str(served.audit())
    finally:
        served.close()


def test_a_turnstile_fills_again(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("runtime.server.limits.time.monotonic", lambda: now[0])
    turnstile = Turnstile(2.0, 3)
    assert [turnstile.wait_s() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    now[0] += 0.5
    assert [turnstile.wait_s(), turnstile.wait_s()] == [0.0, 0.5]
    now[0] += 1000.0
    assert [turnstile.wait_s() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


@pytest.mark.parametrize("length", [b"x", b"-1", b"9" * 30, str(JSON_BYTES + 1).encode()])
def test_a_length_that_is_none_is_refused(length):
    assert ask_limited(length, [b""]) == 413


def test_a_body_that_does_not_come_is_not_waited_for():
    assert ask_limited(b"5", []) == 408


def test_the_limit_itself_is_allowed():
    assert ask_limited(str(JSON_BYTES).encode(), [bytes(JSON_BYTES)]) == 200
    assert ask_limited(b"1", [bytes(JSON_BYTES), b"x"]) == 413


def ask_limited(length, blocks):
    """Return the status that an app behind a limit, which reads the whole body, answers."""
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    async def read(request):
        await request.body()
        return Response()

    limited = BodyLimit(Starlette(routes=[Route("/", read, methods=["POST"])]), {}, patience_s=0.1)
    left = [{"type": "http.request", "body": block, "more_body": True} for block in blocks]
    if left:
        left[-1]["more_body"] = False
    sent = []

    async def receive():
        if left:
            return left.pop(0)
        await asyncio.sleep(10)
        raise AssertionError

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/", "raw_path": b"/", "root_path": "",
        "query_string": b"", "headers": [(b"content-length", length)], "http_version": "1.1",
    }  # fmt: skip
    asyncio.run(limited(scope, receive, send))
    return sent[0]["status"]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_damaged_pictures_are_refused_and_never_more(suffix):
    """A thousand damages each; what is still a picture is one of its size."""
    whole, draw = file_of(noise(), suffix), random.Random(0)
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 2, 8))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        if draw.random() < 0.3:
            del data[draw.randrange(len(data)) :]
        try:
            picture = picture_of("rgb", bytes(data))
        except HTTPException:
            continue
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert picture.size <= 3 * MOST_PIXELS


def test_uploads_are_decoded_as_files_are(tmp_path):
    for suffix, picture in [(".png", noise()), (".jpg", noise()), (".png", noise()[:, :, :1])]:
        file = tmp_path / f"x{suffix}"
        file.write_bytes(cv2.imencode(suffix, picture)[1].tobytes())
        decoded = picture_of("rgb", file.read_bytes())
        np.testing.assert_array_equal(decoded, read_picture(str(file)))
        if suffix == ".png" and picture.shape[2] == 3:
            np.testing.assert_array_equal(decoded, picture[:, :, ::-1])


def test_thermal_of_16_bits_is_a_picture_too():
    deep = np.linspace(0, 65535, 64 * 32, dtype=np.uint16).reshape(64, 32)
    decoded = picture_of("tir", cv2.imencode(".png", deep)[1].tobytes())
    np.testing.assert_allclose(decoded[:, :, 0], deep / 257, atol=1)


def test_formats_are_told_apart_by_content():
    with pytest.raises(HTTPException, match="JPEG or PNG"):
        picture_of("rgb", gif())
