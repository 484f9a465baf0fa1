//! What `--target` names.

use super::failure::Failure;
use trainc_kernels::{Caches, Target, host_isa};
use trainc_runtime::artifact::Isa;

/// Names with what they mean, for reading and for messages.
const NAMES: [(&str, Isa); 9] = [
    ("cpu:v3", Isa::X86V3),
    ("cpu:v4", Isa::X86V4),
    ("cpu:v4-bf16", Isa::X86V4Bf16),
    ("cuda:sm_80", Isa::Sm80),
    ("cuda:sm_86", Isa::Sm86),
    ("cuda:sm_89", Isa::Sm89),
    ("cuda:sm_90", Isa::Sm90),
    ("cuda:sm_100", Isa::Sm100),
    ("cuda:sm_120", Isa::Sm120),
];

/// Reads a list of targets, joined by commas, all of one kind of machine. Best first: the runtime takes the first
/// variant that the machine can execute.
///
/// # Errors
/// For names that are not known, and for lists that mix kinds.
pub fn parse(text: &str) -> Result<(Target, Vec<Isa>), Failure> {
    let mut isas = text.split(',').map(|name| isa(name.trim())).collect::<Result<Vec<_>, _>>()?;
    isas.sort_by(|a, b| b.cmp(a));
    isas.dedup();
    match isas.iter().filter(|isa| isa.is_cuda()).count() {
        0 => Ok((Target::Cpu, isas)),
        devices if devices == isas.len() => Ok((Target::Cuda, isas)),
        _ => Err(Failure::misuse(format!(
            "--target {text}: an artifact has one plan of memory, for the processor or for devices; compile twice"
        ))),
    }
}

/// The caches that code for these targets is made for: those of this machine only if it alone is meant. Names of instruction
/// sets give the same artifact everywhere.
pub fn caches(text: &str) -> Caches {
    if text.trim() == "cpu" { Caches::host() } else { Caches::PORTABLE }
}

fn isa(name: &str) -> Result<Isa, Failure> {
    match name {
        "cpu" => return Ok(host_isa()),
        // Its PTX runs on every later device too.
        "cuda" => return Ok(Isa::Sm80),
        _ => {}
    }
    let known = || NAMES.map(|(name, _)| name).join(", ");
    let found = NAMES.iter().find(|(known, _)| *known == name);
    found
        .map(|(_, isa)| *isa)
        .ok_or_else(|| Failure::misuse(format!("unknown target {name}; known: cpu, cuda, {}", known())))
}
