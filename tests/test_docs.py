"""The pages that people read agree with the program."""

from __future__ import annotations

import argparse
import inspect
import re
import shlex
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from metrics.metric_handler import HEATMAP_METRICS, MASK_METRICS
from metrics.vertebra_metrics import CENTRE_METRICS
from networks import ARCHITECTURES

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Sections of docs/arguments.md whose tables together are the arguments of a command.
COMMANDS = {
    "preprocessing.py": ["Preprocessing"],
    "training/train_heatmap.py": ["Both scripts", "Only the localiser (train_heatmap.py)"],
    "training/train_segmentation.py": ["Both scripts", "Only the segmenter (train_segmentation.py)"],
    "inference.py": ["Inference"],
    "metrics/evaluate.py": ["Evaluation"],
    "reports/compare.py": ["Compare"],
    "reports/report.py": ["Report"],
    "reports/surfaces.py": ["Surfaces"],
    "prediction/pretrained/__main__.py": ["Pretrained"],
    "utils/statistics.py": ["Statistics"],
    "verse_utils/check/__main__.py": ["Check"],
    "verse_utils/phantom/__main__.py": ["Phantoms"],
    "training/cost/__main__.py": ["Training costs"],
}
SCRIPTS_OF_BENCHMARKS = {path.relative_to(ROOT).as_posix() for path in (ROOT / "benchmarks").glob("*.py")}


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def sections(page: Path) -> dict[str, str]:
    """Text below each heading, to the next heading of any level."""
    parts = re.split(r"^#+ (.+)$", read(page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> list[list[str]]:
    """The cells of a page's tables, without headers."""
    table = [line for line in text.splitlines() if line.startswith("|")]
    below = [line for line in table if not re.fullmatch(r"[|: -]+", line)]
    headers = {table[i - 1] for i, line in enumerate(table) if re.fullmatch(r"[|: -]*-[|: -]*", line)}
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in below if line not in headers]


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", read(page), flags=re.MULTILINE | re.DOTALL)


def arguments_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Flags, or names of positional arguments as the help shows them."""
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    return {(action.option_strings or [str(action.metavar or action.dest)])[-1]: action for action in actions}


def shown_default(action: argparse.Action) -> str:
    if action.required:
        return "required"
    value = action.default
    if value is None or value == [] or value == ():
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if value == sorted(ARCHITECTURES):
        return "all"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    if isinstance(value, float) and value != float(f"{value:g}"):
        return str(Fraction(value).limit_denominator(100))
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_front_page_is_short():
    assert len(read(ROOT / "README.md").splitlines()) <= 130


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in sections(linked)}
            assert anchor in anchors, f"{page.name}: {target}"


def test_every_page_and_picture_is_linked():
    linked = {(page.parent / t).resolve() for page in PAGES for t in re.findall(r"\]\(([^)\s#]+)[^)]*\)", read(page))}
    assert {*PAGES, *(ROOT / "docs" / "images").iterdir()} - linked == {ROOT / "README.md"}


@pytest.mark.parametrize("script", COMMANDS)
def test_tables_of_arguments_are_those_of_the_parsers(script, parser_of):
    page = sections(ROOT / "docs" / "arguments.md")
    table = {
        name.strip("`"): (default, text) for section in COMMANDS[script] for name, default, text in rows(page[section])
    }
    arguments = arguments_of(parser_of(script))
    assert {name: default for name, (default, _) in table.items()} == {
        name: shown_default(action) for name, action in arguments.items()
    }
    for name, action in arguments.items():
        if action.choices and set(action.choices) != set(ARCHITECTURES):
            assert all(f"`{choice}`" in table[name][1] for choice in action.choices), name


def test_the_table_of_commands_is_that_of_pyproject(installed_commands):
    table = dict(rows(sections(ROOT / "docs" / "usage.md")["Installation"]))
    assert table == {f"`{name}`": f"`{by_python(module)}`" for name, module in installed_commands.items()}


def by_python(module: str) -> str:
    """How a command is run without an installation."""
    if module.startswith("training.") or "." not in module:
        return f"python {path_of(module)}"
    return f"python -m {module.removesuffix('.__main__')}"


def path_of(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


def commands(page: Path) -> list[list[str]]:
    """Commands in a page's code blocks, word by word, without the path of the interpreter."""
    lines = "".join(code_blocks(page, "")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if re.match(r"\S*(python|spine-)\S* ", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_scripts_and_arguments_that_exist(page, parser_of, installed_commands):
    for words in commands(page):
        script, given = words[1], words[2:]
        if words[0] in installed_commands:
            script, given = path_of(installed_commands[words[0]]), words[1:]
        if script == "-m":
            module, given = words[2].replace(".", "/"), words[3:]
            script = f"{module}/__main__.py" if (ROOT / module).is_dir() else f"{module}.py"
        if script == "venv.py" or words[1:3] == ["-m", "pytest"]:
            continue
        assert script in {*COMMANDS, *SCRIPTS_OF_BENCHMARKS}, words
        known = arguments_of(parser_of(script))
        flags = {word for word in given if word.startswith("--")}
        assert flags <= set(known), words
        required = {name for name, action in known.items() if action.required and name.startswith("--")}
        assert required <= flags, words


def test_tables_of_metrics_are_those_of_the_program():
    page = sections(ROOT / "docs" / "metrics.md")
    for section, metrics in (("Masks", MASK_METRICS), ("Heatmaps", HEATMAP_METRICS), ("Names", CENTRE_METRICS)):
        declared = [
            [f"`{metric.name}`", metric.explanation, metric.scale_and_best, *metric.values_when_empty]
            for metric in metrics.values()
        ]
        assert rows(page[section]) == declared


def test_the_table_of_architectures_is_that_of_the_registry():
    table = {row[0].strip("`"): row[2] for row in rows(sections(ROOT / "docs" / "architectures.md")["Architectures"])}
    options = {}
    for name, module in ARCHITECTURES.items():
        parameters = list(inspect.signature(getattr(import_module(module), name)).parameters.values())[3:]
        shown = {p.name: p.default if isinstance(p.default, str) else repr(p.default) for p in parameters}
        options[name] = " ".join(f"{key}={re.sub(r'[() ]', '', value)}" for key, value in shown.items())
    assert table == options


@pytest.mark.usefixtures("blank_pictures")
def test_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "examples"}
    for block in code_blocks(ROOT / "docs" / "python.md", "python"):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["scores"].as_json()["summary"]["dice"]["cases"] == 1
    assert names["failures"] == []
    assert names["found"].mask.shape == tuple(names["scan"].shape)


def test_the_citation_has_the_version_of_the_package():
    def version(name: str, separator: str) -> str:
        return re.findall(rf"^version{separator} *\"?([\d.]+)\"?$", read(ROOT / name), flags=re.MULTILINE)[0]

    assert version("CITATION.cff", ":") == version("pyproject.toml", " =")


def test_ruff_has_one_version():
    pinned = re.findall(r"^ruff==(.+)$", read(ROOT / "requirements.txt"), flags=re.MULTILINE)
    assert re.findall(r"ruff-pre-commit\n +rev: v(.+)", read(ROOT / ".pre-commit-config.yaml")) == pinned
