"""Pages of docs/reference, which docs/_ext/registry_pages.py makes from the registry."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from repository import ROOT

from genprior.inverse.diffusion.mmps import MMPS
from genprior.registry import BASELINES, OPERATORS, PRIORS, SOLVERS

TABLES = {"operators": OPERATORS.own, "priors": PRIORS.own, "solvers": SOLVERS.own,
          "baselines": BASELINES}
# Parts whose page shows no picture: they need a package that is not installed for the tests.
NEVER = {"bm3d"}


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    path = ROOT / "docs" / "_ext" / "registry_pages.py"
    spec = importlib.util.spec_from_file_location("registry_pages", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_part_has_a_page_notes_and_a_picture(pages: ModuleType, tmp_path: Path) -> None:
    written = {path.relative_to(tmp_path) for path in pages.write_pages(tmp_path)}
    notes = pages.read_notes()
    for kind, table in TABLES.items():
        assert notes[kind].keys() == table.keys()
        for name in table:
            assert Path(kind, f"{name}.md") in written
            assert notes[kind][name]["use"] and notes[kind][name]["fails"]
            picture = ROOT / "docs" / "pictures" / kind / f"{name}.jpg"
            if name in NEVER:
                continue
            with Image.open(picture) as opened:
                assert picture.stat().st_size <= 150_000 and opened.width > 100
        listed = (tmp_path / kind / "index.md").read_text()
        assert all(f"[{name}]({name}.md)" in listed for name in table)


def test_a_page_has_formula_settings_and_references(pages: ModuleType) -> None:
    text = pages.page("solvers", "mmps", {"use": "Use it.", "fails": "It fails."})
    assert "```text\nC = sigma_t^2 J,    J = D'(x)\n" in text
    assert "## When it fails\n\nIt fails." in text
    assert "| `eta` | `1` | \\>= 0 and \\<= 1 | 1 is DDPM, 0 is DDIM. |" in text
    assert "Learning Diffusion Priors from Observations" in text
    assert f"{MMPS().nfe} evaluations of the network and {MMPS().jacobian_products}" in text
    assert "1. The solve is by preconditioned conjugate residuals" in text


def test_prose_is_escaped_except_code(pages: ModuleType) -> None:
    assert pages.markdown("a*b `x*y` |v|") == r"a\*b `x*y` \|v\|"
    text = "First.\n\n    y = A x\n\nArguments:\n    a, b: Two\n        lines.\n    c: One."
    assert pages.prose(text) == "First.\n\n```text\ny = A x\n```"
    assert pages.sections(text) == {"Arguments": ["a, b: Two lines.", "c: One."]}


def test_files_that_do_not_change_are_not_written(pages: ModuleType, tmp_path: Path) -> None:
    first = {path: path.stat().st_mtime_ns for path in pages.write_pages(tmp_path)}
    assert {path: path.stat().st_mtime_ns for path in pages.write_pages(tmp_path)} == first
