"""An export of an untrained network of any size, for measurements, and policy.bin in Python."""
import json
import struct

import numpy as np
import onnx
import torch
from export_onnx import build
from safetensors.numpy import save_file
from transformers import GPT2Config, GPT2Model

PRIME, START = 0x100000001b3, 0xcbf29ce484222325  # of FNV-1a, 64 bits
GROUP = 32  # inputs that share the scale of a weight of 8 bits


def fnv1a(data):
    """FNV-1a, 64 bits. A loop over the bytes of a large policy would take minutes.

    An exclusive or with a byte changes the lowest byte of the sum only, so it adds a number that
    follows from that byte. The lowest bytes come first, bit by bit: bit k of the product with an
    odd number is bit k of the factor, flipped by what the bits below it decide.
    """
    total, block = START, min(len(data), 1 << 20) or 1
    powers = np.multiply.accumulate(np.full(block, PRIME, np.uint64))[::-1]
    for begin in range(0, len(data), block):
        part = np.frombuffer(data, np.uint8, min(block, len(data) - begin), begin)
        low = np.zeros_like(part)  # of the sum before each byte
        for k in range(8):
            below = (low ^ part) & np.uint8((1 << k) - 1)
            flips = (part ^ (below * np.uint8(PRIME & 255))) >> k & 1
            flips = np.append(np.uint8(total >> k & 1), flips[:-1])
            low |= np.bitwise_xor.accumulate(flips) << k
        added = ((low ^ part).astype(np.int64) - low).astype(np.uint64)
        total = total * pow(PRIME, len(part), 1 << 64) + int((added * powers[-len(part):]).sum())
        total %= 1 << 64
    return total


def policy_bytes(tensors, config, facts, bits):
    """policy.bin without examples, as src/controller/README.md says."""
    def matrix(weight):
        if bits == 32:
            return [weight]
        begins = np.arange(0, len(weight), GROUP)
        scales = np.maximum.reduceat(np.abs(weight), begins) / np.float32(127)
        scales = np.maximum(scales, np.float32(1e-30))
        rounded = np.round(weight / np.repeat(scales, GROUP, axis=0)[:len(weight)])
        return [rounded.astype(np.int8), scales]

    layers, width, window = config["n_layer"], config["n_embd"], facts["window"]
    shape = 1, bits, layers, width, config["n_head"], window, 0, 4 * width
    constants = [facts[name] for name in ("period", "force_limit", "track_limit", "gravity")]
    header = struct.pack("<8s8I4d", b"CARTPOLE", *shape, *constants)
    arrays = [
        tensors["feature_scales"],
        np.array(facts["delta_rms"]),
        np.frombuffer(facts["name"].encode().ljust(64, b"\0"), np.uint8),
        tensors["read_in.weight"].T, tensors["read_in.bias"], tensors["wpe.weight"][:window]
    ]
    for layer in range(layers):
        for part in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"):
            weight = tensors[f"h.{layer}.{part}.weight"]
            arrays += matrix(weight) if part.startswith(("attn", "mlp")) else [weight]
            arrays.append(tensors[f"h.{layer}.{part}.bias"])
    arrays += [tensors["ln_f.weight"], tensors["ln_f.bias"]]
    for kind in ("weight", "bias"):
        heads = [tensors[f"{name}_head.{kind}"] for name in ("force", "mode", "dynamics")]
        arrays.append(np.concatenate(heads).T)
    data = header + b"".join(
        array.astype(array.dtype if array.itemsize == 1 else "<f4").tobytes() for array in arrays)
    return data + struct.pack("<Q", fnv1a(data))


def write_random_export(folder, layers, width, window):
    """Writes all that a controller reads, heads of 32, into an existing folder."""
    torch.manual_seed(0)
    body = GPT2Model(
        GPT2Config(n_layer=layers, n_embd=width, n_head=width // 32, n_positions=window,
                   vocab_size=1, bos_token_id=0, eos_token_id=0))
    tensors = {name: tensor.numpy() for name, tensor in body.state_dict().items()}
    for name, outputs, inputs in [("read_in", width, 6), ("force_head", 1, width),
                                  ("mode_head", 2, width), ("dynamics_head", 8, width)]:
        tensors[f"{name}.weight"] = 0.1 * torch.randn(outputs, inputs).numpy()
        tensors[f"{name}.bias"] = np.zeros(outputs, np.float32)
    tensors["feature_scales"] = np.array([1, 1, 0.3, 1, 2, 10], np.float32)
    facts = dict(name=f"untrained {layers} x {width}", window=window, period=0.02, force_limit=10.0,
                 track_limit=2.4, gravity=9.81, delta_rms=[0.01, 0.05, 0.05, 0.15])
    config = body.config.to_dict()
    body.config.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "controller.json").write_text(json.dumps(facts))
    for bits, name in (32, "policy.bin"), (8, "policy_8bit.bin"):
        (folder / name).write_bytes(policy_bytes(tensors, config, facts, bits))
    onnx.save(build(tensors, config, facts), folder / "policy.onnx")
