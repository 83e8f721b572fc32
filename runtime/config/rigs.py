"""Rigs: which cameras there are, and how their pictures lie on each other."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from mambapro.cli import InputError
from mambapro.config import load
from mambapro.contract import UNKNOWN_CAMERA, Modality

Row = tuple[float, float, float]
Homography = tuple[Row, Row, Row]
"""Three rows; maps pixels (x, y, 1) of the reference camera to pixels of another one."""


@dataclass(frozen=True)
class CameraConfig:
    """One camera of a rig."""

    uri: str = field(repr=False)  # it may hold a password
    """Where its pictures come from: a video file or a folder of pictures (a relative path starts at
    the folder of the rigs file), rtsp://, rtsps://, http://, https://, v4l2:///dev/video0, usb:0,
    gst:PIPELINE or pattern://?size=640x360&fps=25."""
    homography: Homography | None = None
    """Reference pixels to this camera's pixels; none for the reference camera."""
    offset_s: float = 0.0
    """Seconds this camera's clock is ahead; used when content gives no confident estimate."""


@dataclass(frozen=True)
class RigConfig:
    """Co-located cameras that see one scene."""

    name: str
    """Unique name, used in events."""
    cameras: dict[Modality, CameraConfig]
    """Cameras by modality; a modality may be absent."""
    camera: int = UNKNOWN_CAMERA
    """Row of the model's camera embedding; -1 is an unknown viewing position."""
    reference: Modality = "rgb"
    """The camera that subjects are detected in and whose clock rules."""

    def __post_init__(self) -> None:
        if self.camera < UNKNOWN_CAMERA:
            raise InputError(
                f"rig {self.name}: camera must be a row of the camera embedding, or -1 for an "
                f"unknown one, got {self.camera}"
            )
        if self.reference not in self.cameras:
            raise InputError(
                f"rig {self.name}: the reference camera {self.reference} is not among its cameras "
                f"({', '.join(self.cameras) or 'none'})"
            )
        for modality, camera in self.cameras.items():
            if modality != self.reference and camera.homography is None:
                raise InputError(
                    f"rig {self.name}: camera {modality} has no homography; "
                    "only the reference camera may go without; calibration/registration.py finds it"
                )


@dataclass(frozen=True)
class RigsConfig:
    """The rigs file, `rigs.yaml`."""

    rigs: tuple[RigConfig, ...]
    """All rigs that share the galleries."""

    def __post_init__(self) -> None:
        names = [rig.name for rig in self.rigs]
        if not names or len(set(names)) < len(names):
            raise InputError(f"rigs must have unique names and be at least one, got {names}")


def load_rigs(path: Path) -> tuple[RigConfig, ...]:
    """Read a rigs file; relative uris become paths from its folder."""
    return tuple(_located(rig, path.parent) for rig in load(RigsConfig, path).rigs)


def one_camera_rig(uri: str) -> RigConfig:
    """Return a rig whose near infrared and thermal cameras are missing."""
    name = Path(uri).stem if is_path(uri) else "camera"  # a URI may hold a password
    return RigConfig(name=name, cameras={"rgb": CameraConfig(uri)})


def _located(rig: RigConfig, folder: Path) -> RigConfig:
    cameras = {
        modality: dataclasses.replace(camera, uri=_located_uri(camera.uri, folder))
        for modality, camera in rig.cameras.items()
    }
    return dataclasses.replace(rig, cameras=cameras)


def _located_uri(uri: str, folder: Path) -> str:
    return str(folder / uri) if is_path(uri) else uri


def is_path(uri: str) -> bool:
    """Return whether ``uri`` is the path of a file or folder."""
    return "://" not in uri and not uri.startswith(("usb:", "gst:"))
