"""The command line that users know: installed commands, and the arguments of every command."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_name("command_lines.txt")
HOSTILE = ("utils", "metrics", "training", "statistics", "inference", "reports")


def test_installed_commands_name_functions(installed_commands):
    for module in installed_commands.values():
        main = importlib.import_module(module).main
        # What `command` of utils.misc made; verse_utils imports nothing of utils.
        assert hasattr(main, "__wrapped__") or module.startswith("verse_utils.")


def test_a_module_in_the_working_folder_breaks_no_installed_command(tmp_path, installed_commands):
    """A script in another folder stands for what pip installs: neither puts the working folder on Python's path."""
    working, programs = tmp_path / "working", tmp_path / "programs"
    working.mkdir()
    programs.mkdir()
    for name in HOSTILE:
        (working / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the user')", encoding="utf-8")
    (programs / "all_commands.py").write_text(
        f"""
import importlib, sys
for name, module in {installed_commands}.items():
    sys.argv = [name, "--help"]
    try:
        importlib.import_module(module).main()
    except SystemExit as stop:
        assert stop.code == 0, stop
""",
        encoding="utf-8",
    )
    result = subprocess.run(
        [sys.executable, str(programs / "all_commands.py")],
        cwd=working,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
    )
    assert result.returncode == 0, result.stderr
    assert re.findall(r"^usage: (\S+)", result.stdout, flags=re.MULTILINE) == list(installed_commands)


def lines_of(script: str, parser: argparse.ArgumentParser) -> list[str]:
    """A line for each argument: command, name, type, number of values, default, choices."""
    lines = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        kind = getattr(action.type, "__name__", "flag" if action.nargs == 0 else "str").lstrip("_")
        many = f" {action.nargs}" if action.nargs else ""
        default = "required" if action.required else shown(action.default)
        choices = f"one of {' '.join(map(str, action.choices))}" if action.choices else ""
        names = " ".join(action.option_strings) or str(action.metavar or action.dest)
        lines.append("  ".join(filter(None, [script, names, kind + many, default, choices])).strip())
    return lines


def shown(default: object) -> str:
    values = default if isinstance(default, list | tuple) else [default]
    return f"default {' '.join(map(str, values))}" if values and default is not None else ""


def test_arguments_stay_as_users_know_them(parser_of, installed_commands):
    """Commands in users' own scripts go on working: a change here is a change for them, and goes to CHANGELOG.md."""
    frozen = TABLE.read_text(encoding="utf-8").splitlines()
    scripts = list(dict.fromkeys(line.split("  ")[0] for line in frozen))
    found = [line for script in scripts for line in lines_of(script, parser_of(script))]
    change = "\n".join(difflib.unified_diff(frozen, found, TABLE.name, "parsers", n=0, lineterm=""))
    assert not change, f"if this is meant, change {TABLE.name} so:\n{change}"
    assert {module.replace(".", "/") + ".py" for module in installed_commands.values()} <= set(scripts)
