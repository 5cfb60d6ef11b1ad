import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from utils.misc import OneLineParser, Stopped, command, counted, parse_bool
from verse_utils.errors import UserError


def test_users_mistakes_are_one_line_and_exit_code_2(capsys):
    @command
    def main():
        raise UserError("a.nii.gz: broken; mend it")

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: a.nii.gz: broken; mend it\n"


class DamagedData(Dataset):
    def __getitem__(self, index):
        raise UserError("a.h5: training/sub-a can't be read, the file is damaged; remove it")

    def __len__(self):
        return 1


# Python 3.12 warns of forks in a process with threads, as that of the tests is; users don't see it.
@pytest.mark.filterwarnings("ignore:This process")
def test_a_mistake_that_a_loading_process_finds_is_one_line_too(capsys):
    """torch passes it on with the traceback of that process before it."""
    with pytest.raises(SystemExit) as stop:
        command(lambda: next(iter(DataLoader(DamagedData(), num_workers=1))))()
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: a.h5: training/sub-a can't be read, the file is damaged; remove it\n"


def test_wrong_arguments_are_users_mistakes(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["script"])
    parser = OneLineParser()
    parser.add_argument("--data_path", required=True)
    with pytest.raises(UserError, match="--data_path"):
        parser.parse_args([])


def test_an_empty_text_is_no_path(monkeypatch):
    """As of a shell's variable that isn't set: it would be the working folder."""
    parser = OneLineParser()
    parser.add_argument("--output", type=Path, default=Path("results"))
    assert parser.parse_args([]).output == Path("results") and parser.parse_args(["--output", "."]).output == Path()
    with pytest.raises(UserError, match="argument --output: '' names no file or folder"):
        parser.parse_args(["--output", ""])


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("1", True), ("no", False)])
def test_booleans(text, value):
    assert parse_bool(text) is value


def test_no_boolean():
    with pytest.raises(ValueError, match="maybe"):
        parse_bool("maybe")


def test_a_terminal_without_a_sign_is_no_reason_to_fail():
    code = "from utils.misc import command; command(lambda: print('3×3'))()"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="ascii", env=environment)
    assert (result.stdout, result.stderr) == ("3?3\n", "")


def test_output_that_nobody_reads_any_more_ends_a_command_without_a_traceback():
    code = "from utils.misc import command\n@command\ndef main():\n    while True: print('a line')\nmain()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device")
def test_a_disk_without_room_for_the_output_is_one_line():
    code = "from utils.misc import command\n@command\ndef main():\n    print('a line')\nmain()"
    with open("/dev/full", "w", encoding="utf-8") as full:
        result = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, encoding="utf-8")
    assert result.returncode == 2
    assert result.stderr == "error: the output can't be written (No space left on device); make room\n"


def test_a_command_runs_without_output():
    code = (
        "import sys\nsys.stdout = sys.stderr = None\nfrom utils.misc import command\n"
        "command(lambda: (print(1), sys.stderr.write('2')))()"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_signal_is_no_error_that_anything_catches(capsys):
    def main():
        try:
            raise Stopped(15, "after epoch 1")
        except Exception as error:  # as around what a broken file raises
            raise UserError("broken") from error

    with pytest.raises(SystemExit) as stop:
        command(main)()
    assert stop.value.code == 143
    assert capsys.readouterr().err == "stopped after epoch 1; the same command goes on from here\n"


def test_a_file_that_the_system_refuses_is_one_line(tmp_path, capsys):
    """Whatever the program was about to do with it; what a program does wrong stays an error with a traceback."""
    for spoilt in (lambda: tmp_path.unlink(), lambda: tmp_path.joinpath("x" * 300).stat()):
        with pytest.raises(SystemExit) as stop:
            command(spoilt)()
        (line,) = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and line.startswith(f"error: {tmp_path}") and "can't be used (" in line
    with pytest.raises(FileNotFoundError):
        command(lambda: tmp_path.joinpath("absent").unlink())()


def test_one_thing_and_several():
    assert [counted(number, "case") for number in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]
