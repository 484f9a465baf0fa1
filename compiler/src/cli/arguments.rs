//! The command line, as clap sees it.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

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
}

/// A program and the constants that are set from outside.
#[derive(Args, Clone)]
pub struct Program {
    /// The `.train` file
    pub file: PathBuf,
    /// Override a `const` of the program, e.g. `--set width=256`
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
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
}

#[derive(Args)]
pub struct Compile {
    #[command(flatten)]
    pub program: Program,
    /// Where to write (default: the program's name with `.trainx`)
    #[arg(long, short)]
    pub output: Option<PathBuf>,
    /// `cpu` (this machine's instruction set), `cpu:v3`, `cpu:v4`, or several joined by commas
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
    /// Where to execute
    #[arg(long, default_value = "cpu")]
    pub device: String,
}

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    pub program: Program,
    /// Directory for metrics and checkpoints (default: `runs/` and the program's name)
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Train for this many steps instead of the program's horizon
    #[arg(long)]
    pub steps: Option<u32>,
    /// Replace what an earlier run left in the directory
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
