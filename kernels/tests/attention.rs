//! Attention forward and backward against the reference interpreter: masks, windows, shared heads, layouts, types.

mod support;

use support::{Numbers, buffer, check_on};
use trainc_kernels::{
    Caches, assembly,
    ir::{
        Access::{Read, Write},
        Attention, AttentionBackward, AttentionShape, Body, DType, Kernel, Precision, View,
    },
    reference::{self, HostBuffer},
};
use trainc_runtime::artifact::Isa;

fn shape([batch, heads, kv_heads, queries, keys, channels]: [u64; 6]) -> AttentionShape {
    let scale_bits = (1.0 / (channels as f32).sqrt()).to_bits();
    let precision = Precision::F32;
    AttentionShape {
        batch,
        heads,
        kv_heads,
        queries,
        keys,
        channels,
        causal: false,
        window: None,
        scale_bits,
        precision,
    }
}

/// `[batch, head, position, channel]`, or `[batch, position, head, channel]` as a projection leaves it.
fn view(buffer: u32, [_, heads, positions, channels]: [u64; 4], projected: bool) -> View {
    let strides = match projected {
        false => [heads * positions * channels, positions * channels, channels, 1],
        true => [heads * positions * channels, channels, heads * channels, 1],
    };
    View { buffer, offset: 0, strides }
}

fn sizes(shape: &AttentionShape) -> ([u64; 4], [u64; 4]) {
    (
        [shape.batch, shape.heads, shape.queries, shape.channels],
        [shape.batch, shape.kv_heads, shape.keys, shape.channels],
    )
}

/// Buffers: q k v | o lse.
fn forward(shape: AttentionShape, projected: bool, dtype: DType) -> Kernel {
    let (queries, keys) = sizes(&shape);
    let [q_size, k_size] = [queries, keys].map(|dims| dims.iter().product());
    let rows = shape.batch * shape.heads * shape.queries;
    let lse = View { buffer: 4, offset: 0, strides: [shape.heads * shape.queries, shape.queries, 1, 0] };
    let body = Body::Attention(Attention {
        shape,
        q: view(0, queries, projected),
        k: view(1, keys, projected),
        v: view(2, keys, projected),
        o: view(3, queries, projected),
        lse: Some(lse),
    });
    let buffers = vec![
        buffer(dtype, q_size, Read),
        buffer(dtype, k_size, Read),
        buffer(dtype, k_size, Read),
        buffer(dtype, q_size, Write),
        buffer(DType::F32, rows, Write),
    ];
    Kernel { label: format!("attention {shape:?}"), buffers, body }
}

/// Buffers: q k v o lse do | dq dk dv delta.
fn backward(shape: AttentionShape, projected: bool, dtype: DType) -> Kernel {
    let (queries, keys) = sizes(&shape);
    let [q_size, k_size] = [queries, keys].map(|dims| dims.iter().product());
    let rows = shape.batch * shape.heads * shape.queries;
    let body = Body::AttentionBackward(AttentionBackward {
        shape,
        q: view(0, queries, projected),
        k: view(1, keys, projected),
        v: view(2, keys, projected),
        o: view(3, queries, projected),
        lse: View { buffer: 4, offset: 0, strides: [shape.heads * shape.queries, shape.queries, 1, 0] },
        d_o: view(5, queries, projected),
        d_q: view(6, queries, projected),
        d_k: view(7, keys, projected),
        d_v: view(8, keys, projected),
        delta: 9,
    });
    let read = |elements| buffer(dtype, elements, Read);
    let write = |elements| buffer(dtype, elements, Write);
    let buffers = vec![
        read(q_size),
        read(k_size),
        read(k_size),
        read(q_size),
        buffer(DType::F32, rows, Read),
        read(q_size),
        write(q_size),
        write(k_size),
        write(k_size),
        buffer(DType::F32, rows, Write),
    ];
    Kernel { label: format!("attention backward {shape:?}"), buffers, body }
}

fn check_both(shape: AttentionShape, projected: bool, dtype: DType, tolerance: f64) {
    let mut numbers = Numbers(7);
    let kernel = forward(shape, projected, dtype);
    let mut data: Vec<HostBuffer> = kernel.buffers.iter().map(|buffer| numbers.buffer(buffer, 1)).collect();
    check_on(&kernel, &data, tolerance);
    reference::run(&kernel, &mut data, 0);
    let kernel = backward(shape, projected, dtype);
    for buffer in &kernel.buffers[5..] {
        data.push(numbers.buffer(buffer, 1));
    }
    check_on(&kernel, &data, tolerance);
}

#[test]
fn attention_agrees_with_the_reference() {
    for sizes in [[1, 1, 1, 1, 1, 1], [2, 2, 2, 7, 7, 5], [1, 3, 3, 50, 50, 16], [2, 1, 1, 100, 100, 64]] {
        for causal in [false, true] {
            let shape = AttentionShape { causal, ..shape(sizes) };
            check_both(shape, causal, DType::F32, 1e-5);
        }
    }
}

#[test]
fn attention_with_shared_heads_and_windows_agrees() {
    for (sizes, causal, window) in [
        ([2, 4, 2, 20, 20, 8], true, None),
        ([1, 6, 1, 70, 70, 24], true, Some(9)),
        ([1, 2, 1, 130, 130, 8], true, Some(40)),
        ([1, 2, 2, 60, 33, 10], false, Some(20)),
        ([1, 2, 2, 120, 16, 8], false, Some(5)),
        ([1, 1, 1, 16, 90, 32], false, None),
        ([1, 1, 1, 9, 300, 40], true, None),
        ([1, 2, 1, 3, 600, 17], false, None),
    ] {
        check_both(AttentionShape { causal, window, ..shape(sizes) }, true, DType::F32, 1e-5);
    }
}

#[test]
fn attention_in_half_precision_agrees() {
    let shape = AttentionShape { causal: true, precision: Precision::Bf16, ..shape([1, 2, 2, 52, 52, 20]) };
    check_both(shape, false, DType::F32, 2e-2);
    check_both(shape, true, DType::Bf16, 2e-2);
}

#[test]
fn attention_in_tf32_agrees() {
    for (sizes, causal, window) in [([1, 2, 1, 70, 70, 64], true, None), ([1, 2, 2, 30, 90, 20], false, Some(60))] {
        let shape = AttentionShape { causal, window, precision: Precision::Tf32, ..shape(sizes) };
        check_both(shape, true, DType::F32, 2e-3);
    }
}

/// Shapes that tensor cores take in parts: several tiles, shared heads, windows, two groups of channels; one that they do
/// not take; several blocks of queries with an odd number in the last; more keys than fit the cache with many queries.
#[test]
fn attention_in_half_precision_agrees_in_every_shape() {
    for (sizes, causal, window) in [
        ([1, 4, 2, 130, 130, 64], true, None),
        ([2, 2, 1, 70, 150, 32], false, Some(60)),
        ([1, 1, 1, 65, 65, 128], true, None),
        ([1, 2, 1, 30, 90, 80], false, None),
        ([1, 2, 1, 101, 77, 24], true, None),
        ([1, 1, 1, 99, 99, 20], true, Some(30)),
        ([1, 1, 1, 50, 1030, 16], false, None),
    ] {
        let shape = AttentionShape { causal, window, precision: Precision::Bf16, ..shape(sizes) };
        check_both(shape, true, DType::F32, 2e-2);
    }
}

/// Code for processors that this machine need not have: it compiles and uses the wide registers.
#[test]
fn attention_compiles_for_wide_vectors() {
    let shape = AttentionShape { causal: true, ..shape([2, 2, 1, 100, 100, 64]) };
    for kernel in [forward(shape, true, DType::F32), backward(shape, true, DType::F32)] {
        for isa in [Isa::X86V4, Isa::X86V4Bf16] {
            assert!(
                assembly(&kernel, isa, Caches::PORTABLE).expect("it compiles").contains("%zmm"),
                "{}",
                kernel.label
            );
        }
    }
}
