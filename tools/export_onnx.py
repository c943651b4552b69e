#!/usr/bin/env python3
"""Writes policy.onnx into a folder that export_policy wrote.

  pip install onnx==1.23.2
  .venv/bin/python tools/export_onnx.py output/quickstart/export

One call computes one control step. V is the window, L the layers, H the heads, D their width:

  input    token [1, 6]                  x (m), x_dot, sin theta, cos theta, theta_dot (rad/s), and
                                         the force sent one period before (N)
           position [1], int64           of the token in the window, from 0 to V - 1
           past_key_values.L.key, .value [1, H, V, D], what the steps before have left
  output   force [1]                     N, within the limit: what to send
           mode_logits [1, 2]            swinging up, balancing
           state_change [1, 4]           expected until the next step, if that force is sent
           present.L.key, .value         the past, and this step at its position

The force sent is 0 at position 0. A full window is followed by its newest V // 4 tokens and the new
one at positions 0, 1, ...: a call takes several tokens, [steps, 6] and [steps], and answers the
last. Nothing has to be cleared, since nothing behind the position is read. With the same memory
bound to past and present, ONNX Runtime writes a row instead of copying the cache. The metadata
hold what is in controller.json.
"""
import argparse
import json
import sys
from pathlib import Path

try:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from safetensors.numpy import load_file
except ImportError as error:
    sys.exit(f"export_onnx.py: {error}: pip install onnx==1.23.2 safetensors")


class Graph:
    """Collects nodes and constants; a value is known by its name."""
    def __init__(self):
        self.nodes, self.constants = [], {}

    def constant(self, array, name=None):
        name = name or f"constant_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def __call__(self, kind, *inputs, out=None, outputs=1, **attributes):
        names = [out] if out else [f"{kind}_{len(self.nodes)}_{k}" for k in range(outputs)]
        inputs = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0] if len(names) == 1 else names


def build(tensors, config, facts):
    layers, width, heads = config["n_layer"], config["n_embd"], config["n_head"]
    window, size = facts["window"], width // heads
    graph = Graph()
    weights = {
        name: graph.constant(array, name)
        for name, array in tensors.items()
        if not name.startswith(("wte.", "wpe."))
    }

    def linear(x, name, **attributes):
        return graph("Gemm", x, weights[f"{name}.weight"], weights[f"{name}.bias"], **attributes)

    def normalized(x, name):
        return graph("LayerNormalization", x, weights[f"{name}.weight"], weights[f"{name}.bias"],
                     epsilon=config["layer_norm_epsilon"])

    def remember(x, name):
        """Puts one row per head and step into the cache; returns the cache."""
        rows = graph("Reshape", x, [-1, heads, size])
        return graph("ScatterND", f"past_key_values.{name}", where, rows, out=f"present.{name}")

    # [steps, heads, 3]: the entries of the cache that the steps write.
    position = graph("Unsqueeze", "position", [1, 2])
    head = np.stack([np.zeros(heads, np.int64), np.arange(heads)], axis=1)
    steps = graph("Shape", "position")
    where = graph("Concat", graph("Expand", head, graph("Concat", steps, [heads, 2], axis=0)),
                  graph("Expand", position, graph("Concat", steps, [heads, 1], axis=0)), axis=2)
    later = graph("Greater", np.arange(window), graph("Unsqueeze", "position", [1]))
    mask = graph("Where", later, np.float32(-np.inf), np.float32(0))  # [steps, window]

    x = linear(graph("Div", "token", weights["feature_scales"]), "read_in", transB=1)
    x = graph("Add", x, graph("Gather", tensors["wpe.weight"][:window], "position"))
    for layer in range(layers):
        block = f"h.{layer}"
        query, key, value = graph("Split",
                                  linear(normalized(x, f"{block}.ln_1"), f"{block}.attn.c_attn"),
                                  outputs=3, axis=1, num_outputs=3)
        query = graph("Mul", query, np.float32(size**-0.5))
        query = graph("Transpose", graph("Reshape", query, [1, -1, heads, size]), perm=[0, 2, 1, 3])
        key = graph("Transpose", remember(key, f"{layer}.key"), perm=[0, 1, 3, 2])
        share = graph("Softmax", graph("Add", graph("MatMul", query, key), mask), axis=-1)
        heard = graph("MatMul", share, remember(value, f"{layer}.value"))
        heard = graph("Reshape", graph("Transpose", heard, perm=[0, 2, 1, 3]), [-1, width])
        x = graph("Add", x, linear(heard, f"{block}.attn.c_proj"))
        inner = linear(normalized(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        inner = graph("Gelu", inner, approximate="tanh")
        x = graph("Add", x, linear(inner, f"{block}.mlp.c_proj"))
    last = graph("Gather", x, [-1])
    x = normalized(last, "ln_f")

    share = graph("Clip", linear(x, "force_head", transB=1), np.float32(-1), np.float32(1))
    force = graph("Mul", share, np.float32(facts["force_limit"]))
    graph("Squeeze", force, [1], out="force")
    graph("Identity", linear(x, "mode_head", transB=1), out="mode_logits")
    free, by_force = graph("Split", linear(x, "dynamics_head", transB=1), outputs=2, axis=1,
                           num_outputs=2)
    change = graph("Add", free, graph("Mul", by_force, share))
    graph("Mul", change, np.float32(facts["delta_rms"]), out="state_change")

    def value(name, *shape, kind=TensorProto.FLOAT):
        return helper.make_tensor_value_info(name, kind, shape)

    def caches(name):
        return [
            value(f"{name}.{layer}.{kind}", 1, heads, window, size)
            for layer in range(layers)
            for kind in ("key", "value")
        ]

    inputs = [
        value("token", "steps", 6),
        value("position", "steps", kind=TensorProto.INT64), *caches("past_key_values")
    ]
    outputs = [
        value("force", 1),
        value("mode_logits", 1, 2),
        value("state_change", 1, 4), *caches("present")
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "controller", inputs, outputs, graph.constants.values()),
        opset_imports=[helper.make_opsetid("", 20)], ir_version=10, producer_name="export_onnx.py")
    helper.set_model_props(
        model,
        {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()})
    onnx.checker.check_model(model, full_check=True)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="EXPORT_FOLDER")
    folder = parser.parse_args().folder
    try:
        tensors = load_file(folder / "model.safetensors")
        config, facts = (
            json.loads((folder / name).read_text()) for name in ("config.json", "controller.json"))
    except (OSError, ValueError) as error:
        sys.exit(f"export_onnx.py: {folder} is not an export: {error}")
    onnx.save(build(tensors, config, facts), folder / "policy.onnx")


if __name__ == "__main__":
    main()
