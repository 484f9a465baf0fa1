//! What happened on the device, as JSON lines: one object per launch, violation, broken capture rule, leak.
//!
//! Every object has a `"kind"`: `"launch"` (kernel, grid, block and the counters), `"violation"` (what, kernel, line,
//! instruction, block, thread, address, text), `"host"` (a call that the driver refuses, with the reason), `"graph"` (nodes of
//! a launched graph) and `"leak"` (what was alive when the context was released).

use std::fs::{File, OpenOptions};
use std::io::Write;

use serde_json::{Value, json};
use trainc_ptx::{Counters, Geometry, Violation};

use crate::config::Config;

/// Appends to the report.
#[derive(Debug)]
pub struct Reporter {
    file: Option<File>,
}

impl Reporter {
    /// Opens the file that the configuration names.
    pub fn new(config: &Config) -> Reporter {
        let open = |path| OpenOptions::new().create(true).append(true).open(path).ok();
        Reporter { file: config.report.as_ref().and_then(open) }
    }

    fn line(&mut self, value: Value) {
        if let Some(file) = &mut self.file {
            // A report that cannot be written must not fail the program under test.
            let _ = file.write_all(format!("{value}\n").as_bytes());
        }
    }

    /// Text for a person: on standard error unless a report is kept.
    fn say(&self, text: &str) {
        if self.file.is_none() {
            eprintln!("PTX emulator: {text}");
        }
    }

    /// A kernel ran.
    pub fn launch(&mut self, kernel: &str, geometry: Geometry, counters: &Counters) {
        if self.file.is_none() {
            return;
        }
        let traffic = |t: trainc_ptx::exec::counters::Traffic| json!({"requests": t.requests, "bytes": t.bytes, "transactions": t.transactions, "ideal": t.ideal});
        self.line(json!({
            "kind": "launch", "kernel": kernel, "grid": geometry.grid, "block": geometry.block,
            "dynamic_shared": geometry.dynamic_shared,
            "warp_instructions": counters.warp_instructions, "lane_instructions": counters.lane_instructions,
            "divergent_branches": counters.divergent_branches,
            "global_loads": traffic(counters.global_loads), "global_stores": traffic(counters.global_stores),
            "shared": traffic(counters.shared), "coalescing": counters.coalescing(),
            "tensor_macs": counters.tensor_macs, "fma_macs": counters.fma_macs, "mix": counters.mix,
        }));
    }

    /// A kernel did something wrong.
    pub fn violation(&mut self, violation: &Violation) {
        self.say(&violation.to_string());
        self.line(json!({
            "kind": "violation", "what": violation.kind.name(), "kernel": violation.kernel, "line": violation.line,
            "instruction": violation.instruction, "block": violation.block, "thread": violation.thread,
            "address": violation.address, "bytes": violation.bytes, "text": violation.to_string(),
        }));
    }

    /// A call was refused.
    pub fn host(&mut self, call: &str, text: &str) {
        self.say(&format!("{call}: {text}"));
        self.line(json!({"kind": "host", "call": call, "text": text}));
    }

    /// A graph was launched.
    pub fn graph(&mut self, nodes: usize, launches: usize) {
        self.line(json!({"kind": "graph", "nodes": nodes, "launches": launches}));
    }

    /// Something outlived the context.
    pub fn leak(&mut self, what: &str, count: usize, bytes: u64) {
        self.say(&format!("{count} {what} of {bytes} bytes were not freed before the context was released"));
        self.line(json!({"kind": "leak", "what": what, "count": count, "bytes": bytes}));
    }
}
