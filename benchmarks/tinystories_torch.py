"""Trains in PyTorch what an Arcane run has trained: the same first weights, sequences, schedule and updates, in fp32 on the CPU.

    python3 tinystories_torch.py RUN START OUT [--threads N] [--steps N] [--jitter X]

RUN is a run over text with a tokenizer, whose config.toml says what to do. START is a checkpoint with its weights before the
first update. OUT gets metrics.jsonl, with the keys of Arcane's, and the final weights as a Hugging Face folder. Needs torch,
numpy, safetensors and tokenizers.

The model, the optimiser and the clipping are PyTorch's own modules. What is made again here is Arcane's order of the data
(docs/decisions.md, crates/train/src/order.rs).
"""

import argparse
import gzip
import json
import math
import shutil
import time
import tomllib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn

END_OF_TEXT = "<|endoftext|>"


def chacha8(key, stream, count):
    """The first `count` u64 of ChaCha with 8 rounds (Bernstein 2008): a counter of 64 bits, then the stream."""
    blocks = -(-count // 8)
    counter = np.arange(blocks, dtype=np.uint64)
    rows = [np.full(blocks, word, np.uint32) for word in np.frombuffer(b"expand 32-byte k" + key, "<u4")]
    rows += [(counter & 0xFFFFFFFF).astype(np.uint32), (counter >> 32).astype(np.uint32)]
    rows += [np.full(blocks, word, np.uint32) for word in (stream & 0xFFFFFFFF, stream >> 32)]
    x = np.stack(rows)
    start = x.copy()

    def quarter(a, b, c, d):
        for target, source, mixed, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[target] += x[source]
            x[mixed] ^= x[target]
            x[mixed] = (x[mixed] << turn) | (x[mixed] >> (32 - turn))

    for _ in range(4):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    words = (x + start).T.reshape(-1).astype(np.uint64)
    return (words[::2] | words[1::2] << np.uint64(32))[:count].tolist()


def permutation(n, seed, tag, stream):
    """Arcane's shuffle of range(n): Fisher and Yates, indices by Lemire's product."""
    key = seed.to_bytes(8, "little") + tag.ljust(24, b"\0")
    # Rejections are rarer than one in 2^40 for the sizes here; the spare numbers are for them.
    numbers = iter(chacha8(key, stream, n + 16))
    order = list(range(n))
    for i in range(n - 1, 0, -1):
        threshold = (2**64 - (i + 1)) % (i + 1)
        product = next(numbers) * (i + 1)
        while product % 2**64 < threshold:
            product = next(numbers) * (i + 1)
        j = product >> 64
        order[i], order[j] = order[j], order[i]
    return order


assert permutation(8, 0, b"data order", 0) == [4, 6, 2, 1, 3, 7, 5, 0]
assert permutation(8, 1, b"data order", 2) == [2, 3, 0, 5, 6, 1, 4, 7]


def documents(path):
    data = Path(path).read_bytes()
    text = (gzip.decompress(data) if str(path).endswith(".gz") else data).decode()
    found, lines = [], []
    for line in text.split("\n"):
        if line.rstrip("\r") == END_OF_TEXT:
            found.append("\n".join(lines))
            lines = []
        else:
            lines.append(line)
    found.append("\n".join(lines))
    return [document.strip("\r\n") for document in found if document.strip()]


def token_ids(texts, tokenizer, end):
    encoded = tokenizer.encode_batch(texts)
    return torch.tensor([token for one in encoded for token in [*one.ids, end]])


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, self.head_dim = config["hidden_size"], config["head_dim"]
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.q_proj = nn.Linear(width, heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(heads * self.head_dim, width, bias=False)

    def forward(self, x, cos, sin):
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = (t * cos + torch.cat((-t.chunk(2, -1)[1], t.chunk(2, -1)[0]), -1) * sin for t in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
        return self.o_proj(y.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, inner = config["hidden_size"], config["intermediate_size"]
        self.input_layernorm = nn.RMSNorm(width, config["rms_norm_eps"])
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(width, config["rms_norm_eps"])
        self.mlp = nn.ModuleDict({
            "gate_proj": nn.Linear(width, inner, bias=False),
            "up_proj": nn.Linear(width, inner, bias=False),
            "down_proj": nn.Linear(inner, width, bias=False),
        })

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        y = self.post_attention_layernorm(x)
        return x + self.mlp["down_proj"](F.silu(self.mlp["gate_proj"](y)) * self.mlp["up_proj"](y))


class Llama(nn.Module):
    """Parameters are called what Hugging Face calls them; the output matrix is the embedding."""

    def __init__(self, config, seq):
        super().__init__()
        assert config["tie_word_embeddings"], "a tied output matrix was expected"
        self.model = nn.ModuleDict({
            "embed_tokens": nn.Embedding(config["vocab_size"], config["hidden_size"]),
            "layers": nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"])),
            "norm": nn.RMSNorm(config["hidden_size"], config["rms_norm_eps"]),
        })
        half = torch.arange(0, config["head_dim"], 2, dtype=torch.float64) / config["head_dim"]
        angles = torch.outer(torch.arange(seq, dtype=torch.float64), config["rope_theta"] ** -half).repeat(1, 2)
        self.cos, self.sin = angles.cos().float(), angles.sin().float()

    def forward(self, tokens, targets):
        x = self.model["embed_tokens"](tokens)
        for layer in self.model["layers"]:
            x = layer(x, self.cos, self.sin)
        logits = F.linear(self.model["norm"](x), self.model["embed_tokens"].weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Sequences:
    """Sequence i has the inputs ids[i*S .. i*S+S] and the targets one further."""

    def __init__(self, ids, seq):
        self.count = (len(ids) - 1) // seq
        self.inputs = ids[: self.count * seq].view(-1, seq)
        self.targets = ids[1 : self.count * seq + 1].view(-1, seq)

    def batch(self, indices):
        return self.inputs[indices], self.targets[indices]


def learning_rate(config, step):
    """Of the update number `step`, from 0."""
    peak, schedule = config["optimizer"]["lr"], config["schedule"]
    least, warmup = schedule["min_lr"], schedule["warmup"]
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule["name"] == "constant":
        return peak
    angle = math.pi * (step - warmup) / (config["train"]["steps"] - warmup)
    return least + (peak - least) * 0.5 * (1 + math.cos(angle))


def read_data(config, tokenizer, end):
    data, seed = config["data"], config["train"]["seed"]
    texts = documents(data["train"])
    if data["order"] == "shuffle":
        texts = [texts[i] for i in permutation(len(texts), seed, b"documents", 0)]
    train = Sequences(token_ids(texts, tokenizer, end), data["seq"])
    valid = Sequences(token_ids(documents(data["valid"]), tokenizer, end), data["seq"])
    return train, valid


def order_of(config, train):
    """The sequences in the order in which updates take them, pass after pass."""
    count, epoch = train.count, 0
    while True:
        shuffled = config["data"]["order"] == "shuffle"
        yield from permutation(count, config["train"]["seed"], b"data order", epoch) if shuffled else range(count)
        epoch += 1


def validation_loss(model, valid, batch):
    total = 0.0
    with torch.no_grad():
        for indices in torch.arange(valid.count).split(batch):
            total += model(*valid.batch(indices)).item() * len(indices)
    return total / valid.count


def optimizer_of(config, model):
    settings = config["optimizer"]
    matrices = [p for p in model.parameters() if p.dim() > 1]
    gains = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": settings["weight_decay"]}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings["lr"], betas=tuple(settings["betas"]), eps=settings["eps"], fused=True)


def train(config, model, data, steps, log):
    train_data, valid = data
    batch, eval_every = config["train"]["batch"] * config["train"]["accumulate"], config["run"]["eval_every"]
    optimizer, order = optimizer_of(config, model), order_of(config, train_data)
    for step in range(steps):
        start = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        indices = torch.tensor([next(order) for _ in range(batch)])
        optimizer.zero_grad()
        loss = model(*train_data.batch(indices))
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config["optimizer"]["clip"] or math.inf)
        optimizer.step()
        line = {"step": step + 1, "loss": loss.item(), "lr": learning_rate(config, step), "grad_norm": norm.item()}
        line["ms"] = (time.perf_counter() - start) * 1e3
        if (step + 1) % eval_every == 0 or step + 1 == steps:
            line["valid_loss"] = validation_loss(model, valid, batch)
        print(json.dumps(line), file=log, flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("start", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, help="stop after so many updates; the schedule stays that of the run")
    parser.add_argument("--jitter", type=float, default=0.0, help="relative noise on the first weights")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = tomllib.loads((arguments.run / "config.toml").read_text())
    model_config = json.loads((arguments.start / "config.json").read_text())
    end = model_config["eos_token_id"]
    end = end[0] if isinstance(end, list) else end
    data = read_data(config, Tokenizer.from_file(str(arguments.start / "tokenizer.json")), end)
    print(f"{data[0].count} sequences for training, {data[1].count} for validation")
    model = Llama(model_config, config["data"]["seq"])
    model.load_state_dict(load_file(arguments.start / "model.safetensors"))
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1 + arguments.jitter * torch.randn(parameter.shape, generator=noise)
    arguments.out.mkdir(parents=True)
    with open(arguments.out / "metrics.jsonl", "w") as log:
        train(config, model, data, arguments.steps or config["train"]["steps"], log)
    save_file(model.state_dict(), arguments.out / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(arguments.start / name, arguments.out / name)


if __name__ == "__main__":
    main()
