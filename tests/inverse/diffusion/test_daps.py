import pytest
import torch
from contracts import check_solver
from golden import distance, distance6, field64, score

from genprior.inverse.diffusion.daps import DAPS


def poly7(count: int, first: float, last: float) -> list[float]:
    """Karras' levels, in the units of the paper."""
    a, b = first ** (1 / 7), last ** (1 / 7)
    return [(a + (b - a) * k / max(count - 1, 1)) ** 7 for k in range(count)]


def recursion(
    kernel: str, noise_std: float, steps: int, langevin: int = 100
) -> tuple[float, float, float]:
    """DAPS on [-1, 1] for GRF-64, frequency by frequency, as its authors write it.

    Arguments:
        kernel: "published" or "isotropic".
        noise_std: On [-1, 1].
        steps: Levels.
        langevin: Steps of the published kernel.
    """
    S, h = field64()
    more = kernel == "published"  # the authors' schedule counts its end as one more step
    levels = poly7(steps + more, 100.0, 0.1)[:steps]
    G, V = 0 * S, 0 * S + 1 + levels[0] ** 2
    for k, (s, s_next) in enumerate(zip(levels, [*levels[1:], 0.0], strict=True)):
        slope = torch.ones_like(S)
        ode = poly7(6, s, 0.01) if more else [*poly7(5, s, 0.01), 0.0]
        for t, t_next in zip(ode, ode[1:], strict=False):
            slope = slope * (1 + (t_next - t) / t * (1 - S / (S + t**2)))
        G, V = slope * G, slope**2 * V
        if kernel == "isotropic":
            precision = 1 / s**2 + h**2 / noise_std**2
            G = (G / s**2 + h / noise_std**2) / precision
            V = V / s**4 / precision**2 + 1 / precision
        else:
            rate, tau = 1e-4 * (1 - 0.99 * k / (steps + 1)), 0.01
            drift = 1 - rate * (2 * h**2 / tau**2 + 1 / s**2)
            from_hat, from_y, spread = torch.ones_like(S), 0 * S, 0 * S
            for _ in range(langevin):
                from_hat = drift * from_hat + rate / s**2
                from_y = drift * from_y + rate * 2 * h / tau**2
                spread = drift**2 * spread + 2 * rate
            G, V = from_hat * G + from_y, from_hat**2 * V + spread
        V = V + s_next**2
    return score(G, V, noise_std)


@pytest.mark.parametrize("kernel", ["published", "isotropic", "exact"])
def test_laws(kernel: str) -> None:
    check_solver(DAPS(3, kernel, ode_steps=2, langevin_steps=3, root_products=1, iterations=2))


def test_the_recursion_gives_independently_computed_numbers() -> None:
    expected = (0.06794978727, 0.01958053347, 2.10891706690)
    assert recursion("isotropic", 0.05, 200) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("noise_std", "w2", "ratio"),
    [
        (0.01, 0.0554, None),
        (0.02, 0.0291, None),
        (0.05, 0.0318, 0.77),
        (0.1, 0.109, None),
        (0.2, 0.251, 0.42),
    ],
)
def test_the_published_kernel_is_that_of_the_authors_code(
    noise_std: float, w2: float, ratio: float | None
) -> None:
    found = recursion("published", noise_std, 200)
    assert found[0] == pytest.approx(w2, rel=0.005)
    assert ratio is None or found[2] == pytest.approx(ratio, abs=0.005)


@pytest.mark.parametrize(
    ("kernel", "langevin", "draws"), [("isotropic", 1, 3 * 6), ("published", 3, 4 * 6)]
)
def test_the_code_has_the_law_of_the_recursion(kernel: str, langevin: int, draws: int) -> None:
    solver = DAPS(6, kernel, langevin_steps=langevin)
    found = distance(solver, 0.05, draws)
    assert found == pytest.approx(recursion(kernel, 0.05, 6, langevin), rel=1e-6)


def test_the_exact_kernel_is_exact() -> None:
    for steps in (1, 4):
        solver = DAPS(steps, "exact", sigma_max=1e4, iterations=36)
        for index in (0, 1):
            assert distance6(solver, index) < 1e-5


def test_errors() -> None:
    with pytest.raises(ValueError, match="kernel must be one of published, isotropic, exact"):
        DAPS(kernel="hmc")
