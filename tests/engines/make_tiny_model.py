"""Writes a tiny Llama with random weights and a tokenizer of its own into a folder.

Run by the interpreter of the engines' environment: it needs torch, transformers, tokenizers.
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} {% endfor %}<|assistant|> "


def save_tokenizer(folder: Path, corpus: Path, *, words: int = 0) -> PreTrainedTokenizerFast:
    """Train it on the prompts in `corpus` (JSONL), add words until it knows `words` tokens."""
    texts = [json.loads(line)["prompt"] for line in corpus.read_text().splitlines()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.add_tokens([f"word{number}" for number in range(len(fast), words)])
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return fast


def main(folder: Path, corpus: Path) -> None:
    """Save a 2-layer model with its tokenizer."""
    fast = save_tokenizer(folder, corpus)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=8192,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
