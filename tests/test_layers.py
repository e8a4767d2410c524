"""The house stands: imports only go down, nothing is hidden, nothing is too long."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# A module imports only from lower levels, or from its own sub-folder. The picture in
# CONTRIBUTING.md shows the same numbers.
LEVELS = {
    -2: "errors",
    -1: "endings",
    0: "boxes config labels memory preemption progress sharding types",
    1: "data.* models.* metrics.* losses logbook predictions workdir",
    2: "box_samples box_scoring division explain frequencies heat_boxes hooks intake objective passes plots samples score_flags scoring sheet studies trained_on",
    3: "evaluators.* finding tasks.base",
    4: "checkpoint optim sampled tasks.* tta",
    5: "evaluate outline step",
    6: "assembly best opening reading rehearsal score_boxes train",
    7: "predict run score_inputs pages.*",
    8: "export loading predict_files report results",
    9: "main score",
}
# Read films and name errors without JAX: hospital tools and builders import them.
WITHOUT_JAX = ("cxr_jax.errors", "cxr_jax.data.image", "cxr_jax.labels")


def modules():
    for path in sorted((ROOT / "cxr_jax").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if not name.endswith("__init__"):
            yield name, path


def level(name):
    short = name.removeprefix("cxr_jax.")
    for number, words in LEVELS.items():
        if short in words.split():
            return number
    folder = short.partition(".")[0] + ".*"
    found = [number for number, words in LEVELS.items() if folder in words.split()]
    assert found, f"{name} has no level: give it one here and in CONTRIBUTING.md"
    return found[0]


def imports(path):
    """Absolute names that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                file = ROOT.joinpath(*inner.split("."))
                whole = file.with_suffix(".py").exists() or file.is_dir()
                yield inner if whole else node.module


@pytest.mark.parametrize(("name", "path"), list(modules()))
def test_imports_only_go_down(name, path):
    for other in imports(path):
        if other.partition(".")[0] == "data_builders":
            assert name == "cxr_jax.main", f"{name} imports {other}"
        if not other.startswith("cxr_jax."):
            continue
        if not ROOT.joinpath(*other.split(".")).with_suffix(".py").exists():
            continue  # a package
        shared = name.rpartition(".")[0] == other.rpartition(".")[0] != "cxr_jax"
        assert shared or level(other) < level(name), f"{name} imports {other}"


def test_builders_import_the_two_lowest_levels():
    for path in (ROOT / "data_builders").rglob("*.py"):
        for other in imports(path):
            file = ROOT.joinpath(*other.split(".")).with_suffix(".py")
            if other.startswith("cxr_jax.") and file.exists():
                assert level(other) <= 1, f"{path} imports {other}"


@pytest.mark.parametrize("name", WITHOUT_JAX)
def test_films_are_read_without_jax(name):
    code = f"import {name}, sys; sys.exit('jax' in sys.modules or 'tensorflow' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode
        == 0
    )


def test_training_needs_neither_tensorflow_nor_beam():
    code = (
        "import sys, cxr_jax.run, cxr_jax.report, data_builders;"
        "sys.exit(bool({'tensorflow', 'apache_beam'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode
        == 0
    )


def test_nothing_deprecated_or_unsafe_is_called():
    banned = re.compile(
        r"jax\.pmap|sharding\.use_mesh|pickle\.load|allow_pickle=True|shell=True"
        r"|yaml\.load\(|[^.\w`]eval\(|\bexec\(|except:|NotImplementedError"
    )
    for folder in ("cxr_jax", "configs", "data_builders"):
        for path in (ROOT / folder).rglob("*.py"):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                assert not banned.search(line), f"{path}:{number}: {line.strip()}"


def test_files_are_short_and_no_paper_is_named_in_shared_code():
    for name, path in modules():
        assert path.read_text().count("\n") <= 350, f"{path} is too long: split it"
        if not name.startswith(("cxr_jax.models", "cxr_jax.tasks")):
            tree = ast.parse(path.read_text())
            compared = [
                c.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Compare)
                for c in node.comparators
                if isinstance(c, ast.Constant) and isinstance(c.value, str)
            ]
            papers = {"chexnet", "mura", "fusion", "adpd"} & {
                c.lower() for c in compared
            }
            assert not papers, f"{path} branches on a paper: {papers}"


def test_the_picture_of_the_house_is_true():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for name, _ in modules():
        file = name.rpartition(".")[2]
        assert f"{file}.py" in text, f"{name} is not in the picture of CONTRIBUTING.md"


def test_ruff_finds_nothing():
    for arguments in (["format", "--check", "."], ["check", "."]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments],
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
