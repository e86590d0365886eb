"""Folders of diffusers, written by diffusers and compared with its own estimates of x0."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from shell import refused, save_photo, sidecar, succeed

from genprior import load_prior
from genprior.core.errors import EXIT_WEIGHTS, CheckpointError

MISSING = 'diffusers is missing: pip install "genprior[diffusers]"'
diffusers = pytest.importorskip("diffusers", reason=MISSING)
SCHEDULERS = {
    "epsilon": {"beta_schedule": "linear"},
    "v_prediction": {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True},
    "sample": {"beta_schedule": "squaredcos_cap_v2"},
}
TRAINED = {"trained_betas": torch.linspace(1e-3, 0.1, 200).tolist(), "num_train_timesteps": 200}


def unet(channels: int = 3, **settings: object) -> "diffusers.UNet2DModel":
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
              "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    network = diffusers.UNet2DModel(**{
        "sample_size": 16, "in_channels": channels, "out_channels": channels,
        "layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 4, **blocks,
        **settings,
    })
    return network.eval()


def save(folder: Path, network: "diffusers.UNet2DModel", scheduler: object, **how: object) -> Path:
    diffusers.DDPMPipeline(network, scheduler).save_pretrained(folder, **how)
    return folder


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("pipeline"), unet(), diffusers.DDPMScheduler())


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(2, 3, 16, 12, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize(("prediction", "settings"), [
    *SCHEDULERS.items(), ("epsilon", TRAINED),
], ids=["linear", "scaled-linear", "cosine", "trained"])
def test_denoised_images_are_those_of_the_library(
    tmp_path: Path, x: torch.Tensor, prediction: str, settings: dict
) -> None:
    network = unet()
    scheduler = diffusers.DDPMScheduler(
        prediction_type=prediction, clip_sample=False, **settings
    )
    prior = load_prior(save(tmp_path, network, scheduler)).double()
    network.double()
    last = len(scheduler.alphas_cumprod) - (2 if prediction == "v_prediction" else 1)
    for t in (0, last // 2, last):
        a = scheduler.alphas_cumprod[t].double()
        sigma = (((1 - a) / a).sqrt() / 2).item()
        u_t = a.sqrt() * (2 * x - 1)
        with torch.no_grad():
            out = network(u_t, t).sample
        expected = (scheduler.step(out, t, u_t).pred_original_sample + 1) / 2
        torch.testing.assert_close(prior.denoise(x, sigma), expected, atol=1e-5, rtol=1e-5)
        both = prior.denoise(x, torch.tensor([sigma, sigma]).double())
        torch.testing.assert_close(both, expected, atol=1e-5, rtol=1e-5)


def test_pickled_weights_in_one_folder_of_another_scheduler(
    tmp_path: Path, x: torch.Tensor
) -> None:
    network, scheduler = unet(), diffusers.PNDMScheduler(beta_schedule="linear")
    network.save_pretrained(tmp_path, safe_serialization=False)
    scheduler.save_pretrained(tmp_path)
    assert list(tmp_path.glob("*.bin"))
    prior = load_prior(tmp_path).double()
    a = scheduler.alphas_cumprod[300].double()
    u = 2 * x - 1
    with torch.no_grad():
        out = network.double()(a.sqrt() * u, 300).sample
    s = ((1 - a) / a).sqrt()
    torch.testing.assert_close(
        prior.denoise(x, s.item() / 2), (u - s * out + 1) / 2, atol=1e-5, rtol=0
    )
    weights = next(tmp_path.glob("*.bin"))
    file = load_prior(weights).double()  # a file of the folder stands for the folder
    assert torch.equal(file.denoise(x, 0.3), prior.denoise(x, 0.3))


@pytest.mark.parametrize("blocks", [
    {},
    {"down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
     "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"), "block_out_channels": (32, 32)},
], ids=["plain", "ncsnpp"])
def test_a_score_model_takes_sigma_and_images_from_0_to_1(
    tmp_path: Path, x: torch.Tensor, blocks: dict
) -> None:
    network = unet(time_embedding_type="fourier", **blocks)
    network.save_pretrained(tmp_path / "unet")
    diffusers.ScoreSdeVeScheduler().save_pretrained(tmp_path / "scheduler")
    prior, x = load_prior(tmp_path), x.float()
    sigma = torch.tensor([0.1, 0.7])
    with torch.no_grad():
        score = network(x, sigma).sample
    expected = x + sigma.reshape(-1, 1, 1, 1) ** 2 * score
    torch.testing.assert_close(prior.denoise(x, sigma), expected, atol=1e-5, rtol=0)
    photo = save_photo(tmp_path / "a.png", size=(8, 12))
    succeed("denoise", photo, "--noise", 0.1, "--prior", tmp_path, "-q")
    assert str(tmp_path) in json.dumps(sidecar(tmp_path / "a.genprior.png"))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_a_network_of_edm(
    tmp_path: Path, x: torch.Tensor, name: str, prediction: str
) -> None:
    network = unet()
    scheduler = getattr(diffusers, name)(sigma_data=0.6, prediction_type=prediction)
    prior = load_prior(save(tmp_path, network, scheduler)).double()
    network.double()
    scheduler.set_timesteps(5)
    for level in scheduler.sigmas[:5].double():
        u = 2 * x - 1
        with torch.no_grad():
            out = network(scheduler.precondition_inputs(u, level),
                          scheduler.precondition_noise(level)).sample
        expected = (scheduler.precondition_outputs(u, out, level) + 1) / 2
        found = prior.denoise(x, level.item() / 2)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    photo = save_photo(tmp_path / "a.png", size=(8, 12))
    succeed("denoise", photo, "--noise", 0.1, "--prior", tmp_path, "-q")
    assert str(tmp_path) in json.dumps(sidecar(tmp_path / "a.genprior.png"))
    about = json.loads(succeed("priors", "info", tmp_path).stdout)
    assert about["prediction"] == "edm" and about["noise_levels"] == [0.001, 40.0]


def test_a_table_of_times_takes_the_nearest(tmp_path: Path, x: torch.Tensor) -> None:
    network = unet(time_embedding_type="learned", num_train_timesteps=1000)
    scheduler = diffusers.DDPMScheduler(clip_sample=False)
    prior = load_prior(save(tmp_path, network, scheduler)).double()
    a = scheduler.alphas_cumprod[300].double()
    s = ((1 - a) / a).sqrt().item() * 1.0001
    u = 2 * x - 1
    with torch.no_grad():
        out = network.double()(u / (1 + s**2) ** 0.5, 300).sample
    torch.testing.assert_close(prior.denoise(x, s / 2), (u - s * out + 1) / 2, atol=1e-9, rtol=0)


def test_a_conditional_network_needs_a_class(tmp_path: Path, x: torch.Tensor) -> None:
    network = unet(num_class_embeds=4)
    save(tmp_path, network, diffusers.DDPMScheduler())
    with pytest.raises(CheckpointError, match="has 4 classes, and class_label is None: write"):
        load_prior(tmp_path)
    (tmp_path / "genprior.json").write_text('{"class_label": 2}')
    prior = load_prior(tmp_path)
    a = diffusers.DDPMScheduler().alphas_cumprod[300]
    s, u = ((1 - a) / a).sqrt(), 2 * x.float() - 1
    with torch.no_grad():
        out = network(a.sqrt() * u, 300, class_labels=torch.tensor([2, 2])).sample
    torch.testing.assert_close(
        prior.denoise(x.float(), s.item() / 2), (u - s * out + 1) / 2, atol=1e-5, rtol=0
    )
    (tmp_path / "genprior.json").write_text('{"class_label": 4}')
    with pytest.raises(CheckpointError, match="class_label is 4"):
        load_prior(tmp_path)


def test_any_size_grey_and_colour(pipeline: Path, x: torch.Tensor) -> None:
    prior, x = load_prior(pipeline), x.float()
    assert prior.denoise(x[..., :11, :7], 0.2).shape == (2, 3, 11, 7)
    assert prior.denoise(x[..., :1, :1], 0.2).shape == (2, 3, 1, 1)
    grey = prior.denoise(x[:, :1], 0.2)
    expanded = prior.denoise(x[:, :1].expand(-1, 3, -1, -1), 0.2)
    torch.testing.assert_close(grey, expanded.mean(dim=1, keepdim=True))


def test_a_restoration_and_a_description_from_the_shell(pipeline: Path, tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "a.png", size=(16, 21))
    state = torch.random.get_rng_state()
    for words in (["--samples", 2, "--solver", "dps"], ["--overwrite"]):
        succeed("inpaint", photo, "--prior", pipeline, "--mask", "box=6x6", "--degrade",
                "--steps", 2, "-q", *words)
    assert torch.equal(state, torch.random.get_rng_state())
    about = sidecar(tmp_path / "a.genprior.png")
    assert str(pipeline) in json.dumps(about)
    described = json.loads(succeed("priors", "info", pipeline).stdout)
    assert described["format"] == "diffusers" and described["prediction"] == "epsilon"
    assert described["channels"] == 3 and described["trained_size"] == 16
    assert {"dps", "hqs", "mmps"} <= set(described["solvers"])
    assert "csgm" not in described["solvers"]
    assert "unet/diffusion_pytorch_model.safetensors" in described["files"]


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def defect(name: str, folder: Path) -> None:
    config = folder / "unet" / "config.json"
    settings = json.loads(config.read_text())
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    if name == "code":
        torch.save({"conv_in.weight": Touch(folder / "run")}, weights.with_suffix(".bin"))
        weights.unlink()
    elif name == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif name == "missing":
        weights.unlink()
    elif name == "config":
        config.write_text("{")
    elif name == "width":
        config.write_text(json.dumps({**settings, "layers_per_block": 2}))
    elif name == "huge":  # 5 * 10^14 numbers, which no machine holds
        config.write_text(json.dumps({**settings, "block_out_channels": [2**22, 2**23]}))
    elif name == "deep":
        config.write_text(json.dumps({**settings, "layers_per_block": 10**9}))
    elif name == "incomplete":
        tensors = load_file(weights)
        del tensors["conv_out.bias"]
        save_file(tensors, weights)
    elif name == "latent":
        config.write_text(json.dumps({**settings, "_class_name": "UNet2DConditionModel"}))
    elif name == "scheduler":
        (folder / "scheduler" / "scheduler_config.json").unlink()
    elif name == "edm":
        file = folder / "scheduler" / "scheduler_config.json"
        file.write_text('{"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}')
    elif name == "fourier":
        file = folder / "scheduler" / "scheduler_config.json"
        file.write_text('{"_class_name": "EDMEulerScheduler"}')
        unet(time_embedding_type="fourier").save_pretrained(folder / "unet")
    else:
        file = folder / "scheduler" / "scheduler_config.json"
        file.write_text('{"_class_name": "VQDiffusionScheduler"}')


@pytest.mark.parametrize(("name", "message"), [
    ("code", "cannot be loaded"), ("truncated", "cannot be loaded"),
    ("missing", "cannot be loaded"), ("config", "cannot be read (it is not JSON"),
    ("width", "tensors do not fit config.json"), ("huge", "tensors do not fit config.json"),
    ("deep", "it has more than"), ("incomplete", "1 tensors do not fit config.json"),
    ("latent", "is a UNet2DConditionModel"),
    ("scheduler", "there is no scheduler/scheduler_config.json"),
    ("edm", "preconditioning of EDM must predict epsilon or v_prediction"),
    ("fourier", "EDMEulerScheduler is not supported with a fourier time embedding"),
    ("other", "scheduler VQDiffusionScheduler is not supported"),
])
def test_defects_are_one_line_and_run_nothing(tmp_path: Path, name: str, message: str) -> None:
    save(tmp_path, unet(), diffusers.DDPMScheduler())
    defect(name, tmp_path)
    code, line = refused("priors", "info", tmp_path)
    assert message in line and code == EXIT_WEIGHTS
    assert not (tmp_path / "run").exists()
