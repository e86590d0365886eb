import json
from pathlib import Path

from shell import refused, save_photo, sidecar, succeed


def test_the_commands(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for k in range(9):
        save_photo(tmp_path / "photos" / f"{k}.png", start=20 * k)
    file, common = tmp_path / "c.json", ("--prior", weights, "--steps", 2, "--samples", 2)
    task = "denoise:noise=0.1"
    words = ("calibrate", tmp_path / "photos", "--task", task, "-o", file, "--crop", 16, *common)
    assert "intervals of 90% are the mean +-" in succeed(*words).stdout
    entry = json.loads(file.read_text())["entries"][0]
    assert entry["task"] == task and entry["images"] == 9 and entry["size"] == [16, 16]
    code, text = refused(*words)
    assert code == 3 and "--overwrite" in text
    photo, of_file = tmp_path / "photos" / "0.png", ("--calibration", file)
    succeed("denoise", photo, "-o", tmp_path / "out.png", "--noise", 0.1, "--degrade", *of_file,
            "--save", "lower,upper", *common)
    written = [(tmp_path / f"out.{end}.png").exists() for end in ("lower", "upper")]
    doubts = sidecar(tmp_path / "out.png")["warnings"]
    # the photo may be beyond the nine crops that calibrated, and then it has no interval
    assert written == [not any("no calibrated intervals" in text for text in doubts)] * 2
    succeed("denoise", photo, "-o", tmp_path / "o.png", "--noise", 0.2, *of_file, "--save",
            "lower", *common)
    assert any("noise 0.2 was not calib" in t for t in sidecar(tmp_path / "o.png")["warnings"])
    assert (tmp_path / "o.png").exists() and not (tmp_path / "o.lower.png").exists()
    for words, expected in (
        (("--save", "lower", "--samples", 2), "--save lower,upper needs --calibration"),
        (of_file, "--calibration needs --samples"),
    ):
        code, text = refused("denoise", photo, "-o", tmp_path / "w.png", *words)
        assert code == 2 and expected in text
