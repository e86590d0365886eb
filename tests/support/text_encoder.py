"""A tiny tokenizer and CLIP text encoder, written by transformers."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TOKENS = 7
WORDS = ("<|startoftext|>", "<|endoftext|>", "a</w>", "c", "a", "t</w>", "ca", "cat</w>")


def save_text_encoder(folder: Path, width: int) -> tuple[Any, Any]:
    """Writes `tokenizer` and `text_encoder` to a folder of diffusers; returns them.

    Arguments:
        folder: The folder.
        width: Numbers per token of an embedding, even.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({word: k for k, word in enumerate(WORDS)}))
    merges.write_text("#version: 0.2\nc a\nca t</w>\n")
    tokenizer = CLIPTokenizer(str(vocabulary), str(merges), model_max_length=TOKENS)
    tokenizer.save_pretrained(folder / "tokenizer")
    vocabulary.unlink()
    merges.unlink()
    encoder = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(WORDS), hidden_size=width, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=TOKENS, bos_token_id=0, eos_token_id=1,
    )).eval()
    encoder.save_pretrained(folder / "text_encoder")
    return tokenizer, encoder


def embedding(tokenizer: Any, encoder: Any, text: str) -> Tensor:
    """Returns the embedding of a text by the library, (tokens, width)."""
    tokens = tokenizer(text, padding="max_length", max_length=TOKENS, return_tensors="pt")
    with torch.no_grad():
        return encoder(tokens.input_ids).last_hidden_state[0]
