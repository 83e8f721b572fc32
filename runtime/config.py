"""Settings of the stream: what rigs there are, and how they are watched."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from mambapro.cli import InputError
from mambapro.config import load
from mambapro.contract import UNKNOWN_CAMERA, Modality, Subject

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
        if self.reference not in self.cameras:
            raise InputError(
                f"rig {self.name}: the reference camera {self.reference} is not among its cameras "
                f"({', '.join(self.cameras) or 'none'})"
            )
        for modality, camera in self.cameras.items():
            if modality != self.reference and camera.homography is None:
                raise InputError(
                    f"rig {self.name}: camera {modality} has no homography; "
                    "only the reference camera may go without"
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
class SourceConfig:
    """How cameras are connected to and read; files know only the queue."""

    transport: Literal["tcp", "udp"] = "tcp"
    """How RTSP cameras send; `?transport=udp` in a camera's uri overrules it."""
    connect_timeout_s: float = 5.0
    """Longest wait for a camera to accept and describe its stream, s."""
    read_timeout_s: float = 5.0
    """A camera that sends nothing for this long is connected to anew, s."""
    picture_timeout_s: float = 15.0
    """So is one that sends, but nothing that gives a picture; longer than cameras' distance of key
    frames, s."""
    stalled_after_s: float = 1.0
    """A camera without a picture for this long is called stalled, s."""
    backoff_min_s: float = 0.25
    """Wait before the first new attempt; it doubles with each that fails, s."""
    backoff_max_s: float = 1.5
    """Longest wait between attempts; a camera that returns is seen again within it, s."""
    queue_frames: int = 8
    """Frames that wait for the reader; a live source drops the oldest, a file waits."""
    folder_fps: float = 25.0
    """Pictures a second of a folder whose names are no times."""

    def __post_init__(self) -> None:
        for name in ("connect_timeout_s", "read_timeout_s", "picture_timeout_s", "stalled_after_s"):
            _positive(f"source.{name}", getattr(self, name))
        _positive("source.backoff_min_s", self.backoff_min_s)
        _positive("source.queue_frames", self.queue_frames)
        _positive("source.folder_fps", self.folder_fps)
        if self.backoff_max_s < self.backoff_min_s:
            raise InputError(
                f"source.backoff_max_s must be at least backoff_min_s ({self.backoff_min_s}), "
                f"got {self.backoff_max_s}"
            )


@dataclass(frozen=True)
class SyncConfig:
    """How frames of a rig's cameras are brought together."""

    estimate: bool = True
    """Estimate each clock's offset from what moves in the pictures."""
    window_s: float = 8.0
    """Footage that the estimate looks at first, s; as much again while it is not confident."""
    max_window_s: float = 32.0
    """Most footage that the estimate looks at, s."""
    max_offset_s: float = 0.35
    """Largest offset between two cameras looked for, s."""
    max_error_s: float = 0.012
    """An estimate with a larger standard error is not used, s."""
    tolerance_s: float = 0.022
    """Largest difference of corrected times within a triplet, s; just over half a frame."""
    timeout_s: float = 2.0
    """A camera that gives nothing for this long is not waited for, s."""
    max_wait_s: float = 0.3
    """Live: longest wait for a camera after another showed the same instant, s. It has to cover the
    difference of the cameras' delays."""
    reorder_s: float = 0.1
    """Live: longest wait for a frame that a later one of its camera has overtaken, s."""
    every_s: float = 60.0
    """Live: rest between two estimates of the offsets from content, s."""
    buffer_frames: int = 32
    """Frames kept for a camera that runs ahead."""


@dataclass(frozen=True)
class LiveConfig:
    """How live cameras are watched; clips know none of this."""

    warm_up_s: float = 4.0
    """A rig begins when its reference camera has been seen for this long, s: what stands still
    then is background."""
    patience_s: float = 8.0
    """A camera that gave no picture this long after the start is reported as lost, s."""
    latency_budget_s: float = 0.4
    """Work that begins later than this after its frames arrived raises the load, s."""
    max_age_s: float = 1.0
    """Triplets that are older when their turn comes are dropped, so that no delay builds up, s."""
    remember_s: float = 300.0
    """Sightings are kept in memory for this long after their end, s."""
    drain_s: float = 10.0
    """Longest time from the signal to stop until the process has ended, s."""
    tape_s: float = 600.0
    """A recording for replay ends after this long, s."""

    def __post_init__(self) -> None:
        for name in ("warm_up_s", "latency_budget_s", "drain_s", "tape_s"):
            if not getattr(self, name) > 0:
                raise InputError(f"live.{name} must be over 0, got {getattr(self, name)}")


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
    min_visible: float = 0.85
    """A crop is dropped when a smaller share of it lies in its camera's picture."""


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
    top: int = 1
    """The score of an identity is the mean of its best templates, this many."""
    disjoint_sites: bool = True
    """Rigs see different places: who is in view at one cannot be in view at another."""

    def threshold(self, subject: Subject) -> float | None:
        """Return the configured threshold of ``subject``."""
        return self.person_threshold if subject == "person" else self.vehicle_threshold


@dataclass(frozen=True)
class GalleryConfig:
    """Where identities are kept."""

    folder: str = "gallery"
    """Folder; a relative path starts at the output folder."""
    keep: bool | None = None
    """Go on with the identities of earlier runs; none does so for live cameras, while a run on
    clips starts with none."""
    mix_precisions: bool = False
    """Allow embeddings of float32, float16 and INT8 models side by side."""
    templates: int = 20
    """Most templates of an identity; the oldest goes first."""
    capacity: int = 20000
    """Most templates in all; beyond, the identity that was not seen for longest goes."""
    time_to_live_s: float | None = None
    """An identity that was not seen for this long is deleted, s; none keeps it."""
    retention_s: float | None = None
    """A template older than this is deleted, s, even if its identity is seen; none keeps it."""
    moving_average: float | None = None
    """Keep a moving average of each identity's templates as one more template, in which the newest
    has this weight, 0 to 1; none keeps no average."""
    on_damage: Literal["stop", "salvage"] = "stop"
    """What to do about a damaged gallery: stop with an error, or set it aside and go on with what
    can be read of it."""
    site: str = ""
    """Begins the name of each new identity (north-P12): set it where sites share a server."""
    url: str | None = None
    """Address of a Qdrant server or cluster, https://host:6333; none keeps the gallery in
    ``folder``."""
    api_key_variable: str = "QDRANT_API_KEY"
    """Environment variable that holds the server's API key; unset or empty sends none."""
    collection: str = "mambapro"
    """Collections on the server are called this, a dash and the subject."""
    timeout_s: float = 5.0
    """Longest wait for an answer of the server, s."""
    retries: int = 3
    """Further attempts after the server could not be reached or failed."""

    def __post_init__(self) -> None:
        if self.templates < 1 or self.capacity < self.templates:
            raise InputError(
                "gallery.templates must be at least 1 and gallery.capacity at least as many, "
                f"got {self.templates} and {self.capacity}"
            )
        if self.moving_average is not None and not 0.0 < self.moving_average <= 1.0:
            raise InputError(
                "gallery.moving_average must be above 0 and at most 1, or none, "
                f"got {self.moving_average}"
            )


@dataclass(frozen=True)
class JournalConfig:
    """Where events are safe until every sink has passed them on."""

    folder: str = "journal"
    """Folder; a relative path starts at the output folder."""
    max_mb: float = 256.0
    """Most that it takes on disk, MB. When a receiver is away for longer, the oldest events go."""
    fsync: bool = True
    """Flush each event to disk. Off, a kill still loses none; a power cut, half a minute."""
    memory_events: int = 10000
    """Events that wait in memory while the disk is full; then the oldest go."""


@dataclass(frozen=True)
class JsonLinesConfig:
    """Rotation of events.jsonl when cameras are live; a run on files writes one file."""

    rotate_mb: float = 64.0
    """A full file becomes events.jsonl.1, MB."""
    rotate_h: float = 24.0
    """So does one that is this old, h."""
    keep: int = 30
    """Old files that are kept."""


@dataclass(frozen=True)
class MqttConfig:
    """An MQTT broker that gets the events of live cameras.

    MAMBAPRO_MQTT_USERNAME and MAMBAPRO_MQTT_PASSWORD in the environment log in.
    """

    host: str | None = None
    """Name or address of the broker; none sends nothing."""
    port: int = 1883
    """TCP port; 8883 is usual with TLS."""
    prefix: str = "mambapro"
    """Topics are <prefix>/events/<rig> and, with online or offline, <prefix>/status. Its own for
    each process."""
    client_id: str | None = None
    """Unique at the broker; none takes mambapro- and the name of this machine."""
    version: Literal["5", "3.1.1"] = "5"
    """Protocol. A 3.1.1 broker acknowledges also what it may not publish: then it is lost."""
    tls: bool = False
    """Encrypt, and check the broker's certificate."""
    ca_file: str | None = None
    """Certificates to trust; none trusts the system's. Needs tls."""
    cert_file: str | None = None
    """Certificate of this client; none has none. Needs tls."""
    key_file: str | None = None
    """Its private key; none looks for it in cert_file."""
    keepalive_s: int = 15
    """A silent connection is found dead after twice this at most, s."""
    timeout_s: float = 5.0
    """Longest wait for the broker to answer, s."""

    def __post_init__(self) -> None:
        if not self.prefix or set("+#\0") & set(self.prefix) or self.prefix.startswith("$"):
            raise InputError(
                "sinks.mqtt.prefix must be a topic without +, # and a leading $, "
                f"got {self.prefix!r}"
            )
        if not self.tls and (self.ca_file or self.cert_file or self.key_file):
            raise InputError("sinks.mqtt.ca_file, cert_file and key_file need sinks.mqtt.tls=true")
        if self.key_file and not self.cert_file:
            raise InputError("sinks.mqtt.key_file is the key of cert_file, which is not given")
        if not 0 < self.port < 65536:
            raise InputError(f"sinks.mqtt.port must be 1 to 65535, got {self.port}")
        if not 1 <= self.keepalive_s < 65536:
            raise InputError(f"sinks.mqtt.keepalive_s must be 1 to 65535, got {self.keepalive_s}")
        _positive("sinks.mqtt.timeout_s", self.timeout_s)


@dataclass(frozen=True)
class WebhookConfig:
    """An HTTP receiver that gets the events of live cameras, one POST each.

    In the environment, MAMBAPRO_WEBHOOK_KEY signs the body (HMAC-SHA256, docs/events.md), and
    MAMBAPRO_WEBHOOK_TOKEN is sent as bearer token.
    """

    url: str | None = None
    """http or https, without credentials; none sends nothing."""
    ca_file: str | None = None
    """Certificates to trust; none trusts the system's."""
    timeout_s: float = 5.0
    """Longest wait for a connection, and for the answer, s."""

    def __post_init__(self) -> None:
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
                raise InputError(
                    "sinks.webhook.url must be http://HOST[:PORT]/PATH or https://..., without a "
                    "user or password (see MAMBAPRO_WEBHOOK_TOKEN)"
                )
        _positive("sinks.webhook.timeout_s", self.timeout_s)


@dataclass(frozen=True)
class SnapshotsConfig:
    """Crops of sightings as JPEGs."""

    enabled: bool = False
    """Keep them. They show persons: mind the law of the place."""
    folder: str = "snapshots"
    """Folder; a relative path starts at the output folder."""
    quality: int = 90
    """JPEG quality, 1 to 100."""
    keep_days: float = 30.0
    """Older ones are deleted, days."""
    max_mb: float = 1024.0
    """Most that they take on disk, MB; then the oldest go."""


@dataclass(frozen=True)
class SinksConfig:
    """Where events go besides events.jsonl."""

    journal: JournalConfig = field(default_factory=JournalConfig)
    jsonlines: JsonLinesConfig = field(default_factory=JsonLinesConfig)
    mqtt: MqttConfig = field(default_factory=MqttConfig)
    webhook: WebhookConfig = field(default_factory=WebhookConfig)
    snapshots: SnapshotsConfig = field(default_factory=SnapshotsConfig)


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

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise InputError(f"server.port must be 0 to 65535, got {self.port}")
        _positive("server.stuck_after_s", self.stuck_after_s)


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
    gallery: GalleryConfig = field(default_factory=GalleryConfig)
    sinks: SinksConfig = field(default_factory=SinksConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    server: ServerConfig = field(default_factory=ServerConfig)


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


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise InputError(f"{name} must be over 0, got {value}")
