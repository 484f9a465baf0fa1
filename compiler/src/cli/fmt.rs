//! `trainc fmt`.

use super::{arguments::Fmt, failure::Failure, output};
use std::path::Path;
use trainc::{source::SourceMap, syntax};

/// Prints programs in the standard form, rewrites them, or says which are not in it.
pub fn fmt(arguments: &Fmt) -> Result<(), Failure> {
    if arguments.files.is_empty() {
        return Err(Failure::misuse("name the files to format, e.g. trainc fmt dsl-examples/*.train"));
    }
    let mut unformatted = Vec::new();
    for path in &arguments.files {
        let (before, after) = format_file(path)?;
        match (arguments.check, arguments.write) {
            (true, _) if before != after => unformatted.push(path.display().to_string()),
            (true, _) => {}
            (false, true) if before != after => write(path, &after)?,
            (false, true) => {}
            (false, false) => output::raw(after),
        }
    }
    if unformatted.is_empty() {
        return Ok(());
    }
    Err(Failure::program(format_args!(
        "not in the standard form (trainc fmt --write mends it): {}",
        unformatted.join(", ")
    )))
}

fn format_file(path: &Path) -> Result<(String, String), Failure> {
    let bytes =
        std::fs::read(path).map_err(|error| Failure::misuse(format!("cannot read {}: {error}", path.display())))?;
    let mut map = SourceMap::default();
    let file = match map.add_bytes(path.display().to_string(), &bytes) {
        Ok(file) => file,
        Err(error) => return Err(Failure::diagnosed(&map, &[*error])),
    };
    let text = map.file(file).text.clone();
    let formatted = syntax::format(&text).map_err(|diagnostics| Failure::diagnosed(&map, &diagnostics))?;
    Ok((text, formatted))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    trainc_runtime::atomic::write_file(path, text.as_bytes())
        .map_err(|error| Failure::run(format!("cannot write {}: {error}", path.display())))
}
