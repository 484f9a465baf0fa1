//! State spaces, vectors, sub-word accesses, atomics, asynchronous copies, and what is counted.

use trainc_ptx::Options;

use super::support::{INDEX, run, run_with};

#[test]
fn vectors_and_narrow_elements() {
    let body = "ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%in];
         st.global.v2.b32 [%out], {%r4, %r3};
         ld.global.v2.b64 {%d1, %d2}, [%in];
         st.global.b64 [%out+8], %d2;
         ld.global.u8 %r5, [%in+3];
         ld.global.s8 %r6, [%in+3];
         ld.global.s16 %r7, [%in+2];
         ld.global.nc.v2.u16 {%h1, %h2}, [%in];
         st.global.v4.b32 [%out+16], {%r5, %r6, %r7, %r7};
         st.global.u8 [%out+32], %r1;
         st.global.v2.u16 [%out+36], {%h2, %h1};
         ld.global.v2.b32 {_, %r8}, [%in+8];
         st.global.b32 [%out+40], %r8;";
    let output = run(body, 1, &[0x8901_2345, 2, 3, 4], 12);
    assert_eq!(output[..4], [4, 3, 3, 4]);
    assert_eq!(output[4..8], [0x89, 0xffff_ff89, 0xffff_8901, 0xffff_8901]);
    assert_eq!(output[8..11], [0x45, 0x2345_8901, 4]);
}

#[test]
fn spaces_and_generic_addresses() {
    let body = format!(
        "{INDEX}\n.shared .align 8 .b8 pad[8]; .shared .align 8 .b8 slot[256]; .local .align 8 .b8 own[16];
         mov.u64 %d1, slot; cvta.shared.u64 %d2, %d1; add.u64 %d2, %d2, %t2;
         st.b32 [%d2], %r32;
         bar.sync 0;
         cvta.to.shared.u64 %d3, %d2;
         ld.shared.b32 %r1, [%d3];
         mov.u64 %d4, own; cvta.local.u64 %d5, %d4;
         st.local.b32 [%d4+4], %r1; ld.b32 %r2, [%d5+4];
         cvta.to.global.u64 %d6, %t1;
         st.global.b32 [%d6], %r2;"
    );
    assert_eq!(run(&body, 64, &[0; 64], 64), (0..64).collect::<Vec<u32>>());
}

#[test]
fn atomics() {
    let body = format!(
        "{INDEX}\n.shared .align 4 .b8 cell[4]; mov.u32 %r9, cell;
         setp.eq.u32 %p1, %r32, 0; @%p1 st.shared.b32 [%r9], 0; bar.sync 0;
         atom.global.add.u32 %r1, [%out], 2;
         red.global.add.f32 [%out+4], 0f3F000000;
         red.global.max.s32 [%out+8], %r32;
         atom.global.exch.b32 %r2, [%out+12], 5;
         atom.shared.cas.b32 %r3, [%r9], %r32, 77;
         red.relaxed.gpu.global.add.u64 [%out+16], 1;
         atom.shared.inc.u32 %r4, [%r9], 1000;
         red.global.or.b32 [%out+24], %r32;
         red.global.add.noftz.f16x2 [%out+28], 0x3c003c00;
         bar.sync 0;
         ld.shared.b32 %r5, [%r9]; @%p1 st.global.b32 [%out+32], %r5;"
    );
    let output = run(&body, 64, &[0; 64], 9);
    assert_eq!(output[..4], [128, 32f32.to_bits(), 63, 5]);
    assert_eq!(output[4..8], [64, 0, 63, 0x5400_5400]);
    // The first thread replaces 0 by 77; all count it up.
    assert_eq!(output[8], 77 + 64);
}

/// Three groups in flight; waiting for all but one leaves the last undelivered.
#[test]
fn asynchronous_copies_arrive_in_groups() {
    let body = "
         .shared .align 16 .b8 buffer[64]; mov.u32 %r1, buffer;
         cp.async.cg.shared.global [%r1], [%in], 16;
         cp.async.commit_group;
         cp.async.ca.shared.global.L2::128B [%r1+16], [%in+16], 8, 4;
         cp.async.commit_group;
         cp.async.wait_group 1;
         ld.shared.v4.b32 {%r2, %r3, %r4, %r5}, [%r1];
         cp.async.wait_all;
         ld.shared.v2.b32 {%r6, %r7}, [%r1+16];
         st.global.v4.b32 [%out], {%r2, %r3, %r4, %r5};
         st.global.v2.b32 [%out+16], {%r6, %r7};";
    // Of the second copy's eight bytes only four are read; the rest is zero.
    assert_eq!(run(body, 1, &[1, 2, 3, 4, 5, 6], 6), [1, 2, 3, 4, 5, 0]);
}

#[test]
fn traffic_is_counted() {
    let options = Options::default;
    let counters = |body: &str| run_with(&format!("{INDEX}\n{body}"), 32, &[0; 1024], 1024, options()).1.counters;
    let contiguous = counters("ld.global.b32 %r0, [%t0]; st.global.b32 [%t1], %r0;");
    assert_eq!((contiguous.global_loads.transactions, contiguous.global_loads.ideal), (4, 4));
    assert_eq!(contiguous.coalescing(), 1.0);
    let strided = counters("mul.wide.u32 %t3, %r32, 64; add.u64 %t3, %in, %t3; ld.global.b32 %r0, [%t3];");
    assert_eq!((strided.global_loads.transactions, strided.global_loads.ideal), (32, 4));
    let conflicts = counters(
        ".shared .align 4 .b8 tile[4096]; mov.u32 %r1, tile; mad.lo.u32 %r1, %r32, 128, %r1; st.shared.b32 [%r1], %r32;",
    );
    assert_eq!((conflicts.shared.transactions, conflicts.shared.ideal), (32, 1));
    assert_eq!(contiguous.mix["ld.global.b32"], 1);
    assert_eq!(contiguous.warp_instructions, 2 + 4 + 2 + 1);
    assert_eq!(contiguous.lane_instructions, 9 * 32);
}
