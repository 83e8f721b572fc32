import cv2
import numpy as np
import pytest
from PIL import Image

from mambapro.cli import InputError
from mambapro.preprocess import crop, read_picture, resize, stack


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)


def test_read_picture_is_rgb(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "ü.png")  # any name the file system takes
    np.testing.assert_array_equal(read_picture(str(tmp_path / "ü.png")), picture)


def test_grey_pictures_are_tripled(tmp_path, picture):
    Image.fromarray(picture[..., 0]).save(tmp_path / "grey.png")
    read = read_picture(str(tmp_path / "grey.png"))
    assert read.shape == (40, 30, 3)
    np.testing.assert_array_equal(read[..., 0], read[..., 2])


@pytest.mark.parametrize("content", [b"", b"not a picture", None])
def test_unreadable_pictures_are_named(tmp_path, content):
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.jpg"):
        read_picture(str(path))


def test_resize_keeps_a_constant_and_antialiases(picture):
    assert (resize(np.full((50, 20, 3), 77, np.uint8), (64, 32)) == 77).all()
    checks = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    ours = resize(checks, (32, 32))
    assert ours.std() < 2  # pixels that alternate average out
    opencv = cv2.resize(checks, (32, 32), interpolation=cv2.INTER_CUBIC)
    assert abs(ours.mean() - 127.5) < 2
    assert resize(picture, (40, 30)) is picture
    assert opencv.shape == ours.shape


def test_resize_does_not_swap_sides(picture):
    left = picture.copy()
    left[:, :15] = 0
    left[:, 15:] = 255
    resized = resize(left, (20, 60))
    assert resized.shape == (20, 60, 3)
    assert resized[:, :25].max() < 30 < 225 < resized[:, 35:].min()


@pytest.mark.parametrize(
    ("box", "shape"),
    [
        ((0, 0, 30, 40), (40, 30)),
        ((5.4, 2.6, 10.4, 12.6), (10, 5)),
        ((-9, -9, 8, 8), (8, 8)),
        ((25, 35, 99, 99), (5, 5)),
        ((50, 60, 70, 80), (1, 1)),
        ((7, 7, 7, 7), (1, 1)),
    ],
)
def test_crop_stays_inside(picture, box, shape):
    assert crop(picture, box).shape[:2] == shape


def test_stack_orders_modalities_and_masks_the_missing(picture):
    red, blue = np.zeros_like(picture), np.zeros_like(picture)
    red[..., 0], blue[..., 2] = 255, 255
    images, mask = stack({"tir": blue, "rgb": red, "nir": None}, (16, 8))
    assert images.shape == (3, 16, 8, 3)
    assert images.dtype == np.uint8
    assert mask.tolist() == [1, 0, 1]
    assert mask.dtype == np.float32
    assert images[0, 0, 0].tolist() == [255, 0, 0]
    assert images[1].max() == 0
    assert images[2, 0, 0].tolist() == [0, 0, 255]


def test_stack_and_resize_refuse_what_they_cannot_take(picture):
    with pytest.raises(InputError, match="modalities are rgb, nir, tir, got depth"):
        stack({"depth": picture}, (16, 8))
    with pytest.raises(InputError, match=r"must be \(H, W, 3\) uint8, got \(40, 30, 3\) float64"):
        resize(picture / 255, (16, 8))
    with pytest.raises(InputError, match=r"got \(40, 30\) uint8"):
        resize(picture[..., 0], (16, 8))
