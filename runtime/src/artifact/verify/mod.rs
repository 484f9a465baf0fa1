//! Structural checks of an intact artifact, so that a faulty compiler shows as an error and not as broken memory. They
//! find accidents and stop no attack: machine code does what it was written to do (`spec/artifact.md`).
//! After them every offset lies in the arena and every product of a shape fits in 64 bits.

mod private;
mod totals;

use super::{
    Artifact, DType, DataSpec, Duration, Entry, Init, InputBinding, KernelSpec, Launch, Manifest, Seal, StageSpec,
    TensorSpec, Variant, seal,
};
use crate::abi::{ARGUMENT_ALIGNMENT, BUFFER_ALIGNMENT, DEVICE_VECTOR_BYTES};
use crate::code;
use std::collections::BTreeSet;

/// Largest private memory that a kernel may ask for per thread.
const MAX_SCRATCH_BYTES: u64 = 1 << 32;

/// Blocks of a grid at most.
const MAX_BLOCKS: u64 = i32::MAX as u64;

/// A contradiction within an artifact.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct Defect {
    /// Which part, e.g. ``tensor `w` ``.
    pub place: String,
    /// What is wrong with it.
    pub problem: String,
}

type Check = Result<(), Defect>;

fn defect(place: impl Into<String>, problem: impl Into<String>) -> Defect {
    Defect { place: place.into(), problem: problem.into() }
}

/// Checks that an artifact's parts agree with each other.
///
/// # Errors
/// The first contradiction found.
pub fn verify(artifact: &Artifact) -> Check {
    let manifest = &artifact.manifest;
    if manifest.format != super::FORMAT_VERSION {
        return Err(defect("manifest", format!("it says format {}", manifest.format)));
    }
    verify_memory(manifest)?;
    verify_variants(artifact)?;
    let mut names = BTreeSet::new();
    for entry in &manifest.entries {
        let place = format!("entry `{}`", entry.name);
        unique(&mut names, &entry.name, &place)?;
        verify_entry(manifest, entry)?;
    }
    private::verify(manifest)?;
    totals::verify(manifest)?;
    verify_durations(manifest)?;
    manifest.data.as_ref().map_or(Ok(()), verify_data)
}

fn verify_durations(manifest: &Manifest) -> Check {
    let train = &manifest.train;
    for (name, duration) in
        [("steps", train.steps), ("evaluate_every", train.evaluate_every), ("checkpoint_every", train.checkpoint_every)]
    {
        let Duration::Epochs { epochs } = duration else { continue };
        let place = || format!("train.{name}");
        if !(epochs.is_finite() && epochs > 0.0) {
            return Err(defect(place(), "the number of epochs is not positive"));
        }
        if manifest.data.is_none() {
            return Err(defect(place(), "it counts epochs, and there is no data"));
        }
    }
    Ok(())
}

fn unique<'a>(names: &mut BTreeSet<&'a str>, name: &'a str, place: &str) -> Check {
    match !name.is_empty() && names.insert(name) {
        true => Ok(()),
        false => Err(defect(place, "its name is empty or used twice")),
    }
}

/// A stretch of the arena.
struct Region {
    begin: u64,
    end: u64,
    place: String,
}

/// Bytes of a dense array, if representable.
fn array_bytes(dtype: DType, shape: &[u64]) -> Option<u64> {
    shape.iter().try_fold(dtype.bytes(), |bytes, &dim| bytes.checked_mul(dim))
}

fn region(
    manifest: &Manifest,
    place: String,
    offset: u64,
    bytes: Option<u64>,
    alignment: u64,
) -> Result<Region, Defect> {
    let end = bytes.and_then(|bytes| offset.checked_add(bytes)).filter(|&end| end <= manifest.arena_bytes);
    let Some(end) = end else { return Err(defect(place, "it does not fit into the arena")) };
    if !offset.is_multiple_of(alignment) {
        return Err(defect(place, format!("its offset {offset} is not a multiple of {alignment}")));
    }
    Ok(Region { begin: offset, end, place })
}

fn verify_memory(manifest: &Manifest) -> Check {
    let control_bytes = size_of::<super::Control>() as u64;
    let control =
        region(manifest, "control block".to_owned(), manifest.control_offset, Some(control_bytes), BUFFER_ALIGNMENT)?;
    let mut regions = vec![control];
    let mut names = BTreeSet::new();
    for tensor in &manifest.tensors {
        let place = format!("tensor `{}`", tensor.name);
        unique(&mut names, &tensor.name, &place)?;
        verify_init(tensor, &place)?;
        let bytes = array_bytes(tensor.dtype, &tensor.shape);
        regions.push(region(manifest, place, tensor.offset, bytes, BUFFER_ALIGNMENT)?);
    }
    no_overlap(&mut regions)
}

fn no_overlap(regions: &mut [Region]) -> Check {
    regions.sort_by_key(|region| (region.begin, region.end));
    for pair in regions.windows(2) {
        if pair[1].begin < pair[0].end {
            return Err(defect(&pair[1].place, format!("it overlaps {}", pair[0].place)));
        }
    }
    Ok(())
}

fn verify_init(tensor: &TensorSpec, place: &str) -> Check {
    let sound = match tensor.init {
        Init::Constant { value } => value.is_finite(),
        Init::Normal { std, .. } => std.is_finite() && std >= 0.0,
        Init::Uniform { low, high, .. } => low.is_finite() && high.is_finite() && low <= high,
        Init::Hash { bound, .. } => bound.is_finite(),
    };
    if sound { Ok(()) } else { Err(defect(place, "its initial value is not finite")) }
}

fn verify_variants(artifact: &Artifact) -> Check {
    let variants = &artifact.manifest.variants;
    let isas: Vec<_> = variants.iter().map(|variant| variant.isa).collect();
    if isas.is_empty() || isas != artifact.code.iter().map(|(isa, _)| *isa).collect::<Vec<_>>() {
        return Err(defect("variants", "the code section holds other instruction sets than the manifest"));
    }
    if isas.iter().any(|isa| isa.is_cuda()) && !isas.iter().all(|isa| isa.is_cuda()) {
        return Err(defect("variants", "code for processors stands beside code for devices"));
    }
    if artifact.seals.len() != variants.len() {
        return Err(defect("variants", "the code section has no seals for some of them"));
    }
    for ((variant, (_, objects)), seals) in variants.iter().zip(&artifact.code).zip(&artifact.seals) {
        let place = format!("variant {:?}", variant.isa);
        if variant.kernels.len() != variants[0].kernels.len() {
            return Err(defect(place, "it has another number of kernels"));
        }
        let defined = match variant.isa.is_cuda() {
            true => objects.iter().flat_map(|object| code::ptx_entries(&String::from_utf8_lossy(object))).collect(),
            false => code::defined_functions(objects).map_err(|error| defect(&place, error.to_string()))?,
        };
        verify_kernels(variant, &defined)?;
        verify_seals(variant, seals)?;
    }
    Ok(())
}

/// Launches must be those that the code was made for: it reads and writes what it was made for, whatever a manifest says.
fn verify_seals(variant: &Variant, seals: &[Seal]) -> Check {
    if seals.len() != variant.kernels.len() {
        let problem = format!("its code has seals of {} kernels, it has {}", seals.len(), variant.kernels.len());
        return Err(defect(format!("variant {:?}", variant.isa), problem));
    }
    let made_for = seal(&variant.kernels);
    match variant.kernels.iter().zip(made_for.iter().zip(seals)).find(|(_, (said, sealed))| said != sealed) {
        Some((kernel, _)) => Err(defect(
            format!("kernel `{}` for {:?}", kernel.label, variant.isa),
            "its buffers, scratch, stages or tiles are not those that its code was made for",
        )),
        None => Ok(()),
    }
}

fn verify_kernels(variant: &Variant, defined: &BTreeSet<String>) -> Check {
    for kernel in &variant.kernels {
        let place = || format!("kernel `{}` for {:?}", kernel.label, variant.isa);
        if kernel.stages.is_empty() {
            return Err(defect(place(), "it has no stages"));
        }
        if kernel.scratch_bytes > MAX_SCRATCH_BYTES {
            return Err(defect(place(), format!("it wants {} bytes of scratch", kernel.scratch_bytes)));
        }
        let shaped = |stage: &StageSpec| match stage.block {
            None => !variant.isa.is_cuda(),
            Some(block) => variant.isa.is_cuda() && block.fits() && (1..=MAX_BLOCKS).contains(&stage.tiles),
        };
        if let Some(stage) = kernel.stages.iter().find(|stage| !shaped(stage)) {
            return Err(defect(place(), format!("the launch of `{}` has no possible shape", stage.symbol)));
        }
        if let Some(missing) = kernel.stages.iter().find(|stage| !defined.contains(&stage.symbol)) {
            return Err(defect(place(), format!("the code does not define `{}`", missing.symbol)));
        }
    }
    Ok(())
}

fn verify_entry(manifest: &Manifest, entry: &Entry) -> Check {
    for input in &entry.inputs {
        verify_input(manifest, entry, input)?;
    }
    let mut names = BTreeSet::new();
    for output in &entry.outputs {
        let place = format!("output `{}` of `{}`", output.name, entry.name);
        unique(&mut names, &output.name, &place)?;
        let bytes = array_bytes(output.dtype, &output.shape);
        region(manifest, place, output.offset, bytes, output.dtype.bytes())?;
    }
    for (position, launch) in entry.launches.iter().enumerate() {
        for variant in &manifest.variants {
            let place = || format!("launch {position} of `{}`", entry.name);
            let kernel = variant.kernels.get(launch.kernel as usize);
            let kernel = kernel.ok_or_else(|| defect(place(), format!("there is no kernel {}", launch.kernel)))?;
            verify_launch(manifest, launch, kernel, &place)?;
        }
    }
    Ok(())
}

fn verify_input(manifest: &Manifest, entry: &Entry, input: &InputBinding) -> Check {
    let place = format!("input `{}` of `{}`", input.name, entry.name);
    if input.shape.first().is_none_or(|&batch| batch == 0) || input.shape.contains(&0) {
        return Err(defect(place, "it has no batch axis or is empty"));
    }
    if input.shift > 1 << 32 {
        return Err(defect(place, format!("it looks {} positions ahead", input.shift)));
    }
    let bytes = array_bytes(input.dtype, &input.shape);
    no_tensor_in(manifest, &region(manifest, place, input.offset, bytes, BUFFER_ALIGNMENT)?)
}

/// What the host writes before an entry must not be what lives across entries.
fn no_tensor_in(manifest: &Manifest, written: &Region) -> Check {
    let touches = |tensor: &&TensorSpec| written.begin < tensor.offset + tensor.bytes() && tensor.offset < written.end;
    match manifest.tensors.iter().find(touches) {
        Some(tensor) => Err(defect(&written.place, format!("it overlaps tensor `{}`", tensor.name))),
        None => Ok(()),
    }
}

fn verify_launch(manifest: &Manifest, launch: &Launch, kernel: &KernelSpec, place: &dyn Fn() -> String) -> Check {
    let (given, wanted) = (launch.args.len(), kernel.buffer_bytes.len());
    if given != wanted {
        let problem = format!("it passes {given} buffers to `{}`, which takes {wanted}", kernel.label);
        return Err(defect(place(), problem));
    }
    for (index, (&offset, &bytes)) in launch.args.iter().zip(&kernel.buffer_bytes).enumerate() {
        let end = offset.checked_add(bytes).filter(|&end| end <= manifest.arena_bytes);
        let by_vectors =
            kernel.stages.iter().any(|stage| stage.block.is_some()) && bytes.is_multiple_of(DEVICE_VECTOR_BYTES);
        let alignment = if by_vectors { DEVICE_VECTOR_BYTES } else { ARGUMENT_ALIGNMENT };
        if end.is_none() || !offset.is_multiple_of(alignment) {
            let problem = format!("buffer {index} of `{}` is misplaced at {offset}", kernel.label);
            return Err(defect(place(), problem));
        }
    }
    Ok(())
}

fn verify_data(data: &DataSpec) -> Check {
    match (0.0..1.0).contains(&data.valid_fraction) {
        true => Ok(()),
        false => Err(defect(format!("data `{}`", data.name), "the share held out is not in [0, 1)")),
    }
}
