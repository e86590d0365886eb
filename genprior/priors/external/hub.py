"""Download of priors from the Hugging Face Hub: hf:ORG/NAME[@REVISION]."""

import os
import re
from functools import lru_cache
from pathlib import Path

from genprior.core.errors import CheckpointError
from genprior.priors.external.weight_files import SUFFIXES

PREFIX = "hf:"
NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
TRUE = ("1", "ON", "YES", "TRUE")  # as in huggingface_hub, which reads the variable once only
# The network of a pipeline, and weights at the top; not the other formats of the same weights.
FILES = ("*.json", "README.md", "*.safetensors", "*.bin", "*.pt", "*.pth", "unet/*", "scheduler/*",
         "vae/*", "text_encoder/*", "tokenizer/*")


@lru_cache  # one request per prior and process
def download(where: str) -> Path:
    """Downloads a repository to the cache of huggingface_hub, or finds it there.

    With --offline, or the environment variable HF_HUB_OFFLINE=1, only the cache is used. A
    revision, such as the hash of a commit, pins the weights.

    Arguments:
        where: "hf:ORG/NAME" or "hf:ORG/NAME@REVISION".

    Returns:
        Its folder; or its file of weights, if the repository has one and no configuration.

    Raises:
        CheckpointError: The name is malformed, huggingface_hub is missing, or the download
            failed.
    """
    match = NAME.fullmatch(where)
    if not match:
        raise CheckpointError(f"{where!r} is not a repository: write hf:ORG/NAME or "
                              f"hf:ORG/NAME@REVISION")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise CheckpointError(
            f"{where} is downloaded by huggingface_hub, which is not installed: "
            f'pip install "genprior[hub]"'
        ) from None
    try:
        folder = snapshot_download(
            match[1], revision=match[2], allow_patterns=list(FILES),
            local_files_only=os.environ.get("HF_HUB_OFFLINE", "0").upper() in TRUE,
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{where} cannot be downloaded ({reason:.160}): check the name and the connection"
        ) from error
    return _weights(Path(folder))


def _weights(folder: Path) -> Path:
    files = [file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES]
    described = any((folder / name).exists() for name in
                    ("config.json", "model_index.json", "manifest.json"))
    return files[0] if len(files) == 1 and not described else folder
