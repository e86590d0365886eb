import copy

import deepinv
import pytest
import torch
from contracts import check_operator, dense

from genprior.core.errors import SettingError
from genprior.operators.chebyshev import PRODUCTS, SAFETY
from genprior.operators.external import External


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def kernel() -> torch.Tensor:
    return torch.tensor([[0.1, 0.1, 0.0], [0.1, 0.5, 0.1], [0.0, 0.1, 0.0]]).double()[None, None]


@pytest.mark.parametrize("padding", ["valid", "circular", "reflect"])
def test_laws_of_a_blur_of_deepinv(padding: str) -> None:
    physics = deepinv.physics.Blur(filter=kernel(), padding=padding)
    check_operator(External(physics, iterations=300, tolerance=1e-14), rand(2, 1, 7, 8), rtol=1e-7)


def test_laws_of_a_singular_physics() -> None:
    mask = (rand(1, 1, 6, 7) > 0.4).double()
    physics = deepinv.physics.Inpainting(img_size=(3, 6, 7), mask=mask)
    check_operator(External(physics), rand(2, 3, 6, 7))


MASK = (rand(3, 1, 6, 8) > 0.4).double()


class Fourier(deepinv.physics.DecomposablePhysics):
    """Circular convolution in complex coordinates, with a transfer that is not positive."""

    def __init__(self) -> None:
        super().__init__(mask=torch.fft.fft2(rand(1, 6, 8) - 0.5))

    def V_adjoint(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft2(x, norm="ortho")

    def V(self, c: torch.Tensor) -> torch.Tensor:
        return torch.fft.ifft2(c, norm="ortho").real

    U, U_adjoint = V, V_adjoint


DECOMPOSED = {
    "blur": lambda: deepinv.physics.BlurFFT(img_size=(3, 6, 8), filter=kernel()),
    "blurs": lambda: deepinv.physics.BlurFFT(
        img_size=(3, 6, 8), filter=torch.cat([kernel(), kernel().mT, kernel().flip(-1)])
    ),
    "MRI": lambda: deepinv.physics.MRI(mask=MASK[:1], img_size=(2, 6, 8)),
    "MRIs": lambda: deepinv.physics.MRI(mask=MASK.expand(-1, 2, -1, -1), img_size=(2, 6, 8)),
    "grey": lambda: deepinv.physics.Decolorize(),
    "camera": lambda: deepinv.physics.SinglePixelCamera(m=9, img_size=(1, 8, 8)),
    "complex": lambda: Fourier(),
    "weights": lambda: deepinv.physics.DecomposablePhysics(mask=MASK * rand(1, 1, 6, 8)),
}


@pytest.mark.parametrize("name", DECOMPOSED)
def test_laws_of_a_physics_with_known_singular_vectors(name: str) -> None:
    physics = DECOMPOSED[name]()
    if name != "complex":
        physics = physics.double()
    size = {"MRI": (2, 6, 8), "MRIs": (2, 6, 8), "camera": (1, 8, 8)}.get(name, (3, 6, 8))
    op, x = External(physics, iterations=0), rand(3, *size)
    op.check_shape(op.A(x).shape)
    digits = 1e-6 if name == "grey" else 1e-9  # deepinv's vectors are in single precision
    check_operator(op, x, digits)
    some = op.select([2, 0, 2, 1])
    assert (some is op) == (name not in ("blurs", "MRIs", "weights"))
    check_operator(some, rand(4, *size), digits)
    y = some.A(rand(4, *size))
    svd = some.singular(torch.Size((4, *size)), y)
    expected = svd.values * svd.image(rand(4, *size))
    torch.testing.assert_close(svd.data(y).abs(), expected.abs(), rtol=digits, atol=digits)


def test_singular_vectors_that_are_not_those_of_A_are_not_used() -> None:
    class Shifted(deepinv.physics.BlurFFT):
        def A(self, x: torch.Tensor, **_: object) -> torch.Tensor:
            return super().A(x.roll(1, dims=-1) + x)

        def A_adjoint(self, y: torch.Tensor, **_: object) -> torch.Tensor:
            x = super().A_adjoint(y)
            return x.roll(-1, dims=-1) + x

    physics = Shifted(img_size=(1, 4, 6), filter=kernel()).double()
    op = External(physics, iterations=300, tolerance=1e-14)
    check_operator(op, rand(2, 1, 4, 6), rtol=1e-7)
    with pytest.raises(SettingError, match="the singular vectors of External are not known"):
        op.singular(torch.Size((2, 1, 4, 6)), rand(2, 1, 4, 6))


def test_laws_of_a_physics_that_changes_the_size() -> None:
    physics = deepinv.physics.Downsampling(img_size=(1, 6, 8), factor=2, filter=kernel())
    check_operator(External(physics, iterations=300, tolerance=1e-14), rand(2, 1, 6, 8), rtol=1e-7)


def test_laws_of_a_physics_whose_measurements_are_no_images() -> None:
    physics = deepinv.physics.CompressedSensing(m=7, img_size=(1, 4, 5), dtype=torch.float64)
    check_operator(External(physics, iterations=300, tolerance=1e-14), rand(3, 1, 4, 5), rtol=1e-7)


def test_an_object_that_is_no_module_with_a_given_shape() -> None:
    class Mean:
        def A(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=1, keepdim=True)

        def A_adjoint(self, y: torch.Tensor) -> torch.Tensor:
            return y.expand(-1, 3, -1, -1) / 3

    op = External(Mean(), image_shape=(3, 4, 5))
    assert op.image_shape(torch.Size((2, 1, 4, 5))) == (2, 3, 4, 5)
    check_operator(op, rand(2, 3, 4, 5))
    check_operator(External(Mean()), rand(2, 3, 4, 5))


def test_an_object_that_is_no_module_is_tested_on_the_device_of_its_tensors() -> None:
    class Plain:
        M = None

        def __init__(self) -> None:
            self.M = torch.ones(4, 4, device="meta")

        def A(self, x: torch.Tensor) -> torch.Tensor:
            return self.M * x

        A_adjoint = A

    assert External(Plain()).image_shape(torch.Size((1, 1, 4, 4))) == (1, 1, 4, 4)


def test_the_users_physics_is_not_changed() -> None:
    noisy = deepinv.physics.GaussianNoise(0.3, rng=torch.Generator().manual_seed(0))
    physics = deepinv.physics.Blur(filter=kernel(), padding="valid", noise_model=noisy)
    before = {name: t.clone() for name, t in physics.state_dict().items()}
    settings = physics.max_iter, physics.tol, physics.solver
    state, local = torch.get_rng_state(), noisy.rng.get_state()
    op = External(physics)
    x = rand(1, 1, 7, 8)
    op.prox(x, op.A(x), 0.1)
    op.solve_gram(op.A(x), 1.0, 0.0)
    assert all(torch.equal(t, before[name]) for name, t in physics.state_dict().items())
    assert settings == (physics.max_iter, physics.tol, physics.solver)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(local, noisy.rng.get_state())
    assert torch.equal(copy.deepcopy(op).A(x), op.A(x))


def test_an_object_without_A_is_refused() -> None:
    with pytest.raises(TypeError, match="must have the methods A and A_adjoint, int has no A"):
        External(3)


def test_entries_that_are_always_zero_are_unmeasured() -> None:
    mask = (rand(1, 1, 6, 7) > 0.4).double()
    op = External(deepinv.physics.Inpainting(img_size=(3, 6, 7), mask=mask))
    assert torch.equal(
        op.mask_unmeasured(torch.ones(2, 3, 6, 7)), mask.expand(2, 3, -1, -1).float()
    )
    assert op.num_measurements(torch.ones(2, 3, 6, 7)).tolist() == [3 * mask.sum().item()] * 2
    hidden = op.mask_unmeasured(torch.full((1, 3, 6, 7), torch.nan))
    assert hidden.nan_to_num(9).unique().tolist() == [0, 9]
    blur = External(deepinv.physics.Blur(filter=kernel(), padding="valid"))
    y = rand(2, 1, 5, 6)
    assert torch.equal(blur.mask_unmeasured(y), y)


class Odd(deepinv.physics.LinearPhysics):
    """A physics with the given A and A_adjoint."""

    def __init__(self, A: object, A_adjoint: object) -> None:
        super().__init__()
        self.A, self.A_adjoint = A, A_adjoint


@pytest.mark.parametrize(
    ("A", "A_adjoint", "kind", "message"),
    [
        (lambda x: x**2, lambda y: y, TypeError, "Odd is not linear"),
        (lambda x: x + 1, lambda y: y, TypeError, "Odd is not linear"),
        (lambda x: x, lambda y: 2 * y, TypeError, "A_adjoint is not the adjoint of A"),
        (lambda x: x.roll(1, 3), lambda y: y.roll(1, 3), TypeError, "not the adjoint of A"),
        (lambda x: x[..., :3], lambda y: y, ValueError, "makes measurements of shape"),
        (lambda x: x @ torch.ones(3, 3), lambda y: y, ValueError, "does not accept measurements"),
    ],
)
def test_a_physics_that_is_not_linear_or_has_a_wrong_adjoint_is_refused(
    A: object, A_adjoint: object, kind: type, message: str
) -> None:
    with pytest.raises(kind, match=message):
        External(Odd(A, A_adjoint)).check_shape(torch.Size((2, 1, 4, 5)))


def test_an_adjoint_with_an_unflipped_kernel_is_refused() -> None:
    def trail(x: torch.Tensor) -> torch.Tensor:
        return sum(x.roll(k, dims=-1) for k in range(9)) / 9

    with pytest.raises(TypeError, match="A_adjoint is not the adjoint of A"):
        External(Odd(trail, trail)).check_shape(torch.Size((2, 3, 16, 16)))


def test_a_batch_of_measurements_may_have_three_axes() -> None:
    op = External(deepinv.physics.CompressedSensing(m=9, img_size=(1, 4, 5), channelwise=True))
    assert op.is_batch(torch.Size((3, 1, 9)))
    assert not External(deepinv.physics.Blur(filter=kernel())).is_batch(torch.Size((3, 1, 9)))


def test_a_physics_with_parameters_per_image_is_selected_per_image() -> None:
    kernels = torch.rand(3, 1, 3, 3, generator=torch.Generator().manual_seed(1)).double()
    op = External(deepinv.physics.Blur(filter=kernels, padding="valid"), tolerance=1e-14)
    x = rand(4, 1, 7, 8)
    op.check_shape(torch.Size((3, 1, 5, 6)))
    assert op.select([0, 1, 2]) is op
    images = [2, 0, 2, 1]
    some = op.select(images)
    for i, image in enumerate(images):
        alone = deepinv.physics.Blur(filter=kernels[image : image + 1], padding="valid")
        assert torch.allclose(some.A(x)[i : i + 1], alone.A(x[i : i + 1]), rtol=1e-12)
        assert torch.allclose(some.select([i]).A(x[i : i + 1]), some.A(x)[i : i + 1], rtol=1e-12)
    check_operator(some, x, rtol=1e-7)
    one = op.select([2])
    assert torch.allclose(one.A(x)[2], some.A(x)[2], rtol=1e-12)
    same = External(deepinv.physics.Blur(filter=kernel(), padding="valid"))
    same.check_shape(torch.Size((3, 1, 5, 6)))
    assert same.select(images) is same


def test_the_preconditioner_is_near_the_solve_for_every_image() -> None:
    kernels = torch.rand(3, 1, 3, 3, generator=torch.Generator().manual_seed(1)).double()
    kernels[1] *= 1000
    op = External(deepinv.physics.Blur(filter=kernels, padding="valid"), tolerance=1e-14)
    shape = torch.Size((3, 1, 5, 6))
    op.check_shape(shape)
    scaled, unit = op.rescaled(shape)
    assert unit[1] / unit[0] > 200 and (unit.log2() == unit.log2().round()).all()
    x, v = rand(3, 1, 7, 8), rand(3, 1, 5, 6) - 0.5
    scale = unit.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(scaled.A(x), op.A(x) / scale)
    torch.testing.assert_close(scaled.A_adjoint(v), op.A_adjoint(v) / scale)
    for images in ([0, 1, 2], [2, 1, 2]):
        some = scaled.select(images)
        exact = some.solve_gram(v, 0.06, 1e-3)
        error = some.precondition(v, 0.06, 1e-3) - exact
        for i, image in enumerate(images):
            norm = torch.linalg.matrix_norm(dense(scaled.select([image]), x[:1]), 2)
            root = ((SAFETY * 0.06 * norm**2 + 1e-3) / 1e-3) ** 0.5
            rate = 2 * ((root - 1) / (root + 1)) ** (PRODUCTS + 1)
            assert error[i].norm() <= rate * exact[i].norm()
