//! What the environment asks of the emulated device.

use trainc_ptx::{Approximation, Options};

/// File to which the report is appended as JSON lines; without it violations go to standard error.
pub const REPORT: &str = "TRAINC_PTX_REPORT";
/// What `cuDriverGetVersion` returns, 12080 for CUDA 12.8; it also limits the PTX version that modules may have.
pub const DRIVER_VERSION: &str = "TRAINC_PTX_DRIVER_VERSION";
/// Compute capability, 80 for sm_80.
pub const CAPABILITY: &str = "TRAINC_PTX_CAPABILITY";
/// Bytes of device memory.
pub const MEMORY: &str = "TRAINC_PTX_MEMORY";
/// Shuffles the order of blocks and warps.
pub const SEED: &str = "TRAINC_PTX_SEED";
/// `worst` or `worst:SEED`: approximate instructions are as wrong as documented.
pub const APPROXIMATION: &str = "TRAINC_PTX_APPROXIMATION";
/// `off`: lanes of a warp may communicate through shared memory without `bar.warp.sync`.
pub const WARP_RACES: &str = "TRAINC_PTX_WARP_RACES";
/// After this many launches the device is lost: every call fails.
pub const LOSE_AFTER: &str = "TRAINC_PTX_LOSE_AFTER";
/// Number of devices, 0 to test the message about a missing one.
pub const DEVICES: &str = "TRAINC_PTX_DEVICES";

/// The emulated device.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to write the report.
    pub report: Option<std::path::PathBuf>,
    /// As `cuDriverGetVersion`.
    pub driver_version: i32,
    /// As `.target sm_80`.
    pub capability: u32,
    /// Bytes of device memory.
    pub memory: u64,
    /// Devices.
    pub devices: i32,
    /// Launches before the device is lost.
    pub lose_after: Option<u64>,
    /// How kernels run.
    pub options: Options,
}

impl Config {
    /// Reads the environment; what cannot be read counts as not set.
    pub fn from_environment() -> Config {
        let text = |name: &str| std::env::var(name).ok();
        fn number<T: std::str::FromStr>(text: Option<String>) -> Option<T> {
            text.and_then(|text| text.trim().parse().ok())
        }
        let capability = number(text(CAPABILITY)).unwrap_or(80);
        let options = Options {
            seed: number(text(SEED)),
            approximation: approximation(text(APPROXIMATION).as_deref()),
            warp_races: text(WARP_RACES).as_deref() != Some("off"),
            max_shared_bytes: shared_per_block(capability),
            ..Options::default()
        };
        Config {
            report: text(REPORT).map(Into::into),
            driver_version: number(text(DRIVER_VERSION)).unwrap_or(12080),
            capability,
            memory: number(text(MEMORY)).unwrap_or(16 << 30),
            devices: number(text(DEVICES)).unwrap_or(1),
            lose_after: number(text(LOSE_AFTER)),
            options,
        }
    }

    /// The newest PTX version that the driver reads (CUDA's release notes).
    pub fn newest_ptx(&self) -> (u32, u32) {
        let (major, minor) = (self.driver_version / 1000, self.driver_version / 10 % 100);
        match (major, minor as u32) {
            (11, minor) => (7, minor),
            (12, minor @ 0..=5) => (8, minor),
            (12, 6) => (8, 5),
            (12, 7 | 8) => (8, 7),
            (12, _) => (8, 8),
            (13.., minor) => (9, minor),
            _ => (6, 5),
        }
    }
}

fn approximation(text: Option<&str>) -> Approximation {
    let Some(rest) = text.and_then(|text| text.strip_prefix("worst")) else { return Approximation::Rounded };
    Approximation::Worst { seed: rest.trim_start_matches(':').parse().unwrap_or(0) }
}

/// Most shared memory of a block by compute capability (CUDA C++ Programming Guide, "Technical Specifications").
fn shared_per_block(capability: u32) -> u64 {
    match capability {
        80 | 87 => 163 << 10,
        86 | 89 | 120.. => 99 << 10,
        90..120 => 227 << 10,
        _ => 48 << 10,
    }
}
