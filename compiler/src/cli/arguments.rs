//! The command line, as clap sees it.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};
use trainc_runtime::privacy::Mechanism;

/// A compiler for deep-learning training.
#[derive(Parser)]
#[command(name = "trainc", version, about, max_term_width = 110)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Check a program: shapes, parameters, FLOPs, peak memory, launches, warnings
    Check(Check),
    /// Write the artifact of a program
    Compile(Compile),
    /// Train: a program, or an artifact compiled before
    Run(Run),
    /// Go on with a run that was stopped
    Resume(Resume),
    /// Loss and metrics on held-out data, of a run's last checkpoint
    Evaluate(Evaluate),
    /// Text from a run's last checkpoint
    Generate(Generate),
    /// Why each rewrite happened
    Explain(Explain),
    /// The launches, the arena and what each launch moves and computes, as a table
    Plan(Plan),
    /// Print a program in the standard form
    Fmt(Fmt),
    /// Time the steps of a program
    Bench(Bench),
    /// What an artifact or a run directory holds
    Inspect(Inspect),
    /// What private training spends: epsilon, or the noise or the steps that a budget allows
    Privacy(Privacy),
}

/// A program and the constants that are set from outside.
#[derive(Args, Clone)]
pub struct Program {
    /// The `.train` file
    pub file: PathBuf,
    /// Override a `const` of the program, or `steps`, `batch`, `precision`, `seed`: e.g. `--set width=256`
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Where relative paths of the data start (default: the folder of the file)
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Another folder than the program's own that it may import files from
    #[arg(long, value_name = "DIR")]
    pub allow_import: Vec<PathBuf>,
}

impl Program {
    /// The folder that relative paths of the program's data start at.
    pub fn base(&self) -> PathBuf {
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        self.base.as_deref().or(folder).unwrap_or(Path::new(".")).to_path_buf()
    }
}

#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    pub program: Program,
    /// Print one JSON object (diagnostics included) as the last line
    #[arg(long)]
    pub json: bool,
}

/// What `compile --emit` prints instead of writing an artifact.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// The graph as the checker built it
    Graph,
    /// The graph after rewriting, and what the rewriting did
    Rewrites,
    /// The kernels
    Kernels,
    /// The kernels in MLIR
    Mlir,
    /// The kernels in assembly
    Asm,
    /// The kernels in PTX, with --target cuda
    Ptx,
}

#[derive(Args)]
pub struct Compile {
    #[command(flatten)]
    pub program: Program,
    /// Where to write (default: the program's name with `.trainx`)
    #[arg(long, short, alias = "output")]
    pub out: Option<PathBuf>,
    /// `cpu` (this machine's instruction set and caches), `cpu:v3`, `cpu:v4`, `cuda:sm_80` (or 86, 89, 90, 100, 120), or several of
    /// one kind joined by commas
    #[arg(long, default_value = "cpu")]
    pub target: String,
    /// Print an intermediate form instead
    #[arg(long, value_enum)]
    pub emit: Option<Emit>,
    /// Print one JSON object as the last line
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Execution {
    /// Worker threads (default: the number of cores); never changes a result
    #[arg(long)]
    pub threads: Option<usize>,
    /// Where to execute: `cpu`, `cuda` or `cuda:NUMBER`
    #[arg(long, default_value = "cpu")]
    pub device: String,
}

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    pub program: Program,
    /// Directory for metrics and checkpoints (default: `runs/` and the program's name)
    #[arg(long, short, alias = "output")]
    pub out: Option<PathBuf>,
    /// Train for this many steps instead of the program's horizon
    #[arg(long)]
    pub steps: Option<u32>,
    /// Start from the parameters of another run (its newest checkpoint), or of a checkpoint
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// Replace an earlier run in the directory, once this one is ready to start
    #[arg(long)]
    pub fresh: bool,
    /// Print the summary as one JSON object as the last line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub execution: Execution,
}

#[derive(Args)]
pub struct Resume {
    /// The run directory
    pub directory: PathBuf,
    /// End after this many steps in all instead of the run's horizon; the schedule becomes one of that many steps
    #[arg(long)]
    pub steps: Option<u32>,
    /// Where relative paths of the data start now
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Go on although the data are not those that the run was trained on
    #[arg(long)]
    pub data_changed: bool,
    /// Print the summary as one JSON object as the last line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub execution: Execution,
}

#[derive(Args)]
pub struct Evaluate {
    /// A run directory
    pub directory: PathBuf,
    /// Where relative paths of the data start now
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Print the result as one JSON object as the last line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub execution: Execution,
}

#[derive(Args)]
pub struct Generate {
    /// A run directory
    pub directory: PathBuf,
    /// Where relative paths of the data start now
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// How the text starts
    #[arg(long, default_value = "\n")]
    pub prompt: String,
    /// How many tokens to add
    #[arg(long, default_value_t = 200)]
    pub tokens: usize,
    /// 0 picks the likeliest token, 1 samples from the model
    #[arg(long, default_value_t = 0.8)]
    pub temperature: f32,
    /// Sample among this many likeliest tokens only
    #[arg(long)]
    pub top_k: Option<usize>,
    /// Seed of the sampling
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub execution: Execution,
}

#[derive(Args)]
pub struct Explain {
    #[command(flatten)]
    pub program: Program,
    /// Which node (default: list what can be explained)
    pub node: Option<String>,
}

#[derive(Args)]
pub struct Plan {
    #[command(flatten)]
    pub program: Program,
    /// `step`, `evaluate` or `generate`
    #[arg(long, default_value = "step")]
    pub entry: String,
    /// What to plan for, as in `compile`; for a CUDA target the table has grids, blocks and the time of a model
    #[arg(long, default_value = "cpu")]
    pub target: String,
    /// Print one JSON object as the last line
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Fmt {
    /// The `.train` files
    pub files: Vec<PathBuf>,
    /// Rewrite the files
    #[arg(long)]
    pub write: bool,
    /// Exit with 1 if a file is not in the standard form
    #[arg(long)]
    pub check: bool,
}

#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    pub program: Program,
    /// Timed steps
    #[arg(long, default_value_t = 20)]
    pub steps: usize,
    /// Write one more step in Chrome's trace format, stage by stage
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Print one JSON object as the last line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub execution: Execution,
}

#[derive(Args)]
pub struct Inspect {
    /// An artifact, a checkpoint or a run directory
    pub path: PathBuf,
    /// Print one JSON object as the last line
    #[arg(long)]
    pub json: bool,
}

/// How the accountant composes steps.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Accountant {
    /// Privacy loss distribution (tight)
    Pld,
    /// Renyi differential privacy
    Rdp,
}

/// Of `--epsilon`, `--noise` and `--steps` (or `--epochs`), give two: the third is computed. With `--phase` they are about what
/// comes after these phases, and epsilon is that of all together; phases alone are composed.
#[derive(Args)]
pub struct Privacy {
    /// The budget
    #[arg(long)]
    pub epsilon: Option<f64>,
    /// Probability of failure (default: `min(1e-5, samples^-1.1)`, given `--samples`)
    #[arg(long)]
    pub delta: Option<f64>,
    /// Noise multiplier: the noise's standard deviation over the clipping norm
    #[arg(long, value_name = "SIGMA")]
    pub noise: Option<f64>,
    /// Probability that a sample takes part in a step
    #[arg(long, value_name = "Q", conflicts_with = "batch", required_unless_present_any = ["batch", "phases"])]
    pub sampling_rate: Option<f64>,
    /// Expected batch size; with `--samples` instead of `--sampling-rate`
    #[arg(long, requires = "samples")]
    pub batch: Option<u64>,
    /// Number of training samples
    #[arg(long)]
    pub samples: Option<u64>,
    /// Number of steps
    #[arg(long, conflicts_with = "epochs")]
    pub steps: Option<u64>,
    /// Expected passes over the samples: `steps = epochs / q`
    #[arg(long)]
    pub epochs: Option<f64>,
    /// An earlier phase with values of its own, e.g. `rate=0.01,noise=1.1,steps=500`; can be repeated
    #[arg(long = "phase", value_name = "rate=Q,noise=SIGMA,steps=T", value_parser = phase)]
    pub phases: Vec<Mechanism>,
    /// Which bound the noise and the steps are computed for
    #[arg(long, value_enum, default_value = "pld")]
    pub accountant: Accountant,
    /// Draw epsilon over the steps
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Print one JSON object as the last line
    #[arg(long)]
    pub json: bool,
}

/// `rate=0.01,noise=1.1,steps=500`, in any order.
fn phase(text: &str) -> Result<Mechanism, String> {
    let (mut rate, mut noise, mut steps) = (None, None, None);
    for setting in text.split(',') {
        let (name, value) = setting.split_once('=').ok_or_else(|| format!("`{setting}`: expected NAME=VALUE"))?;
        let number = || value.trim().parse::<f64>().map_err(|_| format!("`{setting}`: expected a number"));
        match name.trim() {
            "rate" => rate = Some(number()?),
            "noise" => noise = Some(number()?),
            "steps" => steps = Some(value.trim().parse().map_err(|_| format!("`{setting}`: expected a whole number"))?),
            _ => return Err(format!("`{setting}`: expected `rate`, `noise` or `steps`")),
        }
    }
    match (rate, noise, steps) {
        (Some(sampling_rate), Some(noise_multiplier), Some(steps)) => {
            Ok(Mechanism { sampling_rate, noise_multiplier, steps })
        }
        _ => Err("a phase needs `rate`, `noise` and `steps`".into()),
    }
}
