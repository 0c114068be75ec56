"""Loads what `arcane convert` writes with the formats' own libraries, and compares every tensor exactly.

usage: formats.py ARCANE

Needs numpy, safetensors, gguf and sentencepiece. Where transformers is installed, it reads configuration and tokenizer of each folder; where torch
is, too, it loads the model, which has to give each token of a text the probability that `arcane eval` gives it. Where ../shared is, tokenizers of `SentencePiece` are put into GGUF files as llama.cpp puts them; the
tokenizer.json that becomes of them has to give their ids.
"""

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
from gguf import quants
from safetensors.numpy import load_file, save_file

try:
    import transformers
except ImportError:
    transformers = None
try:
    from tokenizers import Tokenizer
except ImportError:
    Tokenizer = None
try:
    import torch
except ImportError:
    torch = None

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
    plain = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": tokens[0], "special": True} | plain],
        "pre_tokenizer": bytes_,
        "decoder": bytes_,
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


def check_transformers(folder, weights, tied, arcane):
    config = transformers.AutoConfig.from_pretrained(folder)
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (DIM, LAYERS, VOCAB)
    assert (config.num_attention_heads, config.num_key_value_heads) == (HEADS, KV_HEADS)
    assert config.tie_word_embeddings == tied
    assert transformers.AutoTokenizer.from_pretrained(folder)("abcab")["input_ids"] == [10, 9]
    if torch is None:
        return
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    state = model.state_dict()
    for name, want in weights.items():
        same(name, state[name].numpy(), want.astype(np.float32))
    ids = np.random.default_rng(1).integers(0, VOCAB, CONTEXT)
    with torch.no_grad():
        logits = model(torch.tensor(ids[None, :])).logits[0].double()
    theirs = -torch.log_softmax(logits, -1)[torch.arange(CONTEXT - 1), torch.tensor(ids[1:])]
    data = folder.with_suffix(".bin")
    for count in range(1, CONTEXT):
        data.write_bytes(ids[: count + 1].astype("<u2").tobytes())
        result = json.loads(run(arcane, "eval", folder, "--data", data))
        ours, want = result["loss"], theirs[:count].mean().item()
        assert result["tokens"] == count and abs(ours - want) < 1e-5, (count, ours, want)


def write_foreign_gguf(path, tokens, kinds, pairs):
    """A model of zeros with a tokenizer in its metadata; `pairs` are calls of the writer that say more about it."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in [("context_length", 16), ("embedding_length", 4), ("block_count", 1), ("feed_forward_length", 4),
                       ("head_count", 2), ("head_count_kv", 2), ("layer_norm_rms_eps", 1e-5), ("vocab_size", len(tokens))]:
        getattr(writer, f"add_{key}")(value)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    for key, value in pairs.items():
        getattr(writer, f"add_{key}")(value)
    layer = {part: (4,) if part.endswith("norm") else (4, 4) for part in PARTS}
    shapes = {"token_embd": (len(tokens), 4), "output_norm": (4,)} | {f"blk.0.{part}": s for part, s in layer.items()}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_foreign_tokenizers(arcane, place):
    """Gives how many texts had the ids that the original tokenizer gives them."""
    json_tokens = list(tokenizer()["model"]["vocab"])
    byte_level = {"tokenizer_model": "gpt2", "token_merges": ["a b", "ab c"]}
    kinds = [3] + [1] * (len(json_tokens) - 1)
    write_foreign_gguf(place / "unknown.gguf", json_tokens, kinds, byte_level | {"tokenizer_pre": "nobody-knows"})
    command = [arcane, "convert", place / "unknown.gguf", place / "unknown", "--to", "hf"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0 and 'tokenizer.ggml.pre is "nobody-knows"' in result.stderr, result.stderr
    assert not (place / "unknown/tokenizer.json").exists()
    if Tokenizer is None:
        return 0
    write_foreign_gguf(place / "bytes.gguf", json_tokens, kinds, byte_level | {"tokenizer_pre": "gpt-2"})
    run(arcane, "convert", place / "bytes.gguf", place / "bytes", "--to", "hf")
    assert Tokenizer.from_file(str(place / "bytes/tokenizer.json")).encode("abcab<|endoftext|>a").ids == [10, 9, 0, 1]
    count = 1
    shared = Path(__file__).resolve().parents[2] / "shared/data"
    for name in ("llama2", "mistral-v1"):
        if not (shared / f"tokenizers/{name}").is_dir():
            continue
        original = sentencepiece.SentencePieceProcessor(model_file=str(shared / f"tokenizers/{name}/tokenizer.model"))
        ids = range(original.vocab_size())
        kind = lambda i: 2 if original.is_unknown(i) else 3 if original.is_control(i) else 6 if original.is_byte(i) else 1
        scores = [original.get_score(i) for i in ids]
        more = {"tokenizer_model": "llama", "token_scores": scores, "bos_token_id": original.bos_id()}
        write_foreign_gguf(place / f"{name}.gguf", [original.id_to_piece(i) for i in ids], [kind(i) for i in ids], more)
        run(arcane, "convert", place / f"{name}.gguf", place / name, "--to", "hf")
        converted = Tokenizer.from_file(str(place / name / "tokenizer.json"))
        text = (shared / "tinyshakespeare/input.txt").read_text()
        texts = ["", "  two  spaces ", "naïve café — “quoted” 😀🚀", "don't stop: 12345.67\tこんにちは", text[:100_000]]
        for text in texts + text.split("\n\n")[:500]:
            want = [original.bos_id(), *original.encode(text)]
            assert converted.encode(text).ids == want, (name, text[:100])
            count += 1
    return count


def run(*command):
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{command}: {result.stderr}")
    return result.stdout


def main():
    arcane = Path(sys.argv[1]).resolve()
    if transformers is not None:
        transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        for tied in (True, False):
            for dtype in (np.float32, np.float16):
                place = Path(scratch) / f"{tied}-{np.dtype(dtype)}"
                place.mkdir()
                weights = write_model(place / "model", tied, dtype)

                def convert(source, destination, *arguments):
                    run(arcane, "convert", place / source, place / destination, *arguments)
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
                if transformers is not None:
                    check_transformers(place / "from-model", weights, tied, arcane)
        place = Path(scratch) / "foreign"
        place.mkdir()
        texts = check_foreign_tokenizers(arcane, place)
    print("numpy, safetensors and gguf read every tensor as arcane converted it")
    print(f"{texts} texts have the same ids before and after a tokenizer went through GGUF" if texts else
          "tokenizers is not installed: what became of those in GGUF was not read")
    if transformers is None:
        print("transformers is not installed: nothing was checked with it")
    elif torch is None:
        print(f"transformers {transformers.__version__} reads configuration and tokenizer; without torch it loads no model")
    else:
        versions = f"transformers {transformers.__version__} with torch {torch.__version__}"
        print(f"{versions} reads configuration, tokenizer and weights, and gives every token arcane's probability")


if __name__ == "__main__":
    main()
