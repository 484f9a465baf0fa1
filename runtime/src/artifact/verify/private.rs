//! What private training adds: a guarantee of sensible numbers, and entries that say which rows count and which are bad.

use super::super::{BAD_ROWS, DType, Entry, Manifest, MaskBinding, PrivateSpec, Sampling};
use super::{BUFFER_ALIGNMENT, Check, defect, no_tensor_in, region};

/// Entries that see training records.
const TRAINING: [&str; 2] = ["step", "accumulate"];

/// Checks that entries and guarantee agree.
pub(super) fn verify(manifest: &Manifest) -> Check {
    let Some(private) = &manifest.private else { return verify_ordinary(manifest) };
    verify_numbers(private)?;
    let rows = verify_training_entry(manifest, "step")?;
    if matches!(private.sampling, Sampling::Poisson { .. }) && rows != verify_training_entry(manifest, "accumulate")? {
        return Err(defect("entry `accumulate`", "it has another number of rows than `step`"));
    }
    match manifest.entries.iter().find(|entry| entry.mask.is_some() && !TRAINING.contains(&entry.name.as_str())) {
        Some(entry) => Err(defect(format!("entry `{}`", entry.name), "it has a mask, but it is not for training")),
        None => Ok(()),
    }
}

/// Without a guarantee nothing asks the host for what only private training has.
fn verify_ordinary(manifest: &Manifest) -> Check {
    match manifest.entries.iter().find(|entry| entry.mask.is_some() || entry.name == "accumulate") {
        Some(entry) => {
            Err(defect(format!("entry `{}`", entry.name), "it is for private training, but nothing is private"))
        }
        None => Ok(()),
    }
}

fn verify_numbers(private: &PrivateSpec) -> Check {
    let positive = |number: f64| number > 0.0 && number.is_finite();
    let rate = match private.sampling {
        Sampling::Poisson { rate } => rate > 0.0 && rate <= 1.0,
        Sampling::Shuffled => private.expected_batch <= private.records,
    };
    let sound = [
        (rate, "its sampling rate is not in (0, 1]"),
        (private.records > 0 && private.expected_batch > 0, "it counts no records"),
        (private.noise_multiplier >= 0.0 && private.noise_multiplier.is_finite(), "its noise is no finite number"),
        (positive(private.clip), "its clipping norm is not positive"),
        (private.delta > 0.0 && private.delta < 1.0, "its delta is not in (0, 1)"),
        (private.epsilon.is_none_or(positive), "its epsilon is not positive"),
    ];
    match sound.iter().find(|(sound, _)| !sound) {
        Some((_, problem)) => Err(defect("private training", *problem)),
        None => Ok(()),
    }
}

/// Checks mask and report of an entry; returns its number of rows.
fn verify_training_entry(manifest: &Manifest, name: &str) -> Result<u64, super::Defect> {
    let entry =
        manifest.entry(name).ok_or_else(|| defect("private training", format!("there is no entry `{name}`")))?;
    let place = format!("entry `{name}`");
    let mask = entry.mask.as_ref().ok_or_else(|| defect(&place, "it is private, but has no mask"))?;
    verify_mask(manifest, mask, &place)?;
    if let Some(input) = entry.inputs.iter().find(|input| input.batch() != mask.rows) {
        return Err(defect(
            place,
            format!("its mask has {} rows, input `{}` has {}", mask.rows, input.name, input.batch()),
        ));
    }
    verify_report(entry, mask.rows, &place)?;
    Ok(mask.rows)
}

fn verify_mask(manifest: &Manifest, mask: &MaskBinding, place: &str) -> Check {
    if mask.rows == 0 {
        return Err(defect(place, "its mask has no rows"));
    }
    let bytes = mask.rows.checked_mul(DType::F32.bytes());
    no_tensor_in(manifest, &region(manifest, format!("mask of {place}"), mask.offset, bytes, BUFFER_ALIGNMENT)?)
}

fn verify_report(entry: &Entry, rows: u64, place: &str) -> Check {
    let report = entry.outputs.iter().find(|output| output.name == BAD_ROWS);
    match report {
        Some(report) if report.dtype == DType::F32 && report.shape == [rows] => Ok(()),
        Some(_) => Err(defect(place, format!("`{BAD_ROWS}` is not one f32 for each of {rows} rows"))),
        None => Err(defect(place, format!("it is private, but has no output `{BAD_ROWS}`"))),
    }
}
