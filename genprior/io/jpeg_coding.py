"""How a JPEG file codes its colours: quantisation tables, chroma sampling and orientation."""

from dataclasses import dataclass

from PIL import ExifTags, Image

# Pixels per chroma sample (rows, columns), by the usual name of the sampling.
NAMES = {
    (1, 1): "4:4:4", (1, 2): "4:2:2", (2, 1): "4:4:0", (2, 2): "4:2:0", (1, 4): "4:1:1",
    (2, 4): "4:1:0",
}
RED_GREEN_BLUE = (82, 71, 66)  # component numbers of files without a colour transform


@dataclass(frozen=True)
class JPEGCoding:
    """Coding of a JPEG file.

    Attributes:
        tables: Quantisation tables of luma and chroma, 64 numbers each, row by row; grey files
            have one.
        sampling: Resolution of the chroma, such as "4:2:0"; "4:4:4" for grey files; "RGB" or
            "CMYK" for files without luma and chroma.
        orientation: EXIF orientation, 1 to 8, which `read_image` applies to the pixels.
    """

    tables: tuple[tuple[int, ...], ...]
    sampling: str
    orientation: int = 1


def read_coding(image: Image.Image) -> JPEGCoding | None:
    """Returns the coding of an open JPEG file; None if its header does not tell.

    Arguments:
        image: As Pillow opens it.
    """
    quantisation, layers = getattr(image, "quantization", {}), getattr(image, "layer", [])
    if not layers or any(layer[3] not in quantisation for layer in layers):
        return None
    tables = tuple(tuple(quantisation[layer[3]]) for layer in layers[:2])
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged bytes; `decode` does not turn such an image either
        orientation = 1
    orientation = orientation if orientation in range(1, 9) else 1
    return JPEGCoding(tables, _sampling(image, layers), orientation)


def _sampling(image: Image.Image, layers: list[tuple[int, ...]]) -> str:
    if len(layers) == 1:
        return "4:4:4"
    if len(layers) != 3:
        return "CMYK"
    without_transform = image.info.get("adobe_transform") == 0 and "jfif" not in image.info
    if without_transform or tuple(layer[0] for layer in layers) == RED_GREEN_BLUE:
        return "RGB"
    (_, wide, tall, _), *chroma = layers
    if len({layer[1:] for layer in chroma}) != 1:
        return "different in Cb and Cr"
    _, across, down, _ = chroma[0]
    factors = (tall // down, wide // across)
    exact = factors[0] * down == tall and factors[1] * across == wide
    return NAMES.get(factors if exact else (0, 0), f"{wide}x{tall} to {across}x{down}")
