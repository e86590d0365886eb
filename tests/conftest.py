"""Settings of all tests: one torch thread, so that busy machines stay fast."""

import torch

torch.set_num_threads(1)
