"""Look after a gallery of identities: `python runtime/manage_gallery.py GALLERY list`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mambapro.cli import (
    CheckError,
    InputError,
    add_common_arguments,
    print_json_line,
    run,
    start_logging,
)
from mambapro.config import load
from mambapro.contract import EXIT_DONE, SUBJECTS
from runtime.config import GalleryConfig, StreamConfig
from runtime.gallery import Gallery, Identity, Purged, Record, open_gallery
from runtime.gallery.edge import DamagedGalleryError, salvage_folder
from runtime.gallery.facts import spec_of
from runtime.gallery.keeper import OnPurge
from runtime.gallery.opening import stored_spec
from runtime.gallery.portable import export_gallery, import_gallery, read_export
from runtime.sinks import forget_in_folder

SETTINGS = "config.yaml"
"""What the stream writes into its output folder."""
UNIT_LENGTH_ERROR = 1e-3
"""Largest difference of an embedding's length from 1."""

MOST = sys.maxsize
"""Looking after a gallery drops no template: how many there may be is for the stream to say."""
YEAR_S = 31_536_000.0
ARGUMENTS = {
    "identity": "permanent name, such as P12",
    "file": "file of an export, .npz",
}

Result = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Do one thing to one gallery; print what came of it, and JSON on demand."""
    args = _parser().parse_args(argv)
    start_logging(args.verbose)
    result: Result = args.work(args)
    if args.json:
        print_json_line(result)
    return EXIT_DONE


def list_identities(args: argparse.Namespace) -> Result:
    """Print everybody, the last seen first."""
    with _opened(args) as gallery:
        identities = gallery.identities()
    print(f"{'identity':12} {'name':20} {'templates':>9}  {'last seen':20} also known as")
    for i in identities:
        seen, also = _time(i.last_seen_s), ", ".join(i.aliases)
        print(f"{i.identity:12} {i.name or '':20} {i.templates:9}  {seen:20} {also}".rstrip())
    return {"identities": [dataclasses.asdict(i) for i in identities]}


def show(args: argparse.Namespace) -> Result:
    """Print one identity and its templates."""
    with _opened(args) as gallery:
        identity, templates = gallery.identity(args.identity), gallery.templates_of(args.identity)
    _print_identity(identity)
    for template in templates:
        print(f"  {template.point}  {_about(template)}")
    described = [{"point": t.point, **t.payload} for t in templates]
    return {**dataclasses.asdict(identity), "records": described}


def rename(args: argparse.Namespace) -> Result:
    """Give an identity a name."""
    return _edit(args, lambda gallery: gallery.rename(args.identity, args.name))


def merge(args: argparse.Namespace) -> Result:
    """Make two identities one."""
    return _edit(args, lambda gallery: gallery.merge(args.identity, args.into))


def split(args: argparse.Namespace) -> Result:
    """Make some templates an identity of their own."""
    return _edit(args, lambda gallery: gallery.split(args.identity, args.points))


def delete(args: argparse.Namespace) -> Result:
    """Delete an identity, first its events and snapshots in the output folder of the stream."""
    output = _output(args)
    with _opened(args, _forgetter(output)) as gallery:
        purged = gallery.delete(args.identity)
    print(f"{purged.identity}: {purged.templates} templates deleted")
    if output is None:
        names = ", ".join([purged.identity, *purged.aliases])
        print(f"events and snapshots that name {names} remain: no --output")
    return {**dataclasses.asdict(purged), "output": None if output is None else str(output)}


def export(args: argparse.Namespace) -> Result:
    """Write the gallery to one file."""
    with _opened(args) as gallery:
        count = export_gallery(gallery, args.file)
    print(f"{count} templates written to {args.file}")
    return {"file": str(args.file), "templates": count}


def import_(args: argparse.Namespace) -> Result:
    """Add what a file holds; the gallery may be new."""
    facts, _ = read_export(args.file)
    spec = spec_of(str(args.file), facts)
    config = dataclasses.replace(_config(args), mix_precisions=args.mix_precisions)
    with contextlib.closing(open_gallery(Path(args.gallery), spec, config)) as gallery:
        count = import_gallery(gallery, args.file, spec, mix_precisions=args.mix_precisions)
        identities = len(gallery)
    print(f"{count} templates added; the gallery knows {identities} identities")
    return {"templates": count, "identities": identities}


def verify(args: argparse.Namespace) -> Result:
    """Read everything; CheckError when something is not as it was written."""
    try:
        with _opened(args) as gallery:
            facts, records = gallery.contents()
            identities = len(gallery)
    except DamagedGalleryError as error:
        raise CheckError(str(error)) from error
    lengths = np.array([float(np.linalg.norm(record.embedding)) for record in records])
    wrong = [r.point for r, n in zip(records, lengths, strict=True) if not _is_unit(n)]
    if wrong:
        raise CheckError(f"{len(wrong)} embeddings are not of unit length, such as {wrong[0]}")
    print(f"{len(records)} templates of {identities} identities are as they were written")
    return {"passed": True, "templates": len(records), "identities": identities, "facts": facts}


def salvage(args: argparse.Namespace) -> Result:
    """Set a damaged ledger aside and go on with what can be read of it."""
    if _is_address(args.gallery):
        raise InputError("a server looks after its own files; salvage is for folders")
    aside = salvage_folder(Path(args.gallery))
    print("nothing is damaged" if aside is None else f"the damaged files are in {aside}")
    return {"damaged": aside is not None, "set_aside": None if aside is None else str(aside)}


def _edit(args: argparse.Namespace, change: Callable[[Gallery], Identity]) -> Result:
    with _opened(args) as gallery:
        identity = change(gallery)
    _print_identity(identity)
    return dataclasses.asdict(identity)


def _opened(
    args: argparse.Namespace, on_purge: OnPurge | None = None
) -> contextlib.closing[Gallery]:
    """Open what is there, for whatever model it was made."""
    config, folder = _config(args), Path(args.gallery)
    spec = stored_spec(folder, config, args.subject)
    return contextlib.closing(open_gallery(folder, spec, config, on_purge))


def _config(args: argparse.Namespace) -> GalleryConfig:
    url = args.gallery if _is_address(args.gallery) else None
    return GalleryConfig(
        keep=True,
        url=url,
        collection=args.collection,
        api_key_variable=args.api_key_variable,
        templates=MOST,
        capacity=MOST,
        mix_precisions=True,
    )


def _output(args: argparse.Namespace) -> Path | None:
    """Return the stream's output folder: the given one, or that which the gallery lies in."""
    if args.output is not None:
        if not (args.output / SETTINGS).is_file():
            raise InputError(
                f"{args.output} is no output folder of the stream: it holds no {SETTINGS}; "
                "nothing was deleted"
            )
        return Path(args.output)
    if _is_address(args.gallery):
        return None
    above = Path(args.gallery).resolve().parents[1]
    return above if (above / SETTINGS).is_file() else None


def _forgetter(output: Path | None) -> OnPurge | None:
    """Return what deletes the events and snapshots of an identity, by all names it ever had."""
    if output is None:
        return None
    sinks = load(StreamConfig, output / SETTINGS).sinks

    def forget(purged: Purged) -> None:
        forget_in_folder(sinks, output, {purged.identity, *purged.aliases})

    return forget


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Look after the gallery of one subject: who is known, names, deletion, copies.",
        epilog="Stop the stream first: one process has a folder open at a time.",
    )
    parser.add_argument(
        "gallery",
        help="folder of one subject's gallery, such as runs/stream/gallery/person, or address of "
        "a Qdrant server, http://host:6333",
    )
    parser.add_argument(
        "--subject", choices=SUBJECTS, default="person",
        help="whose gallery on a server (default: person)",
    )  # fmt: skip
    parser.add_argument(
        "--collection", default=GalleryConfig.collection,
        help=f"gallery.collection on a server (default: {GalleryConfig.collection})",
    )  # fmt: skip
    parser.add_argument(
        "--api-key-variable", default=GalleryConfig.api_key_variable, metavar="NAME",
        help="environment variable that holds the server's API key "
        f"(default: {GalleryConfig.api_key_variable})",
    )  # fmt: skip
    add_common_arguments(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add(commands, "list", list_identities, "everybody who is known, the last seen first")
    _add(commands, "show", show, "one identity and its templates", "identity")
    named = _add(commands, "rename", rename, "give an identity a name for people", "identity")
    named.add_argument("name", nargs="?", help="the name (default: none, which takes it away)")
    merged = _add(commands, "merge", merge, "make two identities one", "identity")
    merged.add_argument("into", help="identity that it becomes part of")
    parted = _add(commands, "split", split, "make templates an identity of their own", "identity")
    parted.add_argument("points", nargs="+", help="templates, as `show` prints them")
    deleted = _add(
        commands, "delete", delete, "delete an identity, its events and its snapshots", "identity"
    )
    deleted.add_argument(
        "--output", type=Path, metavar="FOLDER",
        help="output folder of the stream, which holds events and snapshots (default: that which "
        "the gallery lies in, or they stay)",
    )  # fmt: skip
    _add(commands, "export", export, "write the gallery to one file", "file")
    imported = _add(commands, "import", import_, "add what an exported file holds", "file")
    imported.add_argument(
        "--mix-precisions", action="store_true",
        help="allow embeddings of float32, float16 and INT8 models side by side (default: refuse)",
    )  # fmt: skip
    _add(commands, "verify", verify, "read everything; exit code 1 when something is damaged")
    _add(commands, "salvage", salvage, "set a damaged ledger aside, keep what can be read of it")
    return parser


def _add(
    commands: Any, name: str, work: Callable[[argparse.Namespace], Result], about: str, *what: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about)
    command.set_defaults(work=work)
    for argument in what:
        kind = Path if argument == "file" else str
        command.add_argument(argument, type=kind, help=ARGUMENTS[argument])
    return command


def _print_identity(identity: Identity) -> None:
    seen = f"{_time(identity.first_seen_s)} to {_time(identity.last_seen_s)}"
    named = f" ({identity.name})" if identity.name else ""
    also = f", once {', '.join(identity.aliases)}" if identity.aliases else ""
    print(f"{identity.identity}{named}{also}: {identity.templates} templates, seen {seen}")


def _about(template: Record) -> str:
    payload = template.payload
    facts = [_time(float(payload.get("time_s", 0.0)))]
    facts += [str(payload[key]) for key in ("rig", "precision") if key in payload]
    return "  ".join(facts)


def _time(time_s: float) -> str:
    """Return a time for people; those of clips begin at 0 and stay seconds."""
    if time_s < YEAR_S:
        return f"{time_s:.1f} s"
    moment = datetime.datetime.fromtimestamp(time_s, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def _is_address(gallery: str) -> bool:
    return "://" in gallery


def _is_unit(length: float) -> bool:
    return abs(length - 1.0) <= UNIT_LENGTH_ERROR


if __name__ == "__main__":
    sys.exit(run(main))
