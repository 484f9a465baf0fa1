//! The way of a checked program to its artifact: rewrite, schedule, generate code.

use crate::{
    diagnostic::Diagnostic,
    ladder::{self, Rung},
    program::Program,
    rewrite::{self, Rewritten, cost::Machine},
    schedule::{Plan, ScheduleError},
    source::Span,
};
use serde::Serialize;
use std::{collections::BTreeMap, time::Instant};
use trainc_kernels::{Backend, Caches, CodegenError, Target};
use trainc_runtime::artifact::{
    Artifact, Duration, FORMAT_VERSION, Isa, Manifest, PrivateSpec, TrainSpec, Variant, seal,
};
use trainc_runtime::privacy;

/// A program on its way: all that is known before code is generated.
#[derive(Debug)]
pub struct Compilation {
    /// The checked program.
    pub program: Program,
    /// How its entries were rewritten: the memory budget has a part in it.
    pub options: rewrite::Options,
    /// Its entries after rewriting, by name: `step`, `evaluate`, `conclude`, `generate`.
    pub entries: Vec<(&'static str, Rewritten)>,
    /// Kernels, launches and offsets.
    pub plan: Plan,
    /// Wall-clock milliseconds by stage.
    pub milliseconds: BTreeMap<&'static str, f64>,
}

/// What to tell the author of `memory ...` (written at `budget`) if no plan fits it; `None` for other errors, which are
/// not about the program.
pub fn over_budget(error: &ScheduleError, budget: Span) -> Option<Diagnostic> {
    let ScheduleError::OverBudget { needed, budget: allowed, persistent } = error else { return None };
    // Rounded up, so that the number can be written as the budget.
    let readable = |bytes: u64| match bytes {
        0..10_000_000 => format!("{} KB", bytes.div_ceil(1000)),
        _ => format!("{} MB", bytes.div_ceil(1_000_000)),
    };
    let over = readable(needed.saturating_sub(*allowed));
    Some(
        Diagnostic::error("E0801", budget, "training does not fit into the memory budget")
            .label(format!("{over} more are needed"))
            .note(format!("with everything recomputed that can be, one step takes {}", readable(*needed)))
            .note(format!("parameters and optimizer states alone take {}", readable(*persistent)))
            .help(format!("write `memory {}`, or make the batch, the context or the model smaller", readable(*needed))),
    )
}

impl Compilation {
    /// [`Compilation::for_target`] for the processor.
    ///
    /// # Errors
    /// As there.
    pub fn new(program: Program) -> Result<Self, ScheduleError> {
        Self::for_target(program, Target::Cpu)
    }

    /// Rewrites and schedules every entry of a program for a kind of machine.
    ///
    /// # Errors
    /// If the schedule cannot be made, e.g. within the memory budget.
    pub fn for_target(program: Program, target: Target) -> Result<Self, ScheduleError> {
        let mut milliseconds = BTreeMap::new();
        let Rung { options, entries, plan } = ladder::climb(&program, target, &mut milliseconds)?;
        Ok(Self { program, options, entries, plan, milliseconds })
    }

    /// Lets `backend` generate code for these instruction sets, all of the target that was scheduled for, and packs the
    /// artifact. `caches` are those of the processor that will run it; `sources` identifies the program: its text, imports and
    /// settings.
    ///
    /// # Errors
    /// If a kernel has no code, which is a defect of the compiler, or the backend cannot be asked.
    pub fn artifact(
        &mut self,
        isas: &[Isa],
        caches: Caches,
        sources: &Provenance,
        backend: &dyn Backend,
    ) -> Result<Artifact, CodegenError> {
        let start = Instant::now();
        let options = trainc_kernels::Options { caches, ..trainc_kernels::Options::default() };
        let mut variants = Vec::new();
        let mut code = Vec::new();
        let mut seals = Vec::new();
        for &isa in isas {
            let compiled = trainc_kernels::compile(&self.plan.kernels, isa, backend, &options)?;
            seals.push(seal(&compiled.specs));
            variants.push(Variant { isa, kernels: compiled.specs });
            code.push((isa, compiled.objects));
        }
        self.milliseconds.insert("codegen", start.elapsed().as_secs_f64() * 1e3);
        Ok(Artifact { manifest: self.manifest(variants, sources), code, seals })
    }

    fn manifest(&self, variants: Vec<Variant>, sources: &Provenance) -> Manifest {
        Manifest {
            format: FORMAT_VERSION,
            name: self.program.name.clone(),
            program_digest: sources.digest.clone(),
            compiler: env!("CARGO_PKG_VERSION").into(),
            source: sources.text.clone(),
            settings: sources.settings.clone(),
            arena_bytes: self.plan.arena_bytes,
            control_offset: self.plan.control_offset,
            tensors: self.plan.tensors.clone(),
            entries: self.plan.entries.clone(),
            variants,
            data: self.program.data.clone(),
            private: self.program.private.clone(),
            train: self.train_spec(),
        }
    }

    fn train_spec(&self) -> TrainSpec {
        let train = &self.program.train;
        TrainSpec {
            steps: train.steps,
            seed: train.seed,
            evaluate_every: train.evaluate_every,
            evaluate_batches: train.evaluate_batches,
            checkpoint_every: train.checkpoint_every,
            keep: train.keep,
            items_per_step: train.items_per_step,
            item: train.item.clone(),
            flops_per_step: self.flops_per_step(),
        }
    }

    /// How much dearer stored results were than the machine has them, for the graphs to keep to the memory budget.
    pub fn price_of_storing(&self) -> u64 {
        self.options.machine.stored / Machine::CPU.stored
    }

    /// Floating-point operations of one step, as launched.
    pub fn flops_per_step(&self) -> u64 {
        let step = self.plan.report.entries.iter().find(|entry| entry.name == "step");
        step.map_or(0, |step| step.totals.flops)
    }

    /// What `check --json` and `compile --json` print.
    pub fn summary(&self) -> Summary {
        let elements = |shape: &[u64]| shape.iter().product::<u64>();
        let parameters = &self.program.parameters;
        Summary {
            name: self.program.name.clone(),
            parameters: parameters.iter().map(|parameter| elements(&parameter.shape)).sum(),
            trainable_parameters: parameters
                .iter()
                .filter(|parameter| parameter.trainable)
                .map(|parameter| elements(&parameter.shape))
                .sum(),
            flops_per_step: self.flops_per_step(),
            peak_bytes: self.plan.arena_bytes,
            launches_per_step: self
                .plan
                .entries
                .iter()
                .find(|entry| entry.name == "step")
                .map_or(0, |entry| entry.launches.len()),
            distinct_kernels: self.plan.kernels.len(),
            e_nodes: self.entries.iter().map(|(_, rewritten)| rewritten.report.e_nodes()).sum(),
            phases: 1,
            privacy: self.program.private.as_ref().map(|private| Privacy::new(private, self.program.train.steps)),
            compile_ms: self.milliseconds.clone(),
        }
    }
}

/// The facts about a program that scripts read.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The model.
    pub name: String,
    /// Numbers in all parameters.
    pub parameters: u64,
    /// Numbers that the optimizer moves.
    pub trainable_parameters: u64,
    /// Floating-point operations of one step.
    pub flops_per_step: u64,
    /// Bytes of the arena: exactly what a run allocates for tensors.
    pub peak_bytes: u64,
    /// Kernel launches of one step.
    pub launches_per_step: usize,
    /// Kernels that code is generated for.
    pub distinct_kernels: usize,
    /// Size of all e-graphs after saturation.
    pub e_nodes: usize,
    /// Phases of training.
    pub phases: u32,
    /// The privacy budget; `null` for programs that are not private.
    pub privacy: Option<Privacy>,
    /// Milliseconds by stage.
    pub compile_ms: BTreeMap<&'static str, f64>,
}

/// The guarantee of a private program.
#[derive(Clone, Debug, Serialize)]
pub struct Privacy {
    /// What all steps together spend.
    pub epsilon: f64,
    /// Probability with which the guarantee may fail.
    pub delta: f64,
    /// Standard deviation of the noise in units of the clipping norm.
    pub noise_multiplier: f64,
    /// Probability with which a record takes part in a step.
    pub sampling_rate: f64,
    /// Steps.
    pub steps: u32,
}

impl Privacy {
    fn new(private: &PrivateSpec, steps: Duration) -> Self {
        let steps = steps.horizon(private.records, private.expected_batch).expect("the checker has counted them");
        let mechanism = private.mechanism(u64::from(steps));
        let epsilon = privacy::epsilon(&[mechanism], private.delta, private.accountant);
        Privacy {
            epsilon: epsilon.expect("the checker has accounted for it"),
            delta: private.delta,
            noise_multiplier: private.noise_multiplier,
            sampling_rate: mechanism.sampling_rate,
            steps,
        }
    }
}

/// Where an artifact comes from.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The program's text.
    pub text: String,
    /// What `--set` replaces in it, by name.
    pub settings: Vec<(String, String)>,
    /// blake3 over all sources and settings, in hex.
    pub digest: String,
}
