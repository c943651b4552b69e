"""The controller of an export by several libraries, for tests and measurements.

step(state, sent) of each returns the force (N), the probability of balancing and the state that is
expected next; state is [x, x_dot, theta, theta_dot]. All keep the newest quarter of a full window.
"""
import ctypes
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from play_export import Controller
from safetensors.torch import load_file


class Action(ctypes.Structure):
    """cartpole_policy_action of src/controller/cartpole_policy.h."""
    _fields_ = [("force", ctypes.c_double), ("mode", ctypes.c_int), ("balancing", ctypes.c_double),
                ("next_state", ctypes.c_double * 4)]


class Description(ctypes.Structure):
    """cartpole_policy_description."""
    _fields_ = [
        (name, ctypes.c_double) for name in ("period", "force_limit", "track_limit", "gravity")
    ]
    _fields_ += [(name, ctypes.c_int) for name in ("window", "bits", "layers", "width", "heads")]
    _fields_ += [("parameters", ctypes.c_longlong), ("name", ctypes.c_char_p),
                 ("instruction_set", ctypes.c_char_p)]


def load_library(path):
    """Returns libcartpole_policy.so with the types of its functions."""
    library = ctypes.CDLL(str(path))
    policy, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_double)
    functions = dict(load=[text, ctypes.POINTER(policy)], load_bytes=[
        text, ctypes.c_size_t, ctypes.POINTER(policy)
    ], describe=[policy, ctypes.POINTER(Description)], reset=[policy], step=[
        policy, number, ctypes.c_double, ctypes.POINTER(Action)
    ], test=[policy, number], use=[policy, text], free=[policy], status_text=[ctypes.c_int])
    for name, arguments in functions.items():
        getattr(library, f"cartpole_policy_{name}").argtypes = arguments
    library.cartpole_policy_free.restype = None
    library.cartpole_policy_status_text.restype = text
    return library


class InC:
    """The C library, with the bytes of policy.bin."""
    def __init__(self, library, data):
        self.library, self.policy = library, ctypes.c_void_p()
        self.check(library.cartpole_policy_load_bytes(data, len(data), ctypes.byref(self.policy)))
        self.state, self.action = (ctypes.c_double * 4)(), Action()

    def __del__(self):
        self.library.cartpole_policy_free(self.policy)

    def check(self, status):
        if status:
            raise ValueError(self.library.cartpole_policy_status_text(status).decode())

    def describe(self):
        result = Description()
        self.check(self.library.cartpole_policy_describe(self.policy, ctypes.byref(result)))
        return result

    def reset(self):
        self.check(self.library.cartpole_policy_reset(self.policy))

    def step(self, state, sent):
        self.state[:] = state
        self.check(
            self.library.cartpole_policy_step(self.policy, self.state, sent,
                                              ctypes.byref(self.action)))
        return self.action.force, self.action.balancing, self.action.next_state[:]


class Windowed:
    """Counts positions for libraries that only compute; encode(tokens, first position) does."""
    def __init__(self, facts):
        self.window = facts["window"]
        self.reset()

    def reset(self):
        self.tokens = np.zeros((self.window, 6), np.float32)
        self.length = 0

    def step(self, state, sent):
        first = self.length
        if self.length == self.window:
            first, self.length = 0, self.window // 4
            self.tokens[:self.length] = self.tokens[self.window - self.length:]
            self.tokens[:1, 5] = 0.0
        x, x_dot, theta, theta_dot = state
        self.tokens[self.length] = (x, x_dot, math.sin(theta), math.cos(theta), theta_dot,
                                    sent if self.length else 0.0)
        self.length += 1
        force, (swinging, balancing), change = self.encode(self.tokens[first:self.length], first)
        return (force, 1.0 / (1.0 + math.exp(swinging - balancing)), [
            value + by for value, by in zip(state, change)
        ])


class InOnnxRuntime(Windowed):
    """policy.onnx on one thread, with its cache in place."""
    def __init__(self, folder, facts):
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(Path(folder, "policy.onnx"), options,
                                                    providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        for name in ("force", "mode_logits", "state_change"):
            self.binding.bind_output(name)
        for value in self.session.get_inputs():
            past, *rest = value.name.split(".", 1)
            if past == "past_key_values":
                cache = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(value.shape, np.float32))
                self.binding.bind_ortvalue_input(value.name, cache)
                self.binding.bind_ortvalue_output(f"present.{rest[0]}", cache)
        super().__init__(facts)

    def encode(self, tokens, first):
        self.binding.bind_cpu_input("token", tokens)
        self.binding.bind_cpu_input("position", np.arange(first, first + len(tokens)))
        self.session.run_with_iobinding(self.binding)
        return [output.numpy()[-1].tolist() for output in self.binding.get_outputs()[:3]]


class InPyTorch(Windowed):
    """Eager PyTorch: one call per operation, nothing around them, and a cache in place."""
    def __init__(self, folder, facts):
        config = json.loads(Path(folder, "config.json").read_text())
        layers, heads, self.width = config["n_layer"], config["n_head"], config["n_embd"]
        self.limit, self.units = facts["force_limit"], torch.tensor(facts["delta_rms"])
        self.tensors = load_file(Path(folder, "model.safetensors"))
        self.cache = torch.zeros(layers, 2, heads, facts["window"], self.width // heads)
        self.blocks = [[[self.tensors[f"h.{layer}.{part}.{kind}"]
                         for kind in ("weight", "bias")]
                        for part in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc",
                                     "mlp.c_proj")]
                       for layer in range(layers)]
        super().__init__(facts)

    def linear(self, name, x):
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    @torch.inference_mode()
    def encode(self, tokens, first):
        count, last, size = len(tokens), first + len(tokens), (self.width,)
        x = self.linear("read_in", torch.from_numpy(tokens) / self.tensors["feature_scales"])
        x = x + self.tensors["wpe.weight"][first:last]
        for cache, (norm_1, attention, projection, norm_2, hidden, out) in zip(
                self.cache, self.blocks):
            y = F.layer_norm(x, size, *norm_1)
            y = torch.addmm(attention[1], y, attention[0]).view(count, 3, len(cache[0]), -1)
            query, key, value = y.permute(1, 2, 0, 3)
            cache[0, :, first:last], cache[1, :, first:last] = key, value
            y = F.scaled_dot_product_attention(query[None], cache[:1, :, :last],
                                               cache[1:, :, :last], is_causal=count > 1)
            y = y[0].transpose(0, 1).reshape(count, self.width)
            x = x + torch.addmm(projection[1], y, projection[0])
            y = torch.addmm(hidden[1], F.layer_norm(x, size, *norm_2), hidden[0])
            x = x + torch.addmm(out[1], F.gelu(y, approximate="tanh"), out[0])
        x = F.layer_norm(x[-1], size, self.tensors["ln_f.weight"], self.tensors["ln_f.bias"])
        share = self.linear("force_head", x).clip(-1.0, 1.0)
        change = self.linear("dynamics_head", x)
        return (self.limit * share.item(), self.linear(
            "mode_head", x).tolist(), (self.units * (change[:4] + change[4:] * share)).tolist())


class InTransformers:
    """class Controller of tools/play_export.py."""
    def __init__(self, folder):
        self.controller = Controller(folder)

    def reset(self):
        self.controller.reset()

    def step(self, state, sent):
        force, balancing, expected = self.controller.step([state], [sent])
        return force[0], balancing[0], expected[0]
