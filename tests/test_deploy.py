"""docs/deploy.md, Dockerfiles and the systemd unit name what exists."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.documented import ROOT, commands, shell_lines
from tests.test_docs import help_of

DOCS = ROOT / "docs" / "deploy.md"
UNIT = ROOT / "deploy" / "mambapro.service"
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def started_by_the_unit():
    """Return the calls of programs in its Exec lines."""
    return commands(re.findall(r"Exec\w+=(.*)", UNIT.read_text()))


def test_the_unit_starts_programs_with_flags_that_they_know():
    found = started_by_the_unit()
    assert len(found) == 2
    for program, words in found:
        for flag in (word for word in words if word.startswith("--")):
            assert re.search(rf"{flag}\b", help_of(program)), f"{program} has no {flag}"


def test_what_is_required_can_be_looked_for():
    from mambapro.check import LOOKS

    names = [
        name
        for _, words in commands(shell_lines(DOCS.read_text())) + started_by_the_unit()
        if "--require" in words
        for name in words[words.index("--require") + 1 :]
    ]
    assert len(names) > 5
    assert set(names) <= set(LOOKS)


def test_messages_of_the_table_are_real():
    section = DOCS.read_text().split("## When something is wrong")[1]
    messages = re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)
    assert len(messages) >= 5
    folders = ("export", "runtime", "mambapro")
    sources = " ".join(p.read_text() for f in folders for p in (ROOT / f).rglob("*.py"))
    for message in messages:
        words = re.sub(r"for \w+$", "for ", message.replace("...", "")).strip()
        assert words in sources, message


def test_files_that_are_named_exist():
    text = DOCS.read_text()
    for name in re.findall(r"(?:docker|deploy|docs|configs|runtime|export)/[\w/.-]+\.\w+", text):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_copy_what_exists(path):
    text = path.read_text()
    copied = re.findall(r"^COPY ((?!--from)\S+) ", text, re.MULTILINE)
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
    for preset in re.findall(r"--preset (\S+)", text):
        assert f'"name": "{preset}"' in (ROOT / "CMakePresets.json").read_text()
    options = set(re.findall(r"-D(MAMBAPRO_\w+)=", text))
    assert options
    assert all(option in (ROOT / "CMakePresets.json").read_text() for option in options)


def test_systemd_accepts_the_unit(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze (Debian: systemd) to verify the unit with")
    python = "/opt/mambapro/.venv/bin/python"
    assert python in UNIT.read_text()
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(python, sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert unit.name not in done.stderr, done.stderr  # unknown keys are warnings
