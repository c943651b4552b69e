"""The peer of the speed benchmarks: the same network, loss and optimizer in ordinary PyTorch.

It is one process on batches in memory, eager or with torch.compile. It prints one line of JSON:
the seconds of every measured step (on a GPU, means of ten steps between two clock readings).
"""

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
        x = self.read_in(features) + self.wpe.weight[:features.shape[1]]
        for block in self.h:
            x = block(x)
        return self.heads(self.ln_f(x))


def main():
    parser = argparse.ArgumentParser()
    for name in ("layers", "width", "heads", "positions", "batch", "steps", "warmup", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16"], required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile",
                        help="mode of torch.compile, such as reduce-overhead (CUDA graphs)")
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    model = ControlModel(o.layers, o.width, o.heads, o.positions).to(o.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.99), weight_decay=0.01,
                                  fused=True)
    shape = (o.batch, o.positions)
    batches = [
        tuple(
            part.to(o.device)
            for part in (torch.randn(*shape, 6), torch.randn(shape), torch.randint(2, shape),
                         torch.randn(*shape, 4)))
        for _ in range(4)
    ]

    def loss_of(features, force, mode, delta):
        with torch.autocast(o.device, torch.bfloat16, enabled=o.precision == "bf16"):
            out = model(features)
        out = out.float()
        predicted = out[..., 3:7] + out[..., 7:] * force.unsqueeze(-1)
        return (F.mse_loss(out[..., 0], force) +
                F.cross_entropy(out[..., 1:3].reshape(-1, 2), mode.flatten()) +
                F.mse_loss(predicted, delta))

    if o.compile:
        loss_of = torch.compile(loss_of, mode=o.compile)
    per_timing = 10 if o.device == "cuda" else 1
    seconds = []
    begin = time.perf_counter()
    for step in range(o.warmup + o.steps):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(*batches[step % len(batches)])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % per_timing == 0:
            loss.item()
            now = time.perf_counter()
            if step >= o.warmup:
                seconds.append((now - begin) / per_timing)
            begin = now
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
