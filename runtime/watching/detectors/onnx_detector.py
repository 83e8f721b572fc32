"""Persons and vehicles by a detection network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import cv2
import numpy as np

from mambapro.contract import Modality, Subject
from mambapro.preprocess import Picture
from runtime.config import DetectConfig
from runtime.sync.offsets import Matrix
from runtime.watching.crops import warp_box
from runtime.watching.detectors.fitting import fit_for, fitted
from runtime.watching.detectors.interface import Boxes, Detections, View
from runtime.watching.detectors.layouts import Candidates
from runtime.watching.detectors.network import Network

NMS_IOU: Final = 0.6
NOBODY: Final = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), ())


class OnnxDetector:
    """Finds the subjects of one rig, moving or not, in the picture of one of its cameras."""

    def __init__(self, config: DetectConfig, network: Network, view: View) -> None:
        """Watch the rig of ``view``; rigs may share ``network``."""
        self._config, self._network, self._view = config.onnx, network, view
        self._night_luma = config.night_luma
        self._nms_iou = self._config.nms_iou
        if self._nms_iou is None and not network.sorted_out:
            self._nms_iou = NMS_IOU

    def prime(self, pictures: Mapping[Modality, Picture]) -> None:
        """Learn nothing: a network knows."""

    def detect(self, pictures: Mapping[Modality, Picture]) -> Detections:
        """Return who is seen by the reference camera or, in the dark, by the night camera."""
        modality = self._camera(pictures)
        if modality is None:
            return NOBODY
        picture = pictures[modality]
        fit = fit_for(picture.shape[:2], self._network.size, self._config.resize)
        found = self._network.find(fitted(picture, fit, self._network.size))
        found = self._wanted(found)
        if not len(found.boxes):
            return NOBODY
        boxes = self._on_reference(fit.back(found.boxes), modality)
        return self._best(boxes, found)

    def _camera(self, pictures: Mapping[Modality, Picture]) -> Modality | None:
        """Return the camera to look at; None when there is no picture of it."""
        reference, night = self._view.reference, self._config.night_camera
        picture = pictures.get(reference)
        dark = picture is None or float(cv2.mean(picture)[1]) < self._night_luma
        if dark and night is not None and night in pictures:
            return night
        return None if picture is None else reference

    def _wanted(self, found: Candidates) -> Candidates:
        """Return what is sure enough and of a class that somebody wants."""
        wanted = np.isin(found.classes, list(self._config.classes))
        wanted &= (found.scores >= self._config.score) & np.isfinite(found.boxes).all(axis=1)
        return Candidates(found.boxes[wanted], found.scores[wanted], found.classes[wanted])

    def _on_reference(self, boxes: Boxes, modality: Modality) -> Boxes:
        """Return ``boxes`` of a camera in the reference's pixels, cut at the picture's edge."""
        if modality != self._view.reference:
            back = np.asarray(np.linalg.inv(self._view.homographies[modality]), np.float64)
            boxes = _warped(boxes, back)
        height, width = self._view.size
        return np.asarray(boxes.clip(0, [width, height, width, height]), np.float32)

    def _best(self, boxes: Boxes, found: Candidates) -> Detections:
        """Return ``boxes`` as detections, without doubles and without those out of the picture."""
        subjects = [self._config.classes[number] for number in found.classes.tolist()]
        sides = boxes[:, 2:] - boxes[:, :2]
        kept = [i for i in self._singles(boxes, found, subjects) if sides[i].min() >= 1]
        chosen = tuple(subjects[i] for i in kept)
        return Detections(boxes[kept], np.asarray(found.scores[kept], np.float32), chosen)

    def _singles(self, boxes: Boxes, found: Candidates, subjects: Sequence[Subject]) -> list[int]:
        """Return which boxes stay, by subject: a car that is also a truck is one vehicle."""
        if self._nms_iou is None:
            return list(range(len(boxes)))
        groups = [int(subject == "vehicle") for subject in subjects]
        as_sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
        kept = cv2.dnn.NMSBoxesBatched(
            as_sizes, found.scores.tolist(), groups, self._config.score, self._nms_iou
        )
        return sorted(int(i) for i in np.ravel(kept))


def _warped(boxes: Boxes, homography: Matrix) -> Boxes:
    warped = [warp_box((x0, y0, x1, y1), homography) for x0, y0, x1, y1 in boxes.tolist()]
    return np.array(warped, np.float32).reshape(-1, 4)
