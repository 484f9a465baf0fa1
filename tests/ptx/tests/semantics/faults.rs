//! A planted fault of each kind is caught and described; the same kernel without it is clean.

use trainc_ptx::ViolationKind::{self, *};
use trainc_ptx::{Arg, Device, Geometry, Options};

use super::support::{INDEX, faults, faults_of, run, run_with};

/// The only violation of a kernel.
fn only(body: &str) -> (ViolationKind, String) {
    let violations = faults(body);
    assert_eq!(violations.len(), 1, "{violations:#?}");
    violations.into_iter().next().unwrap()
}

const TILE: &str = ".shared .align 16 .b8 tile[1024]; mov.u32 %r33, tile; mad.lo.u32 %r33, %r32, 4, %r33;";

/// Each thread writes a word and reads its neighbour's, with `between` in between.
fn exchange(between: &str) -> String {
    format!(
        "{INDEX}\n{TILE}
         st.shared.b32 [%r33], %r32;
         {between}
         xor.b32 %r1, %r32, 33; mov.u32 %r2, tile; mad.lo.u32 %r2, %r1, 4, %r2;
         ld.shared.b32 %r0, [%r2];
         st.global.b32 [%t1], %r0;"
    )
}

#[test]
fn a_removed_barrier() {
    assert!(faults(&exchange("bar.sync 0;")).is_empty());
    let violations = faults(&exchange(""));
    let race = violations.iter().find(|(kind, text)| *kind == Race && text.contains("ld.shared.b32 %r0, [%r2];"));
    let (_, text) = race.unwrap_or_else(|| panic!("{violations:?}"));
    assert!(text.contains("was written by thread 1 and no barrier lies between"), "{text}");
}

#[test]
fn a_removed_barrier_before_the_buffer_is_reused() {
    let reuse = |barrier: &str| {
        format!("{}\n{barrier}\nadd.u32 %r3, %r32, 1; st.shared.b32 [%r33], %r3;", exchange("bar.sync 0;"))
    };
    assert!(faults(&reuse("bar.sync 0;")).is_empty());
    let races = faults(&reuse(""));
    assert!(races.iter().all(|(kind, _)| *kind == Race));
    assert!(races.iter().any(|(_, text)| text.contains("was read by thread")), "{races:?}");
}

#[test]
fn lanes_of_a_warp_need_a_barrier_too() {
    let neighbour = |barrier: &str| exchange(barrier).replace("%r32, 33", "%r32, 1");
    assert!(faults(&neighbour("bar.warp.sync -1;")).is_empty());
    assert_eq!(only(&neighbour("")).0, Race);
    let options = Options { warp_races: false, ..Options::default() };
    let (_, report) = run_with(&neighbour(""), 64, &[0; 256], 256, options);
    assert!(report.violations.is_empty());
}

#[test]
fn two_threads_write_one_word() {
    let (kind, text) = only(&format!("{TILE}\nmov.u32 %r1, tile; st.shared.b32 [%r1], 1;").replace("%r32", "0"));
    assert_eq!(kind, Race, "{text}");
}

/// A pipeline of two stages that waits for all but `pending` groups before it reads the first.
fn pipeline(pending: u32, barrier: &str) -> String {
    format!(
        "{INDEX}\n.shared .align 16 .b8 stages[2048]; mov.u32 %r1, stages; mad.lo.u32 %r1, %r32, 16, %r1;
         and.b32 %r3, %r32, 15; mul.wide.u32 %t2, %r3, 16; add.u64 %t3, %in, %t2;
         cp.async.cg.shared.global [%r1], [%t3], 16;
         cp.async.commit_group;
         cp.async.cg.shared.global [%r1+1024], [%t3+256], 16;
         cp.async.commit_group;
         cp.async.wait_group {pending};
         {barrier}
         xor.b32 %r2, %r32, 1; mov.u32 %r4, stages; mad.lo.u32 %r4, %r2, 16, %r4;
         ld.shared.b32 %r0, [%r4];
         st.global.b32 [%t1], %r0;"
    )
}

#[test]
fn a_missing_wait() {
    assert!(faults(&pipeline(1, "bar.sync 0;")).is_empty());
    assert!(faults(&pipeline(0, "bar.sync 0;")).is_empty());
    let (kind, text) = only(&pipeline(2, "bar.sync 0;"));
    assert_eq!(kind, PendingCopy);
    assert!(text.contains("was copied to asynchronously"), "{text}");
    // Waiting makes the copies of a thread visible to itself alone.
    assert_eq!(only(&pipeline(0, "")).0, Race);
}

#[test]
fn an_index_one_too_far() {
    let (kind, text) = only(&format!("{INDEX}\nld.global.b32 %r0, [%t0+772];"));
    assert_eq!(kind, OutOfBounds);
    assert!(text.contains("offset 1024 of input (1024 bytes"), "{text}");
    assert!(text.contains("thread (63, 0, 0)"), "{text}");
    let (kind, text) = only("st.global.b32 [%in+-4], 1;");
    assert_eq!(kind, OutOfBounds);
    assert!(text.contains("4 bytes before input"), "{text}");
    assert_eq!(only("ld.global.b32 %r0, [64];").0, OutOfBounds);
    assert_eq!(only(".shared .align 4 .b8 s[8]; mov.u32 %r1, s; st.shared.b32 [%r1+8], 1;").0, OutOfBounds);
    assert_eq!(only(".local .align 4 .b8 s[8]; mov.u64 %d1, s; st.local.b32 [%d1+8], 1;").0, OutOfBounds);
}

#[test]
fn reads_of_what_nobody_wrote() {
    let (kind, text) = only(&format!("{INDEX}\n{TILE}\nld.shared.b32 %r0, [%r33];"));
    assert_eq!(kind, Uninitialised);
    assert!(text.contains("byte 0 of shared memory was never written in this block"), "{text}");
    assert_eq!(only(".local .align 4 .b8 s[8]; mov.u64 %d1, s; ld.local.b32 %r1, [%d1];").0, Uninitialised);
    let mut device = Device::new(Options::default());
    let source = super::support::module("ld.global.b32 %r1, [%in];");
    let loaded = device.load(&source).unwrap();
    let fresh = device.memory.allocate(16, Some("fresh")).unwrap();
    let kernel = loaded.program.kernel("test").unwrap().clone();
    let geometry = Geometry { grid: [1, 1, 1], block: [1, 1, 1], dynamic_shared: 0 };
    let report = device.launch(&loaded, &kernel, geometry, &[Arg::Pointer(fresh), Arg::Pointer(fresh)]);
    assert!(report.violations[0].to_string().contains("byte 0 of fresh (16 bytes"), "{:?}", report.violations);
}

#[test]
fn a_block_does_not_see_the_shared_memory_of_the_one_before() {
    let body = format!(
        "{INDEX}\n{TILE}\nmov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.b32 [%r33], 1; ld.shared.b32 %r0, [%r33];"
    );
    let mut device = Device::new(Options::default());
    let loaded = device.load(&super::support::module(&body)).unwrap();
    let input = device.upload(&[0u32; 64], "input");
    let kernel = loaded.program.kernel("test").unwrap().clone();
    let geometry = Geometry { grid: [2, 1, 1], block: [32, 1, 1], dynamic_shared: 0 };
    let report = device.launch(&loaded, &kernel, geometry, &[Arg::Pointer(input), Arg::Pointer(input)]);
    assert_eq!(report.violations.len(), 1);
    assert_eq!((report.violations[0].kind, report.violations[0].block), (Uninitialised, [1, 0, 0]));
}

#[test]
fn misaligned_vectors() {
    assert_eq!(only("ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%in+8];").0, Misaligned);
    assert_eq!(only("ld.global.b32 %r1, [%in+2];").0, Misaligned);
}

#[test]
fn barriers_that_not_all_threads_reach() {
    let (kind, text) = only(&format!("{INDEX}\nsetp.lt.u32 %p1, %r32, 16;\n@!%p1 bra $skip;\nbar.sync 0;\n$skip:"));
    assert_eq!(kind, DivergentBarrier);
    assert!(text.contains("only lanes 0x0000ffff of 0xffffffff of warp 0 arrive"), "{text}");
    // A whole warp goes elsewhere and waits at another barrier.
    let (kind, text) = only(&format!(
        "{INDEX}\nsetp.lt.u32 %p1, %r32, 32;\n@!%p1 bra $other;\nbar.sync 0;\nbra $end;\n$other: bar.sync 1;\n$end:"
    ));
    assert_eq!(kind, DivergentBarrier);
    assert!(text.contains("warp 0 waits at barrier 0, warp 1 waits at barrier 1"), "{text}");
    // Warps that have left need not come.
    assert!(faults(&format!("{INDEX}\nsetp.ge.u32 %p1, %r32, 32;\n@%p1 ret;\nbar.sync 0;")).is_empty());
}

#[test]
fn shuffles_and_products_need_their_lanes() {
    let half = |text: &str| format!("{INDEX}\nsetp.lt.u32 %p1, %r32, 16;\n@!%p1 bra $skip;\n{text}\n$skip:");
    assert_eq!(faults_of(&half("shfl.sync.bfly.b32 %r0, %r32, 1, 31, -1;"), 32)[0].0, DivergentLanes);
    assert!(faults_of(&half("shfl.sync.bfly.b32 %r0, %r32, 1, 31, 0xffff;"), 32).is_empty());
    assert_eq!(faults_of(&half("shfl.sync.bfly.b32 %r0, %r32, 16, 31, 0xffff;"), 32)[0].0, BadShuffle);
    assert_eq!(faults_of(&half("vote.sync.ballot.b32 %r0, %p1, -1;"), 32)[0].0, DivergentLanes);
    let product = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%r0, %r1, %r2, %r3}, {%r4, %r4, %r4, %r4},
                   {%r4, %r4}, {%r4, %r4, %r4, %r4};";
    assert_eq!(faults_of(&half(product), 32)[0].0, DivergentLanes);
}

#[test]
fn loops_without_end_and_traps() {
    let options = Options { max_instructions: 1000, ..Options::default() };
    let (_, report) = run_with("$loop: bra $loop;", 32, &[0], 1, options);
    assert_eq!(report.violations[0].kind, Endless);
    assert_eq!(only("trap;").0, Trap);
}

#[test]
fn launches_outside_the_limits() {
    let mut device = Device::new(Options::default());
    let source = super::support::module("").replace(")\n{", ")\n.maxntid 64, 1, 1\n{");
    let loaded = device.load(&source).unwrap();
    let kernel = loaded.program.kernel("test").unwrap().clone();
    let pointer = device.upload(&[0u32], "word");
    let mut launch = |grid: [u32; 3], block: [u32; 3], dynamic_shared: u64| {
        let arguments = [Arg::Pointer(pointer), Arg::Pointer(pointer)];
        let report = device.launch(&loaded, &kernel, Geometry { grid, block, dynamic_shared }, &arguments);
        report.violations.first().map(|violation| violation.detail.clone()).unwrap_or_default()
    };
    assert_eq!(launch([1, 1, 1], [64, 1, 1], 0), "");
    assert!(launch([1, 1, 1], [96, 1, 1], 0).contains("built for 64"));
    assert!(launch([0, 1, 1], [32, 1, 1], 0).contains("the grid (0, 1, 1)"));
    assert!(launch([1, 65536, 1], [32, 1, 1], 0).contains("the grid"));
    assert!(launch([1, 1, 1], [32, 1, 1], 1 << 20).contains("bytes of shared memory"));
}

#[test]
fn freed_memory_is_remembered() {
    let mut device = Device::new(Options::default());
    let loaded = device.load(&super::support::module("ld.global.b32 %r1, [%in];")).unwrap();
    let kernel = loaded.program.kernel("test").unwrap().clone();
    let word = device.upload(&[1u32], "word");
    device.memory.free(word).unwrap();
    assert!(device.memory.free(word).unwrap_err().contains("freed twice"));
    let geometry = Geometry { grid: [1, 1, 1], block: [1, 1, 1], dynamic_shared: 0 };
    let report = device.launch(&loaded, &kernel, geometry, &[Arg::Pointer(word), Arg::Pointer(word)]);
    assert!(report.violations[0].detail.contains("inside word") && report.violations[0].detail.contains("freed"));
}

/// Blocks run in another order for each seed: a kernel whose result depends on it is found by comparing.
#[test]
fn the_order_of_blocks_is_shuffled() {
    let source = super::support::module("mov.u32 %r1, %ctaid.x; atom.global.exch.b32 %r2, [%out], %r1;");
    let last = |seed: Option<u64>| {
        let mut device = Device::new(Options { seed, ..Options::default() });
        let loaded = device.load(&source).unwrap();
        let kernel = loaded.program.kernel("test").unwrap().clone();
        let word = device.upload(&[0u32], "word");
        let geometry = Geometry { grid: [100, 1, 1], block: [1, 1, 1], dynamic_shared: 0 };
        device.launch(&loaded, &kernel, geometry, &[Arg::Pointer(word), Arg::Pointer(word)]);
        device.download(word, 1).unwrap()[0]
    };
    assert_eq!(last(None), 99);
    assert_eq!(last(Some(1)), last(Some(1)));
    assert!((1..6).any(|seed| last(Some(seed)) != 99));
}

/// Clean kernels stay clean in any order of warps.
#[test]
fn a_correct_exchange_is_clean_for_every_seed() {
    for seed in 0..8 {
        let options = Options { seed: Some(seed), ..Options::default() };
        let (output, report) = run_with(&exchange("bar.sync 0;"), 64, &[0; 256], 256, options);
        assert!(report.violations.is_empty());
        assert_eq!(output[..64], (0..64).map(|thread| thread ^ 33).collect::<Vec<u32>>());
    }
    assert_eq!(run("st.global.b32 [%out], 3;", 1, &[0], 1), [3]);
}
