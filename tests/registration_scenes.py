"""Cheap pictures whose homographies are known: a board, and figures that walk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

SIZE = (360, 640)
BOARD = (9, 6)
SQUARE_PX = 40
HOMOGRAPHY = np.array([[0.86, 0.055, 30.0], [-0.05, 0.88, 42.0], [-4e-5, 6e-5, 1.0]])
"""Turned by 3 degrees, zoomed, shifted and tilted, from reference pixels to the other camera's."""


@dataclass(frozen=True)
class Look:
    """How a camera shows a scene."""

    bright: int
    dark: int
    blur_px: float
    noise: float

    def shown(self, light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return (H, W, 3) uint8 of ``light``, 0 dark to 1 bright."""
        picture = self.dark + (self.bright - self.dark) * light
        picture = cv2.GaussianBlur(picture, (0, 0), self.blur_px)
        picture += rng.normal(0, self.noise, picture.shape)
        return np.repeat(picture.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


VISIBLE = Look(210, 30, 0.6, 2.0)
THERMAL = Look(112, 140, 1.6, 4.0)
"""Pale, blurred, noisy, and black squares are the warm ones."""


def placed(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return ``points`` (n, 2) after ``matrix``, without the code under test."""
    full = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return full[:, :2] / full[:, 2:]


def board_poses(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Return where the board is held: from its own px to reference px, all in the picture."""
    width, height = (BOARD[0] + 1) * SQUARE_PX, (BOARD[1] + 1) * SQUARE_PX
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    centres = [(170, 130), (450, 130), (180, 235), (440, 230), (320, 180)]
    poses = []
    for number in range(count):
        middle = np.array(centres[number % len(centres)]) + rng.uniform(-8, 8, 2)
        half = rng.uniform(0.85, 1.0) * np.array([120, 84])
        box = middle + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
        quad = (box + rng.uniform(-10, 10, (4, 2))).astype(np.float32)
        poses.append(cv2.getPerspectiveTransform(corners, quad))
    return poses


def board_shots(
    poses: Sequence[np.ndarray], homography: np.ndarray, look: Look, seed: int, late_s: float = 0.0
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the shots of a camera: each pose is held for 1.2 s, then gone for 0.6 s."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : BOARD[1] + 1, 0 : BOARD[0] + 1]
    squares = np.kron((rows + columns) % 2, np.ones((SQUARE_PX, SQUARE_PX))).astype(np.float32)
    size = (SIZE[1], SIZE[0])
    for number, pose in enumerate(poses):
        matrix = homography @ pose
        light = cv2.warpPerspective(squares, matrix, size, flags=cv2.INTER_AREA, borderValue=0.5)
        for k in range(18):
            seen = light if k < 12 else np.full_like(light, 0.5)
            yield 1.8 * number + k / 10 + late_s, look.shown(seen, rng)


@dataclass(frozen=True)
class Walker:
    """Somebody who crosses the picture."""

    start_s: float
    foot_row: float
    height_px: float
    speed_px_s: float
    """Negative walks to the left."""

    def outline(self, time_s: float) -> np.ndarray | None:
        """Return (n, 2) reference px of the body at ``time_s``."""
        gone = (time_s - self.start_s) * self.speed_px_s
        x = gone - 40 if self.speed_px_s > 0 else SIZE[1] + 40 + gone
        if time_s < self.start_s or not -60 < x < SIZE[1] + 60:
            return None
        swing = 0.13 * np.sin(0.07 * gone)
        body = [
            (-0.05, -1.0), (0.05, -1.0), (0.06, -0.86), (0.13, -0.8), (0.12, -0.45),
            (0.08 + swing, 0.0), (0.0 + swing, 0.0), (0.0, -0.4), (-swing, 0.0),
            (-0.08 - swing, 0.0), (-0.12, -0.45), (-0.13, -0.8), (-0.06, -0.86),
        ]  # fmt: skip
        return np.array(body) * self.height_px + [x, self.foot_row]


def crowd(rng: np.random.Generator, count: int, seconds: float) -> list[Walker]:
    """Return walkers at all distances, both ways."""
    walkers = []
    for k in range(count):
        near = rng.uniform(0, 1)
        walkers.append(
            Walker(
                start_s=float(k * (seconds - 4) / count),
                foot_row=190 + 150 * near,
                height_px=90 + 70 * near,
                speed_px_s=float((90 + 60 * near) * (1 if k % 2 else -1)),
            )
        )
    return walkers


def walk_shots(
    walkers: Sequence[Walker],
    homography: np.ndarray,
    seconds: float,
    *,
    warm: bool,
    seed: int,
    late_s: float = 0.0,
    fps: float = 12.5,
    shift_px: float = 0.0,
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the shots of a camera whose clock is ``late_s`` ahead; ``warm`` shows bodies bright.

    ``shift_px`` moves every body to the right: what parallax does off the registered plane.
    """
    rng = np.random.default_rng(seed)
    ground = cv2.GaussianBlur(rng.uniform(60, 150, SIZE).astype(np.float32), (0, 0), 6)
    for k in range(int(seconds * fps)):
        time_s = k / fps
        picture = ground.copy()
        for walker in walkers:
            body = walker.outline(time_s)
            if body is not None:
                drawn = placed(homography, body + np.array([shift_px, 0.0]))
                cv2.fillPoly(
                    picture, [np.round(drawn * 16).astype(np.int32)], 190.0 if warm else 20.0,
                    cv2.LINE_AA, 4,
                )  # fmt: skip
        picture += rng.normal(0, 2, SIZE)
        grey = picture.clip(0, 255).astype(np.uint8)
        yield time_s + late_s, np.repeat(grey[..., None], 3, axis=2)
