"""The house rules of the design: imports point one way, and importing does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A module may import from its own layer and from those below (further right).
LAYERS = (
    ("inference",),
    ("training",),
    ("reports", "prediction", "dataloader", "preprocessing"),
    ("data_transforms", "metrics"),
    ("utils",),
    ("verse_utils",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(
    path.relative_to(ROOT)
    for name in [*LEVEL, "networks"]
    for path in [ROOT / f"{name}.py", *(ROOT / name).rglob("*.py")]
    if path.exists()
)


@cache
def imported(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}: wildcard import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_one_way(path):
    own = path.parts[0].removesuffix(".py")
    others = imported(path) & {*LEVEL, "networks"} - {own}
    if own == "networks":
        assert not others
        libraries = {"torch", "monai", "dynamic_network_architectures"}
        assert imported(path) <= libraries | {"networks"} | sys.stdlib_module_names
        return
    allowed = {name for name, level in LEVEL.items() if level > LEVEL[own]}
    allowed |= {"preprocessing"} if own == "dataloader" else set()
    allowed |= {"networks"} if own in ("training", "prediction") else set()
    assert others <= allowed
    if own == "verse_utils":
        assert not imported(path) & {"torch", "torchio", "monai", "scipy"}


def test_every_package_is_installed():
    """A package that pyproject.toml forgets would be missing from any folder but this one."""
    listed = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name in {path.parent.as_posix().replace("/", ".") for path in MODULES if path.parent != Path()}:
        assert f'"{name}"' in listed


def test_no_benchmark_hides_a_module():
    """Python looks for modules beside the script first."""
    assert not {path.stem for path in (ROOT / "benchmarks").iterdir()} & {*LEVEL, *sys.stdlib_module_names}


def test_help_loads_no_heavy_library():
    """One process for all scripts: none of them imports what the next one must not."""
    scripts = (
        "preprocessing.py",
        "inference.py",
        "training/train_heatmap.py",
        "training/train_segmentation.py",
        "training/cost/__main__.py",
        "metrics/evaluate.py",
        "reports/compare.py",
        "reports/report.py",
        "utils/statistics.py",
        "verse_utils/check/__main__.py",
        "reports/surfaces.py",
    )
    code = f"""
import runpy, sys
heavy = {{"torch", "torchio", "monai", "wandb", "matplotlib", "plotly", "scipy", "skimage", "h5py"}}
for script in {scripts}:
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit:
        pass
    print("loaded by", script, sorted(heavy & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", cwd=ROOT)
    lines = [line for line in result.stdout.splitlines() if line.startswith("loaded by")]
    assert lines == [f"loaded by {script} []" for script in scripts], result.stderr


def test_importing_seeds_nothing():
    code = """
import sys, torch, numpy
torch.manual_seed(5); numpy.random.seed(5)
before = torch.get_rng_state(), numpy.random.get_state()[1].tolist()
import training.scripts, dataloader, preprocessing
assert torch.equal(before[0], torch.get_rng_state())
assert before[1] == numpy.random.get_state()[1].tolist()
assert "torch._dynamo" not in sys.modules  # the compiler takes as long to load as torch itself
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
