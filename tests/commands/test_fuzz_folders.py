"""Damaged folders and weights on the command line: a right result, or one line of error.

Folders of priors, of training runs and of evaluations, and files to import. A command that fails
changes nothing, and its message names the folder or the file.
"""

import hashlib
import io
import json
import os
import shutil
import stat
import struct
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from shell import genprior, levels, save_photo, succeed

from genprior.priors.checkpoint import MANIFEST, save_checkpoint
from genprior.priors.ddpm import DDPM

CASES = 35
LONGEST = 20  # seconds
TINY = {"widths": [8], "blocks": [0]}
SET = ("--set", "widths=[8]", "--set", "blocks=[0]")
# Values in JSON, some of them with wrong syntax.
VALUES = (
    "null", "true", "-1", "0", "1", "1.5", "1e308", "1e999", "NaN", "1" + 30 * "0", 5000 * "9",
    "[]", "{}", "[1, 2, 3]", '{"a": null}', 60 * "[" + 60 * "]", 9999 * "[", '""', '"x"',
    '"../../etc/passwd"', '"/dev/zero"', '"\\ud800"', '"\\u0000"', f'"{300 * "a"}"', "", "x",
)
NAMES = ("", "x", "../x.safetensors", "/dev/zero", "model-2.safetensors", "module.x", "\ud800")
MARK = "the place of the new value"
KINDS = ("text", "text", "text", "cut", "flip", "zero", "empty", "noise", "file")


def places(value: Any, above: tuple = ()) -> Iterator[tuple]:
    """Yields the keys that lead to every value in a JSON value."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*above, key)
            yield from places(value[key], (*above, key))


def changed_json(draw: Callable, text: bytes) -> bytes:
    """Removes, replaces or renames one value of a JSON text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # damaged before
        return text
    first = [place for place in places(value) if len(place) == 1]
    if not first:
        return draw(st.sampled_from(VALUES)).encode()
    (top,) = draw(st.sampled_from(first))  # else long lists would have most of the cases
    *above, key = draw(st.sampled_from([(top,), *places(value[top], (top,))]))
    part = value
    for step in above:
        part = part[step]
    kind = draw(st.sampled_from(("remove", "replace", "replace", "rename")))
    if kind == "remove":
        del part[key]
    elif kind == "replace":
        part[key] = MARK
    elif isinstance(part, dict):
        part[draw(st.sampled_from((*NAMES, *map(str, part))))] = part.pop(key)
    else:
        part.insert(key, part[key])
    new = draw(st.sampled_from(VALUES)) if kind == "replace" else ""
    return json.dumps(value).replace(json.dumps(MARK), new).encode()


def changed_text(draw: Callable, name: str, data: bytes) -> bytes:
    """Changes JSON, one line of JSON lines, or the header of a safetensors file."""
    if name.endswith(".json"):
        return changed_json(draw, data)
    if name.endswith(".jsonl"):
        lines = data.split(b"\n")
        number = draw(st.integers(0, len(lines) - 1))
        lines[number] = changed_json(draw, lines[number])
        return b"\n".join(lines)
    if name.endswith(".safetensors") and len(data) > 8:
        size = struct.unpack("<Q", data[:8])[0]
        header = changed_json(draw, data[8 : 8 + size])
        return struct.pack("<Q", len(header)) + header + data[8 + size :]
    return data[::-1]


def changed_bytes(draw: Callable, kind: str, data: bytes) -> bytes:
    place = st.one_of(st.integers(0, 100), st.integers(0, max(len(data) - 1, 0)))
    if kind == "cut":
        return data[: draw(place)]
    if kind == "flip":
        bits = bytearray(data)
        for position in draw(st.lists(place, min_size=1, max_size=4)):
            if bits:
                bits[position % len(bits)] ^= 1 << draw(st.integers(0, 7))
        return bytes(bits)
    if kind == "zero":
        start = draw(place)
        return data[:start] + bytes(64) + data[start + 64 :]
    return b"" if kind == "empty" else data[:16] + draw(st.binary(max_size=200))


def replaced_file(draw: Callable, path: Path) -> None:
    """Removes or renames a file, or puts a folder, a pipe or a link in its place."""
    kind = draw(st.sampled_from(("gone", "renamed", "folder", "pipe", "device", "dangling")))
    if kind == "renamed":
        path.rename(path.with_name(f"{path.stem}-2{path.suffix}"))
        return
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind in ("device", "dangling"):
        path.symlink_to("/dev/zero" if kind == "device" else path.parent / "absent")


def damage(draw: Callable, folder: Path, names: Sequence[str]) -> bool:
    """Damages up to two files; returns whether new checksums were written for the weights."""
    summed = False
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=2)):
        path = folder / name
        kind = draw(st.sampled_from(KINDS))
        if not path.is_file():  # damaged before
            continue
        if kind == "file":
            replaced_file(draw, path)
            continue
        old = path.read_bytes()
        text = kind == "text"
        new = changed_text(draw, name, old) if text else changed_bytes(draw, kind, old)
        path.write_bytes(new)
        if name.endswith(".safetensors") and new != old and draw(st.booleans()):
            summed |= write_sum(path, new)
    return summed


def write_sum(path: Path, data: bytes) -> bool:
    """Writes the checksum and size of a file into its manifest, if that is sound."""
    about = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest = path.with_name(MANIFEST)
    if not manifest.is_file():  # reading a pipe would not end
        return False
    try:
        content = json.loads(manifest.read_bytes())
        content["files"][path.name] = about
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
    manifest.write_text(json.dumps(content))
    return True


def state(folder: Path) -> dict[str, tuple]:
    """Returns kind and content of every file in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        content = path.read_bytes() if stat.S_ISREG(mode) else b""
        found[str(path)] = (stat.S_IFMT(mode), content)
    return found


def outcome(folder: Path, damaged: Path, *words: object) -> Result:
    """Runs a command on a damaged folder or file; checks the time, and what a failure leaves."""
    before, started = state(folder), time.monotonic()
    result = genprior(*words)
    assert time.monotonic() - started < LONGEST
    if result.exit_code:
        assert result.exit_code in (2, 3, 4), result.output
        assert result.stdout == "" and result.stderr.count("\n") == 1, result.output
        assert result.stderr.startswith(("genprior: ", "error: ")), result.stderr
        assert str(damaged) in result.stderr and len(result.stderr) < 2000, result.stderr
        now = state(folder)
        assert all(now[path] == before[path] for path in before if not _redone(path))
        assert all(path in before or _redone(path) for path in now)
    return result


def _redone(path: str) -> bool:
    """Whether a lost file is completed, whatever comes later: the tuning of an evaluation."""
    return path.endswith("tuning.json")


def copied(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target, symlinks=True))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(2):
        save_photo(folder / f"{number}.png", size=(8, 8), start=100 + 20 * number)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_photo(tmp_path_factory.mktemp("small") / "a.png", size=(8, 8), start=200)


# Folders of priors


def denoising(small: Path, prior: Path) -> list[object]:
    return ["denoise", small, "--noise", 0.1, "--prior", prior, "--solver", "hqs", "--steps", 1,
            "-o", prior / "out.png"]


def tiny() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {key: 0.1 * torch.randn(value.shape, generator=generator)
            for key, value in DDPM(**TINY).state_dict().items()}


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory, small: Path) -> Path:
    folder = tmp_path_factory.mktemp("priors") / "prior"
    about = {"flip": True, "turn": True, "sample_size": [8, 8], "scale": True, "step": 3}
    save_checkpoint(folder, "ddpm", DDPM(**TINY).config, tiny(), about=about)
    result = copied(folder, folder.with_name("sound"))
    succeed(*denoising(small, result))
    (folder.parent / "out.png").write_bytes((result / "out.png").read_bytes())
    return folder


def check_prior(draw: Callable, folder: Path, prior: Path, small: Path) -> None:
    given = copied(prior, folder / "prior")
    summed = damage(draw, given, (MANIFEST, MANIFEST, "model.safetensors"))
    if draw(st.booleans()):
        result = outcome(given, given, "priors", "info", given)
        if result.exit_code == 0:
            told = json.loads(result.stdout)
            told.pop("solvers", None)  # those that can use it
            assert told == json.loads((given / MANIFEST).read_bytes())
        return
    result = outcome(given, given, *denoising(small, given))
    if result.exit_code == 0:
        before, now = (json.loads((path / MANIFEST).read_bytes()) for path in (prior, given))
        used = ("prior", "config", "flip", "turn")
        same = all(before[name] == now.get(name, MARK) for name in used)
        restored = levels(given / "out.png")
        if same and not summed:
            assert (restored == levels(prior.parent / "out.png")).all()


# Folders of training runs


def training(photos: Path, out: Path, steps: int) -> list[object]:
    return ["train", "ddpm", photos, "-o", out, "--steps", steps, "--batch", 1, "--crop", 8, *SET,
            "--no-preview", "--device", "cpu", "--dtype", "float32", "--resume", "-q"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A run of 21 steps, with a line in its log, and the weights after a sound 22nd step."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    succeed(*training(photos, folder, 20)[:-2], "-q")
    succeed(*training(photos, folder, 21))
    for number in (21, 20):  # the checkpoint to continue from
        out = copied(folder, folder.with_name("sound"))
        if number == 20:
            (out / "step-00000021" / MANIFEST).unlink()
        succeed(*training(photos, out, 22))
        weights = out / "step-00000022" / "model.safetensors"
        shutil.copy(weights, folder.parent / f"{number}.safetensors")
    return folder


def check_run(draw: Callable, folder: Path, trained: Path, photos: Path) -> None:
    given = copied(trained, folder / "run")
    last = [f"step-00000021/{name}"
            for name in (MANIFEST, MANIFEST, "model.safetensors", "state.safetensors")]
    other = ["log.jsonl", f"step-00000020/{MANIFEST}", "step-00000020/model.safetensors"]
    summed = damage(draw, given, [*last, *other])
    result = outcome(given, given, *training(photos, given, 22))
    if result.exit_code == 0:
        weights = load_file(given / "step-00000022" / "model.safetensors")
        assert all(value.isfinite().all() for value in weights.values())
        if not summed:
            right = [load_file(trained.parent / f"{number}.safetensors") for number in (20, 21)]
            assert any(all(torch.equal(weights[key], value) for key, value in one.items())
                       for one in right)


# Folders of evaluations


def evaluating(small: Path, photos: Path, out: Path) -> list[object]:
    return ["evaluate", small, "-o", out, "--task", "deblur:gaussian=0.5,noise=0.05", "--prior",
            "none", "--baseline", "wiener,richardson-lucy", "--tune", photos, "--seeds", "0,1",
            "--device", "cpu", "--dtype", "float32", "-q"]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, photos: Path, small: Path) -> Path:
    folder = tmp_path_factory.mktemp("evaluations") / "evaluation"
    succeed(*evaluating(small, photos, folder))
    return folder


EVALUATION = (
    "results.jsonl", "results.jsonl", "settings.json", "settings.json", "tuning.json",
    "tuning.json", "report.md", "report.json", "report.csv", "contact.png",
)


def results(folder: Path) -> dict[tuple, dict]:
    """Returns the sound lines of the results."""
    found = {}
    path = folder / "results.jsonl"
    for line in path.read_bytes().split(b"\n")[:-1] if path.is_file() else ():
        try:
            record = json.loads(line)
            found[tuple(record[name] for name in ("index", "task", "seed", "method"))] = record
        except (ValueError, TypeError, LookupError, RecursionError):
            continue
    return found


def check_evaluation(
    draw: Callable, folder: Path, evaluated: Path, small: Path, photos: Path
) -> None:
    given = copied(evaluated, folder / "evaluation")
    pictures = sorted(str(path.relative_to(given)) for path in given.glob("pictures/*.png"))
    damage(draw, given, (*EVALUATION, pictures[0]))
    before, right = results(given), results(evaluated)
    result = outcome(given, given, *evaluating(small, photos, given))
    if result.exit_code == 0:
        now = results(given)
        assert now.keys() >= right.keys() | before.keys()
        for key, record in now.items():
            expected = before.get(key) or right[key]  # kept, or measured again
            for name in ("image", "psnr", "ssim", "misfit"):
                assert record.get(name) == expected.get(name)
        rows = json.loads((given / "report.json").read_bytes())
        assert rows and (given / "report.md").is_file() and (given / "report.csv").is_file()


# Files to import


def archive(draw: Callable, data: bytes) -> bytes:
    """Changes an entry of a zip archive, with a right checksum."""
    kind = draw(st.sampled_from(("remove", "rename", "twice", "pack", "flip", "cut", "noise")))
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    names = sorted(entries, key=lambda name: (not name.endswith(".pkl"), name))
    name = names[draw(st.integers(0, len(names) - 1))]
    packing = zipfile.ZIP_DEFLATED if kind == "pack" else zipfile.ZIP_STORED
    if kind in ("flip", "cut", "noise"):
        entries[name] = changed_bytes(draw, kind, entries[name])
    changed = list(entries.items())
    if kind in ("remove", "rename"):
        changed = [entry for entry in changed if entry[0] != name]
    if kind == "rename":
        changed.append((draw(st.sampled_from(("../x", "archive/data/99", "/x"))), entries[name]))
    if kind == "twice":
        changed.append((f"{name} ", b"x"))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as new:
        for item in changed:
            new.writestr(*item)
    return stream.getvalue()


def odd(draw: Callable, value: torch.Tensor) -> Any:
    """Returns what may stand in the place of a weight."""
    kinds: tuple[Callable[[], Any], ...] = (
        lambda: None, lambda: 3, lambda: [value], lambda: {"x": value}, lambda: "x",
        lambda: value.half(), lambda: value.double(), lambda: value.double() * 1e300,
        lambda: value.to(torch.int8), lambda: value.to(torch.complex64), lambda: value * torch.nan,
        lambda: value[..., :0], lambda: value[None], lambda: value.flatten(),
        lambda: value.to_sparse(), lambda: torch.empty(2**20).expand(2**20, 2**20),
        lambda: torch.nn.Parameter(value), lambda: value.to("meta"), lambda: value.bool(),
        lambda: value.new_zeros(()).expand(value.shape), lambda: value.to(torch.float8_e5m2),
        lambda: value.conj(), lambda: torch._neg_view(value), lambda: value.requires_grad_(),
        lambda: torch.zeros(0, 1).expand(0, 2**40), lambda: value.to(torch.uint16),
    )
    return kinds[draw(st.integers(0, len(kinds) - 1))]()


def saved(draw: Callable, weights: dict[str, Any]) -> tuple[bytes, bool]:
    """Returns a file of weights, and whether it may hold others than those given."""
    changed = draw(st.booleans())
    if changed:
        key = draw(st.sampled_from(sorted(weights)))
        weights[draw(st.sampled_from((key, f"module.{key}", "x", 3)))] = odd(draw, weights[key])
    wrap = draw(st.sampled_from(("", "ema", "state_dict", "other")))
    stream = io.BytesIO()
    torch.save({wrap: weights, "step": 3} if wrap else weights, stream)
    data = stream.getvalue()
    kind = draw(st.sampled_from(("none", "archive", "archive", "cut", "flip", "zero", "noise")))
    if kind == "archive":
        return archive(draw, data), True
    return (data if kind == "none" else changed_bytes(draw, kind, data)), changed


def check_import(draw: Callable, folder: Path) -> None:
    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    file = folder / "weights.pt"
    data, changed = saved(draw, tiny())
    file.write_bytes(data)
    out = folder / "made"
    result = outcome(folder, file, "import", file, "--prior", "ddpm", *SET, "-o", out)
    if result.exit_code == 0:
        weights = load_file(out / "model.safetensors")
        assert all(value.isfinite().all() for value in weights.values())
        assert changed or all(torch.equal(weights[key], value) for key, value in tiny().items())


# What the tests below have found


def test_a_checkpoint_of_another_step_than_its_name_is_refused(
    tmp_path: Path, trained: Path, photos: Path
) -> None:
    out = copied(trained, tmp_path / "run")
    manifest = out / "step-00000021" / MANIFEST
    manifest.write_text(manifest.read_text().replace('"step": 21', '"step": 20'))
    result = outcome(out, manifest.parent, *training(photos, out, 22))
    assert result.exit_code == 4 and "holds step 20 according to its manifest" in result.stderr


@pytest.mark.parametrize("channels", ["true", '"x"', "[3]", "2", "1e308"])
def test_wrong_channels_of_a_resumed_run_are_named(
    tmp_path: Path, trained: Path, photos: Path, channels: str
) -> None:
    out = copied(trained, tmp_path / "run")
    manifest = out / "step-00000021" / MANIFEST
    text = manifest.read_text()
    manifest.write_text(text.replace('"channels": 3', f'"channels": {channels}'))
    result = outcome(out, manifest, *training(photos, out, 22))
    assert result.exit_code == 4 and "channels, they must be 1 or 3" in result.stderr


@pytest.mark.parametrize("name", [MANIFEST, "model.safetensors"])
def test_a_folder_in_an_old_checkpoint_does_not_stop_a_training(
    tmp_path: Path, trained: Path, photos: Path, name: str
) -> None:
    out = copied(trained, tmp_path / "run")
    (out / "step-00000020" / name).unlink()
    (out / "step-00000020" / name).mkdir()
    succeed(*training(photos, out, 22))
    assert (out / "step-00000022" / MANIFEST).is_file()


@pytest.mark.parametrize("kind", ["results", "report"])
def test_a_refused_evaluation_writes_nothing(
    tmp_path: Path, evaluated: Path, small: Path, photos: Path, kind: str
) -> None:
    out = copied(evaluated, tmp_path / "evaluation")
    path = out / ("results.jsonl" if kind == "results" else "report.csv")
    path.unlink()
    (out / "tuning.json").unlink()
    if kind == "results":
        path.write_text("{}\n")
    else:
        path.mkdir()
    before = state(out)
    result = outcome(out, path, *evaluating(small, photos, out))
    assert result.exit_code == 2 and state(out) == before


def test_a_damaged_picture_does_not_stop_an_evaluation(
    tmp_path: Path, evaluated: Path, small: Path, photos: Path
) -> None:
    out = copied(evaluated, tmp_path / "evaluation")
    for path in (out / "pictures").iterdir():
        path.write_bytes(b"damaged")
    (out / "contact.png").unlink()
    succeed(*evaluating(small, photos, out))
    assert (levels(out / "contact.png") < 128).any()  # their names


@pytest.mark.parametrize("pickled", [b"X", b"\x80\x02X\x01", b"\x80\x02G\x00", b"J", b""])
def test_an_incomplete_pickle_is_refused(tmp_path: Path, pickled: bytes) -> None:
    torch.save(tiny(), tmp_path / "sound.pt")
    file = tmp_path / "weights.pt"
    with zipfile.ZipFile(tmp_path / "sound.pt") as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickled if name.endswith("data.pkl") else old.read(name))
    out = tmp_path / "made"
    result = outcome(tmp_path, file, "import", file, "--prior", "ddpm", *SET, "-o", out)
    assert result.exit_code == 4 and "nothing in it was run" in result.stderr


@pytest.mark.parametrize("value", ["null", '"no"', "0"])
def test_a_wrong_symmetry_of_a_prior_is_refused(
    tmp_path: Path, prior: Path, small: Path, value: str
) -> None:
    given = copied(prior, tmp_path / "prior")
    text = (given / MANIFEST).read_text()
    (given / MANIFEST).write_text(text.replace('"flip": true', f'"flip": {value}'))
    assert outcome(given, given / MANIFEST, *denoising(small, given)).exit_code == 4


def cases(count: int) -> Callable:
    return settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))


def fuzz(check: Callable, *fixtures: str) -> tuple[Callable, Callable]:
    """Returns the test of the default suite, and the slow one with ten times its cases."""

    def once(tmp_path: Path, request: pytest.FixtureRequest, data: st.DataObject) -> None:
        check(data.draw, tmp_path, *map(request.getfixturevalue, fixtures))

    fast, slow = (cases(count)(given(data=st.data())(once)) for count in (CASES, 10 * CASES))
    return fast, pytest.mark.slow(slow)


test_priors, test_priors_350_times = fuzz(check_prior, "prior", "small")
test_runs, test_runs_350_times = fuzz(check_run, "trained", "photos")
test_evaluations, test_evaluations_350_times = fuzz(
    check_evaluation, "evaluated", "small", "photos"
)
test_imports, test_imports_350_times = fuzz(check_import)
