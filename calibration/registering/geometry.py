"""Homographies: pixels in, pixels out, and which of them two real cameras can have."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
"""(3, 3); maps pixels (x, y, 1) of the reference camera to pixels of another one, unless said."""
Points = npt.NDArray[np.float64]
"""(n, 2) x, y in pixels; the middle of the first pixel is (0, 0)."""
Size = tuple[int, int]
"""Height and width of a picture, px."""

NOMINAL_WIDTH: Final = 640
"""Limits in pixels are for pictures of this width; they grow with the picture."""


def project(homography: Matrix, points: Points) -> Points:
    """Return ``points`` after ``homography``."""
    if not len(points):
        return np.zeros((0, 2))
    shaped = np.asarray(points, np.float64)[None]
    return np.asarray(cv2.perspectiveTransform(shaped, homography)[0], np.float64)


def reduction(size: Size, small: Size) -> Matrix:
    """Return what maps pixels of a picture to those of its copy resized to ``small``."""
    y, x = small[0] / size[0], small[1] / size[1]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1.0]])


def stretched(reference: Size, other: Size) -> Matrix:
    """Return the guess for cameras that nobody has registered: the same view, another width."""
    scale = other[1] / reference[1]
    shift = (other[0] - 1 - scale * (reference[0] - 1)) / 2
    return np.array([[scale, 0, (scale - 1) / 2], [0, scale, shift], [0, 0, 1.0]])


def grid(size: Size, columns: int = 16, rows: int = 9) -> Points:
    """Return points spread evenly over a picture, its corners among them."""
    x, y = np.meshgrid(np.linspace(0, size[1] - 1, columns), np.linspace(0, size[0] - 1, rows))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def inside(points: Points, size: Size) -> npt.NDArray[np.bool_]:
    """Return which points lie in a picture of ``size``."""
    low = (points >= -0.5).all(axis=1)
    return np.asarray(low & (points < np.array([size[1], size[0]]) - 0.5).all(axis=1))


def within_hull(points: Points, evidence: Points) -> npt.NDArray[np.bool_]:
    """Return which ``points`` lie in the convex hull of ``evidence``."""
    hull = cv2.convexHull(evidence.astype(np.float32))
    signs = [cv2.pointPolygonTest(hull, (float(x), float(y)), False) for x, y in points]
    return np.asarray(signs) >= 0


def hull_share(evidence: Points, size: Size) -> float:
    """Return the share of a picture that the convex hull of ``evidence`` covers."""
    if len(evidence) < 3:
        return 0.0
    hull = cv2.convexHull(evidence.astype(np.float32))
    return float(cv2.contourArea(hull)) / (size[0] * size[1])


def orientations(homography: Matrix, points: Points) -> tuple[Points, Points]:
    """Return the depth w and the sign-bearing determinant of the local map at each point.

    A change of w's sign folds the picture over the horizon; a negative determinant mirrors it.
    """
    w = np.column_stack([points, np.ones(len(points))]) @ homography[2]
    with np.errstate(divide="ignore"):
        return w / homography[2, 2], np.linalg.det(homography) / w**3


def overlap(homography: Matrix, reference: Size, other: Size) -> float:
    """Return the share of the reference picture that the other camera sees."""
    return float(np.mean(inside(project(homography, grid(reference, 65, 37)), other)))


def local_scale(homography: Matrix, point: Points) -> float:
    """Return how many pixels of the other camera a reference pixel at ``point`` (2,) covers."""
    _, determinant = orientations(homography, point[None])
    return float(np.sqrt(abs(determinant[0])))
