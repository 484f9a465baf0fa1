//! Supplies `-lMLIR-C`.
//!
//! With `MLIR_SYS_LINK_SHARED` the bindings ask the linker for `libMLIR` and `libMLIR-C`. Debian ships the first as a
//! shared library and the second only as static archives, so this script writes a linker script of that name which
//! points at the archives: short links, nothing compiled, nothing installed.

use std::{env, fs, path::Path};

fn main() {
    println!("cargo:rerun-if-env-changed=MLIR_SYS_220_PREFIX");
    let prefix = env::var("MLIR_SYS_220_PREFIX").unwrap_or_else(|_| "/usr/lib/llvm-22".into());
    let library_dir = Path::new(&prefix).join("lib");
    let archives = capi_archives(&library_dir);
    assert!(
        !archives.is_empty(),
        "no libMLIRCAPI*.a in {}: run `make setup`, or install libmlir-22-dev",
        library_dir.display()
    );
    let out_dir = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let script = format!("GROUP ( {} )\n", archives.join(" "));
    fs::write(Path::new(&out_dir).join("libMLIR-C.so"), script).expect("OUT_DIR is writable");
    println!("cargo:rustc-link-search=native={out_dir}");
}

/// The archives of MLIR's C API, sorted so that the link does not depend on directory order.
fn capi_archives(library_dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(library_dir).into_iter().flatten().flatten();
    let mut archives: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("libMLIRCAPI") && name.ends_with(".a"))
        .map(|name| library_dir.join(name).display().to_string())
        .collect();
    archives.sort();
    archives
}
