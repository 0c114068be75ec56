"""Compares packages and programs with coremltools, and what they compute with PyTorch.

usage: coreml.py ARCANE

Needs coremltools and numpy. What `arcane convert --to mlpackage` writes has to pass coremltools' checks: the validator of packages, the
loader of models, and the reader of programs, which infers the type of every op. Where torch is installed, coremltools converts a small
convolutional network and a small transformer; `arcane run` has to give PyTorch's outputs within what fp16 allows, also after the package
went through text and back.
"""

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

warnings.filterwarnings("ignore")

import coremltools
from coremltools.converters.mil.frontend.milproto import load as milproto
from coremltools.libmodelpackage import ModelPackage

import formats

try:
    import torch
except ImportError:
    torch = None

# fp16 keeps 11 bits; what follows a few layers of products is off by some of them.
ATOL, RTOL = 4e-3, 1e-2
# Positions of the sequences.
LENGTH = 9


def arcane(*arguments):
    result = subprocess.run([ARCANE, *map(str, arguments)], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"arcane {' '.join(map(str, arguments))}: {result.stderr}")
    return result.stdout


def check_package(path):
    """What coremltools can say of a package without a Mac."""
    assert ModelPackage.isValid(str(path)), path
    model = coremltools.models.MLModel(str(path), skip_model_load=True)
    spec = model.get_spec()
    weights = path / "Data/com.apple.CoreML/weights"
    program = milproto.load(spec, specification_version=spec.specificationVersion, file_weights_dir=str(weights))
    return spec, program


# Golden programs that coremltools does not build, though the definitions allow them.
UNBUILT = {
    "functions": "prelu of rank 3 with several alphas",
    "normalisation": "batch_norm with an epsilon of another type than the variance",
}


def programs(place):
    """Programs of the golden files, as packages."""
    count = 0
    for source in sorted(Path("crates/mil/tests/cases").glob("*.mil")):
        if source.stem in UNBUILT:
            continue
        target = place / f"{source.stem}.mlpackage"
        result = subprocess.run([ARCANE, "convert", source, target, "--to", "mlpackage"], capture_output=True, text=True)
        if result.returncode == 0:
            check_package(target)
            count += 1
    assert count >= 4, count
    return count


def language_model(place):
    """A checkpoint as a package: its ports, and, where torch is, the logits of its tokens."""
    formats.write_model(place / "model", True, np.float32)
    for dtype in ("fp16", "fp32"):
        package = place / f"model-{dtype}.mlpackage"
        arcane("convert", place / "model", package, "--to", "mlpackage", "--dtype", dtype, "--seq", "8")
        spec, program = check_package(package)
        assert [f.name for f in spec.description.input] == ["tokens"], spec.description
        assert [f.name for f in spec.description.output] == ["logits"], spec.description
        assert list(program.functions) == ["main"]
        tokens = np.arange(8, dtype=np.int32)[None] * 5 % formats.VOCAB
        logits = run(package, {"tokens": tokens})["logits"]
        assert logits.shape == (1, 8, formats.VOCAB)
        # The mean cross entropy that `arcane eval` has for the same model.
        wide = logits[0].astype(np.float64)
        log_sum = np.log(np.exp(wide - wide.max(-1, keepdims=True)).sum(-1)) + wide.max(-1)
        ours = np.mean([log_sum[i] - wide[i, tokens[0, i + 1]] for i in range(7)])
        data = place / "tokens.bin"
        data.write_bytes(tokens.astype("<u2").tobytes())
        loss = json.loads(arcane("eval", place / "model", "--data", data))["loss"]
        assert abs(ours - loss) < (2e-2 if dtype == "fp16" else 1e-4), (dtype, ours, loss)


def run(program, inputs):
    with tempfile.TemporaryDirectory() as place:
        np.savez(f"{place}/in.npz", **inputs)
        arcane("run", program, "--inputs", f"{place}/in.npz", "--outputs", f"{place}/out.npz")
        with np.load(f"{place}/out.npz") as outputs:
            return {name: outputs[name] for name in outputs.files}


def networks():
    """Small networks and an input for each."""
    from torch import nn

    class Attention(nn.Module):
        def __init__(self, width, heads):
            super().__init__()
            self.heads, self.width, self.scale = heads, width, (width // heads) ** -0.5
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

        def forward(self, x):
            # Sizes as numbers: traced ones become ops that the converter cannot always fold.
            split = self.qkv(x).reshape(1, LENGTH, 3, self.heads, self.width // self.heads)
            q, k, v = split[:, :, 0].transpose(1, 2), split[:, :, 1].transpose(1, 2), split[:, :, 2].transpose(1, 2)
            weights = torch.softmax(q @ k.transpose(2, 3) * self.scale, -1)
            return self.out((weights @ v).transpose(1, 2).reshape(1, LENGTH, self.width))

    class Block(nn.Module):
        def __init__(self, width, heads):
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
            self.attention = Attention(width, heads)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x):
            x = x + self.attention(self.norms[0](x))
            return x + self.mlp(self.norms[1](x))

    convolutional = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, stride=2, groups=2), nn.SiLU(), nn.AvgPool2d(2, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 10),
    )
    transformer = nn.Sequential(nn.Linear(12, 32), Block(32, 4), Block(32, 4), nn.LayerNorm(32), nn.Linear(32, 5))
    attention = nn.Sequential(nn.Linear(12, 32), Attention(32, 4), nn.SiLU(), nn.Linear(32, 5), nn.Softmax(-1))
    images = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        for _ in range(4):
            convolutional(torch.randn(8, 3, 16, 16))
    sequence = torch.randn(1, LENGTH, 12)
    return {"convnet": (convolutional, images), "transformer": (transformer, sequence), "attention": (attention, sequence)}


def compare_with_torch(place):
    """Gives how many packages had PyTorch's outputs."""
    torch.manual_seed(0)
    targets = [coremltools.target.iOS15, coremltools.target.iOS16, coremltools.target.iOS17, coremltools.target.iOS18]
    count = 0
    for name, (network, x) in networks().items():
        network.eval()
        with torch.no_grad():
            want = network(x).numpy()
        for target in targets:
            path = place / f"{name}-{target.name}.mlpackage"
            inputs = [coremltools.TensorType("x", shape=x.shape)]
            model = coremltools.convert(torch.jit.trace(network, x), inputs=inputs, minimum_deployment_target=target, skip_model_load=True)
            model.save(str(path))
            port = model.get_spec().description.input[0].type.multiArrayType.dataType
            x_typed = x.numpy().astype(np.float16 if port == 65552 else np.float32)
            (got,) = run(path, {"x": x_typed}).values()
            assert np.allclose(got.astype(np.float64), want, ATOL, RTOL), (name, target, np.abs(got - want).max())
            # Through text and back: the same program.
            text, again = place / f"{name}-{target.name}", place / f"{name}-{target.name}-again.mlpackage"
            arcane("convert", path, text, "--to", "mil")
            (same,) = run(text, {"x": x_typed}).values()
            arcane("convert", text, again, "--to", "mlpackage")
            check_package(again)
            (back,) = run(again, {"x": x_typed}).values()
            assert np.array_equal(got, same) and np.array_equal(got, back), (name, target)
            count += 1
    return count


def main():
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        print(f"coremltools {coremltools.__version__} takes {programs(place)} programs that arcane wrote as packages")
        language_model(place)
        print("coremltools takes a model that arcane exported as a package, whose logits give the loss of arcane eval")
        if torch is None:
            print("torch is not installed: no packages of other networks were made")
        else:
            print(f"arcane runs {compare_with_torch(place)} packages made by coremltools with torch {torch.__version__}'s outputs")


ARCANE = str(Path(sys.argv[1]).resolve())
main()
