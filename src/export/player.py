import json
import sys
import numpy as np
import torch
import transformers
from safetensors.torch import load_file

folder = sys.argv[1] if len(sys.argv) > 1 else "."
facts, tensors = json.load(
    open(f"{folder}/controller.json")), load_file(f"{folder}/model.safetensors")
transformers.utils.logging.set_verbosity_error()  # GPT2Model leaves out read-in, heads and scales
body = transformers.GPT2Model.from_pretrained(folder).eval()
linear = lambda name, x: x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
window, period, limit = (facts[name] for name in ("window", "period", "force_limit"))
cart, pole, half = facts["world"]["nominal"]  # kg, kg, m; the network is not told
x, x_dot, theta, theta_dot = 0.0, 0.0, np.pi, 0.0  # hanging at rest
tokens, cache, force = [], transformers.DynamicCache(), 0.0
for step in range(round(20.0 / period)):
    if len(tokens) == window:  # it is full: the newest quarter begins the next one
        tokens, cache = tokens[window - window // 4:], transformers.DynamicCache()
        for first in tokens[:1]:
            first[-1] = 0.0
    tokens.append([x, x_dot, np.sin(theta), np.cos(theta), theta_dot, force if tokens else 0.0])
    with torch.inference_mode():
        new = torch.tensor([tokens[cache.get_seq_length():]], dtype=torch.float32)
        embedded = linear("read_in", new / tensors["feature_scales"])
        hidden = body(None, cache, inputs_embeds=embedded, use_cache=True)[0][0, -1]
        force = limit * linear("force_head", hidden).clip(-1.0, 1.0).item()
    for _ in range(20):  # the cart-pole of Barto, Sutton and Anderson (1983)
        push = (force + pole * half * theta_dot**2 * np.sin(theta)) / (cart + pole)
        inertia = half * (4 / 3 - pole * np.cos(theta)**2 / (cart + pole))
        theta_ddot = (facts["gravity"] * np.sin(theta) - np.cos(theta) * push) / inertia
        x_dot += period / 20 * (push - pole * half * theta_ddot * np.cos(theta) / (cart + pole))
        theta_dot += period / 20 * theta_ddot
        x, theta = x + period / 20 * x_dot, theta + period / 20 * theta_dot
print(
    f"After 20 s the pole is {'up' if np.cos(theta) > 0.995 else 'not up'}, the cart at {x:.2f} m.")
