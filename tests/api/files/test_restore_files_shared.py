"""Restoring a folder by several processes: the same files, and one report."""

import json
from pathlib import Path

from launch import on_two_nodes
from shell import save_photo, succeed


def pictures(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("*.png")}


def test_two_nodes_restore_what_one_restores(tmp_path, weights):
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(3):
        save_photo(photos / f"{k}.png", start=40 * k)
    (photos / "bad.png").write_bytes(b"no image")
    words = ["inpaint", photos, "--mask", "random=0.5", "--degrade", "--prior", weights,
             "--solver", "hqs", "--steps", 2, "--json"]
    shared = on_two_nodes(*words, "-o", tmp_path / "two")
    assert shared.returncode != 0 and "1 of 4 files failed" in shared.stderr
    (photos / "bad.png").unlink()
    alone = json.loads(succeed(*words, "-o", tmp_path / "one").stdout)
    assert pictures(tmp_path / "two") == pictures(tmp_path / "one")
    records = json.loads(shared.stdout)
    names = [Path(record["input"]).name for record in records]
    assert names == ["0.png", "1.png", "2.png", "bad.png"] and "error" in records[3]
    assert [r["psnr"] for r in records[:3]] == [r["psnr"] for r in alone]
