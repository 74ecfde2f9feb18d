"""Writes a Llama of a given size with random weights, and a tokenizer, into a folder.

Run by the interpreter that has torch, transformers and tokenizers. What the words mean does not
matter to the joules; that every token is a word of its own does: each is streamed as it comes.
"""

import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "engines"))

from make_tiny_model import save_tokenizer

SIZES = {
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32},
}
HEADS = {"tiny": (4, 4), "1b": (32, 8), "7b": (32, 32)}
WORDS = {"tiny": 2_000, "1b": 32_000, "7b": 32_000}


def main(folder: Path, size: str, corpus: Path, device: str) -> None:
    """Make it on `device`, as bfloat16 (float32 on a CPU), and say how many parameters it has."""
    torch.manual_seed(0)
    tokenizer = save_tokenizer(folder, corpus, words=WORDS[size])
    heads, shared = HEADS[size]
    config = LlamaConfig(
        **SIZES[size],
        num_attention_heads=heads,
        num_key_value_heads=shared,
        vocab_size=len(tokenizer),
        max_position_embeddings=8192,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=None,
    )
    torch.set_default_dtype(torch.float32 if device == "cpu" else torch.bfloat16)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    print(sum(one.numel() for one in model.parameters()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4])
