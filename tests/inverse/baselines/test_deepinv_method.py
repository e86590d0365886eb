import deepinv
import pytest
import torch

from genprior.api.restoration import restore
from genprior.core.errors import PeerError, SettingError
from genprior.core.random_streams import Noise
from genprior.integrations.deepinv import decomposable
from genprior.inverse.baselines.deepinv_method import Peer
from genprior.inverse.execution import executor
from genprior.operators.blur import Blur
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.priors.texture import Texture


@pytest.fixture(scope="module")
def prior() -> Texture:
    generator = torch.Generator().manual_seed(0)
    return Texture.from_exemplar(torch.rand(1, 3, 12, 12, generator=generator))


OPERATOR = Inpainting(random_keep((2, 3, 12, 12), 0.5))
SAME = Blur(torch.ones(1, 3) / 3, "circular")
Y = OPERATOR.A(torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1)))


def test_a_sampler_is_the_one_of_deepinv(prior):
    solver = Peer("diffpir", (("max_iter", 5), ("zeta", 0.3)))
    before = torch.random.get_rng_state()
    result = restore(Y, OPERATOR, prior, solver, noise_std=0.1).image
    assert torch.equal(torch.random.get_rng_state(), before)
    physics = deepinv.physics.Inpainting((3, 12, 12), OPERATOR.mask[1])
    physics.noise_model = deepinv.physics.GaussianNoise(0.1)
    theirs = deepinv.sampling.DiffPIR(
        lambda x, sigma: prior.denoise(x, sigma.flatten()), deepinv.optim.L2(), sigma=0.1,
        max_iter=5, zeta=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(Noise(0, [(1, 0)]).generators[0].initial_seed())
        expected = theirs(Y[1:], physics)
    assert torch.allclose(result[1:], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["DPIR", "dps", "pgd", "ula", "pigdm", "mmps"])
def test_others_run_with_what_follows_from_the_task(prior, name):
    steps = {"dps": "num_steps", "pigdm": "num_steps", "mmps": "num_steps", "DPIR": None}
    setting = steps.get(name, "max_iter")
    solver = Peer(name, ((setting, 20),) if setting else ())
    result = restore(Y, OPERATOR, prior, solver, noise_std=0.1).image
    assert result.shape == Y.shape and result.isfinite().all()
    assert solver.stochastic == (name not in ("DPIR", "pgd"))


def test_an_image_does_not_depend_on_the_others_on_a_cpu(prior):
    solver = Peer("diffpir", (("max_iter", 5),))
    both = restore(Y, OPERATOR, prior, solver, noise_std=0.1, samples=3)
    alone = restore(
        Y[1:], OPERATOR.select([1]), prior, solver, noise_std=0.1, samples=3, index=1
    )
    assert torch.equal(both.samples[1:], alone.samples)
    assert (both.std > 0).any() and both.samples.unique(dim=1).shape[1] == 3


@pytest.mark.parametrize(
    ("name", "settings", "operator", "evaluations"),
    [
        ("diffpir", {"max_iter": 5}, OPERATOR, 5),
        ("dps", {"num_steps": 21, "weight": 100.0}, OPERATOR, 20),
        ("pigdm", {"num_steps": 20}, SAME, 20),
        ("ddrm", {"sigmas": (1.0, 0.5, 0.1)}, SAME, 3),
        ("ddrm", {"sigmas": (1.0, 0.5, 0.1)}, OPERATOR, 3),
    ],
)
def test_images_are_sampled_together(prior, monkeypatch, name, settings, operator, evaluations):
    monkeypatch.setitem(executor.CHUNKS, "cpu", 10**6)
    monkeypatch.setitem(executor.MIXED, "cpu", True)
    calls = []
    solver, y = Peer(name, tuple(settings.items())), operator.A(Y)
    found = restore(
        y, operator, prior, solver, noise_std=0.1, samples=3,
        progress=lambda *_: calls.append(1),
    )
    assert len(calls) == evaluations
    assert found.samples.flatten(0, 1).unique(dim=0).shape[0] == 6
    # each has its own measurement and mask
    other = restore(y.flip(0), operator.select([1, 0]), prior, solver, noise_std=0.1, samples=3)
    near = (found.mean - other.mean.flip(0)).square().mean()
    assert near < (found.mean - other.mean).square().mean() / 2


def test_the_operator_stays_as_it_was(prior):
    mask = Inpainting(random_keep((1, 3, 12, 12), 0.5))
    before = mask.mask.clone()
    restore(mask.A(Y), mask, prior, Peer("diffpir", (("max_iter", 2),)), noise_std=0.1)
    assert torch.equal(mask.mask, before)


def test_images_of_two_noise_levels_are_sampled_apart(prior, monkeypatch):
    monkeypatch.setitem(executor.CHUNKS, "cpu", 10**6)
    monkeypatch.setitem(executor.MIXED, "cpu", True)
    calls = []
    restore(
        Y, OPERATOR, prior, Peer("diffpir", (("max_iter", 5),)), noise_std=(0.1, 0.2),
        progress=lambda *_: calls.append(1),
    )
    assert len(calls) == 10


def test_only_the_weight_of_dps_is_tuned():
    steps = ("num_steps", 20)
    found = Peer("dps", (steps,)).choices(0.1)["settings"]
    assert (steps, ("weight", 100.0)) in found and len(found) > 2
    assert not Peer("dps", (("weight", 3.0),)).choices(0.1) and not Peer("ddrm").choices(0.1)


@pytest.mark.parametrize("name", ["pigdm", "mmps"])
def test_the_guided_ones_fit_the_data(prior, name):
    solver = Peer(name, (("num_steps", 20),))
    fit = restore(Y, OPERATOR, prior, solver, noise_std=0.1).misfit
    assert (0.5 < fit).all() and (fit < 2).all()


def test_ddrm_runs_where_singular_vectors_are_known(prior):
    one_for_all = Inpainting(random_keep((2, 1, 12, 12), 0.5))
    solver = Peer("ddrm", (("sigmas", torch.linspace(1, 0, 10).tolist()),))
    result = restore(one_for_all.A(Y), one_for_all, prior, solver, noise_std=0.1)
    assert result.image.isfinite().all() and (result.misfit < 3).all()
    with pytest.raises(ValueError, match="ddrm is not made for a measurement by Blur: choose an"):
        restore(Y, Blur(torch.ones(1, 3) / 3, "reflect"), prior, solver, noise_std=0.1)


@pytest.mark.parametrize("size", [(3, 5), (2, 4)])
def test_circular_blur_is_the_one_of_deepinv_with_singular_values(prior, size):
    kernel = torch.rand(*size, generator=torch.Generator().manual_seed(0))
    blur = Blur(kernel, "circular")
    theirs = decomposable(blur, Y.shape[1:])
    assert torch.allclose(theirs.A(Y), blur.A(Y), rtol=0, atol=1e-6)
    solver = Peer("ddrm", (("sigmas", torch.linspace(1, 0, 10).tolist()),))
    y = blur.A(Y) + 0.1 * torch.randn(Y.shape, generator=torch.Generator().manual_seed(2))
    assert (restore(y, blur, prior, solver, noise_std=0.1).misfit < 3).all()


def test_a_method_without_a_network_needs_no_prior():
    blur = Blur(torch.ones(3, 3), "circular")
    settings = (("lambda_reg", 0.01),)
    x = restore(blur.A(Y), blur, None, Peer("wienerdeconvolution", settings), noise_std=0.1).image
    theirs = deepinv.models.WienerDeconvolution(lambda_reg=0.01)
    physics = deepinv.physics.BlurFFT((3, 12, 12), filter=torch.ones(1, 1, 3, 3) / 9)
    assert torch.allclose(x, theirs(blur.A(Y), physics), rtol=0, atol=1e-5)
    assert not Peer("wienerdeconvolution").suits(OPERATOR)


def test_errors(prior):
    with pytest.raises(SettingError, match="no reconstructor 'nothing': choose one of ADMM, "):
        Peer("nothing")
    with pytest.raises(SettingError, match="deepinv:diffpir has no setting 'turns', it has model"):
        Peer("diffpir", (("turns", 3),))
    with pytest.raises(SettingError, match="deepinv:deepimageprior needs generator, img_size"):
        restore(Y, OPERATOR, prior, Peer("deepimageprior"), noise_std=0.1)
    with pytest.raises(TypeError, match="Peer needs a prior that is a denoiser"):
        restore(Y, OPERATOR, None, Peer("diffpir"), noise_std=0.1)
    with pytest.raises(SettingError, match="diffpir cannot be made with max_iter=0: IndexError: "):
        restore(Y, OPERATOR, prior, Peer("diffpir", (("max_iter", 0),)), noise_std=0.1)
    with pytest.raises(PeerError, match="deepinv:dps failed: IndexError: index -2 is out of"):
        restore(Y, OPERATOR, prior, Peer("dps", (("num_steps", 1),)), noise_std=0.1)
