//! Control flow and what lanes tell each other.

use super::support::{INDEX, run};

/// Each thread's result of a body that leaves it in `%r0`.
fn per_thread(threads: u32, body: &str) -> Vec<u32> {
    let input: Vec<u32> = (0..threads).collect();
    run(&format!("{INDEX}\n{body}\nst.global.b32 [%t1], %r0;"), threads, &input, threads as usize)
}

#[test]
fn arms_of_a_branch_meet_again() {
    // Lanes meet before the ballot, so that all of them take part.
    let output = per_thread(
        32,
        "setp.lt.u32 %p1, %r32, 10;
         @%p1 bra $small;
         mov.b32 %r1, 2;
         bra.uni $join;
     $small:
         mov.b32 %r1, 1;
     $join:
         setp.eq.u32 %p2, %r1, 1;
         vote.sync.ballot.b32 %r0, %p2, 0xffffffff;",
    );
    assert_eq!(output, [0x3ff; 32]);
}

#[test]
fn lanes_leave_a_loop_one_by_one() {
    let output = per_thread(
        32,
        "mov.b32 %r1, 0; mov.b32 %r0, 0;
     $loop:
         setp.ge.u32 %p1, %r1, %r32;
         @%p1 bra $done;
         add.u32 %r1, %r1, 1;
         add.u32 %r0, %r0, %r1;
         bra $loop;
     $done:
         bar.warp.sync 0xffffffff;",
    );
    let expected: Vec<u32> = (0..32).map(|n| n * (n + 1) / 2).collect();
    assert_eq!(output, expected);
}

#[test]
fn nested_branches_and_early_exits() {
    let output = per_thread(
        64,
        "mov.b32 %r0, 7;
         st.global.b32 [%t1], %r0;
         and.b32 %r1, %r32, 1;
         setp.eq.u32 %p1, %r1, 0;
         @%p1 bra $even;
         setp.gt.u32 %p2, %r32, 40;
         @%p2 ret;
         mov.b32 %r0, 1;
         bra $join;
     $even:
         and.b32 %r1, %r32, 2;
         setp.eq.u32 %p3, %r1, 0;
         @!%p3 bra $two;
         mov.b32 %r0, 4;
         bra $join;
     $two:
         mov.b32 %r0, 2;
     $join:
         add.u32 %r0, %r0, 100;
         bar.sync 0;",
    );
    for (thread, value) in output.iter().enumerate() {
        let expected = match (thread % 2, thread % 4, thread > 40) {
            (1, _, true) => 7,
            (1, _, false) => 101,
            (_, 0, _) => 104,
            _ => 102,
        };
        assert_eq!(*value, expected, "thread {thread}");
    }
}

#[test]
fn a_table_of_branches() {
    let output = per_thread(
        32,
        "and.b32 %r1, %r32, 3;
     $targets: .branchtargets $a, $b, $c, $b;
         brx.idx %r1, $targets;
     $a: mov.b32 %r0, 10; bra $join;
     $b: mov.b32 %r0, 20; bra $join;
     $c: mov.b32 %r0, 30;
     $join:
         bar.warp.sync 0xffffffff;",
    );
    for (thread, value) in output.iter().enumerate() {
        assert_eq!(*value, [10, 20, 30, 20][thread % 4]);
    }
}

#[test]
fn guards_keep_old_values() {
    let output = per_thread(32, "mov.b32 %r0, 1; setp.lt.u32 %p1, %r32, 4; @!%p1 mov.b32 %r0, %laneid;");
    assert_eq!(output[..6], [1, 1, 1, 1, 4, 5]);
}

#[test]
fn shuffles() {
    let shuffle = |text: &str| per_thread(32, &format!("add.u32 %r1, %r32, 100; mov.b32 %r0, 0; {text}"));
    let lanes = |f: fn(u32) -> u32| (0..32).map(|lane| 100 + f(lane)).collect::<Vec<_>>();
    assert_eq!(shuffle("shfl.sync.bfly.b32 %r0, %r1, 16, 31, -1;"), lanes(|lane| lane ^ 16));
    assert_eq!(shuffle("shfl.sync.down.b32 %r0, %r1, 1, 31, -1;"), lanes(|lane| (lane + 1).min(31)));
    assert_eq!(shuffle("shfl.sync.up.b32 %r0, %r1, 2, 0, -1;"), lanes(|l| if l < 2 { l } else { l - 2 }));
    assert_eq!(shuffle("shfl.sync.idx.b32 %r0, %r1, 5, 31, -1;"), lanes(|_| 5));
    // Segments of eight lanes: the mask in bits 8 to 12, the last lane of a segment in bits 0 to 4.
    assert_eq!(shuffle("shfl.sync.idx.b32 %r0, %r1, 3, 0x181f, -1;"), lanes(|lane| lane / 8 * 8 + 3));
    assert_eq!(shuffle("shfl.sync.down.b32 %r0, %r1, 4, 0x181f, -1;"), lanes(|l| if l % 8 < 4 { l + 4 } else { l }));
    let inside = shuffle("shfl.sync.down.b32 %r2|%p1, %r1, 1, 31, -1; selp.b32 %r0, 1, 0, %p1;");
    assert_eq!((inside[30], inside[31]), (1, 0));
}

#[test]
fn votes_matches_and_reductions() {
    let same = |text: &str| {
        let output = per_thread(32, &format!("setp.lt.u32 %p1, %r32, 3; {text}"));
        assert!(output.iter().all(|value| *value == output[0]), "{output:?}");
        output[0]
    };
    assert_eq!(same("vote.sync.ballot.b32 %r0, %p1, -1;"), 7);
    assert_eq!(same("vote.sync.any.pred %p2, %p1, -1; selp.b32 %r0, 1, 0, %p2;"), 1);
    assert_eq!(same("vote.sync.all.pred %p2, %p1, -1; selp.b32 %r0, 1, 0, %p2;"), 0);
    assert_eq!(same("vote.sync.uni.pred %p2, !%p1, -1; selp.b32 %r0, 1, 0, %p2;"), 0);
    assert_eq!(same("redux.sync.add.s32 %r0, %r32, -1;"), 496);
    assert_eq!(same("neg.s32 %r1, %r32; redux.sync.min.s32 %r0, %r1, -1;"), -31i32 as u32);
    assert_eq!(same("redux.sync.xor.b32 %r0, %r32, -1;"), 0);
    assert_eq!(same("activemask.b32 %r0;"), u32::MAX);
    let groups = per_thread(32, "and.b32 %r1, %r32, 1; match.any.sync.b32 %r0, %r1, -1;");
    assert_eq!(groups[..2], [0x5555_5555, 0xaaaa_aaaa]);
}

#[test]
fn special_registers() {
    let output = per_thread(
        64,
        "mov.u32 %r1, %warpid; mov.u32 %r2, %ntid.x; mov.u32 %r3, %nctaid.x; mov.u32 %r4, %lanemask_lt;
         popc.b32 %r5, %r4; mad.lo.u32 %r0, %r1, 1000, %r5; mad.lo.u32 %r0, %r2, 10000, %r0; add.u32 %r0, %r0, %r3;",
    );
    assert_eq!(output[0], 640_001);
    assert_eq!(output[35], 640_000 + 1000 + 3 + 1);
}

/// A block-wide sum: a warp sums by shuffles, the warps meet in shared memory.
#[test]
fn a_sum_over_a_block() {
    let mut body = format!("{INDEX}\n.shared .align 4 .b8 partial[16];\nld.global.b32 %r1, [%t0];\n");
    for distance in [16, 8, 4, 2, 1] {
        body += &format!("shfl.sync.bfly.b32 %r2, %r1, {distance}, 31, -1; add.u32 %r1, %r1, %r2;\n");
    }
    body += "mov.u32 %r3, %laneid; setp.eq.u32 %p1, %r3, 0;
         shr.u32 %r4, %r32, 5; shl.b32 %r4, %r4, 2; mov.u32 %r5, partial; add.u32 %r5, %r5, %r4;
         @%p1 st.shared.b32 [%r5], %r1;
         bar.sync 0;
         ld.shared.v4.b32 {%r6, %r7, %r8, %r9}, [partial];
         add.u32 %r0, %r6, %r7; add.u32 %r0, %r0, %r8; add.u32 %r0, %r0, %r9;
         st.global.b32 [%t1], %r0;";
    let input: Vec<u32> = (0..128).map(|i| i * i).collect();
    assert_eq!(run(&body, 128, &input, 128), [input.iter().sum::<u32>(); 128]);
}

/// Producers arrive and go on, consumers wait: a barrier of its own number with half the warps arriving only.
#[test]
fn a_barrier_with_producers_and_consumers() {
    let body = format!(
        "{INDEX}\n.shared .align 4 .b8 slot[128];\nmov.u32 %r1, slot; and.b32 %r2, %r32, 31; shl.b32 %r2, %r2, 2;
         add.u32 %r1, %r1, %r2; setp.ge.u32 %p1, %r32, 32;
         @%p1 bra $consumer;
         st.shared.b32 [%r1], %r32;
         bar.arrive 1, 64;
         ret;
     $consumer:
         bar.sync 1, 64;
         ld.shared.b32 %r0, [%r1];
         st.global.b32 [%t1], %r0;"
    );
    let output = run(&body, 64, &[0; 64], 64);
    assert_eq!(output[32..], (0..32).collect::<Vec<u32>>());
}
