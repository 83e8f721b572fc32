"""Watch rigs of cameras and recognise who passes: `python runtime/stream.py`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import cv2

from mambapro.cli import (
    InputError,
    add_common_arguments,
    add_set_argument,
    print_json_line,
    run,
    start_logging,
)
from mambapro.config import help_text, load
from mambapro.contract import EXIT_DONE, SUBJECTS, Subject
from mambapro.files import in_checkout
from runtime.assembly import run_clips, run_live, run_replay
from runtime.config import RigConfig, StreamConfig, load_rigs, one_camera_rig
from runtime.engines import Engine, TensorrtEngine, open_engine
from runtime.feeds.replay import settings_of
from runtime.operation.health import LiveView
from runtime.operation.lifecycle import heeding_signals, reload_rigs
from runtime.operation.logs import LogFormat, shape_logs
from runtime.operation.memory import give_back_large_blocks
from runtime.operation.service import announcing
from runtime.server import Door, open_door, serving
from runtime.sources import is_live

DEFAULT_CONFIG = in_checkout("configs/stream.yaml")
HOW_TO_MAKE = "make one with: python train/main.py && python export/to_onnx.py"

JSON_KEYS = (
    "real_time_factor", "sync_error_p95_ms", "detection_recall", "detection_precision",
    "identity_accuracy_within", "identity_accuracy_across", "events", "frames_dropped",
)  # fmt: skip

log = logging.getLogger("stream")


def main(argv: Sequence[str] | None = None) -> int:
    """Run clips to their end, or live cameras until a signal; print a table, JSON on demand."""
    args = _parser().parse_args(argv)
    start_logging(args.verbose)
    shape_logs(args.log_format)
    cv2.setNumThreads(1)  # cameras and rigs have threads of their own
    config = _config(args)
    engines = open_engines(config)
    try:
        report = _run(args, config, engines)
    finally:
        close_engines(engines)
    print(table(report, Path(config.output)))
    if args.json:
        print_json_line(report)
    return EXIT_DONE


def _run(
    args: argparse.Namespace, config: StreamConfig, engines: dict[Subject, Engine]
) -> dict[str, Any]:
    if args.replay is not None:
        return run_replay(config, args.replay, engines)
    rigs, truth = _rigs(args, config)
    _check_cameras(rigs, engines)
    _check_graph(rigs, config)
    if not _live(rigs):
        return run_clips(config, rigs, engines, truth)
    give_back_large_blocks()

    def read_rigs() -> Sequence[RigConfig]:
        changed, _ = _rigs(args, config)
        _live(changed)
        return changed

    with contextlib.ExitStack() as owner:
        door = owner.enter_context(open_door(config.server)) if config.server.enabled else None
        return run_live(config, rigs, engines, lambda view: _tended(config, view, read_rigs, door))


@contextlib.contextmanager
def _tended(
    config: StreamConfig,
    view: LiveView,
    read_rigs: Callable[[], Sequence[RigConfig]],
    door: Door | None,
) -> Iterator[None]:
    """Let signals, the server and systemd reach a live run."""
    reload = functools.partial(reload_rigs, view.feed, read_rigs)
    with contextlib.ExitStack() as owner:
        owner.enter_context(heeding_signals(view.feed, reload, config.live.drain_s))
        owner.enter_context(announcing(view))
        if door is not None:
            owner.enter_context(serving(door, config.server, view, reload))
        yield


def _live(rigs: Sequence[RigConfig]) -> bool:
    """Return whether the cameras are live; InputError when some are and some are not."""
    kinds = {c.uri: is_live(c.uri) for rig in rigs for c in rig.cameras.values()}
    if len(set(kinds.values())) > 1:
        clip = next(uri for uri, live in kinds.items() if not live)
        raise InputError(
            f"live cameras and clips do not go together: {clip} is a clip; name live cameras only, "
            "or clips only"
        )
    return any(kinds.values())


def open_engines(config: StreamConfig) -> dict[Subject, Engine]:
    """Open the models; one that is not there is an error unless the config calls it optional."""
    engines: dict[Subject, Engine] = {}
    for subject in SUBJECTS:
        path = config.models.path(subject)
        if path is None:
            log.info("no model for %ss: they are tracked without an identity", subject)
        elif (file := in_checkout(path)).exists() or subject not in config.models.optional:
            engines[subject] = _open_engine(file, subject, config)
        else:
            log.warning(
                "no model %s: %ss are tracked without an identity; %s", path, subject, HOW_TO_MAKE
            )
    return engines


def close_engines(engines: dict[Subject, Engine]) -> None:
    """Give back the GPU; ONNX Runtime needs no such call."""
    for engine in engines.values():
        if isinstance(engine, TensorrtEngine):
            engine.close()


def table(report: dict[str, Any], output: Path) -> str:
    """Return the figures for a person to read."""
    rows = [
        ("speed", report["real_time_factor"], "x real time, first look at the clips included"),
        ("footage", report["footage_s"], f"s, in {report['preflight_s']} + {report['stream_s']} s"),
        ("sightings", report["sightings"], f"of {report['identities']} identities"),
        ("frames dropped", report["frames_dropped"], "read, but part of no triplet"),
        ("sync error p95", report["sync_error_p95_ms"], "ms between true capture times"),
        ("detection recall", report["detection_recall"], "of subjects at least half visible"),
        ("detection precision", report["detection_precision"], "at an overlap of 0.5"),
        (
            "identity",
            report["identity_accuracy"],
            "of later sightings, an identity opened for them:",
        ),
        ("  same rig", report["identity_accuracy_within"], "of later sightings at a rig"),
        ("  other rig", report["identity_accuracy_across"], "of first sightings at a further rig"),
    ]
    lines = [f"{name:20} {value:>8}  {note}" for name, value, note in rows if value is not None]
    return "\n".join([*lines, f"{'written to':20} {output}"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Watch rigs of RGB, NIR and TIR cameras and recognise persons and vehicles.",
        epilog=help_text(StreamConfig).replace("%", "%%"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE",
        help="YAML file of settings (default: the recording's with --replay, else "
        "configs/stream.yaml)",
    )  # fmt: skip
    add_set_argument(parser)
    parser.add_argument("--rigs", help="rigs file (default: the config's)")
    parser.add_argument("--source", help="one clip, watched as a rig of an RGB camera alone")
    parser.add_argument(
        "--truth", help="ground truth to score against (default: truth.jsonl beside the rigs file)"
    )
    parser.add_argument("--output", help="folder to write to (default: the config's)")
    parser.add_argument(
        "--record-crops", metavar="FOLDER",
        help="new folder for the crops of all tracks, to calibrate INT8 on (default: the config's)",
    )  # fmt: skip
    parser.add_argument(
        "--record", metavar="FOLDER",
        help="new folder for all that the cameras show, to replay (default: the config's)",
    )  # fmt: skip
    parser.add_argument(
        "--replay", type=Path, metavar="FOLDER",
        help="run a recording again, with its settings unless --config names others "
        "(default: watch cameras)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-gallery", action="store_true",
        help="go on with the identities of earlier runs (default: for live cameras, not for clips)",
    )  # fmt: skip
    parser.add_argument(
        "--no-video", action="store_true", help="write no mosaic (default: write it)"
    )
    parser.add_argument(
        "--log-format", choices=get_args(LogFormat), default="text",
        help="a line of text or a JSON object for each log record on stderr (default: text)",
    )  # fmt: skip
    add_common_arguments(parser)
    return parser


def _config(args: argparse.Namespace) -> StreamConfig:
    overrides = list(args.set)
    overrides += [
        f"{key}={Path(value).absolute()}"
        for key in ("rigs", "truth", "output", "record", "record_crops")
        if (value := getattr(args, key)) is not None
    ]
    if args.keep_gallery:
        overrides.append("gallery.keep=true")
    if args.no_video:
        overrides.append("video.enabled=false")
    if args.replay is None:
        config = load(StreamConfig, args.config or DEFAULT_CONFIG, overrides)
    else:
        settings = args.config or settings_of(args.replay)
        config = _replayed(load(StreamConfig, settings, overrides), args)
    return dataclasses.replace(
        config,
        output=str(in_checkout(config.output)),
        record=_located(config.record),
        record_crops=_located(config.record_crops),
    )


def _replayed(config: StreamConfig, args: argparse.Namespace) -> StreamConfig:
    """Write beside the recording, not over what the recorded run wrote; record only if asked to."""
    output = args.output or args.replay.absolute() / "replay"
    return dataclasses.replace(
        config, output=str(output), record=args.record, record_crops=args.record_crops
    )


def _located(path: str | None) -> str | None:
    return None if path is None else str(in_checkout(path))


def _rigs(args: argparse.Namespace, config: StreamConfig) -> tuple[list[RigConfig], Path | None]:
    """Return the rigs and the ground truth, if there is one."""
    if args.source is not None:
        return [one_camera_rig(args.source)], None
    path = in_checkout(config.rigs)
    if not path.exists() and config.rigs == StreamConfig.rigs:
        _make_scene(path.parent)
    beside = path.parent / "truth.jsonl"
    truth = in_checkout(config.truth) if config.truth is not None else beside
    return list(load_rigs(path)), truth if config.truth is not None or beside.exists() else None


def _make_scene(folder: Path) -> None:
    log.info("making the demo scene in %s; this takes about a minute", folder)
    from mambapro.synthetic.scenes import write_scene  # only the demo needs it

    write_scene(folder)


def _open_engine(file: Path, subject: Subject, config: StreamConfig) -> Engine:
    if not file.exists():
        raise InputError(f"there is no {subject} model {file}; {HOW_TO_MAKE}")
    models = config.models
    engine = open_engine(
        file, threads=models.threads, providers=models.providers, max_batch=models.max_batch
    )
    if engine.spec.subject != subject:
        raise InputError(
            f"{file} recognises {engine.spec.subject}s, models.{subject} needs {subject}s"
        )
    return engine


def _check_cameras(rigs: Sequence[RigConfig], engines: dict[Subject, Engine]) -> None:
    for rig in rigs:
        for subject, engine in engines.items():
            if rig.camera >= engine.spec.cameras:
                log.warning(
                    "rig %s: the %s model knows no camera %d; it runs as an unknown camera",
                    rig.name, subject, rig.camera,
                )  # fmt: skip


def _check_graph(rigs: Sequence[RigConfig], config: StreamConfig) -> None:
    known = {rig.name for rig in rigs}
    named = {name for p in config.match.graph for name in (p.leaves, p.enters)}
    for name in sorted(named - known):
        log.warning(
            "match.graph names the rig %s; there are %s, so its passages count for nobody",
            name, ", ".join(sorted(known)),
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(main))
