"""Velocity fields as denoisers: exact on a Gaussian, and those of torchcfm and diffusers."""

import json
from pathlib import Path

import pytest
import torch
from oracles import Dense
from shell import refused, save_photo, sidecar, succeed
from torch import Tensor

from genprior import load_prior, make_solver, restore
from genprior.core.errors import EXIT_WEIGHTS, CheckpointError
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.priors.base import Denoiser
from genprior.priors.external.flow_matching import FlowMatching

TORCHCFM_MISSING = "torchcfm is missing: pip install --no-deps torchcfm pot"
DIFFUSERS_MISSING = 'diffusers is missing: pip install "genprior[diffusers]"'
SHAPE = (1, 4, 5)


class GaussianFlow(Denoiser):
    """The flow of the law of `Dense`, from its velocity in closed form.

    u = 2 x - 1 ~ N(0, S) and n ~ N(0, I): v = E[u - n | u_t] = (t S - (1 - t) I) C^-1 u_t with
    the covariance C = t^2 S + (1 - t)^2 I of u_t.
    """

    def __init__(self, data_at: int, scale: float = 1.0) -> None:
        self.steps, self.S = FlowMatching(data_at, scale), 4 * Dense().cov(SHAPE)

    def velocity(self, u_t: Tensor, time: Tensor) -> Tensor:
        eye, out = torch.eye(len(self.S), dtype=torch.float64), []
        times = (time / self.steps.scale).tolist()
        for state, t in zip(u_t.double().flatten(1), times, strict=True):
            t = t if self.steps.data_at else 1 - t
            C = t**2 * self.S + (1 - t) ** 2 * eye
            v = (t * self.S - (1 - t) * eye) @ torch.linalg.solve(C, state)
            out.append(v if self.steps.data_at else -v)
        return torch.stack(out).reshape(u_t.shape).to(u_t)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.steps.denoise(self.velocity, x, sigma)


@pytest.mark.parametrize(("data_at", "scale"), [(1, 1.0), (0, 1.0), (0, 1000.0)])
def test_the_velocity_of_a_gaussian_gives_its_exact_denoiser(data_at: int, scale: float) -> None:
    prior, x = GaussianFlow(data_at, scale), Dense().draw(3, SHAPE)
    for sigma in (0.003, 0.1, 1.0, 50.0, torch.tensor([0.01, 0.4, 20.0]).double()):
        torch.testing.assert_close(
            prior.denoise(x, sigma), Dense().denoise(x, sigma), rtol=0, atol=1e-11
        )


@pytest.mark.parametrize("solver", ["hqs", "moment-matched", "ddrm", "diffpir", "flow-dps"])
def test_all_samplers_run_on_a_flow_as_on_the_exact_denoiser(solver: str) -> None:
    class Exact(Denoiser):
        def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            return Dense().denoise(x, sigma)

    y = Inpainting(random_keep((1, *SHAPE), 0.5)).A(Dense().draw(2, SHAPE)).float()
    operator = Inpainting(random_keep((1, *SHAPE), 0.5))
    found = [restore(y, operator, prior, make_solver(solver, 5), 0.05).image
             for prior in (GaussianFlow(1), Exact())]
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


def torchcfm_unet(**settings: object) -> torch.nn.Module:
    unet = pytest.importorskip("torchcfm.models.unet", reason=TORCHCFM_MISSING)
    torch.manual_seed(0)
    network = unet.UNetModel(**{"dim": (1, 28, 28), "num_channels": 32, "num_res_blocks": 1,
                                **settings})
    for value in network.parameters():  # some layers begin with zeros
        value.data = value.data + 0.05 * torch.randn_like(value)
    return network.eval()


@pytest.mark.parametrize(("settings", "told"), [
    ({}, {}),
    ({"dim": (3, 32, 32), "channel_mult": [1, 2], "num_heads": 4, "num_head_channels": 32,
      "attention_resolutions": "16"}, {"head_channels": 32}),
    ({"resblock_updown": True, "use_scale_shift_norm": True, "num_heads": 2,
      "channel_mult": [1, 2], "use_new_attention_order": True},
     {"heads": 2, "new_attention_order": True, "data_at": 0}),
], ids=["mnist", "colour", "reversed"])
def test_files_of_torchcfm(tmp_path: Path, settings: dict, told: dict) -> None:
    network, path = torchcfm_unet(**settings), tmp_path / "model.pt"
    torch.save({"net_model": {}, "ema_model": network.state_dict(), "step": 3, "sched": {"a": 1}},
               path)
    if told:
        path.with_name("model.pt.genprior.json").write_text(json.dumps(told))
    prior = load_prior(path)
    channels, reversed_ = settings.get("dim", (1,))[0], told.get("data_at") == 0
    x = torch.rand(2, channels, 28, 24, generator=torch.Generator().manual_seed(1))
    for sigma in (0.05, 1.5):
        s = 2 * sigma
        t = torch.tensor([1 / (1 + s)] * 2)
        u_t = (2 * x - 1) * t[0]
        with torch.no_grad():
            v = network(1 - t, u_t) if reversed_ else network(t, u_t)
        u_hat = u_t - (1 - t[0]) * v if reversed_ else u_t + (1 - t[0]) * v
        torch.testing.assert_close(prior.denoise(x, sigma), (u_hat + 1) / 2, atol=1e-5, rtol=0)


def test_a_bare_file_is_ambiguous_and_the_format_decides(tmp_path: Path) -> None:
    path, photo = tmp_path / "model.pt", save_photo(tmp_path / "a.png", channels=1, size=(8, 12))
    torch.save(torchcfm_unet(channel_mult=[1, 2]).state_dict(), path)
    code, line = refused("priors", "info", path)
    assert code == EXIT_WEIGHTS and "may be a file of guided-diffusion or of torchcfm" in line
    assert "give --format" in line
    with pytest.raises(CheckpointError, match=f"guided-diffusion:{path} in Python"):
        load_prior(path)
    about = json.loads(succeed("priors", "info", path, "--format", "torchcfm").stdout)
    assert about["format"] == "torchcfm" and about["data_at"] == 1
    assert {"pnp-flow", "flow-dps"} <= set(about["solvers"])
    diffusion = load_prior(f"guided-diffusion:{path}")
    x = torch.rand(1, 1, 8, 8)
    assert not torch.allclose(diffusion.denoise(x, 1.0),
                              load_prior(f"torchcfm:{path}").denoise(x, 1.0))
    for solver in ("flow-dps", "pnp-flow"):
        succeed("inpaint", photo, "--prior", path, "--format", "torchcfm", "--solver", solver,
                "--mask", "box=4x4", "--degrade", "--steps", 2, "-q", "--overwrite")
        assert f"torchcfm:{path}" in json.dumps(sidecar(tmp_path / "a.genprior.png"))


def test_a_flow_of_diffusers(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason=DIFFUSERS_MISSING)
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, norm_num_groups=4,
        block_out_channels=(8, 16), down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()
    network.save_pretrained(tmp_path / "unet")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.save_pretrained(tmp_path / "scheduler")
    prior, x = load_prior(tmp_path), torch.rand(2, 1, 8, 12)
    sigma = 0.3
    w = torch.tensor([2 * sigma / (1 + 2 * sigma)])
    u_t = (1 - w) * (2 * x - 1)
    with torch.no_grad():
        v = network(u_t, 1000 * w).sample
    scheduler.sigmas, scheduler.timesteps = torch.cat((w, torch.zeros(1))), 1000 * w
    u_hat = scheduler.step(v, scheduler.timesteps[0], u_t).prev_sample  # one step to the data
    torch.testing.assert_close(prior.denoise(x, sigma), (u_hat + 1) / 2, atol=1e-5, rtol=0)
    about = json.loads(succeed("priors", "info", tmp_path).stdout)
    assert about["prediction"] == "velocity" and about["data_at"] == 0
    photo = save_photo(tmp_path / "a.png", channels=1, size=(8, 12))
    succeed("inpaint", photo, "--prior", tmp_path, "--solver", "pnp-flow", "--mask", "box=4x4",
            "--degrade", "--steps", 2, "-q")
    assert str(tmp_path) in json.dumps(sidecar(tmp_path / "a.genprior.png"))


def test_wrong_conventions_are_refused() -> None:
    with pytest.raises(ValueError, match="data_at must be 0 or 1, got 2"):
        FlowMatching(2)
    with pytest.raises(ValueError, match="scale of the times must be positive"):
        FlowMatching(1, 0.0)
