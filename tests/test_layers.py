"""Imports run one way: cli -> api -> inverse -> contracts -> torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "genprior"
FILES = sorted(PACKAGE.rglob("*.py"))
SHARED = {
    f"genprior.{name}"
    for name in (
        "decomposition", "diffusion", "errors", "linalg", "maps", "noise", "polynomials",
        "pull_push", "separable",
    )
}
COMMANDS = [f"commands/{path.stem}" for path in sorted(PACKAGE.glob("commands/*.py"))]
LIGHT = ["__init__", "__main__", "cli", "options", "registry", "errors", "limits", "saves"]
LIGHT += ["weights/__init__", *COMMANDS]


def imports(path: Path, top_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] == "genprior"}


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "inverse"], ids=str)
def test_solvers_know_contracts_only(path):
    for name in ours(path):
        same = name.startswith("genprior.inverse.")
        contract = name in {"genprior.operators.base", "genprior.priors.base"}
        assert same or contract or name in SHARED, name
    for name in ours(path):
        if name.startswith("genprior.inverse."):
            module = PACKAGE / "inverse" / f"{name.split('.')[-1]}.py"
            assert not re.search(r"\((Chain)?Solver\):", module.read_text()), name


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("baselines/*.py")), ids=str)
def test_baselines_know_contracts_only(path):
    packages = ("baselines", "inverse", "operators", "priors")
    assert ours(path) <= SHARED | {f"genprior.{package}.base" for package in packages}


@pytest.mark.parametrize("folder", ["operators", "priors"])
def test_operators_and_priors_import_no_sibling_but_base(folder):
    shared = SHARED | {"genprior.arrays", "genprior.images", "genprior.nets"}
    for path in PACKAGE.glob(f"{folder}/*.py"):
        for name in ours(path):
            package, *rest = name.split(".")[1:]
            if package == folder:
                module = PACKAGE / folder / f"{rest[0]}.py"
                assert rest == ["base"] or "class " not in module.read_text(), (path.name, name)
            else:
                assert f"genprior.{package}" in shared, (path.name, name)


def test_only_the_registry_names_concrete_classes():
    for path in FILES:
        if path.parent == PACKAGE and path.stem not in ("registry", "tasks"):
            for name in ours(path):
                package, *rest = name.split(".")[1:] or [""]
                if package in ("priors", "operators"):
                    assert rest == ["base"], (path.name, name)


@pytest.mark.parametrize("name", LIGHT)
def test_the_command_line_imports_nothing_heavy_at_the_top(name):
    heavy = {"torch", "torchvision", "deepinv", "numpy", "skimage", "PIL", "tifffile", "tqdm"}
    found = imports(PACKAGE / f"{name}.py", top_only=True)
    assert not {module.split(".")[0] for module in found} & heavy
    light = ("commands", *(file.split("/")[0] for file in LIGHT))
    assert all(m.split(".")[1] in light for m in found if m.startswith("genprior.")), found


def test_only_the_command_line_prints_or_parses():
    for path in FILES:
        if path.stem not in ("cli", "options") and path.parent.name != "commands":
            called = {n.func.id for n in ast.walk(ast.parse(path.read_text()))
                      if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
            assert "print" not in called and "click" not in imports(path), path


def test_help_needs_no_torch():
    code = (
        "import sys; from genprior.cli import main; main(['--help'], standalone_mode=False); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
