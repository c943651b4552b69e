"""The peer of the speed benchmark: the same network, loss and optimiser as one would write them in PyTorch, eager, one
process, on batches that lie ready in memory. Prints one line of JSON: seconds of every measured step."""

import argparse
import json
import time

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.c_attn, self.c_proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.c_fc, self.c_out = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (part.view(B, T, self.heads, C // self.heads).transpose(1, 2)
                   for part in self.c_attn(self.ln_1(x)).split(C, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class ControlModel(nn.Module):
    def __init__(self, layers, d, heads, positions):
        super().__init__()
        self.read_in, self.wpe = nn.Linear(6, d), nn.Embedding(positions, d)
        self.h = nn.ModuleList(Block(d, heads) for _ in range(layers))
        self.ln_f, self.heads = nn.LayerNorm(d), nn.Linear(d, 11)

    def forward(self, features):
        x = self.read_in(features) + self.wpe(torch.arange(features.shape[1]))
        for block in self.h:
            x = block(x)
        return self.heads(self.ln_f(x))


def main():
    parser = argparse.ArgumentParser()
    for name in ("layers", "width", "heads", "positions", "batch", "steps", "warmup", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16"], required=True)
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    model = ControlModel(o.layers, o.width, o.heads, o.positions)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    shape = (o.batch, o.positions)
    batches = [(torch.randn(*shape, 6), torch.randn(shape), torch.randint(2, shape), torch.randn(*shape, 4)) for _ in range(4)]
    seconds = []
    for step in range(o.warmup + o.steps):
        begin = time.perf_counter()
        features, force, mode, delta = batches[step % len(batches)]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=o.precision == "bf16"):
            out = model(features)
        out = out.float()
        predicted = out[..., 3:7] + out[..., 7:] * force.unsqueeze(-1)
        loss = (F.mse_loss(out[..., 0], force) + F.cross_entropy(out[..., 1:3].reshape(-1, 2), mode.flatten())
                + F.mse_loss(predicted, delta))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        seconds.append(time.perf_counter() - begin)
    print(json.dumps(seconds[o.warmup:]))


if __name__ == "__main__":
    main()
