//! Times attention against the machine's peak of fused multiply-adds, on one thread. Products count where the mask lets
//! queries see keys: two forward, five backward.
//!
//! `cargo run --release -p trainc-kernels --example attention_bench [bf16] [FILTER]`.

mod timing;

use timing::{best_time, filter, peak, precision};
use trainc_kernels::ir::{
    Access::{Read, Write},
    Attention, AttentionBackward, AttentionShape, Body, Buffer, DType, Kernel, Precision, View,
};

/// Batch, heads, positions, channels; causal.
fn shape([batch, heads, positions, channels]: [u64; 4], precision: Precision) -> AttentionShape {
    AttentionShape {
        batch,
        heads,
        kv_heads: heads,
        queries: positions,
        keys: positions,
        channels,
        causal: true,
        window: None,
        scale_bits: (1.0 / (channels as f32).sqrt()).to_bits(),
        precision,
    }
}

/// Part `part` of `parts` in each row of an array `[batch, position, parts, head, channel]`.
fn view(buffer: u32, shape: &AttentionShape, part: u64, parts: u64) -> View {
    let width = shape.heads * shape.channels;
    let strides = [shape.queries * parts * width, shape.channels, parts * width, 1];
    View { buffer, offset: part * width, strides }
}

fn of_rows(buffer: u32, shape: &AttentionShape) -> View {
    View { buffer, offset: 0, strides: [shape.heads * shape.queries, shape.queries, 1, 0] }
}

fn buffers(shape: &AttentionShape, of: &[(u64, trainc_kernels::ir::Access)]) -> Vec<Buffer> {
    let rows = shape.batch * shape.heads * shape.queries;
    of.iter().map(|&(width, access)| Buffer { dtype: DType::F32, elements: rows * width, access }).collect()
}

fn forward(shape: AttentionShape) -> Kernel {
    let [q, k, v] = [0, 1, 2].map(|part| view(0, &shape, part, 3));
    let (o, lse) = (view(1, &shape, 0, 1), Some(of_rows(2, &shape)));
    let body = Body::Attention(Attention { shape, q, k, v, o, lse });
    let e = shape.channels;
    Kernel { label: "forward".into(), buffers: buffers(&shape, &[(3 * e, Read), (e, Write), (1, Write)]), body }
}

fn backward(shape: AttentionShape) -> Kernel {
    let [q, k, v] = [0, 1, 2].map(|part| view(0, &shape, part, 3));
    let [o, d_o, d_q, d_k, d_v] = [1, 3, 4, 5, 6].map(|buffer| view(buffer, &shape, 0, 1));
    let lse = of_rows(2, &shape);
    let body = Body::AttentionBackward(AttentionBackward { shape, q, k, v, o, lse, d_o, d_q, d_k, d_v, delta: 7 });
    let e = shape.channels;
    let sizes = [(3 * e, Read), (e, Read), (1, Read), (e, Read), (e, Write), (e, Write), (e, Write), (1, Write)];
    Kernel { label: "backward".into(), buffers: buffers(&shape, &sizes), body }
}

fn main() {
    let precision = precision();
    let peak = peak(precision);
    println!("peak of multiply-adds: {peak:.1} GF/s");
    println!("{:>20} {:>10} {:>10} {:>8} {:>8}", "batch, heads, t, e", "", "ms", "GF/s", "of peak");
    for sizes in [[2, 6, 256, 64], [8, 4, 128, 32], [2, 12, 64, 64], [1, 4, 1024, 64], [1, 4, 512, 128]] {
        let shape = shape(sizes, precision);
        let [batch, heads, positions, channels] = sizes;
        let product = (batch * heads * positions * (positions + 1) * channels) as f64;
        for (kernel, products) in [(forward(shape), 2.0), (backward(shape), 5.0)] {
            let label = format!("{sizes:?} {}", kernel.label);
            if label.contains(&filter()) {
                let seconds = best_time(&kernel);
                let speed = products * product / seconds / 1e9;
                let (name, sizes) = (&kernel.label, format!("{sizes:?}"));
                println!("{sizes:>20} {name:>10} {:>10.3} {speed:>8.1} {:>7.0}%", seconds * 1e3, 100.0 * speed / peak);
            }
        }
    }
}
