"""Configuration files and shell completion."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from repository import ROOT
from shell import refused, save_photo, sidecar, succeed

TYPED = {
    "inpaint": ["--mask", "box=3x4", "--invert-mask", "--solver", "diffpir", "--samples", 2],
    "deblur": ["--motion", "3,30.5", "--noise", 0.02, "--boundary", "circular"],
    "superres": ["--filter", "gaussian", "--std", 0.7, "--ext", "tif"],
    "denoise": ["--noise", 0.1, "--seed", 3, "--tile", 64, "--solver", "hqs"],
}


@pytest.mark.parametrize("task", TYPED)
def test_a_dumped_configuration_does_the_same_again(
    tmp_path: Path, weights: Path, task: str
) -> None:
    file, config = save_photo(tmp_path / "a.png"), tmp_path / "run.toml"
    options = [*TYPED[task], "--prior", weights, "--steps", 2, "--save", "panel"]
    result = succeed(task, file, *options, "--dump-config")
    assert not list(tmp_path.glob("*.genprior.*"))
    config.write_text(result.stdout)
    values = tomllib.loads(result.stdout)
    assert values["prior"] == str(weights) and values["tile"] in ("auto", 64)
    succeed(task, file, *options, "-o", tmp_path / "one")
    succeed(task, file, "--config", config, "-o", tmp_path / "two")
    (first,) = (sidecar(p) for p in (tmp_path / "one").glob("*.json"))
    (second,) = (sidecar(p) for p in (tmp_path / "two").glob("*.json"))
    for record in (first, second):
        for name in ("output", "seconds", "saved"):
            record.pop(name)
    assert first == second


def test_typed_options_take_precedence(tmp_path: Path, weights: Path) -> None:
    file, config = save_photo(tmp_path / "a.png"), tmp_path / "run.toml"
    config.write_text(f'noise = 0.1\nprior = "{weights}"\nsteps = 2\nsolver = "hqs"\n'
                      'save = ["panel"]\noverwrite = true\nmax_pixels = 5000\n')
    succeed("denoise", file, "--config", config, "--noise", 0.2)
    record = sidecar(tmp_path / "a.genprior.png")
    assert (record["noise"], record["solver_settings"]["steps"]) == (0.2, 2)
    assert len(record["saved"]) == 1
    succeed("denoise", file, "--config", config)


@pytest.mark.parametrize("text, message", [
    ("nois = 0.1", "denoise has no option 'nois': choose among calibration, control"),
    ("noise = ", "not a TOML file"),
    ('noise = "much"', "Invalid value for '--noise': 'much' is not a valid"),
    ("files = 3", "no option 'files'"),
    ("steps = 2.7", "'2.7' is not a valid integer"),
    ("steps = true", "Invalid value for '--steps'"),
    ("noise = [0.1, 0.2]", "'0.1,0.2' is not a valid"),
    ("noise = " + "[" * 9999, "not a TOML file: it is nested too deeply"),
    (".".join("a" * 3000) + " = 1", "not a TOML file: it is nested too deeply"),
    ("[noise]\nlevel = 0.1", "not a TOML file: Expected `bool | int | float | str | array`"),
    ("noise = 2020-01-01", "not a TOML file: Expected `bool"),
    ("noise = '\\udc80'\0", "not a TOML file"),
    ("#" * 2**20 + "#", "not a TOML file: it has more than 1048576 bytes"),
])
def test_invalid_configurations(tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "run.toml"
    config.write_text(text)
    code, line = refused("denoise", save_photo(tmp_path / "a.png"), "--config", config)
    assert code == 2 and message in line
    code, line = refused("denoise", "a.png", "--config", tmp_path / "none.toml")
    assert code == 2 and "none.toml: No such file" in line


def test_completion_scripts() -> None:
    script = succeed("completion", "bash").stdout
    assert "_GENPRIOR_COMPLETE=bash_complete" in script and "complete -o nosort" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert refused("completion", "cmd")[0] == 2


def test_options_are_completed() -> None:
    environment = {"_GENPRIOR_COMPLETE": "bash_complete", "COMP_WORDS": "genprior inpaint --ma",
                   "COMP_CWORD": "2", "PATH": "/usr/bin:/bin"}
    root = str(ROOT)
    code = "from genprior.cli import main; main(prog_name='genprior')"
    run = subprocess.run([sys.executable, "-c", code], env=environment | {"PYTHONPATH": root},
                         capture_output=True, text=True)
    assert run.stdout.split() == ["plain,--mask", "plain,--max-pixels"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs devices")
def test_a_configuration_may_be_a_pipe_but_not_endless(tmp_path: Path, weights: Path) -> None:
    file = save_photo(tmp_path / "a.png")
    code, line = refused("denoise", file, "--config", "/dev/zero")
    assert code == 2 and "it has more than 1048576 bytes" in line
    command = f"{sys.executable} -m genprior denoise {file} --prior {weights} --dump-config"
    run = subprocess.run(["bash", "-c", f"{command} --config <(echo seed = 5)"],
                         env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
                         text=True, check=True)
    assert "seed = 5" in run.stdout
