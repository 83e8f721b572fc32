import json
import os

import pytest

from mambapro import cli
from mambapro.files import replacing, sha256, write_json, write_text


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "folder" / "a.json"
    write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    write_text(path, "new")
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["a.json"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "model.onnx"
    path.write_text("good")
    with pytest.raises(type(error)), replacing(path) as aside:
        aside.write_text("half")
        assert aside.suffix == ".onnx"
        raise error
    assert path.read_text() == "good"
    assert os.listdir(tmp_path) == ["model.onnx"]


def test_a_new_file_has_ordinary_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2
    assert sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (cli.InputError("no data"), 2),
        (cli.CheckError("mAP fell"), 1),
        (cli.MissingError("no GPU"), 3),
        (OSError(28, "No space left on device"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes_and_one_line_errors(capsys, error, code):
    def main(argv):
        raise error

    assert cli.run(main, []) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


def test_our_own_bugs_keep_their_traceback():
    def main(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.run(main, [])


def test_the_json_line_is_one_line_and_refuses_nan(capsys):
    cli.print_json_line({"b": [1, 2], "a": None})
    assert capsys.readouterr().out == '{"a": null, "b": [1, 2]}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        cli.print_json_line({"map": float("nan")})
