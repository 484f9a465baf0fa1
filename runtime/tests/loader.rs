//! The object loader: real code runs, and whatever kernels may not need is refused by name.

use trainc_runtime::code::{CodeError, LoadedCode, defined_functions};

const KERNELS: &[u8] = include_bytes!("fixtures/kernels.o");

/// Calls a stage with one buffer and returns the buffer.
fn call(code: &LoadedCode, symbol: &str, instance: u64, tiles: (u64, u64), bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0u64; bytes.div_ceil(8)];
    let mut scratch = vec![0u64; 64];
    let stage = code.symbol(symbol).expect("a symbol of the fixture");
    let args = [buffer.as_mut_ptr().cast::<u8>()];
    // SAFETY: the fixture's kernels stay within the buffer for the tiles used here.
    unsafe { stage(args.as_ptr(), instance, tiles.0, tiles.1, scratch.as_mut_ptr().cast()) };
    bytemuck::cast_slice(&buffer)[..bytes].to_vec()
}

#[test]
fn code_runs_with_imports_tables_of_addresses_and_jump_tables() {
    let code = LoadedCode::load(&[KERNELS.to_vec()]).unwrap();
    let filled = call(&code, "fill_through_scratch", 7, (1, 3), 256);
    assert!(filled.iter().enumerate().all(|(i, &byte)| byte == if (64..192).contains(&i) { 7 } else { 0 }));
    for (instance, text) in ["zero", "one", "two", "three", "four", "five", "?"].into_iter().enumerate() {
        assert!(call(&code, "describe", instance as u64, (0, 1), 16).starts_with(text.as_bytes()));
    }
    for instance in 0..3 {
        assert_eq!(call(&code, "apply_from_table", instance, (0, 4), 16).len(), 16);
    }
    assert!(code.symbol("square").is_none(), "local functions have no public name");
}

#[test]
fn functions_are_listed_without_loading() {
    let functions = defined_functions(&[KERNELS.to_vec()]).unwrap();
    assert!(functions.contains("regression_forward") && !functions.contains("square"));
}

#[test]
fn an_unknown_import_is_refused_by_name() {
    let mut object = KERNELS.to_vec();
    let name = object.windows(7).rposition(|bytes| bytes == b"memcpy\0").unwrap();
    object[name..name + 3].copy_from_slice(b"str");
    let error = LoadedCode::load(&[object]).unwrap_err();
    assert!(matches!(&error, CodeError::UnknownImport { name, .. } if name == "strcpy"), "{error}");
}

#[test]
fn a_name_defined_twice_is_refused() {
    let error = LoadedCode::load(&[KERNELS.to_vec(), KERNELS.to_vec()]).unwrap_err();
    assert!(matches!(error, CodeError::Duplicate { .. }), "{error}");
}

#[test]
fn writable_sections_are_refused() {
    let mut object = KERNELS.to_vec();
    let headers = u64::from_le_bytes(object[0x28..0x30].try_into().unwrap()) as usize;
    let count = usize::from(u16::from_le_bytes([object[0x3c], object[0x3d]]));
    let (alloc, write) = (2u8, 1u8);
    for flags in (0..count).map(|section| headers + section * 64 + 8) {
        if object[flags] & (alloc | write) == alloc && object[flags] & 4 == 0 {
            object[flags] |= write;
        }
    }
    let error = LoadedCode::load(&[object]).unwrap_err();
    assert!(error.to_string().contains("the section `.rodata"), "{error}");
}

/// Damage is found by the artifact's digest long before; this only shows that the loader itself cannot be crashed.
#[test]
fn truncated_and_flipped_objects_never_panic() {
    for length in 0..KERNELS.len() {
        let _ = LoadedCode::load(&[KERNELS[..length].to_vec()]);
    }
    for bit in 0..KERNELS.len() * 8 {
        let mut object = KERNELS.to_vec();
        object[bit / 8] ^= 1 << (bit % 8);
        let _ = LoadedCode::load(&[object]);
    }
}
