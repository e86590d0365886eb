"""Settings of all tests: one torch thread, so that busy machines stay fast. A tiny prior."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the whole suite; none for tests that are named, which start sooner so."""
    return 2 if config.args_source is config.ArgsSource.TESTPATHS else 0


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a tiny diffusion prior, not trained but not trivial either."""
    from genprior.priors.checkpoint import save_checkpoint
    from genprior.priors.ddpm import DDPM

    prior = DDPM(widths=(8, 16), blocks=(1, 1))
    generator = torch.Generator().manual_seed(0)
    model = {
        key: 0.1 * torch.randn(value.shape, generator=generator)
        for key, value in prior.state_dict().items()
    }
    folder = tmp_path_factory.mktemp("weights")
    save_checkpoint(folder, "ddpm", prior.config, model)
    return folder
