"""Image files <-> tensors (B, C, H, W) of floats in [0, 1]. The only image I/O."""

from pathlib import Path

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


def image_files(folder: Path, recursive: bool = False) -> list[Path]:
    """Image files of a folder, sorted, by their suffix; hidden ones are left out.

    Raises:
        ValueError: The folder does not exist or holds no image.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    pattern = "**/*" if recursive else "*"
    files = [p for p in sorted(folder.glob(pattern)) if p.suffix.lower() in SUFFIXES]
    files = [p for p in files if p.is_file() and not p.name.startswith(".")]
    if not files:
        raise ValueError(f"no image in {folder} (of {', '.join(SUFFIXES)})")
    return files
