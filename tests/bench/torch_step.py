"""Times training steps of a benchmark workload in PyTorch and prints one JSON object.

    python torch_step.py w1 --precision f32 --compile --medium --written --steps 8

The workloads are those of `dsl-examples/bench`: the same hashed initial values, data and optimizer, so that the losses
before the first and the fourth update must agree with trainc's.
"""

import argparse
import json
import resource
import time

import numpy as np
import torch
import torch.nn.functional as F

GPT = {
    "w1": dict(layers=12, width=768, heads=12, vocab=50257, longest=1024, batch=4, context=64),
    "w2": dict(layers=6, width=384, heads=6, vocab=256, longest=256, batch=16, context=256),
    "w3": dict(layers=4, width=128, heads=4, vocab=128, longest=128, batch=32, context=128),
}


def hashed(stream, count):
    """SplitMix64 of (stream, element)."""
    with np.errstate(over="ignore"):
        z = (np.uint64(stream) << np.uint64(40)) + np.arange(count, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(stream, shape, bound=None):
    """Numbers in [0, 1), or in [-bound, bound)."""
    u = (hashed(stream, int(np.prod(shape))) >> np.uint64(40)).astype(np.float64) / 2**24
    u = u if bound is None else (u - 0.5) * 2 * bound
    return torch.from_numpy(u.astype(np.float32).reshape(shape))


class Block(torch.nn.Module):
    def __init__(self, layer, layers, width, heads, written):
        super().__init__()
        self.heads, self.written = heads, written

        def matrix(stream, rows, columns):
            whole = uniform(stream, (layers, rows, columns), 0.02 * 3**0.5)
            return torch.nn.Parameter(whole[layer].clone())

        def vector(size, value):
            return torch.nn.Parameter(torch.full((size,), value))

        self.ln1w, self.ln1b = vector(width, 1.0), vector(width, 0.0)
        self.qkvw, self.qkvb = matrix(4, 3 * width, width), vector(3 * width, 0.0)
        self.projw, self.projb = matrix(6, width, width), vector(width, 0.0)
        self.ln2w, self.ln2b = vector(width, 1.0), vector(width, 0.0)
        self.fcw, self.fcb = matrix(10, 4 * width, width), vector(4 * width, 0.0)
        self.fc2w, self.fc2b = matrix(12, width, 4 * width), vector(width, 0.0)

    def forward(self, x):
        b, t, d = x.shape
        qkv = F.linear(F.layer_norm(x, (d,), self.ln1w, self.ln1b), self.qkvw, self.qkvb)
        q, k, v = (part.view(b, t, self.heads, d // self.heads).transpose(1, 2) for part in qkv.split(d, 2))
        if self.written:
            scores = q @ k.transpose(2, 3) * (d // self.heads) ** -0.5
            hidden = torch.ones(t, t, dtype=torch.bool).triu(1)
            a = torch.softmax(scores.masked_fill(hidden, float("-inf")), -1) @ v
        else:
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + F.linear(a.transpose(1, 2).reshape(b, t, d), self.projw, self.projb)
        h = F.gelu(F.linear(F.layer_norm(x, (d,), self.ln2w, self.ln2b), self.fcw, self.fcb), approximate="tanh")
        return x + F.linear(h, self.fc2w, self.fc2b)


class Gpt(torch.nn.Module):
    def __init__(self, layers, width, heads, vocab, longest, batch, context, written):
        super().__init__()
        bound = 0.02 * 3**0.5
        self.wte = torch.nn.Parameter(uniform(0, (vocab, width), bound))
        self.wpe = torch.nn.Parameter(uniform(1, (longest, width), bound))
        self.blocks = torch.nn.ModuleList(Block(i, layers, width, heads, written) for i in range(layers))
        self.lnw = torch.nn.Parameter(torch.ones(width))
        self.lnb = torch.nn.Parameter(torch.zeros(width))

    def forward(self, tokens, targets):
        x = self.wte[tokens] + self.wpe[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = F.linear(F.layer_norm(x, (x.shape[-1],), self.lnw, self.lnb), self.wte)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


class Mlp(torch.nn.Module):
    def __init__(self, sizes):
        super().__init__()
        shapes = list(zip(sizes, sizes[1:]))
        self.weights = torch.nn.ParameterList(
            uniform(100 + j, (o, i), (6 / i) ** 0.5) for j, (i, o) in enumerate(shapes))
        self.biases = torch.nn.ParameterList(torch.zeros(o) for _, o in shapes)

    def forward(self, x, label):
        for j, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = F.linear(x, weight, bias)
            x = x if j + 1 == len(self.weights) else F.relu(x)
        return F.cross_entropy(x.float(), label)


def workload(name, written):
    if name == "w4":
        label = torch.from_numpy((hashed(201, 256) % np.uint64(10)).astype(np.int64))
        return Mlp([784, 512, 512, 10]), (uniform(200, (256, 784)), label)
    shape = GPT[name]
    batch, context = shape["batch"], shape["context"]
    tokens = hashed(1000, batch * (context + 1)) % np.uint64(shape["vocab"])
    tokens = torch.from_numpy(tokens.astype(np.int64).reshape(batch, context + 1))
    return Gpt(**shape, written=written), (tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("workload", choices=[*GPT, "w4"])
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--medium", action="store_true", help="let f32 products round their factors to bf16")
    parser.add_argument("--written", action="store_true", help="attention written out instead of the fused call")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.medium:
        torch.set_float32_matmul_precision("medium")
    model, batch = workload(arguments.workload, arguments.written)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    forward = torch.compile(model) if arguments.compile else model
    losses, times = [], []
    started = time.perf_counter()
    for _ in range(4 + arguments.steps):
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.precision == "bf16"):
            loss = forward(*batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        times.append(time.perf_counter() - begin)
        if len(times) == 1:
            first = time.perf_counter() - started
    timed = sorted(1e3 * t for t in times[4:])
    print(json.dumps({
        "step_ms": {"min": timed[0], "median": timed[len(timed) // 2], "max": timed[-1]},
        "first_step_s": first,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "losses": losses,
    }))


if __name__ == "__main__":
    main()
