"""Makes a language model of 200 kB with random weights: it babbles, but a real server runs it.

python scripts/tiny_model.py FILE     (needs gguf and numpy; `make openai` brings them)
"""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np

WIDTH, HEADS, LAYERS, HIDDEN, CONTEXT = 64, 4, 2, 128, 512
WORDS = ("the", "a", "fox", "runs", "over", "blue", "hills", "and", "sings", "of", "rain")
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def vocabulary() -> list[tuple[bytes, float, gguf.TokenType]]:
    """Three marks, every byte, every printable character, a few words."""
    marks = [(b"<unk>", gguf.TokenType.UNKNOWN), (b"<s>", gguf.TokenType.CONTROL)]
    marks.append((b"</s>", gguf.TokenType.CONTROL))
    found = [(text, 0.0, kind) for text, kind in marks]
    found += [(f"<0x{byte:02X}>".encode(), 0.0, gguf.TokenType.BYTE) for byte in range(256)]
    texts = ["▁", *map(chr, range(33, 127)), *("▁" + word for word in WORDS)]
    found += [
        (text.encode(), -float(place), gguf.TokenType.NORMAL) for place, text in enumerate(texts)
    ]
    return found


def write(path: Path) -> None:
    """The file, the same one every time."""
    tokens = vocabulary()
    random = np.random.default_rng(7)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("babble")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _, _ in tokens])
    writer.add_token_scores([score for _, score, _ in tokens])
    writer.add_token_types([kind for _, _, kind in tokens])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)

    def weights(name: str, *shape: int) -> None:
        values = random.normal(0, 0.4, shape) if len(shape) > 1 else np.ones(shape)
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    weights("token_embd", len(tokens), WIDTH)
    for layer in range(LAYERS):
        weights(f"blk.{layer}.attn_norm", WIDTH)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights(f"blk.{layer}.{part}", WIDTH, WIDTH)
        weights(f"blk.{layer}.ffn_norm", WIDTH)
        weights(f"blk.{layer}.ffn_gate", HIDDEN, WIDTH)
        weights(f"blk.{layer}.ffn_up", HIDDEN, WIDTH)
        weights(f"blk.{layer}.ffn_down", WIDTH, HIDDEN)
    weights("output_norm", WIDTH)
    weights("output", len(tokens), WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
