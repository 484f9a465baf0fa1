//! PTX that cannot be used is refused with a line and a reason, and never makes the parser panic.

use proptest::prelude::*;
use trainc_ptx::Program;

use super::support::module;

fn error(source: &str) -> String {
    Program::load(source).map(drop).unwrap_err().to_string()
}

#[test]
fn errors_name_the_line_and_what_is_wrong() {
    let body = |text: &str| error(&module(text));
    assert_eq!(body("frobnicate.b32 %r0, %r1;"), "line 9: the instruction `frobnicate` is not supported");
    assert_eq!(body("add.s32 %r0, %r1;"), "line 9: `add`: takes 3 operands, not 2");
    assert_eq!(body("add.s32 %r0, %r1, %q1;"), "line 9: `add`: `%q1` is neither a register nor a symbol");
    assert_eq!(body("add.s32 %d0, %r1, %r2;"), "line 9: `add`: `%d0` is declared .b64, the instruction works on .s32");
    assert_eq!(body("add.cc.s32 %r0, %r1, %r2;"), "line 9: `add.cc.s32`: the modifier `.cc` is not supported");
    assert_eq!(body("bra $nowhere;"), "line 9: `bra`: there is no label `$nowhere` in this kernel");
    assert_eq!(
        body("call.uni helper;"),
        "line 9: `call.uni`: calls are not executed here; the compiler must inline them"
    );
    assert_eq!(body("ex2.f32 %r0, %r1;"), "line 9: `ex2.f32`: only the `.approx` form exists");
    assert_eq!(body("add.s32 %r0 %r1, %r2;"), "line 9: expected `,` or `;`, found `%r1`");
    assert!(error(".version 8.0\n.target sm_80\n.func helper() { ret; }").starts_with("line 3: `.func helper`"));
    assert_eq!(error(".version 8.0"), "line 1: the module names no `.target`");
    assert_eq!(error("/* endless"), "line 1: this comment has no end");
    let nested = module(&"{".repeat(1000));
    assert!(error(&nested).contains("at most 64 nested blocks"));
}

#[test]
fn nested_blocks_have_registers_of_their_own() {
    let body = "mov.b32 %r0, 1; { .reg .b32 %r0; mov.b32 %r0, 2; { .reg .b32 %x; mov.b32 %x, %r0; } } st.global.b32 [%out], %r0;";
    assert_eq!(super::support::run(body, 1, &[0], 1), [1]);
}

#[test]
fn module_variables_have_values_and_addresses() {
    let source = module("mov.u64 %d1, table; ld.const.b32 %r0, [%d1+4]; st.global.b32 [%out], %r0; ld.global.b32 %r1, [zeros+8]; st.global.b32 [%out+4], %r1;")
        .replace(".visible", ".const .align 4 .u32 table[3] = {5, 6, 7};\n.global .align 4 .b8 zeros[16];\n.visible");
    let mut device = trainc_ptx::Device::new(trainc_ptx::Options::default());
    let loaded = device.load(&source).unwrap();
    let kernel = loaded.program.kernel("test").unwrap().clone();
    let word = device.upload(&[9u32, 9], "words");
    let geometry = trainc_ptx::Geometry { grid: [1, 1, 1], block: [1, 1, 1], dynamic_shared: 0 };
    let arguments = [trainc_ptx::Arg::Pointer(word), trainc_ptx::Arg::Pointer(word)];
    let report = device.launch(&loaded, &kernel, geometry, &arguments);
    assert!(report.violations.is_empty(), "{}", report.violations[0]);
    assert_eq!(device.download(word, 2).unwrap(), [6, 0]);
}

proptest! {
    #[test]
    fn any_text_is_accepted_or_refused(text in ".{0,200}") {
        let _ = Program::load(&text);
    }

    #[test]
    fn damaged_modules_are_accepted_or_refused(at in 0usize..600, byte in any::<u8>(), length in 0usize..20) {
        let mut source = module("ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%in+16]; mad.lo.s32 %r0, %r1, 3, %r2;").into_bytes();
        let at = at.min(source.len());
        let end = (at + length).min(source.len());
        source.splice(at..end, [byte]);
        let _ = Program::load(&String::from_utf8_lossy(&source));
    }
}
