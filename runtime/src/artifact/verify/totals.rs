//! What evaluation hands from batches to the entry that concludes.

use super::super::{DType, Entry, Manifest, OutputBinding, TotalBinding, TotalOf, is_total};
use super::{BUFFER_ALIGNMENT, Check, Defect, defect, no_tensor_in, region};

/// Checks that totals are those of the `evaluate` entry's rows, and are asked for by `conclude` alone.
pub(super) fn verify(manifest: &Manifest) -> Check {
    for entry in &manifest.entries {
        let place = format!("entry `{}`", entry.name);
        match entry.name.as_str() {
            "conclude" => verify_conclusion(manifest, entry)?,
            _ if !entry.totals.is_empty() => return Err(defect(place, "it asks for totals, but concludes nothing")),
            _ => {}
        }
        let stray = entry.outputs.iter().find(|output| is_total(&output.name) && entry.name != "evaluate");
        if let Some(output) = stray {
            return Err(defect(place, format!("its output `{}` is a total, but it does not evaluate", output.name)));
        }
    }
    Ok(())
}

fn verify_conclusion(manifest: &Manifest, entry: &Entry) -> Check {
    let place = "entry `conclude`";
    let evaluate = manifest.entry("evaluate").ok_or_else(|| defect(place, "there is no entry `evaluate`"))?;
    if !entry.inputs.is_empty() {
        return Err(defect(place, "it reads records"));
    }
    for total in &entry.totals {
        verify_total(manifest, evaluate, total)?;
    }
    Ok(())
}

fn verify_total(manifest: &Manifest, evaluate: &Entry, total: &TotalBinding) -> Check {
    let elements = match &total.of {
        TotalOf::Records => 1,
        TotalOf::Output(name) => rows_of(evaluate, name)?.row_elements(),
    };
    let place = format!("total {:?} of entry `conclude`", total.of);
    if total.elements() != elements || elements == 0 {
        return Err(defect(place, format!("it has {} numbers instead of {elements}", total.elements())));
    }
    let bytes = elements.checked_mul(DType::F32.bytes());
    no_tensor_in(manifest, &region(manifest, place, total.offset, bytes, BUFFER_ALIGNMENT)?)
}

/// The output that says what each row adds to a total.
fn rows_of<'a>(evaluate: &'a Entry, name: &str) -> Result<&'a OutputBinding, Defect> {
    let place = || format!("total `{name}`");
    let output = evaluate.outputs.iter().find(|output| output.name == name);
    let output = output.ok_or_else(|| defect(place(), "entry `evaluate` has no such output"))?;
    let rows = evaluate.inputs.iter().map(super::super::InputBinding::batch).max().unwrap_or(0);
    match is_total(name) && output.dtype == DType::F32 && output.shape.first() == Some(&rows) {
        true => Ok(output),
        false => Err(defect(place(), format!("it is not an f32 total of each of {rows} rows"))),
    }
}
