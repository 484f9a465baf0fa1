//! Loads PTX files and says what the interpreter does not understand: `cargo run -p trainc-ptx --example check a.ptx`.

use std::process::ExitCode;

use trainc_ptx::Program;

fn main() -> ExitCode {
    let mut failed = false;
    for path in std::env::args().skip(1) {
        let loaded = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        match loaded.and_then(|source| Program::load(&source).map_err(|error| error.to_string())) {
            Ok(program) => {
                for kernel in &program.kernels {
                    let shared = kernel.shared_bytes;
                    println!("{path}: {}: {} instructions, {shared} bytes shared", kernel.name, kernel.code.len());
                }
            }
            Err(error) => {
                failed = true;
                eprintln!("{path}: {error}");
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
