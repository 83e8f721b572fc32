"""docs/deploy.md, Dockerfiles and the systemd unit name what exists."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "deploy.md"
UNIT = ROOT / "deploy" / "mambapro.service"
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
PROGRAM = re.compile(r"(?:python3? |/python |\S+:\w+ \\?\n? *)(-m mambapro\.check|\w+/\w+\.py)(.*)")


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Every call of a program of ours in fenced blocks or Exec lines: program and its words."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL) or re.findall(r"Exec\w+=(.*)", text)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [PROGRAM.search(line) for line in lines]
    return [(m[1], shlex.split(m[2], comments=True)) for m in found if m]


@pytest.mark.parametrize("path", [DOCS, UNIT], ids=lambda path: path.name)
def test_commands_exist_and_know_their_flags(path):
    found = commands(path.read_text())
    assert len(found) >= 2
    helps: dict[str, str] = {}
    for program, words in found:
        if program not in helps:
            arguments = program.split() if program.startswith("-m") else [str(ROOT / program)]
            done = subprocess.run(
                [sys.executable, *arguments, "--help"], capture_output=True, text=True
            )
            assert done.returncode == 0, f"{program}: {done.stderr}"
            helps[program] = done.stdout
        for flag in (word for word in words if word.startswith("--")):
            assert re.search(rf"{flag}\b", helps[program]), f"{program} has no {flag}"


def test_what_is_required_can_be_looked_for():
    from mambapro.check import LOOKS

    names = [
        name
        for path in (DOCS, UNIT)
        for program, words in commands(path.read_text())
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
