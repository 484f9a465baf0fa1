//! The manifest: everything the runtime knows about a program. Plain data, serialised as JSON inside the artifact.

use super::Duration;
use crate::privacy::{Accountant, Mechanism};
use serde::{Deserialize, Serialize};

/// Version of the artifact format; the runtime refuses any other.
pub const FORMAT_VERSION: u32 = 3;

/// Output of the entries of private training, f32 `[rows]`: not 0 for each row whose gradient is not finite. If there is
/// one, the entry has changed nothing.
pub const BAD_ROWS: &str = "bad_rows";

/// The beginning of the names of totals, which no report has.
const TOTAL: &str = "total.";

/// Name of the output of `evaluate` that says what each row adds to a total.
pub fn total_name(number: usize) -> String {
    format!("{TOTAL}{number}")
}

/// Whether an output is of that name.
pub fn is_total(name: &str) -> bool {
    name.starts_with(TOTAL)
}

/// How an element is stored in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// The upper half of a binary32, rounded to nearest even.
    Bf16,
    /// 32-bit signed integer: token ids, labels, counters.
    I32,
}

impl DType {
    /// Bytes per element.
    pub fn bytes(self) -> u64 {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::Bf16 => 2,
        }
    }
}

/// A compiled program without its machine code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the compiler that wrote it.
    pub format: u32,
    /// The model's name, for people.
    pub name: String,
    /// blake3 of the sources (imports and `--set` included), in hex: resuming under another program is refused.
    pub program_digest: String,
    /// Version of the compiler.
    pub compiler: String,
    /// The source text, so that an artifact can say where it came from.
    pub source: String,
    /// What `--set` replaced in it, by name.
    pub settings: Vec<(String, String)>,
    /// Size of the arena in bytes; exactly what the runtime allocates. Persistent tensors come first.
    pub arena_bytes: u64,
    /// Where the [`Control`] block lies.
    pub control_offset: u64,
    /// Parameters and optimizer state: what lives across steps, and what a checkpoint holds.
    pub tensors: Vec<TensorSpec>,
    /// One table of launches for each thing that the program can do.
    pub entries: Vec<Entry>,
    /// The same kernels compiled for several instruction sets; best first.
    pub variants: Vec<Variant>,
    /// Where batches come from. `None`: the embedder feeds them.
    pub data: Option<DataSpec>,
    /// The guarantee that training keeps; `None` if it is not private.
    pub private: Option<PrivateSpec>,
    /// The horizon and the host's duties during training.
    pub train: TrainSpec,
}

/// A tensor that lives across steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Unique path, e.g. `block.attention.qkv`, or `adamw.m.block.attention.qkv` for state.
    pub name: String,
    /// Storage type.
    pub dtype: DType,
    /// Row-major shape; parameters of a `repeat` are stacked along a leading axis.
    pub shape: Vec<u64>,
    /// Byte offset in the arena.
    pub offset: u64,
    /// Parameter or state.
    pub kind: TensorKind,
    /// The recipe of the initial value.
    pub init: Init,
}

/// What a persistent tensor is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TensorKind {
    /// A parameter of the model with the roles by which groups select it.
    Parameter {
        /// e.g. `["attention", "biases"]`.
        roles: Vec<String>,
        /// Whether the optimizer moves it.
        trainable: bool,
    },
    /// State of the optimizer (or of a method), not part of the model.
    State,
}

/// Recipes of initial values; evaluated by the runtime, never stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// Every element equal.
    Constant {
        /// The value.
        value: f32,
    },
    /// Gaussian with mean 0 (Philox, Box-Muller).
    Normal {
        /// Standard deviation.
        std: f32,
        /// Stream of the draws.
        stream: u32,
    },
    /// Uniform on `[low, high)`.
    Uniform {
        /// Lower end.
        low: f32,
        /// Upper end.
        high: f32,
        /// Stream of the draws.
        stream: u32,
    },
    /// `(hash(stream, i) - 0.5) * 2 * bound` in f64, rounded to f32: independent of the seed, for comparisons
    /// between systems. See [`crate::data`] for the hash.
    Hash {
        /// Half the width of the interval.
        bound: f64,
        /// Stream of the hash.
        stream: u64,
    },
}

/// Private training: how samples are drawn, how their sum is made private, and what that guarantees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrivateSpec {
    /// How the samples of a step are drawn.
    pub sampling: Sampling,
    /// Training records that the guarantee is for; a run on any other number is refused.
    pub records: u64,
    /// Samples of a step, expected; what sums are divided by.
    pub expected_batch: u64,
    /// Standard deviation of the noise on the sum, in units of `clip`.
    pub noise_multiplier: f64,
    /// Largest norm of a sample's contribution.
    pub clip: f64,
    /// Probability with which the guarantee may fail.
    pub delta: f64,
    /// The budget; training stops before a step that would exceed it.
    pub epsilon: Option<f64>,
    /// How the guarantee is computed.
    pub accountant: Accountant,
    /// Whether noise and sampling are keyed by the operating system rather than by the seed.
    pub secure: bool,
}

impl PrivateSpec {
    /// Standard deviation of the noise in each coordinate of the mean gradient.
    pub fn noise(&self) -> f64 {
        self.noise_multiplier * self.clip / self.expected_batch as f64
    }

    /// So many steps, for an accountant.
    pub fn mechanism(&self, steps: u64) -> Mechanism {
        Mechanism {
            sampling_rate: self.expected_batch as f64 / self.records as f64,
            noise_multiplier: self.noise_multiplier,
            steps,
        }
    }
}

/// How the samples of a private step are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Each record with the same probability, whatever happens to the others.
    Poisson {
        /// That probability.
        rate: f64,
    },
    /// In the ordinary shuffled order.
    Shuffled,
}

/// Where the host says which rows of a batch count: f32 1, or 0 for padding, whose inputs are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskBinding {
    /// Byte offset in the arena.
    pub offset: u64,
    /// Rows of the batch.
    pub rows: u64,
}

impl MaskBinding {
    /// Size in the arena.
    pub fn bytes(&self) -> u64 {
        self.rows.saturating_mul(DType::F32.bytes())
    }
}

impl PrivateSpec {
    /// Probability with which a record takes part in a step, as the guarantee has it. Shuffled records are accounted for as
    /// if they were drawn.
    pub fn sampling_rate(&self) -> f64 {
        match self.sampling {
            Sampling::Poisson { rate } => rate,
            Sampling::Shuffled => self.expected_batch as f64 / self.records as f64,
        }
    }
}

/// Where the host says what all records add up to, f32.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotalBinding {
    /// Of what.
    pub of: TotalOf,
    /// Shape; that of a row of the output.
    pub shape: Vec<u64>,
    /// Byte offset in the arena.
    pub offset: u64,
}

/// What is added up over records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TotalOf {
    /// One for each.
    Records,
    /// Their rows of an output of `evaluate`; see [`total_name`].
    Output(String),
}

impl TotalBinding {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |elements: u64, &dim| elements.saturating_mul(dim))
    }

    /// Size in the arena.
    pub fn bytes(&self) -> u64 {
        self.elements().saturating_mul(DType::F32.bytes())
    }
}

/// One callable of the artifact: `step`, `accumulate`, `evaluate`, `conclude` or `generate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// `step`, `accumulate`, `evaluate`, `conclude`, `generate`.
    pub name: String,
    /// What must be in the arena before the launches.
    pub inputs: Vec<InputBinding>,
    /// Which rows count, if the entry asks.
    pub mask: Option<MaskBinding>,
    /// Which totals it makes its numbers of; none but `conclude` has any.
    pub totals: Vec<TotalBinding>,
    /// What can be read from the arena after them.
    pub outputs: Vec<OutputBinding>,
    /// The launches, in order. Each sees the effects of all before it.
    pub launches: Vec<Launch>,
}

impl TensorSpec {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Size in the arena.
    pub fn bytes(&self) -> u64 {
        self.elements() * self.dtype.bytes()
    }
}

impl InputBinding {
    /// Elements per record: everything but the batch axis.
    pub fn record_elements(&self) -> u64 {
        self.shape.iter().skip(1).product()
    }

    /// Records per call.
    pub fn batch(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Size in the arena.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().product::<u64>() * self.dtype.bytes()
    }
}

impl OutputBinding {
    /// Elements of a row: everything but the first axis.
    pub fn row_elements(&self) -> u64 {
        self.shape.iter().skip(1).product()
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Size in the arena.
    pub fn bytes(&self) -> u64 {
        self.elements() * self.dtype.bytes()
    }
}

impl Manifest {
    /// The entry of that name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

/// A buffer that the host fills before each call of the entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputBinding {
    /// The model's input, e.g. `tokens`.
    pub name: String,
    /// Which field of a record feeds it, e.g. `tokens` for both `tokens` and `next(tokens)`.
    pub field: String,
    /// How many positions ahead in the record it starts: 1 for `next(tokens)`.
    pub shift: u64,
    /// Storage type.
    pub dtype: DType,
    /// Shape; the first axis is the batch.
    pub shape: Vec<u64>,
    /// Byte offset in the arena.
    pub offset: u64,
    /// Exclusive upper bound of valid integers (a vocabulary, a number of classes), checked on feeding.
    pub below: Option<u64>,
}

/// A buffer that the host may read after a call of the entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputBinding {
    /// `loss`, `grad_norm`, `rate`, a metric's name, `logits`, [`BAD_ROWS`], or the name of a total.
    pub name: String,
    /// Storage type.
    pub dtype: DType,
    /// Shape; `[]` for numbers that are reported.
    pub shape: Vec<u64>,
    /// Byte offset in the arena.
    pub offset: u64,
}

/// One call of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Index into [`Variant::kernels`].
    pub kernel: u32,
    /// Byte offset in the arena of each buffer argument.
    pub args: Vec<u64>,
    /// Iteration of the enclosing `repeat`.
    pub instance: u32,
}

/// The kernels for one instruction set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// What the code needs of the processor.
    pub isa: Isa,
    /// Same order in every variant.
    pub kernels: Vec<KernelSpec>,
}

/// Instruction sets that code is generated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isa {
    /// x86-64-v3: AVX2 and FMA.
    X86V3,
    /// x86-64-v4: AVX-512 F, BW, CD, DQ, VL.
    X86V4,
    /// x86-64-v4 and AVX512_BF16.
    X86V4Bf16,
    /// NVIDIA devices of compute capability 8.0 and later (A100).
    Sm80,
    /// Compute capability 8.6 and later (RTX 30).
    Sm86,
    /// Compute capability 8.9 and later (RTX 40, L40).
    Sm89,
    /// Compute capability 9.0 and later (H100).
    Sm90,
    /// Compute capability 10.0 and later (B200).
    Sm100,
    /// Compute capability 12.0 and later (RTX 50).
    Sm120,
}

impl Isa {
    /// All instruction sets, best first.
    pub const ALL: [Isa; 9] =
        [Isa::Sm120, Isa::Sm100, Isa::Sm90, Isa::Sm89, Isa::Sm86, Isa::Sm80, Isa::X86V4Bf16, Isa::X86V4, Isa::X86V3];

    /// The number that stands for it in the file format.
    pub fn code(self) -> u64 {
        match self {
            Isa::X86V3 => 3,
            Isa::X86V4 => 4,
            Isa::X86V4Bf16 => 5,
            cuda => u64::from(cuda.capability().expect("not an x86 one")),
        }
    }

    /// The compute capability (80 for 8.0) that code needs, if it is for CUDA devices.
    pub fn capability(self) -> Option<u32> {
        match self {
            Isa::X86V3 | Isa::X86V4 | Isa::X86V4Bf16 => None,
            Isa::Sm80 => Some(80),
            Isa::Sm86 => Some(86),
            Isa::Sm89 => Some(89),
            Isa::Sm90 => Some(90),
            Isa::Sm100 => Some(100),
            Isa::Sm120 => Some(120),
        }
    }

    /// Whether the code is PTX for CUDA devices.
    pub fn is_cuda(self) -> bool {
        self.capability().is_some()
    }

    /// Inverse of [`Isa::code`].
    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|isa| isa.code() == code)
    }
}

/// What the launcher must know of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelSpec {
    /// For people: `matmul + bias + gelu`.
    pub label: String,
    /// Stages in order, a barrier between them.
    pub stages: Vec<StageSpec>,
    /// Bytes of private memory each thread must hand over.
    pub scratch_bytes: u64,
    /// Size in bytes of each buffer argument, for checking offsets at load.
    pub buffer_bytes: Vec<u64>,
}

/// One function of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageSpec {
    /// Symbol in the object code: a [`crate::abi::StageFn`], or an entry of the PTX.
    pub symbol: String,
    /// Number of tiles that the work is cut into; on a device the thread blocks of the grid.
    pub tiles: u64,
    /// What a thread block is; for code that runs on a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<BlockSpec>,
}

/// A thread block of a device kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSpec {
    /// Threads.
    pub threads: u32,
    /// Bytes of shared memory, asked for at launch.
    pub shared_bytes: u32,
}

impl BlockSpec {
    /// Whether every device of the least capability can launch it.
    pub fn fits(self) -> bool {
        (1..=1024).contains(&self.threads) && self.shared_bytes <= 99 * 1024
    }
}

/// The block of host-written numbers that kernels read: 48 bytes at [`Manifest::control_offset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Control {
    /// Low half of the seed.
    pub seed_low: u32,
    /// High half of the seed.
    pub seed_high: u32,
    /// Updates done so far: 0 during the first step.
    pub step: u32,
    /// The horizon: how many updates the run makes.
    pub steps: u32,
    /// Key of draws that no seed may repeat ([`crate::chacha`]); zeros unless training is private and secure.
    pub key: [u32; 8],
}

/// How training runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainSpec {
    /// The horizon.
    pub steps: Duration,
    /// Seed of every draw and of the data order.
    pub seed: u64,
    /// Evaluate so often (0 steps: only at the end).
    pub evaluate_every: Duration,
    /// How many batches an evaluation averages over (fewer if the data ends).
    pub evaluate_batches: Option<u32>,
    /// Save so often (0 steps: only at the end).
    pub checkpoint_every: Duration,
    /// How many checkpoints to keep.
    pub keep: u32,
    /// Tokens (or samples) that one step consumes, for the speed display.
    pub items_per_step: u64,
    /// What an item is called: `tokens` or `samples`.
    pub item: String,
    /// Floating-point operations of one step, as `trainc check` counts them.
    pub flops_per_step: u64,
}

/// Where records come from and how they become batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataSpec {
    /// The data clause's name.
    pub name: String,
    /// Where to read.
    pub source: Source,
    /// Share of the records held out for evaluation, in `[0, 1)`.
    pub valid_fraction: f64,
    /// Visit training records in a seeded random order (otherwise in file order).
    pub shuffle: bool,
}

/// Kinds of data. Paths may be globs and may start with `~`; relative paths start at the program's folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Text files, one document each; field `tokens`.
    Text {
        /// Globs, expanded in sorted order.
        paths: Vec<String>,
        /// How text becomes integers.
        tokenizer: TokenizerSpec,
    },
    /// A JSON object per line; field `tokens` from one of its string members.
    Jsonl {
        /// Globs.
        paths: Vec<String>,
        /// The member that holds the text.
        member: String,
        /// How text becomes integers.
        tokenizer: TokenizerSpec,
    },
    /// Raw little-endian token ids; field `tokens`.
    Tokens {
        /// Globs.
        paths: Vec<String>,
        /// Bytes per id: 2 or 4.
        width: u8,
    },
    /// Comma-separated values; each field is a group of columns.
    Csv {
        /// Globs.
        paths: Vec<String>,
        /// Whether the first line names the columns.
        header: bool,
        /// The fields.
        fields: Vec<CsvField>,
    },
    /// `.npz` archives (a field is a member) or a `.npy` file (one field); the first axis counts records.
    Arrays {
        /// The file.
        path: String,
        /// Field name and member name.
        fields: Vec<(String, String)>,
    },
    /// The documented integer hash, the same batch every step: for comparisons between systems.
    Hash {
        /// The fields.
        fields: Vec<HashField>,
    },
}

/// A field of a CSV file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CsvField {
    /// Name of the model's input.
    pub name: String,
    /// First column, counted from 0.
    pub first: u64,
    /// Number of columns.
    pub count: u64,
    /// Values are multiplied by this.
    pub scale: f64,
}

/// A field of hashed numbers. Element `i` of the batch (row-major, `context + 1` tokens a record) is
/// `hash(stream, i)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HashField {
    /// Name of the model's input.
    pub name: String,
    /// Stream of the hash.
    pub stream: u64,
    /// `Some(n)`: integers `hash mod n`. `None`: uniform numbers in `[0, 1)`.
    pub below: Option<u64>,
}

/// How text becomes integers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenizerSpec {
    /// One token per byte, 256 in all.
    Bytes,
    /// A Hugging Face `tokenizer.json`.
    HuggingFace {
        /// Path of the file.
        path: String,
    },
}
