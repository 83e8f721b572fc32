"""What the documents tell people to type, set and follow exists."""

import dataclasses
import itertools
import re
import subprocess
import sys
from functools import lru_cache

import pytest

from mambapro.config import ExperimentConfig, describe, load
from runtime.config import StreamConfig
from tests.documented import ROOT, commands, shell_lines

DOCUMENTS = sorted(
    [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "plugins" / "README.md",
        *ROOT.glob("mambapro/*/README.md"),
        *ROOT.glob("docs/**/*.md"),
    ]
)
GUIDES = [path for path in DOCUMENTS if "decisions" not in path.parts and path.name != "log.md"]
SETTINGS = {
    "runtime/stream.py": (StreamConfig, "configs/stream.yaml"),
    "train/main.py": (ExperimentConfig, "configs/demo_person.yaml"),
}
SECTIONS = {field.name for field in dataclasses.fields(StreamConfig)}


def name(path):
    return str(path.relative_to(ROOT))


@lru_cache
def help_of(program):
    arguments = program.split() if program.startswith("-m") else [str(ROOT / program)]
    done = subprocess.run([sys.executable, *arguments, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, f"{program}: {done.stderr}"
    return done.stdout


@pytest.mark.parametrize("path", GUIDES, ids=name)
def test_commands_exist_and_know_their_flags(path):
    for program, words in commands(shell_lines(path.read_text())):
        for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert re.search(rf"{flag}\b", help_of(program)), f"{program} has no {flag}"


@pytest.mark.parametrize("path", GUIDES, ids=name)
def test_settings_of_commands_are_taken(path):
    for program, words in commands(shell_lines(path.read_text())):
        given = [b for a, b in itertools.pairwise(words) if a == "--set"]
        if given and program in SETTINGS:
            config, defaults = SETTINGS[program]
            load(config, ROOT / defaults, given)


@pytest.mark.parametrize("path", GUIDES, ids=name)
def test_make_targets_exist(path):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = re.findall(r"^make ([\w-]+)", "\n".join(shell_lines(path.read_text())), re.MULTILINE)
    assert set(called) <= targets


@pytest.mark.parametrize("path", GUIDES, ids=name)
def test_settings_that_are_named_exist(path):
    known = {row[0] for row in describe(StreamConfig)}
    known |= {key.rpartition(".")[0] for key in known}
    for key in re.findall(r"`(\w+(?:\.\w+)+)(?:=[^`]*)?`", path.read_text()):
        if key.partition(".")[0] in SECTIONS and not re.search(
            r"\.(py|md|jsonl?|png|sqlite)$", key
        ):
            assert key in known, key


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def anchors(path):
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)", path.read_text(), re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {text.strip().replace(" ", "-") for text in words}


def test_the_tests_above_find_something():
    text = (ROOT / "README.md").read_text()
    found = commands(shell_lines(text))
    assert {"train/main.py", "runtime/stream.py", "calibration/registration.py"} <= dict(
        found
    ).keys()
    assert any("--set" in words for _, words in found)
    assert "what-is-where" in anchors(ROOT / "README.md")
