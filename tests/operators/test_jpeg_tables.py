import io

import pytest
import torch
from PIL import Image

from genprior.core.errors import SettingError
from genprior.operators.jpeg_tables import standard_tables


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 51, 75, 95, 100])
def test_tables_are_those_of_libjpeg(quality: int) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    stored = Image.open(io.BytesIO(file.getvalue())).quantization
    expected = torch.tensor([stored[0], stored[1]]).reshape(2, 8, 8).float()
    assert torch.equal(standard_tables(quality), expected)


@pytest.mark.parametrize("quality", [0, 101, 50.0, True, "50"])
def test_a_quality_is_a_whole_number(quality: object) -> None:
    with pytest.raises(SettingError, match="from 1 to 100"):
        standard_tables(quality)
