"""Throw requests at the server of a live run that its own description allows, and others.

``python benchmarks/fuzz_api.py`` starts the stream on a pattern, with a gallery of a few made-up
persons, and lets schemathesis make 5,000 requests from the server's OpenAPI description: half of
them legal, half not. Every answer must be as described: status, headers, content type and schema;
what is not legal must be refused; and no answer may be a server error (/readyz and /healthz may say
503). Exit code 1 when something is not so. ``--record`` writes benchmarks/results/fuzz_api.json.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks as openapi

from mambapro.cli import CheckError, add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_DONE
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from runtime.config import GalleryConfig
from runtime.engines import open_engine
from runtime.gallery import open_gallery

RESULT: Final = in_checkout("benchmarks/results/fuzz_api.json")
MODEL: Final = in_checkout("runs/person/model.onnx")
RIGS: Final = in_checkout("configs/rigs/pattern.yaml")
PERSONS, TEMPLATES = 40, 4
MAY_BE_UNWELL: Final = ("/readyz", "/healthz")
CHECKS: Final = [
    openapi.status_code_conformance,
    openapi.content_type_conformance,
    openapi.response_headers_conformance,
    openapi.response_schema_conformance,
]
PATIENCE_S: Final = 60.0


@dataclass
class Outcome:
    """What came of the requests."""

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    """Answers by status."""
    operations: collections.Counter[str] = field(default_factory=collections.Counter)
    """Requests by operation."""
    server_errors: list[str] = field(default_factory=list)
    """Answers of 500 and more, and connections that broke."""
    violations: list[str] = field(default_factory=list)
    """Answers that are not as described."""

    @property
    def requests(self) -> int:
        """Return how many there were."""
        return self.operations.total()


def fuzz(
    url: str, requests: int, headers: dict[str, str] | None = None, number: int = 0
) -> Outcome:
    """Send about ``requests`` to the server at ``url``; the same ``number`` makes the same."""
    load_all_checks()
    description = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=headers or {})
    operations = [result.ok() for result in description.get_all_operations()]  # type: ignore[union-attr]
    outcome = Outcome()
    while (left := requests - outcome.requests) > 0:  # some have only a few ways to ask
        each = -(-left // (2 * len(operations)))
        for operation in operations:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                _send(operation, mode, each, headers or {}, number, outcome)
        number += 1
    return outcome


def _send(
    operation: Any,
    mode: Any,
    count: int,
    headers: dict[str, str],
    number: int,
    outcome: Outcome,
) -> None:
    """Send ``count`` requests of one operation; legal ones often name who is there."""
    legal = mode is GenerationMode.POSITIVE

    @seed(number)
    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode), known=_known())
    def send(case: Any, known: str | None) -> None:
        if legal and known is not None and "identity" in (case.path_parameters or {}):
            case.path_parameters.update(subject="person", identity=known)
        _judge(case, headers, outcome)

    with contextlib.suppress(Unsatisfiable):  # nothing illegal can be asked of some
        send()


def _known() -> st.SearchStrategy[str | None]:
    return st.none() | st.integers(1, PERSONS).map(lambda number: f"P{number}")


def _judge(case: Any, headers: dict[str, str], outcome: Outcome) -> None:
    name = case.operation.label
    outcome.operations[name] += 1
    try:
        answer = case.call(headers=headers, timeout=PATIENCE_S)
    except Exception as error:
        outcome.server_errors.append(f"{name}: {error!r}")
        return
    outcome.statuses[answer.status_code] += 1
    unwell = answer.status_code == 503 and case.path in MAY_BE_UNWELL
    if answer.status_code >= 500 and not unwell:
        outcome.server_errors.append(f"{case.as_curl_command()}: {answer.status_code}")
    try:
        # a token that we add makes legal what schemathesis made illegal by leaving it out
        refusal = [] if headers else [openapi.negative_data_rejection]
        case.validate_response(answer, checks=CHECKS + refusal, headers=headers)
    except FailureGroup as failures:
        words = "; ".join(str(failure).replace("\n", " ") for failure in failures.exceptions)
        outcome.violations.append(f"{case.as_curl_command()}: {answer.status_code}: {words}")


@contextlib.contextmanager
def live_run(folder: Path, rigs: Path = RIGS) -> Iterator[str]:
    """Run the stream, which goes on with what is in ``folder``; yield its server's address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable, str(in_checkout("runtime/stream.py")), "--rigs", str(rigs), "--output",
        str(folder), "--set", f"server.port={port}", "--set", "models.vehicle=null",
        "--set", "server.searches_per_s=1000", "--set", "server.search_burst=1000",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with (folder / "stream.log").open("w") as log:
        stream = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _until(lambda: _answers(f"{url}/api/rigs"))
        yield url
        if stream.poll() is not None:
            raise CheckError(f"the stream ended: {(folder / 'stream.log').read_text()[-2000:]}")
    finally:
        stream.terminate()
        stream.wait(PATIENCE_S)


def fill_gallery(folder: Path, persons: int = PERSONS, templates: int = TEMPLATES) -> None:
    """Keep ``templates`` of each of ``persons`` in the gallery of an output folder."""
    spec = open_engine(MODEL).spec
    draw = np.random.default_rng(0)
    embeddings = draw.normal(size=(persons, templates, spec.embedding_dim)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=2, keepdims=True)
    config = GalleryConfig(keep=True)
    with contextlib.closing(open_gallery(folder / "gallery" / "person", spec, config)) as gallery:
        for person in embeddings:
            identity = gallery.new_identity()
            for embedding in person:
                about = {"rig": "pattern", "track": 1, "time_s": time.time(), "mask": [1, 1, 1]}
                gallery.put(identity, embedding, about)


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
        return True
    return False


def _until(wanted: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while not wanted():
        if time.monotonic() > give_up_s:
            raise CheckError("the server does not answer")
        time.sleep(0.1)


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz a run; print what came of it."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz.") as folder:
        fill_gallery(Path(folder))
        with live_run(Path(folder)) as url:
            outcome = fuzz(url, arguments.requests, number=arguments.seed)
    result = {
        "requests": outcome.requests,
        "statuses": {str(status): n for status, n in sorted(outcome.statuses.items())},
        "operations": dict(outcome.operations),
        "server_errors": len(outcome.server_errors),
        "violations": len(outcome.violations),
        "seconds": round(time.monotonic() - began_s, 1),
    }
    for status, count in sorted(outcome.statuses.items()):
        print(f"{status} {count:6}")
    for words in [*outcome.server_errors, *outcome.violations]:
        print(words, file=sys.stderr)
    if arguments.record:
        write_json(RESULT, {"environment": environment(), **result})
    if arguments.json:
        print_json_line(result)
    if outcome.server_errors or outcome.violations:
        raise CheckError(
            f"{outcome.requests} requests: {len(outcome.server_errors)} server errors, "
            f"{len(outcome.violations)} answers that are not as described"
        )
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Fuzz the server of a live run.")
    parser.add_argument(
        "--requests", type=int, default=5000, help="about how many requests (default: 5000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="other requests (default: 0)")
    parser.add_argument(
        "--record", action="store_true", help=f"write {RESULT.name} (default: write nothing)"
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run(main))
