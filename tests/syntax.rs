//! The parser and the formatter on whole programs.

use trainc::source::FileId;
use trainc::syntax::parse;

const GPT: &str = r#"
use std

const width = 384

model Gpt(vocab, depth, heads, context) {
    input  tokens: int[batch, context]
    x = embedding(tokens, vocab, width) + positions(context, width)
    repeat depth {
        x = x + attention(layer_norm(x), heads, causal)
        x = x + ffn(layer_norm(x), hidden = 4 * width, act = gelu)
    }
    output logits = linear(layer_norm(x), vocab)
}

data Code {
    text "~/.cargo/registry/src/**/*.rs"
    tokenizer bytes
    split valid = 5%
}

train {
    model     Gpt(vocab = 256, depth = 6, heads = 6, context = 256)
    data      Code
    loss      cross_entropy(logits, next(tokens))
    optimizer adamw(betas = (0.9, 0.95), weight_decay = 0.1) {
        group norms, biases { weight_decay = 0 }
        group embeddings    { rate = 0.5x }
    }
    schedule  wsd(peak = 6e-4, warmup = 2%, decay = 10%)
    steps 2000  batch 16  precision bf16  seed 1
    evaluate every 200   checkpoint every 500
    sparsify ffn { weights 2:4   activations 16:2:8   from 2%  until 80% }
    private      { epsilon 3  delta 1e-5  clip 1.0 flat  sampling poisson
                   filter kalman(kappa = 0.7, gamma = 0.5) | lowpass(a = [-0.9], b = [0.1]) }
    grow         { depth 1 -> 12 at 80%  init copy | random | zero_output | stack }
    rates        { hessian  groups (embeddings, attention, ffn, norms, head)  every 40 }      // Hi-DLR
    select       { budget 0.5%  probe 10%  groups ffn }
    schedule     bound_optimal(T)   peak = auto(0.3)
    unlearn      { forget Secrets  retain Public  by ngdiff(rate = auto) | blur(gamma = 1, forget_loss = npo) }
    memory 500 MB
}

layer attention(x: [b, t, d], heads, mask) -> [b, t, d] role attention {
    param qkv: [3, heads, d / heads | d] ~ normal(0.02)
    param out: [d, heads, d / heads]    ~ normal(0.02) role a, b
    q, k, v = split(sum[d](x[b, t, d] * qkv[c, h, e, d]) -> [c, b, h, t, e])
    s = sum[e](q[b, h, t, e] * k[b, h, s, e]) / sqrt(d / heads)
    a = softmax[s](masked(s, mask))
    sum[h, e](sum[s](a[b, h, t, s] * v[b, h, s, e]) * out[d, h, e])
}

optimizer adamw(betas, eps = 1e-8, weight_decay) {
    state m = 0, v = 0
    state rows: [m] = 0
    m <- beta1 * m + (1 - beta1) * grad
    v <- beta2 * v + (1 - beta2) * grad^2
    p <- p - rate * (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * p)
}

schedule wsd(peak, warmup, decay) = peak * min(1, t / warmup, (T - t) / decay)
function relu(x: [..]) -> [..] = if x > 0 then x else 0
"#;

#[test]
fn the_sketch_of_the_design_parses() {
    let parsed = parse(FileId(0), GPT);
    assert_eq!(parsed.errors, []);
    assert_eq!(parsed.file.items.len(), 9);
}
