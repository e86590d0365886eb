"""The JPEG operator against libjpeg and scipy's DCT."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy.fft import dctn
from shell import photo
from torch import Tensor

from genprior.core.errors import SettingError
from genprior.operators.jpeg import JPEG

SAMPLINGS = ["4:4:4", "4:2:2", "4:2:0"]


def clean(size: tuple[int, int] = (48, 64), channels: int = 3) -> np.ndarray:
    return photo(channels, size, start=0)


def file_of(levels: np.ndarray, quality: int, sampling: str = "4:2:0") -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
    image.save(file, "JPEG", quality=quality, subsampling=sampling)
    return file.getvalue()


def tensor(image: Image.Image | np.ndarray) -> Tensor:
    array = np.atleast_3d(np.asarray(image)).astype(np.float64)
    return torch.from_numpy(array).permute(2, 0, 1)[None] / 255


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def blocks(plane: np.ndarray) -> np.ndarray:
    """Returns the DCT of 8x8 blocks by scipy, (rows, columns, 8, 8)."""
    rows, columns = plane.shape[0] // 8, plane.shape[1] // 8
    tiles = plane[: 8 * rows, : 8 * columns].reshape(rows, 8, columns, 8).swapaxes(1, 2)
    return dctn(tiles, axes=(2, 3), norm="ortho")


def true_levels(data: bytes) -> list[np.ndarray]:
    """Returns the numbers in a 4:2:0 file, from the planes that libjpeg decodes unconverted."""
    found = []
    for component in range(3):
        image = opened(data)
        width, height = image.size
        image.draft("YCbCr", image.size if component == 0 else (width // 2, height // 2))
        plane = np.asarray(image, dtype=float)[..., component] - 128
        table = np.array(image.quantization[min(component, 1)]).reshape(8, 8)
        found.append(np.round(blocks(plane) / table))
    return found


@pytest.mark.parametrize("quality", [10, 40, 60])
def test_the_coefficients_of_a_file_are_found_from_its_pixels(quality: int) -> None:
    data = file_of(clean(), quality)
    cells = JPEG(quality).cells(tensor(opened(data)))
    for found, expected in zip(cells, true_levels(data), strict=True):
        right = found.levels[0].numpy() == expected
        assert right.mean() > 0.999


@pytest.mark.parametrize("size", [(48, 64), (45, 51), (9, 17), (8, 8), (3, 5)])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_truth_lies_in_the_cells(sampling: str, size: tuple[int, int]) -> None:
    x = clean(size)
    y = tensor(opened(file_of(x, 30, sampling)))
    op = JPEG(30, sampling)
    moved = 255 * (op.prox(tensor(x), y, 0.0) - tensor(x)).abs()
    rows, columns = (side // 16 * 16 for side in size)
    # encoders round luma and chroma to integers before the DCT
    assert (moved[..., :rows, :columns] < 1).float().mean() > 0.995 or not rows * columns
    assert moved.square().mean() < (255 * (y - tensor(x))).square().mean() / 10


def test_grey() -> None:
    x = clean(channels=1)
    y = tensor(opened(file_of(x, 20)))
    op = JPEG(20)
    assert len(op.cells(y)) == 1
    assert (255 * (op.prox(tensor(x), y, 0.0) - tensor(x)).abs()).max() < 1
    assert (255 * (op.A(tensor(x)) - y).abs() <= 1).double().mean() > 0.9


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_it_decodes_as_libjpeg(sampling: str) -> None:
    data = file_of(clean(), 20, sampling)
    y = tensor(opened(data))
    op = JPEG(20, sampling)
    again = op.A(op.prox(y, y, 0.0))  # the decoded image lies in its own cells
    assert ((255 * (again - y)).round().abs() <= 2).all()
    compressed = op.A(tensor(clean()))  # differs where a coefficient lies at a boundary
    assert (255 * (compressed - y).abs() <= 2).double().mean() > 0.9


def encoded(x: Tensor, table: np.ndarray) -> list[np.ndarray]:
    """Returns the numbers that a 4:4:4 encoder without rounding of the colours stores."""
    weights = np.array([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5],
                        [0.5, -0.418687589, -0.081312411]])
    planes = np.einsum("kc,chw->khw", weights, 255 * x[0].numpy())
    planes[0] -= 128
    return [blocks(plane) / table[min(k, 1)] for k, plane in enumerate(planes)]


@pytest.mark.parametrize("spread", [0.0, 0.02, 1.0])
def test_an_image_in_the_cells_is_encoded_by_the_same_numbers(spread: float) -> None:
    op = JPEG(15, "4:4:4")
    y = tensor(opened(file_of(clean(), 15, "4:4:4")))
    u = y + 0.2 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).double()
    x = op.conditional_mean(u, y, spread)
    for found, cells in zip(encoded(x, op.tables.numpy()), op.cells(y), strict=True):
        sure = ~cells.unsure[0].numpy()
        assert sure.mean() > 0.9
        inside = np.abs(found - cells.levels[0].numpy()) <= 0.5 + 1e-6
        assert inside[sure].all()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_projecting_again_changes_nothing(sampling: str) -> None:
    op = JPEG(15, sampling)
    y = tensor(opened(file_of(clean(), 15, sampling)))
    u = y + 0.2 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).double()
    x = op.prox(u, y, 0.0)
    assert (x - u).abs().max() > 0.05
    torch.testing.assert_close(op.prox(x, y, 1.0), x, rtol=0, atol=1e-9)


def test_spread_is_per_image() -> None:
    y = tensor(opened(file_of(clean(), 15)))
    op, both, spread = JPEG(15), torch.cat([y, y.flip(-1)]), torch.tensor([0.01, 0.1])
    u = (both + 0.1).clone()
    together = op.conditional_mean(u, both, spread)
    for i in range(2):
        alone = op.conditional_mean(u[i : i + 1], both[i : i + 1], spread[i].item())
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_has_turned_cells(orientation: int) -> None:
    data = file_of(clean((45, 51)), 15)
    image = opened(data)
    plain, exif = tensor(image), Image.Exif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    image.getexif()[0x0112] = orientation
    turned = tensor(ImageOps.exif_transpose(image))
    op, straight = JPEG(15, orientation=orientation), JPEG(15)
    torch.testing.assert_close(op._stored(turned), plain)
    torch.testing.assert_close(op._upright(plain), turned)
    result = op.prox(turned + 0.1, turned, 0.0)
    torch.testing.assert_close(result, op._upright(straight.prox(plain + 0.1, plain, 0.0)))


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("offset", [(3, 5), (8, 0), (1, 14)])
def test_a_cropped_photo_has_the_cells_of_its_whole_blocks(
    sampling: str, offset: tuple[int, int]
) -> None:
    x, (top, left) = tensor(clean((80, 96))), offset
    y = tensor(opened(file_of(clean((80, 96)), 30, sampling)))[..., top:, left:]
    op = JPEG(30, sampling, offset)
    whole = ~op.cells(y)[0].unsure
    assert 0.6 < whole.double().mean() <= 1 and op.unexplained(y) < 0.03
    moved = 255 * (op.prox(x[..., top:, left:], y, 0.0) - x[..., top:, left:]).abs()
    assert moved[..., 16:-16, 16:-16].max() < 1.5
    if offset != (8, 0):
        assert JPEG(30, sampling).unexplained(y) > 0.9


def test_pixels_that_were_no_jpeg_are_not_explained() -> None:
    y = tensor(opened(file_of(clean(), 15)))
    assert JPEG(15).unexplained(y) < 0.03
    assert JPEG(40).unexplained(y) > 0.5


def test_the_error_is_that_of_rounding() -> None:
    op = JPEG(torch.full((2, 8, 8), 12.0))
    expected = torch.full((2,), 12 / 12**0.5 / 255, dtype=torch.float64)
    torch.testing.assert_close(op.error_std(torch.zeros(2, 3, 8, 8).double()), expected)


@pytest.mark.parametrize(("settings", "message"), [
    ({"tables": 0}, "quality must be a whole number from 1 to 100, got 0"),
    ({"tables": torch.ones(3, 3)}, r"shape \(2, 8, 8\) for luma and chroma"),
    ({"tables": torch.zeros(8, 8)}, "numbers >= 1"),
    ({"tables": 50, "sampling": "4:1:1"}, "one of 4:4:4, 4:2:2, 4:4:0, 4:2:0, got '4:1:1'"),
    ({"tables": 50, "orientation": 9}, "orientation must be 1 to 8"),
    ({"tables": 50, "offset": (-1, 0)}, "offset must be two whole numbers"),
])
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        JPEG(**settings)


def test_only_images_are_compressed() -> None:
    with pytest.raises(ValueError, match="grey or colour images"):
        JPEG(50).image_shape(torch.Size((1, 2, 8, 8)))
    for product in (JPEG(50).A_adjoint, lambda y: JPEG(50).solve_gram(y, 1.0, 1.0)):
        with pytest.raises(SettingError, match="JPEG is not linear"):
            product(torch.zeros(1, 3, 8, 8))
