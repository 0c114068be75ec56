"""Loads what `arcane convert` writes with the formats' own libraries, and compares every tensor exactly.

usage: formats.py ARCANE

Needs numpy, safetensors and gguf; loads the folder with transformers, too, where it is installed.
"""

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from gguf import quants
from safetensors.numpy import load_file, save_file

try:
    from transformers import AutoModelForCausalLM
except ImportError:
    AutoModelForCausalLM = None

DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCAB, CONTEXT = 64, 96, 2, 4, 2, 48, 16
WIDTH = DIM // HEADS
PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def shapes(tied):
    """Names as Hugging Face has them, in the order in which llama2.c writes the parameters of one layer."""
    q, kv = HEADS * WIDTH, KV_HEADS * WIDTH
    layer = {
        "input_layernorm": (DIM,), "self_attn.q_proj": (q, DIM), "self_attn.k_proj": (kv, DIM),
        "self_attn.v_proj": (kv, DIM), "self_attn.o_proj": (DIM, q), "post_attention_layernorm": (DIM,),
        "mlp.gate_proj": (HIDDEN, DIM), "mlp.down_proj": (DIM, HIDDEN), "mlp.up_proj": (HIDDEN, DIM),
    }
    all_shapes = {"model.embed_tokens.weight": (VOCAB, DIM), "model.norm.weight": (DIM,)}
    if not tied:
        all_shapes["lm_head.weight"] = (VOCAB, DIM)
    for i in range(LAYERS):
        all_shapes |= {f"model.layers.{i}.{part}.weight": shape for part, shape in layer.items()}
    return all_shapes, list(layer)


def write_model(folder, tied, dtype):
    folder.mkdir()
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.3, shape).astype(dtype) for name, shape in shapes(tied)[0].items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": DIM,
        "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "vocab_size": VOCAB, "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": tied, "bos_token_id": 1, "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    return weights


def tokenizer():
    """Byte-level BPE over a few letters."""
    letters = "abcdefgh"
    tokens = ["<|endoftext|>", *letters, "ab", "abc"]
    return {
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": tokens[0], "special": True}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "decoder": {"type": "ByteLevel"},
        "model": {
            "type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)}, "merges": [["a", "b"], ["ab", "c"]],
        },
    }


def interleave(w, heads):
    """Rows of halves to rows of neighbouring pairs."""
    return w.reshape(heads, 2, WIDTH // 2, -1).swapaxes(1, 2).reshape(w.shape)


def rotated(name, w):
    heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(name.split(".")[-2])
    return interleave(w, heads) if heads else w


def same(name, got, want):
    assert got.dtype == want.dtype and got.shape == want.shape, (name, got.dtype, got.shape, want.dtype, want.shape)
    assert got.tobytes() == want.tobytes(), f"{name}: the elements differ"


def check_gguf(path, weights, kind):
    reader = gguf.GGUFReader(path)
    value = lambda key: reader.fields[key].contents()
    expected = {
        "general.architecture": "llama", "llama.block_count": LAYERS, "llama.context_length": CONTEXT,
        "llama.embedding_length": DIM, "llama.feed_forward_length": HIDDEN, "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS, "llama.vocab_size": VOCAB, "llama.rope.freq_base": 10000.0,
        "llama.attention.layer_norm_rms_epsilon": float(np.float32(1e-5)), "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.merges": ["a b", "ab c"],
    }
    for key, want in expected.items():
        assert value(key) == want, (key, value(key), want)
    assert value("tokenizer.ggml.tokens")[:3] == ["<|endoftext|>", "a", "b"]
    assert value("tokenizer.ggml.token_type")[:2] == [3, 1] and value("tokenizer.ggml.token_type")[-1] == 5
    seen = set()
    for tensor in reader.tensors:
        outer, _, rest = tensor.name.partition(".")
        if outer == "blk":
            index, part, _ = rest.split(".")
            name = f"model.layers.{index}.{PARTS[part]}.weight"
        else:
            outside = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
            name = outside[outer] + ".weight"
        seen.add(name)
        want = rotated(name, weights[name])
        qtype = kind if want.ndim == 2 else gguf.GGMLQuantizationType.F32
        assert tensor.tensor_type == qtype, (name, tensor.tensor_type)
        assert list(tensor.shape)[::-1] == list(want.shape), name
        want = quants.quantize(want.astype(np.float32), qtype)
        same(name, np.ascontiguousarray(tensor.data), np.ascontiguousarray(want))
    assert seen == set(weights), seen ^ set(weights)


def check_bin(path, weights, tied, version):
    data = path.read_bytes()
    sizes = (DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCAB, CONTEXT)
    layer = shapes(tied)[1]
    stacked = lambda part: [f"model.layers.{i}.{part}.weight" for i in range(LAYERS)]
    matrices = [name for part in layer if not part.endswith("layernorm") for name in stacked(part)]
    head = [] if tied else ["lm_head.weight"]
    if version == 0:
        sizes = sizes[:5] + (VOCAB if tied else -VOCAB, CONTEXT)
        assert struct.unpack("<7i", data[:28]) == sizes
        at = 28
        order = ["model.embed_tokens.weight", *(name for part in layer for name in stacked(part)),
                 "model.norm.weight", None, *head]
    else:
        assert struct.unpack("<Ii7iB", data[:37]) == (0x616B3432, 1, *sizes, int(tied)) and not any(data[37:256])
        at = 256
        order = [*stacked("input_layernorm"), *stacked("post_attention_layernorm"), "model.norm.weight",
                 "model.embed_tokens.weight", *matrices, *head]
    for name in order:
        if name is None:
            angles = np.outer(np.arange(CONTEXT), 10000.0 ** (-np.arange(0, WIDTH, 2) / WIDTH))
            tables = np.stack([np.cos(angles), np.sin(angles)])
            got = np.frombuffer(data, "<f4", tables.size, at).reshape(tables.shape)
            assert np.abs(got - tables).max() < 1e-6
            at += 4 * tables.size
            continue
        want = rotated(name, weights[name]).astype("<f4")
        same(name, np.frombuffer(data, "<f4", want.size, at).reshape(want.shape), want)
        at += 4 * want.size
    assert at == len(data)


def check_transformers(folder, weights, tied):
    model = AutoModelForCausalLM.from_pretrained(folder)
    state = model.state_dict()
    for name, want in weights.items():
        same(name, state[name].float().numpy(), want.astype(np.float32))
    assert model.config.tie_word_embeddings == tied


def main():
    arcane = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        for tied in (True, False):
            for dtype in (np.float32, np.float16):
                place = Path(scratch) / f"{tied}-{np.dtype(dtype)}"
                place.mkdir()
                weights = write_model(place / "model", tied, dtype)

                def convert(source, destination, *arguments):
                    command = [arcane, "convert", place / source, place / destination, *arguments]
                    result = subprocess.run(command, capture_output=True, text=True)
                    if result.returncode != 0:
                        sys.exit(f"{command}: {result.stderr}")
                    return place / destination

                kept = {np.float32: gguf.GGMLQuantizationType.F32, np.float16: gguf.GGMLQuantizationType.F16}[dtype]
                check_gguf(convert("model", "a.gguf", "--to", "gguf"), weights, kept)
                quantised = convert("model", "b.gguf", "--to", "gguf", "--dtype", "q8_0")
                check_gguf(quantised, weights, gguf.GGMLQuantizationType.Q8_0)
                for version in (0, 1):
                    path = convert("model", f"{version}.bin", "--to", "bin", "--bin-version", str(version))
                    check_bin(path, weights, tied, version)
                for source in ("a.gguf", "model"):
                    folder = convert(source, f"from-{source}", "--to", "hf")
                    back = load_file(folder / "model.safetensors")
                    assert back.keys() == weights.keys()
                    for name, want in weights.items():
                        same(name, back[name], want)
                if AutoModelForCausalLM is not None:
                    check_transformers(place / "from-model", weights, tied)
    others = "transformers too" if AutoModelForCausalLM is not None else "transformers is not installed"
    print(f"every tensor that arcane converted is what numpy, safetensors and gguf read ({others})")


main()
