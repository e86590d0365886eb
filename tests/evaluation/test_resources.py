import time

import pytest
import torch

from genprior.evaluation.resources import SELF, ResourceMeter


def test_time_and_peak_memory():
    if not (SELF / "clear_refs").exists():
        pytest.skip("only Linux tells the peak memory of a process")
    with ResourceMeter(torch.device("cpu")) as small:
        time.sleep(0.05)
    with ResourceMeter(torch.device("cpu")) as large:
        torch.ones(2**25)
    assert 0.05 <= small.seconds < 1
    assert large.memory - small.memory == pytest.approx(2**27, rel=0.2)
    with ResourceMeter(torch.device("cpu")) as again:
        pass
    assert again.memory < large.memory - 2**26
