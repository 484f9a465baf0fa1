//! Fragments of `ldmatrix`, `mma.sync` and `mma.sp`, against plain matrix products of small integers, which are exact.

use super::support::{faults_of, run};

/// bf16 bits of a small integer.
fn bf16(value: i32) -> u32 {
    (value as f32).to_bits() >> 16
}

/// f16 bits of an integer from -8 to 8.
fn f16(value: i32) -> u32 {
    let table = [0, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700, 0x4800];
    table[value.unsigned_abs() as usize] | if value < 0 { 0x8000 } else { 0 }
}

/// Small integers that differ from place to place.
fn element(row: usize, column: usize, seed: usize) -> i32 {
    ((row * 7 + column * 5 + seed * 3) % 11) as i32 - 5
}

type Matrix = Vec<Vec<i32>>;

fn matrix(rows: usize, columns: usize, seed: usize) -> Matrix {
    (0..rows).map(|row| (0..columns).map(|column| element(row, column, seed)).collect()).collect()
}

fn product(a: &Matrix, b: &Matrix, c: &Matrix) -> Matrix {
    let cell = |row: usize, column: usize| (0..b.len()).map(|k| a[row][k] * b[k][column]).sum::<i32>() + c[row][column];
    (0..16).map(|row| (0..8).map(|column| cell(row, column)).collect()).collect()
}

/// Runs `mma` with fragments that are given per lane: A, B, C, and metadata if it is sparse. Returns D's registers per lane.
fn run_mma(instruction: &str, fragments: &[Vec<u32>], outputs: usize) -> Vec<Vec<u32>> {
    let width = fragments[0].len();
    let mut body = format!(
        "mov.u32 %r62, %laneid; mul.wide.u32 %t2, %r62, {}; add.u64 %t0, %in, %t2;
         mul.wide.u32 %t3, %r62, {}; add.u64 %t1, %out, %t3;\n",
        4 * width,
        4 * outputs
    );
    for register in 0..width {
        body += &format!("ld.global.b32 %r{}, [%t0+{}];\n", register + 10, 4 * register);
    }
    body += instruction;
    for register in 0..outputs {
        body += &format!("\nst.global.b32 [%t1+{}], %r{register};", 4 * register);
    }
    let output = run(&body, 32, &fragments.concat(), 32 * outputs);
    output.chunks(outputs).map(<[u32]>::to_vec).collect()
}

/// Fragments of A and B with two 16-bit elements per register (PTX ISA, "Matrix Fragments for mma.m16n8k16").
fn halves(a: &Matrix, b: &Matrix, k: usize, bits: fn(i32) -> u32) -> Vec<Vec<u32>> {
    let fragment = |lane: usize| {
        let (group, member) = (lane / 4, 2 * (lane % 4));
        let pair = |low: i32, high: i32| bits(low) | bits(high) << 16;
        let mut registers = Vec::new();
        for column in (0..k).step_by(8) {
            for row in [group, group + 8] {
                registers.push(pair(a[row][column + member], a[row][column + member + 1]));
            }
        }
        for row in (0..k).step_by(8) {
            registers.push(pair(b[row + member][group], b[row + member + 1][group]));
        }
        registers
    };
    (0..32).map(fragment).collect()
}

fn with_c(mut fragments: Vec<Vec<u32>>, c: &Matrix) -> Vec<Vec<u32>> {
    for (lane, fragment) in fragments.iter_mut().enumerate() {
        for row in [lane / 4, lane / 4 + 8] {
            fragment.extend((0..2).map(|i| (c[row][2 * (lane % 4) + i] as f32).to_bits()));
        }
    }
    fragments
}

fn assert_f32(d: &[Vec<u32>], expected: &Matrix) {
    for (lane, registers) in d.iter().enumerate() {
        for (index, bits) in registers.iter().enumerate() {
            let (row, column) = (lane / 4 + 8 * (index / 2), 2 * (lane % 4) + index % 2);
            assert_eq!(f32::from_bits(*bits), expected[row][column] as f32, "row {row}, column {column}");
        }
    }
}

const D: &str = "{%r0, %r1, %r2, %r3}";

#[test]
fn bf16_and_f16_products() {
    for (name, bits) in [("bf16", bf16 as fn(i32) -> u32), ("f16", f16)] {
        let (a, b, c) = (matrix(16, 16, 1), matrix(16, 8, 2), matrix(16, 8, 3));
        let text = format!(
            "mma.sync.aligned.m16n8k16.row.col.f32.{name}.{name}.f32 {D}, {{%r10, %r11, %r12, %r13}}, {{%r14, %r15}},
             {{%r16, %r17, %r18, %r19}};"
        );
        assert_f32(&run_mma(&text, &with_c(halves(&a, &b, 16, bits), &c), 4), &product(&a, &b, &c));
        let (a, b) = (matrix(16, 8, 4), matrix(8, 8, 5));
        let text = format!(
            "mma.sync.aligned.m16n8k8.row.col.f32.{name}.{name}.f32 {D}, {{%r10, %r11}}, {{%r12}},
             {{%r13, %r14, %r15, %r16}};"
        );
        assert_f32(&run_mma(&text, &with_c(halves(&a, &b, 8, bits), &c), 4), &product(&a, &b, &c));
    }
}

#[test]
fn f16_accumulators() {
    let (a, b, c) = (matrix(16, 16, 1), matrix(16, 8, 2), vec![vec![0; 8]; 16]);
    let mut fragments = halves(&a, &b, 16, f16);
    fragments.iter_mut().for_each(|fragment| fragment.extend([0, 0]));
    let text = "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%r0, %r1}, {%r10, %r11, %r12, %r13}, {%r14, %r15},
                {%r16, %r17};";
    let d = run_mma(text, &fragments, 2);
    let expected = product(&a, &b, &c);
    for (lane, registers) in d.iter().enumerate() {
        for (index, bits) in registers.iter().enumerate() {
            let row = &expected[lane / 4 + 8 * index];
            let half = |value: i32| trainc_ptx::float::sixteen::Format::F16.encode(f64::from(value));
            let pair = u32::from(half(row[2 * (lane % 4)])) | u32::from(half(row[2 * (lane % 4) + 1])) << 16;
            assert_eq!(*bits, pair, "lane {lane}");
        }
    }
}

#[test]
fn tf32_products() {
    for k in [4, 8] {
        let (a, b, c) = (matrix(16, k, 1), matrix(k, 8, 2), matrix(16, 8, 3));
        let fragment = |lane: usize| {
            let (group, member) = (lane / 4, lane % 4);
            let mut registers = Vec::new();
            for column in (0..k).step_by(4) {
                // The lower bits of an f32 do not count.
                registers.extend([group, group + 8].map(|row| (a[row][column + member] as f32).to_bits() | 0xfff));
            }
            registers.extend((0..k).step_by(4).map(|row| (b[row + member][group] as f32).to_bits()));
            registers
        };
        let fragments = with_c((0..32).map(fragment).collect(), &c);
        let text = match k {
            4 => "{%r10, %r11}, {%r12}, {%r13, %r14, %r15, %r16}",
            _ => "{%r10, %r11, %r12, %r13}, {%r14, %r15}, {%r16, %r17, %r18, %r19}",
        };
        let text = format!("mma.sync.aligned.m16n8k{k}.row.col.f32.tf32.tf32.f32 {D}, {text};");
        assert_f32(&run_mma(&text, &fragments, 4), &product(&a, &b, &c));
    }
}

/// Keeps two of each four elements of a row, those at `kept(row, group)`.
fn prune(a: &mut Matrix, kept: impl Fn(usize, usize) -> [usize; 2]) {
    for (row, values) in a.iter_mut().enumerate() {
        for (group, four) in values.chunks_mut(4).enumerate() {
            let kept = kept(row, group);
            four.iter_mut().enumerate().filter(|(at, _)| !kept.contains(at)).for_each(|(_, value)| *value = 0);
        }
    }
}

const PATTERNS: [[usize; 2]; 6] = [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]];

fn pattern(row: usize, group: usize) -> [usize; 2] {
    PATTERNS[(row * 5 + group) % 6]
}

/// The compressed A, and the metadata of each lane for a selector: lane 4 g + s of quad g, or the pair from 2 s.
fn compress(a: &Matrix, k: usize, selector: usize) -> (Matrix, Vec<u32>) {
    let mut metadata = vec![0xdead_beefu32; 32];
    let mut stored = vec![Vec::new(); 16];
    for quad in 0..8 {
        for part in 0..k / 16 {
            let lane = if k == 16 { 4 * quad + selector } else { 4 * quad + 2 * selector + part };
            metadata[lane] = 0;
        }
    }
    for (row, values) in a.iter().enumerate() {
        for (group, four) in values.chunks(4).enumerate() {
            let [first, second] = pattern(row, group);
            stored[row].extend([four[first], four[second]]);
            let (quad, upper) = (row % 8, row / 8);
            let lane = if k == 16 { 4 * quad + selector } else { 4 * quad + 2 * selector + group / 4 };
            metadata[lane] |= ((first | second << 2) as u32) << (16 * upper + 4 * (group % 4));
        }
    }
    (stored, metadata)
}

#[test]
fn sparse_products() {
    for (k, selectors) in [(16, 0..4), (32, 0..2)] {
        for selector in selectors {
            let (mut a, b, c) = (matrix(16, k, 1), matrix(k, 8, 2), matrix(16, 8, 3));
            prune(&mut a, pattern);
            let (stored, metadata) = compress(&a, k, selector);
            let mut fragments = halves(&stored, &b[..k / 2].to_vec(), k / 2, bf16);
            // B has twice as many rows as the stored A has columns.
            for (lane, fragment) in fragments.iter_mut().enumerate() {
                let rest: Vec<u32> = halves(&stored, &b[k / 2..].to_vec(), k / 2, bf16)[lane][k / 8..].to_vec();
                fragment.extend(rest);
            }
            let mut fragments = with_c(fragments, &c);
            fragments.iter_mut().zip(&metadata).for_each(|(fragment, word)| fragment.push(*word));
            let operands = match k {
                16 => "{%r10, %r11}, {%r12, %r13}, {%r14, %r15, %r16, %r17}, %r18",
                _ => "{%r10, %r11, %r12, %r13}, {%r14, %r15, %r16, %r17}, {%r18, %r19, %r20, %r21}, %r22",
            };
            let text = format!(
                "mma.sp::ordered_metadata.sync.aligned.m16n8k{k}.row.col.f32.bf16.bf16.f32 {D}, {operands}, {selector};"
            );
            assert_f32(&run_mma(&text, &fragments, 4), &product(&a, &b, &c));
        }
    }
}

/// One of two elements is kept: 0b0100 the first, 0b1110 the second.
#[test]
fn sparse_tf32_products() {
    for (k, operands) in [
        (8, "{%r10, %r11}, {%r12, %r13}, {%r14, %r15, %r16, %r17}, %r18"),
        (16, "{%r10, %r11, %r12, %r13}, {%r14, %r15, %r16, %r17}, {%r18, %r19, %r20, %r21}, %r22"),
    ] {
        let (mut a, b, c) = (matrix(16, k, 1), matrix(k, 8, 2), matrix(16, 8, 3));
        let second = |row: usize, group: usize| (row * 3 + group) % 2;
        let mut metadata = [0u32; 32];
        for (row, values) in a.iter_mut().enumerate() {
            for (group, two) in values.chunks_mut(2).enumerate() {
                two[1 - second(row, group)] = 0;
                let bits = if second(row, group) == 1 { 0b1110 } else { 0b0100 };
                // Selector 1: lane 1 of a quad for k = 8, lanes 2 and 3 for k = 16.
                let lane = 4 * (row % 8) + if k == 8 { 1 } else { 2 + group / 4 };
                metadata[lane] |= bits << (16 * (row / 8) + 4 * (group % 4));
            }
        }
        let kept = |row: usize, group: usize| (a[row][2 * group + second(row, group)] as f32).to_bits();
        let fragment = |lane: usize| {
            let (group, member) = (lane / 4, lane % 4);
            let stored =
                (0..k / 2).step_by(4).flat_map(|column| [group, group + 8].map(|row| kept(row, column + member)));
            let rows = (0..k).step_by(4).map(|row| (b[row + member][group] as f32).to_bits());
            stored.chain(rows).collect()
        };
        let mut fragments = with_c((0..32).map(fragment).collect(), &c);
        fragments.iter_mut().zip(metadata).for_each(|(fragment, word)| fragment.push(word));
        let text = format!("mma.sp.sync.aligned.m16n8k{k}.row.col.f32.tf32.tf32.f32 {D}, {operands}, 1;");
        assert_f32(&run_mma(&text, &fragments, 4), &product(&a, &b, &c));
    }
}

#[test]
fn wrong_metadata_is_caught() {
    // Index pairs 0b0000: twice the same element.
    let violations = faults_of(
        "mov.b32 %r1, 0;
         mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.bf16.bf16.f32 {%r10, %r11, %r12, %r13},
            {%r1, %r1, %r1, %r1}, {%r1, %r1, %r1, %r1}, {%r1, %r1, %r1, %r1}, %r1, 0;",
        32,
    );
    assert_eq!(violations.len(), 1);
    let text = &violations[0].1;
    assert!(text.contains("wrong sparsity metadata") && text.contains("row 0, group 0: metadata 0b0000"), "{text}");
}

/// Row `i` of matrix `j` holds 8 (8 j + i) ...; lane `l` gets elements 2 (l % 4) and the next of row l / 4.
#[test]
fn matrices_are_loaded_in_fragments() {
    let load = |suffix: &str| {
        format!(
            ".shared .align 16 .b8 tile[512]; mov.u32 %r9, tile; mov.u32 %r10, %laneid;
             mad.lo.u32 %r11, %r10, 16, %r9; shl.b32 %r12, %r10, 3;
             add.u32 %r13, %r12, 1; add.u32 %r14, %r12, 2; add.u32 %r15, %r12, 3; add.u32 %r16, %r12, 4;
             add.u32 %r17, %r12, 5; add.u32 %r18, %r12, 6; add.u32 %r19, %r12, 7;
             cvt.u16.u32 %h0, %r12; cvt.u16.u32 %h1, %r13; cvt.u16.u32 %h2, %r14; cvt.u16.u32 %h3, %r15;
             st.shared.v4.b16 [%r11], {{%h0, %h1, %h2, %h3}};
             cvt.u16.u32 %h0, %r16; cvt.u16.u32 %h1, %r17; cvt.u16.u32 %h2, %r18; cvt.u16.u32 %h3, %r19;
             st.shared.v4.b16 [%r11+8], {{%h0, %h1, %h2, %h3}};
             bar.warp.sync -1;
             ldmatrix.sync.aligned.m8n8.x4{suffix}.shared.b16 {{%r0, %r1, %r2, %r3}}, [%r11];
             mul.wide.u32 %t2, %r10, 16; add.u64 %t1, %out, %t2;
             st.global.v4.b32 [%t1], {{%r0, %r1, %r2, %r3}};"
        )
    };
    let straight = run(&load(""), 32, &[0], 128);
    let transposed = run(&load(".trans"), 32, &[0], 128);
    for lane in 0..32u32 {
        for part in 0..4 {
            let (row, column) = (lane / 4, 2 * (lane % 4));
            let at = (4 * lane + part) as usize;
            let element = |row: u32, column: u32| 64 * part + 8 * row + column;
            assert_eq!(straight[at], element(row, column) | element(row, column + 1) << 16);
            assert_eq!(transposed[at], element(column, row) | element(column + 1, row) << 16);
        }
    }
}
