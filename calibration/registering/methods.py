"""The three ways to register, behind one interface: look, register, draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from calibration.registering import checkerboard, motion, points
from calibration.registering.checkerboard import Board, Boards
from calibration.registering.estimate import Estimate
from calibration.registering.footage import shots
from calibration.registering.geometry import Matrix, project
from calibration.registering.overlay import draw_points, draw_silhouettes
from calibration.registering.points import Pairs
from calibration.registering.silhouettes import Motion, watch
from mambapro.cli import CheckError, InputError
from mambapro.contract import Modality
from mambapro.preprocess import Picture

EVERY_S: Final = 0.04
"""Pictures are taken at most this often, s."""

V = TypeVar("V")


class Method(Protocol[V]):
    """A way to register; V is what it keeps of a camera's pictures."""

    def look(self, camera: Modality, uri: str) -> V:
        """Look at a camera's pictures; cameras are looked at in threads of their own."""

    def register(self, camera: Modality, reference: V, other: V, lag_s: float) -> Estimate:
        """Return the homography from ``reference`` to ``camera``, whose clock is ``lag_s`` ahead.

        CheckError when what was seen does not do.
        """

    def picture(self, view: V) -> Picture:
        """Return a picture (H, W, 3) of the camera."""

    def draw(
        self, picture: Picture, reference: V, other: V, matrix: Matrix, found: Estimate
    ) -> None:
        """Draw the evidence, carried back by ``matrix``, into a panel of the reference."""


@dataclass(frozen=True)
class ByMotion:
    """Registers by silhouettes that move."""

    seconds: float
    max_offset_s: float

    def look(self, camera: Modality, uri: str) -> Motion:
        """See Method."""
        return _seen(camera, watch(shots(camera, uri, self.seconds, EVERY_S)))

    def register(
        self, camera: Modality, reference: Motion, other: Motion, lag_s: float
    ) -> Estimate:
        """See Method."""
        return motion.register(camera, reference, other, lag_s, self.max_offset_s)

    def picture(self, view: Motion) -> Picture:
        """See Method."""
        return view.plate

    def draw(
        self, picture: Picture, reference: Motion, other: Motion, matrix: Matrix, found: Estimate
    ) -> None:
        """See Method."""
        draw_silhouettes(picture, reference, other, matrix, found.lag_s or 0.0)


@dataclass(frozen=True)
class ByCheckerboard:
    """Registers by a board that is held still at several places."""

    board: Board
    seconds: float

    def look(self, camera: Modality, uri: str) -> Boards:
        """See Method."""
        return _seen(
            camera, checkerboard.look_for(shots(camera, uri, self.seconds, EVERY_S), self.board)
        )

    def register(
        self, camera: Modality, reference: Boards, other: Boards, lag_s: float
    ) -> Estimate:
        """See Method."""
        return checkerboard.register(camera, reference, other, self.board, lag_s)

    def picture(self, view: Boards) -> Picture:
        """See Method."""
        return view.picture

    def draw(
        self, picture: Picture, reference: Boards, other: Boards, matrix: Matrix, found: Estimate
    ) -> None:
        """See Method."""
        draw_points(picture, found.evidence, project(found.homography, found.evidence), matrix)


@dataclass(frozen=True)
class ByPoints:
    """Registers by points that somebody matched."""

    pairs: Mapping[Modality, Pairs]

    def look(self, camera: Modality, uri: str) -> Picture:
        """See Method; the first picture is enough."""
        first = next(iter(shots(camera, uri, 1.0, EVERY_S)), None)
        return _seen(camera, None if first is None else first[1])

    def register(
        self, camera: Modality, reference: Picture, other: Picture, lag_s: float
    ) -> Estimate:
        """See Method; clocks do not matter."""
        if camera not in self.pairs:
            raise CheckError(f"camera {camera}: the file holds no points of it")
        sizes = [(view.shape[0], view.shape[1]) for view in (reference, other)]
        return points.register(camera, self.pairs[camera], *sizes)

    def picture(self, view: Picture) -> Picture:
        """See Method."""
        return view

    def draw(
        self, picture: Picture, reference: Picture, other: Picture, matrix: Matrix, found: Estimate
    ) -> None:
        """See Method."""
        draw_points(picture, found.evidence, project(found.homography, found.evidence), matrix)


def _seen(camera: str, view: V | None) -> V:
    if view is None:
        raise InputError(
            f"camera {camera}: too few pictures; a clip must be longer, a live camera must send"
        )
    return view
