//! The plan of an entry for a device: grids, blocks, and what a roofline model says.

use super::{failure::Failure, output, plan::intensity, table::Table};
use serde_json::json;
use trainc::{
    compile::Compilation,
    roofline::{self, Device},
    schedule::{EntryReport, LaunchReport},
};
use trainc_kernels::{device_stages, tensor_precision};
use trainc_runtime::artifact::{Isa, StageSpec};

/// An entry with the grids of its kernels.
pub struct DevicePlan<'a> {
    compilation: &'a Compilation,
    entry: &'a EntryReport,
    device: Device,
    /// By kernel.
    stages: Vec<Vec<StageSpec>>,
}

impl<'a> DevicePlan<'a> {
    pub fn new(compilation: &'a Compilation, entry: &'a EntryReport, isa: Isa) -> Result<Self, Failure> {
        let stages =
            compilation.plan.kernels.iter().map(device_stages).collect::<Result<_, _>>().map_err(Failure::run)?;
        let device = Device::typical(isa).expect("a CUDA target has a device");
        Ok(Self { compilation, entry, device, stages })
    }

    fn seconds(&self, launch: &LaunchReport) -> f64 {
        let kernel = launch.kernel as usize;
        self.device.seconds(&self.compilation.plan.kernels[kernel], &launch.facts, self.stages[kernel].len())
    }

    fn grids(&self) -> usize {
        self.entry.launches.iter().map(|launch| self.stages[launch.kernel as usize].len()).sum()
    }

    pub fn table(&self) -> String {
        let heads = ["#", "in", "i", "kernel", "grids", "shared", "flops", "read", "written", "flops/byte", "model us"];
        let mut table = Table::new(&heads);
        for (number, launch) in self.entry.launches.iter().enumerate() {
            let stages = &self.stages[launch.kernel as usize];
            table.row([
                number.to_string(),
                launch.group.clone(),
                launch.instance.to_string(),
                self.compilation.plan.kernels[launch.kernel as usize].label.clone(),
                stages.iter().map(grid).collect::<Vec<_>>().join(" "),
                output::bytes(
                    stages.iter().filter_map(|stage| stage.block).map(|b| b.shared_bytes.into()).max().unwrap_or(0),
                ),
                output::count(launch.facts.flops as f64),
                output::bytes(launch.facts.bytes_read),
                output::bytes(launch.facts.bytes_written),
                format!("{:.1}", intensity(launch)),
                format!("{:.1}", self.seconds(launch) * 1e6),
            ]);
        }
        table.render()
    }

    pub fn totals(&self) -> String {
        let seconds: f64 = self.entry.launches.iter().map(|launch| self.seconds(launch)).sum();
        format!(
            "{} grids a call, started as one graph; peak device memory {} B\n\
             roofline model of {} (data-sheet peaks and {} us a grid; not a measurement): {:.2} ms, {:.0} % of FLOPs on tensor cores\n",
            self.grids(),
            self.compilation.plan.arena_bytes,
            self.device.name,
            roofline::LAUNCH * 1e6,
            seconds * 1e3,
            100.0 * self.tensor_share(),
        )
    }

    fn tensor_share(&self) -> f64 {
        let on_tensor_cores =
            |launch: &&LaunchReport| tensor_precision(&self.compilation.plan.kernels[launch.kernel as usize]).is_some();
        let flops: u64 = self.entry.launches.iter().filter(on_tensor_cores).map(|launch| launch.facts.flops).sum();
        flops as f64 / self.entry.totals.flops.max(1) as f64
    }

    pub fn json(&self) -> serde_json::Value {
        let launches = self.entry.launches.iter().map(|launch| {
            let stages = &self.stages[launch.kernel as usize];
            json!({ "grids": stages, "model_us": self.seconds(launch) * 1e6 })
        });
        json!({
            "model": self.device.name,
            "grids": self.grids(),
            "peak_bytes": self.compilation.plan.arena_bytes,
            "tensor_share": self.tensor_share(),
            "launches": launches.collect::<Vec<_>>(),
        })
    }
}

/// `blocks x threads`
fn grid(stage: &StageSpec) -> String {
    format!("{}x{}", stage.tiles, stage.block.map_or(0, |block| block.threads))
}
