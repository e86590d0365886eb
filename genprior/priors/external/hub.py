"""Download of priors from the Hugging Face Hub: hf:ORG/NAME[@REVISION]."""

import os
import re
from functools import lru_cache
from pathlib import Path

from genprior.core.errors import CheckpointError
from genprior.priors.external.weight_files import SUFFIXES, check_no_transformer

PREFIX = "hf:"
NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
TRUE = ("1", "ON", "YES", "TRUE")  # as in huggingface_hub, which reads the variable once only
# Descriptions, which are small and show what the weights are.
DESCRIPTIONS = ("*.json", "README.md")
# The parts of a pipeline; a pattern "*.safetensors" would match those of all folders.
PARTS = ("unet/*", "scheduler/*", "vae/*", "text_encoder/*", "tokenizer/*", "*.json", "README.md")
WEIGHTS = ("*.json", "README.md", *(f"*{suffix}" for suffix in SUFFIXES))
# Other forms of the same weights.
OTHERS = ("*.fp16.*", "*.non_ema.*", "*.msgpack", "*.onnx", "*.onnx_data", "*.h5", "*openvino*")


@lru_cache  # one request per prior and process
def download(where: str) -> Path:
    """Downloads a repository to the cache of huggingface_hub, or finds it there.

    With --offline, or the environment variable HF_HUB_OFFLINE=1, only the cache is used. A
    revision, such as the hash of a commit, pins the weights. The descriptions are downloaded
    first; of a pipeline, only the parts that genprior uses follow.

    Arguments:
        where: "hf:ORG/NAME" or "hf:ORG/NAME@REVISION".

    Returns:
        Its folder; or its file of weights, if the repository has one and no configuration.

    Raises:
        CheckpointError: The name is malformed, huggingface_hub is missing, the download failed,
            or the network of a pipeline is a transformer.
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

    def fetch(patterns: tuple[str, ...]) -> Path:
        return Path(snapshot_download(
            match[1], revision=match[2], allow_patterns=list(patterns),
            ignore_patterns=list(OTHERS),
            local_files_only=os.environ.get("HF_HUB_OFFLINE", "0").upper() in TRUE,
        ))

    try:
        folder = fetch(DESCRIPTIONS)
        check_no_transformer(folder, where)
        folder = fetch(PARTS if (folder / "unet").is_dir() else WEIGHTS)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{where} cannot be downloaded ({reason:.160}): check the name and the connection"
        ) from error
    return _weights(folder)


def _weights(folder: Path) -> Path:
    files = [file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES]
    described = any((folder / name).exists() for name in
                    ("config.json", "model_index.json", "manifest.json"))
    return files[0] if len(files) == 1 and not described else folder
