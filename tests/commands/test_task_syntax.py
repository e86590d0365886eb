"""Syntax of tasks and methods: settings mean the same as the options of the commands."""

import click
import pytest

from genprior.commands.task_syntax import Methods, Numbers, Task

TASK = Task()


def read(text: str):
    return TASK.convert(text, None, None)


def test_settings_and_defaults_are_those_of_the_commands():
    task = read("inpaint:random=0.5")
    assert (task.kind, task.noise, task.crop) == ("inpaint", 0.0, None)
    assert task.settings == {"mask": ("random", 0.5), "invert": False}
    assert read("inpaint:box=48x32,crop=64").settings["mask"] == ("box", (48, 32))
    assert read("inpaint:box=48x32,crop=64").crop == 64
    assert read("inpaint").settings["mask"] == ("alpha", None)
    assert read("inpaint:alpha,invert-mask").settings["invert"] is True
    assert read("denoise:noise=25/255").noise == 25 / 255
    task = read("deblur:motion=15,30,boundary=circular")
    assert task.settings["motion"] == (15, 30) and task.settings["boundary"] == "circular"
    assert task.noise == 0.01
    task = read("hdr:factor=1.5,pivot=0.5")
    assert task.settings == {"factor": 1.5, "pivot": 0.5, "white": "auto"} and task.noise == 0
    assert read("phase:masks=4,noise=0.05").settings == {"oversampling": 2.0, "masks": 4}
    assert read("phase").noise == 0.01
    assert read("gamma").settings == {"gamma": 1 / 2.2}
    assert read("quantise:levels=4").settings == {"levels": 4}
    task = read("superres:factor=4,filter=gaussian,std=1.8,noise=0.02")
    assert task.settings == {"factor": 4, "kernel": "gaussian", "std": 1.8, "blur": None,
                             "boundary": "symmetric"}


def test_a_mask_file_may_have_a_comma(tmp_path):
    file = tmp_path / "a,b.png"
    file.touch()
    assert read(f"inpaint:mask={file},noise=0.1").settings["mask"] == ("file", file)


def test_any_physics_of_deepinv_with_its_arguments():
    task = read("deepinv:CompressedSensing,m=2500,noise=0.02,crop=64")
    assert (task.kind, task.noise, task.crop) == ("deepinv", 0.02, 64)
    assert task.settings == {"name": "CompressedSensing", "settings": {"m": 2500}}
    task = read('deepinv:Tomography,angles=30,circle=false,img_width=[3,4]')
    assert task.settings["settings"] == {"angles": 30, "circle": False, "img_width": [3, 4]}
    assert task.noise == 0.01


def test_linear_tasks_and_laws_of_noise(tmp_path):
    task = read("demosaic:pattern=GBRG,noise=0.01")
    assert (task.noise, task.settings) == (0.01, {"pattern": "GBRG"})
    assert (read("colorize").noise, read("colorize").settings) == (0.0, {})
    task = read("compressed-sensing:ratio=0.25,sensing-seed=3,crop=64")
    assert task.settings == {"ratio": 0.25, "seed": 3} and task.crop == 64
    (tmp_path / "k.npy").touch()
    task = read(f"superres:factor=3,kernel={tmp_path / 'k.npy'}")
    assert task.settings["blur"] == tmp_path / "k.npy" and task.settings["kernel"] == "bicubic"
    task = read("denoise:noise=poisson=30,crop=96")
    assert (task.noise, task.crop) == ("poisson=30", 96)
    assert read("deblur:gaussian=1.6,noise=signal=0.02,0.001").noise == "signal=0.02,0.001"
    assert read("denoise:noise=correlated=0.05,3").noise == "correlated=0.05,3"


@pytest.mark.parametrize("text, message", [
    ("deepinv", "write deepinv:NAME"),
    ("deepinv:CompressedSensing,m", "'m': write SETTING=VALUE"),
    ("sharpen:x=1",
     "'sharpen:x=1': choose one of inpaint, deblur, superres, denoise, dejpeg, "
     "colorize, demosaic, compressed-sensing, hdr, phase, gamma, quantise, deepinv"),
    ("inpaint:random=2", "'inpaint:random=2': .*between 0 and 1"),
    ("inpaint:hole=3", "No such option '?--hole"),
    ("denoise", "Missing option '--noise'"),
    ("denoise:noise=1/0", "divides by zero"),
    ("deblur:noise=0.1", "a blur needs exactly one of --gaussian"),
    ("superres:std=2", "--std is the width of --filter gaussian"),
    ("superres:factor=1", "1 is not in the range"),
    ("hdr:factor=1", "1.0 is not in the range"),
    ("hdr:pivot=0.5,white=0.4", "--white 0.4 must be above --pivot 0.5"),
    ("phase:masks=x", "'x' is not a valid integer"),
    ("quantise:levels=1", "1 is not in the range"),
])
def test_invalid_tasks(text, message):
    with pytest.raises(click.UsageError, match=message):
        read(text)


def test_methods():
    kind = Methods(("auto", "hqs", "deepinv"))
    auto, hqs, peer = kind.convert("auto,hqs:steps=3:eta=0.5,deepinv:diffpir:zeta=1", None, None)
    assert (auto.name, auto.settings) == ("auto", {})
    assert (hqs.text, hqs.settings) == ("hqs:steps=3:eta=0.5", {"steps": 3, "eta": 0.5})
    assert (peer.name, peer.settings) == ("deepinv:diffpir", {"zeta": 1})
    assert kind.convert("", None, None) == ()
    for text, message in [("dsp", "'dsp': choose among auto, hqs"), ("hqs:3", "NAME:SETTING"),
                          ("deepinv", "write deepinv:NAME")]:
        with pytest.raises(click.UsageError, match=message):
            kind.convert(text, None, None)


def test_numbers():
    assert Numbers().convert("0,2,2", None, None) == (0, 2)
    with pytest.raises(click.UsageError, match="write integers >= 0 with commas"):
        Numbers().convert("1,-2", None, None)
