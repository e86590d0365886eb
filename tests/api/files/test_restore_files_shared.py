"""Restoring a folder by several processes: the same files, and one report."""

import json
import os
import subprocess
import sys
from pathlib import Path

from repository import ROOT
from shell import save_photo, succeed

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def pictures(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("*.png")}


def test_two_processes_restore_what_one_restores(tmp_path, weights):
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(3):
        save_photo(photos / f"{k}.png", start=40 * k)
    (photos / "bad.png").write_bytes(b"no image")
    words = ["inpaint", photos, "--mask", "random=0.5", "--degrade", "--prior", weights,
             "--solver", "hqs", "--steps", 2, "--json"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
              "2", "-m", "genprior", *map(str, words), "-o", str(tmp_path / "two")]
    shared = subprocess.run(launch, env=ENVIRONMENT, timeout=300, capture_output=True, text=True)
    assert shared.returncode != 0 and "1 of 4 files failed" in shared.stderr
    (photos / "bad.png").unlink()
    alone = json.loads(succeed(*words, "-o", tmp_path / "one").stdout)
    assert pictures(tmp_path / "two") == pictures(tmp_path / "one")
    records = json.loads(shared.stdout)
    names = [Path(record["input"]).name for record in records]
    assert names == ["0.png", "1.png", "2.png", "bad.png"] and "error" in records[3]
    assert [r["psnr"] for r in records[:3]] == [r["psnr"] for r in alone]
