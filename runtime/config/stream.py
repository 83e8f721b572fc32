"""One run of the stream: all its settings together."""

from __future__ import annotations

from dataclasses import dataclass, field

from mambapro.cli import InputError
from mambapro.contract import Subject
from runtime.config.cameras import LiveConfig, SourceConfig, SyncConfig
from runtime.config.checks import positive
from runtime.config.gallery import GalleryConfig
from runtime.config.recognition import (
    DetectConfig,
    DriftConfig,
    MatchConfig,
    SampleConfig,
    TrackConfig,
)
from runtime.config.sinks import SinksConfig


@dataclass(frozen=True)
class ModelsConfig:
    """Model files and how they are run."""

    person: str | None = "runs/person/model.onnx"
    """Model or .engine file for persons; none leaves persons unidentified."""
    vehicle: str | None = "runs/vehicle/model.onnx"
    """Model or .engine file for vehicles; none leaves vehicles unidentified."""
    optional: tuple[Subject, ...] = ()
    """Subjects whose model file may be absent: said once, then tracked without an identity."""
    threads: int = 2
    """CPU threads of an engine."""
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    """ONNX Runtime execution providers, first choice first."""
    max_batch: int = 16
    """Crops an engine takes at once."""

    def path(self, subject: Subject) -> str | None:
        """Return the model file of ``subject``."""
        return self.person if subject == "person" else self.vehicle


@dataclass(frozen=True)
class VideoConfig:
    """The annotated mosaic."""

    enabled: bool = True
    """Write mosaic.mp4 and mosaic.png."""
    width_px: int = 1280
    """Width of the mosaic, px."""
    fps: float = 12.5
    """Frames a second of the mosaic."""
    crf: int = 23
    """Quality of H.264: smaller is better and bigger."""
    segment_s: float | None = None
    """Begin another file after this long, s; none writes one of clips and none of live cameras."""
    keep: int = 144
    """Segments that are kept; the oldest goes first."""


@dataclass(frozen=True)
class ServerConfig:
    """Health, metrics and the rigs over HTTP, while cameras are live; clips are never served.

    The token is in the environment, MAMBAPRO_TOKEN, or in a file.
    """

    enabled: bool = True
    """Serve."""
    host: str = "127.0.0.1"
    """Address to listen at; one that other machines reach needs a token."""
    port: int = 8470
    """TCP port; 0 takes a free one, which the log tells."""
    token_file: str | None = None
    """File that holds the token; none takes MAMBAPRO_TOKEN, and without it asks for none."""
    token_for_health: bool = True
    """Ask for the token, if there is one, at /metrics, /healthz and /readyz too."""
    stuck_after_s: float = 30.0
    """/healthz fails when the deciding thread has not advanced for this long, s."""
    searches_per_s: float = 5.0
    """Searches of the gallery by pictures that are answered a second; more are refused."""
    search_burst: int = 20
    """Searches that are answered at once after a rest."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise InputError(f"server.port must be 0 to 65535, got {self.port}")
        positive("server.stuck_after_s", self.stuck_after_s)
        positive("server.searches_per_s", self.searches_per_s)
        positive("server.search_burst", self.search_burst)


@dataclass(frozen=True)
class StreamConfig:
    """One run of `runtime/stream.py`."""

    rigs: str = "data/synthetic/scene/rigs.yaml"
    """The rigs file."""
    truth: str | None = None
    """Ground truth to score against; none looks for truth.jsonl beside the rigs file. As all paths
    here, a relative one starts at the checkout."""
    output: str = "runs/stream"
    """Folder for events, report, mosaic and gallery."""
    record_crops: str | None = None
    """New folder for the crops of all tracks, to calibrate INT8 on; none keeps none."""
    record: str | None = None
    """New folder for everything that the cameras show, to replay; none records nothing."""
    models: ModelsConfig = field(default_factory=ModelsConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    live: LiveConfig = field(default_factory=LiveConfig)
    detect: DetectConfig = field(default_factory=DetectConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    match: MatchConfig = field(default_factory=MatchConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)
    gallery: GalleryConfig = field(default_factory=GalleryConfig)
    sinks: SinksConfig = field(default_factory=SinksConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
