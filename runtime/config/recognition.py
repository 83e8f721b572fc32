"""From pictures to identities: detection, tracks, crops, matches."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from mambapro.cli import InputError
from mambapro.contract import Modality, Subject
from runtime.config.checks import positive, within

OutputLayout = Literal["yolo", "yolov5", "yolo-nms", "detr", "detr-sigmoid", "rtdetr"]


@dataclass(frozen=True)
class OnnxDetectConfig:
    """A detection network in ONNX Runtime; docs/detectors.md says which layout is whose."""

    file: str | None = None
    """The ONNX file; a relative path starts at the checkout."""
    layout: OutputLayout = "yolo"
    """How its outputs are laid out."""
    classes: dict[int, Subject] = field(default_factory=dict)
    """Which of its class numbers are persons or vehicles; all others are dropped."""
    score: float = 0.3
    """Smallest score of a box. Boxes below track.high_score only continue tracks."""
    nms_iou: float | None = None
    """Of two boxes of a subject that overlap by more, the better stays; none takes 0.6 for the
    layouts yolo and yolov5, and keeps what the others give."""
    size_px: tuple[int, int] | None = None
    """Height and width of its input, px; none takes the file's, which may leave them open."""
    resize: Literal["letterbox", "stretch"] = "letterbox"
    """How a picture gets that size: with grey borders, or out of proportion."""
    pixels: Literal["unit", "byte", "imagenet"] = "unit"
    """Pixel values that it takes: 0 to 1, 0 to 255, or by ImageNet's mean and deviation."""
    colours: Literal["rgb", "bgr"] = "rgb"
    """Order of its input's colours."""
    night_camera: Modality | None = "nir"
    """The camera that it looks at while the reference is darker than detect.night_luma, or gives
    no picture; none, or one that the rig has not, keeps to the reference."""
    threads: int = 2
    """CPU threads."""
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    """ONNX Runtime execution providers, first choice first."""

    def __post_init__(self) -> None:
        within("detect.onnx.score", self.score, 0, 1)
        if self.nms_iou is not None:
            within("detect.onnx.nms_iou", self.nms_iou, 0, 1)
        if min(self.size_px or (1, 1)) < 1 or self.threads < 1 or not self.providers:
            raise InputError(
                "detect.onnx.size_px and threads must be at least 1 and providers must name one, "
                f"got {self.size_px}, {self.threads} and {self.providers}"
            )


@dataclass(frozen=True)
class DetectConfig:
    """Who is there: by default what moves, on the reference camera joined by others."""

    kind: str = "motion"
    """motion, onnx (a network: detect.onnx.*), or package.module:Class for one of your own."""
    onnx: OnnxDetectConfig = field(default_factory=OnnxDetectConfig)
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of your own class."""
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

    def __post_init__(self) -> None:
        if self.kind not in ("motion", "onnx") and not re.fullmatch(r"[\w.]+:\w+", self.kind):
            raise InputError(
                f"detect.kind must be motion, onnx or package.module:Class, got {self.kind!r}"
            )
        if self.options and self.kind in ("motion", "onnx"):
            raise InputError(f"detect.options are for a class of your own, kind is {self.kind}")
        positive("detect.width_px", self.width_px)
        positive("detect.history_s", self.history_s)


@dataclass(frozen=True)
class TrackConfig:
    """How detections become tracks."""

    algorithm: Literal["bytetrack", "ocsort", "sort", "botsort", "cbiou"] = "bytetrack"
    """Tracker of the `trackers` library."""
    high_score: float = 0.6
    """Boxes of at least this score find their tracks first; motion gives all boxes 1."""
    start_score: float = 0.7
    """Smallest score that starts a track; ocsort takes high_score."""
    lost_s: float = 0.8
    """A track that is not seen for this long has ended, s."""
    min_frames: int = 4
    """Detections in a row before a track counts."""
    min_iou: float = 0.15
    """Smallest overlap that continues a track."""
    min_travel: float | None = None
    """A track counts once it moved by this share of its height; swaying trees do not. None takes
    0.5 for motion, and 0 for a detector that tells persons and vehicles."""
    crossing_s: float = 1.6
    """Tracks that merge into one blob of motion are carried on by their speed for this long, s."""

    def __post_init__(self) -> None:
        for name in ("high_score", "start_score", "min_iou"):
            within(f"track.{name}", getattr(self, name), 0, 1)
        positive("track.lost_s", self.lost_s)


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
class DriftConfig:
    """When the embeddings of a rig no longer look as at calibration (docs/thresholds.md)."""

    window: int = 48
    """Last sightings that are looked at, by rig and subject; before there are so many, nothing."""
    raise_at: float = 0.55
    """Kolmogorov-Smirnov distance from which an alert is raised, 0 to 1."""
    clear_at: float = 0.45
    """Distance at which it ends."""

    def __post_init__(self) -> None:
        if self.window < 8:
            raise InputError(f"drift.window must be at least 8, got {self.window}")
        if not 0 < self.clear_at <= self.raise_at <= 1:
            raise InputError(
                "drift.clear_at must be over 0 and at most drift.raise_at, which is at most 1, got "
                f"{self.clear_at} and {self.raise_at}"
            )


@dataclass(frozen=True)
class PassageConfig:
    """How long somebody takes from one rig to another, in this direction."""

    leaves: str
    """Name of the rig that they are seen at first."""
    enters: str
    """Name of the rig that they are seen at next."""
    min_s: float = 0.0
    """Nobody is faster, s; with 0 both may see somebody at once."""
    max_s: float | None = None
    """Most are as fast as this, s: they are preferred among who is similar enough; none knows no
    such time."""

    def __post_init__(self) -> None:
        if self.leaves == self.enters:
            raise InputError(f"match.graph: a passage needs two rigs, got {self.leaves} twice")
        if self.min_s < 0 or (self.max_s is not None and not self.max_s > self.min_s):
            raise InputError(
                f"match.graph, {self.leaves} to {self.enters}: min_s must be at least 0 and max_s "
                f"above it, got {self.min_s} and {self.max_s}"
            )


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
    graph: tuple[PassageConfig, ...] = ()
    """Travel times between rigs, [{leaves: gate, enters: yard, min_s: 5, max_s: 120}]; what is not
    named is not restricted (docs/camera-graph.md)."""
    graph_weight: float = 0.05
    """Most that a likely travel time adds to a similarity when those who reach the threshold are
    ranked."""

    def __post_init__(self) -> None:
        """Refuse what decides nothing."""
        pairs = [(passage.leaves, passage.enters) for passage in self.graph]
        twice = next((pair for pair in pairs if pairs.count(pair) > 1), None)
        if twice is not None:
            raise InputError(f"match.graph names the passage {twice[0]} to {twice[1]} twice")
        within("match.graph_weight", self.graph_weight, 0, 1)
        for name in ("decide_after", "min_crops", "top"):
            within(f"match.{name}", getattr(self, name), 1)
        for name in ("person_threshold", "vehicle_threshold", "default_threshold"):
            within(f"match.{name}", getattr(self, name), -1, 1)

    def threshold(self, subject: Subject) -> float | None:
        """Return the configured threshold of ``subject``."""
        return self.person_threshold if subject == "person" else self.vehicle_threshold
