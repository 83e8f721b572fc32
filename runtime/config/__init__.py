"""Settings of the stream: what rigs there are, and how they are watched.

The docstring under a field is its help. A file holds the settings of one subject.
"""

from runtime.config.cameras import (
    LiveConfig,
    SourceConfig,
    SyncConfig,
)
from runtime.config.gallery import (
    GalleryConfig,
)
from runtime.config.recognition import (
    DetectConfig,
    DriftConfig,
    MatchConfig,
    OnnxDetectConfig,
    OutputLayout,
    PassageConfig,
    SampleConfig,
    TrackConfig,
)
from runtime.config.rigs import (
    CameraConfig,
    Homography,
    RigConfig,
    RigsConfig,
    is_path,
    load_rigs,
    one_camera_rig,
)
from runtime.config.sinks import (
    JournalConfig,
    JsonLinesConfig,
    MqttConfig,
    SinksConfig,
    SnapshotsConfig,
    WebhookConfig,
)
from runtime.config.stream import (
    ModelsConfig,
    ServerConfig,
    StreamConfig,
    VideoConfig,
)

__all__ = [
    "CameraConfig",
    "DetectConfig",
    "DriftConfig",
    "GalleryConfig",
    "Homography",
    "JournalConfig",
    "JsonLinesConfig",
    "LiveConfig",
    "MatchConfig",
    "ModelsConfig",
    "MqttConfig",
    "OnnxDetectConfig",
    "OutputLayout",
    "PassageConfig",
    "RigConfig",
    "RigsConfig",
    "SampleConfig",
    "ServerConfig",
    "SinksConfig",
    "SnapshotsConfig",
    "SourceConfig",
    "StreamConfig",
    "SyncConfig",
    "TrackConfig",
    "VideoConfig",
    "WebhookConfig",
    "is_path",
    "load_rigs",
    "one_camera_rig",
]
