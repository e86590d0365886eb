"""Contents of the source distribution."""

import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

MADE = {".pyc", ".pyo"}


def test_the_source_distribution_holds_all_files(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    command = [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "egg_info",
               "--egg-base", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    sources = (tmp_path / "genprior.egg-info" / "SOURCES.txt").read_text().splitlines()
    listed = {ROOT / line for line in sources}
    for folder in ("benchmarks", "docs", "examples", "genprior", "tests"):
        files = {path for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert files and {path for path in files if path.suffix not in MADE} <= listed, folder
    assert {ROOT / name for name in ("README.md", "CONTRIBUTING.md", "LICENSE")} <= listed
    assert not [line for line in sources if line.endswith(tuple(MADE))]
