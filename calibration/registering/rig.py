"""Register all cameras of a rig by one method, and draw what came out."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from calibration.registering.estimate import Estimate
from calibration.registering.geometry import Matrix, stretched
from calibration.registering.judging import Limits, check
from calibration.registering.methods import Method
from calibration.registering.overlay import panel
from calibration.registering.rigs_file import Rig
from mambapro.cli import CheckError
from mambapro.contract import Modality
from mambapro.preprocess import Picture

log = logging.getLogger("registration")
V = TypeVar("V")


@dataclass
class Findings:
    """What came out for one rig."""

    estimates: dict[Modality, Estimate] = field(default_factory=dict)
    """What was estimated, also when it was refused."""
    refused: dict[Modality, str] = field(default_factory=dict)
    """Why a camera was refused."""
    panels: list[list[Picture]] = field(default_factory=list)
    """A row a camera: before and after."""


def register_rig(rig: Rig, method: Method[V], limits: Limits) -> Findings:
    """Return what ``method`` makes of a rig's cameras; cameras that fail a check are refused."""
    log.info("%s: looking at %s", rig.name, ", ".join(rig.cameras))
    with ThreadPoolExecutor(len(rig.cameras)) as pool:
        looks = {m: pool.submit(method.look, m, c.uri) for m, c in rig.cameras.items()}
    views = {camera: look.result() for camera, look in looks.items()}
    findings = Findings()
    for camera in rig.others:
        log.info("%s: registering %s", rig.name, camera)
        _register(rig, method, camera, views[rig.reference], views[camera], limits, findings)
        findings.panels.append(_panels(rig, method, camera, views, findings))
    return findings


def _register(
    rig: Rig,
    method: Method[V],
    camera: Modality,
    reference: V,
    other: V,
    limits: Limits,
    findings: Findings,
) -> None:
    lag_s = rig.cameras[camera].offset_s - rig.cameras[rig.reference].offset_s
    try:
        estimate = method.register(camera, reference, other, lag_s)
        findings.estimates[camera] = estimate
        check(camera, estimate, limits)
    except CheckError as error:
        findings.refused[camera] = str(error)


def _panels(
    rig: Rig, method: Method[V], camera: Modality, views: dict[Modality, V], findings: Findings
) -> list[Picture]:
    """Return a camera laid on the reference as the rigs file has it, and as it was found."""
    ours, theirs = method.picture(views[rig.reference]), method.picture(views[camera])
    estimate = findings.estimates.get(camera)
    known = rig.cameras[camera].homography
    guess = stretched((ours.shape[0], ours.shape[1]), (theirs.shape[0], theirs.shape[1]))
    row = [("before, as in the rigs file", known) if known is not None else ("before", guess)]
    if estimate is not None:
        verdict = "REFUSED" if camera in findings.refused else "after"
        row.append((f"{verdict}, residual {estimate.residual_px:.2f} px", estimate.homography))

    def drawn(title: str, matrix: Matrix) -> Picture:
        picture = panel(ours, theirs, matrix, f"{rig.name}: {camera} on {rig.reference}, {title}")
        if estimate is not None:
            method.draw(picture, views[rig.reference], views[camera], matrix, estimate)
        return picture

    pictures = [drawn(title, matrix) for title, matrix in row]
    return pictures if len(pictures) == 2 else [*pictures, np.zeros_like(pictures[0])]
