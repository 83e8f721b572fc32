"""From pictures to identities: detection, tracks, crops, matches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mambapro.contract import Modality, Subject
from runtime.config.checks import positive, within


@dataclass(frozen=True)
class DetectConfig:
    """What moves: background subtraction on the reference camera, joined by others."""

    width_px: int = 320
    """Pictures are reduced to this width, px."""
    history_s: float = 20.0
    """Time that the background model remembers; who stands still for a third of it vanishes, s."""
    min_noise: float = 1.5
    """Smallest noise that a pixel is taken to have, grey levels."""
    variance: float = 18.0
    """Squared distance, in standard deviations, from which a pixel is foreground."""
    shadow: float = 0.5
    """A shadow leaves at least this share of the background's brightness."""
    day_modalities: tuple[Modality, ...] = ("tir",)
    """Cameras that join the reference by day: what is dressed like the wall behind it is warm."""
    night_modalities: tuple[Modality, ...] = ("nir", "tir")
    """Cameras that join the reference by night."""
    night_luma: float = 45.0
    """Mean grey level of the reference below which others join it, 0 to 255."""
    blind_luma: float = 30.0
    """Mean grey level below which the reference itself is left out, if others can see."""
    global_change: float = 0.25
    """Share of changed pixels from which the light has changed and the model relearns."""
    relearn_frames: int = 8
    """Frames without detections after a change of light."""
    close_px: tuple[int, int] = (5, 9)
    """Width and height of the closing that joins parts of one body, reduced px."""
    min_area: float = 0.001
    """Smallest subject, share of the picture."""
    min_fill: float = 0.25
    """Smallest share of a box that changed."""
    pad: float = 0.02
    """Boxes grow by this share of their size on each side."""
    vehicle_aspect: float = 1.15
    """Width over height from which a subject is a vehicle."""
    vehicle_area: float = 0.004
    """Smallest vehicle, share of the picture."""


@dataclass(frozen=True)
class TrackConfig:
    """How detections become tracks."""

    algorithm: Literal["bytetrack", "ocsort", "sort"] = "bytetrack"
    """Tracker of the `trackers` library."""
    lost_s: float = 0.8
    """A track that is not seen for this long has ended, s."""
    min_frames: int = 4
    """Detections in a row before a track counts."""
    min_iou: float = 0.15
    """Smallest overlap that continues a track."""
    min_travel: float = 0.5
    """A track counts once it moved by this share of its height; swaying trees do not."""
    crossing_s: float = 1.6
    """Tracks that merge into one blob are carried on by their speed for this long, s."""


@dataclass(frozen=True)
class SampleConfig:
    """Which crops of a track are embedded."""

    per_track: int = 6
    """Most crops of a track that are embedded."""
    window_s: float = 0.4
    """The best crop of each window of this length is taken, s."""
    glimpse_travel: float | None = 0.2
    """A first crop is looked up at once when a track moved by this share of its height, and gives
    a glimpse event, before the sighting's; none gives no glimpses."""
    min_height_px: int = 32
    """Smallest box height, reference px."""
    border_px: int = 2
    """A box this near to the border of the picture is cut off, px."""
    max_overlap: float = 0.1
    """Largest share of a box that another track may cover."""
    max_person_aspect: float = 0.75
    """Largest width over height of a person's box: wider ones hold two."""
    min_sharpness: float = 0.0
    """Smallest variance of the Laplacian of the reference crop; 0 takes all."""
    min_contrast: float = 4.0
    """Smallest range of a crop's grey levels (the middle nine tenths of them): a flatter one, of a
    covered lens or a dead sensor, counts as missing; 0 takes all."""
    min_visible: float = 0.85
    """A crop is dropped when a smaller share of it lies in its camera's picture."""

    def __post_init__(self) -> None:
        """Refuse what would take no crops at all."""
        within("sample.per_track", self.per_track, 1)
        positive("sample.window_s", self.window_s)
        within("sample.min_sharpness", self.min_sharpness, 0)
        within("sample.min_contrast", self.min_contrast, 0, 255)
        within("sample.min_visible", self.min_visible, 0, 1)


@dataclass(frozen=True)
class MatchConfig:
    """The decision: somebody known, or somebody new."""

    decide_after: int = 4
    """Crops that a decision waits for; a track that ends decides with what it has."""
    min_crops: int = 1
    """A track that ends with fewer stays without an identity."""
    person_threshold: float | None = None
    """Smallest cosine similarity of one person; none takes the model's calibrated one."""
    vehicle_threshold: float | None = None
    """Smallest cosine similarity of one vehicle; none takes the model's calibrated one."""
    default_threshold: float = 0.7
    """Used, with a warning, when neither the config nor the model names one."""
    top: int = 3
    """The score of an identity is the mean of its best templates, this many or all it has."""
    disjoint_sites: bool = True
    """Rigs see different places: who is in view at one cannot be in view at another."""

    def __post_init__(self) -> None:
        """Refuse what decides nothing."""
        for name in ("decide_after", "min_crops", "top"):
            within(f"match.{name}", getattr(self, name), 1)
        for name in ("person_threshold", "vehicle_threshold", "default_threshold"):
            within(f"match.{name}", getattr(self, name), -1, 1)

    def threshold(self, subject: Subject) -> float | None:
        """Return the configured threshold of ``subject``."""
        return self.person_threshold if subject == "person" else self.vehicle_threshold
