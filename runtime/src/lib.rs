//! Executes trainc artifacts: loads and verifies them, plans nothing, allocates once, feeds, launches, checkpoints and
//! reports. This crate knows neither LLVM nor e-graphs; it owns the artifact format ([`artifact`]).
//!
//! A [`Session`] is a program at work. Drive it step by step with batches of your own:
//!
//! ```no_run
//! use trainc_runtime::{Batch, Options, Session};
//!
//! # fn main() -> trainc_runtime::Result<()> {
//! let mut session = Session::open("regression.trainx", &Options::default())?;
//! for _ in 0..session.horizon()? {
//!     let batch = Batch::new().with("x", vec![0.0; 8 * 4]).with("y", vec![0.0; 8]);
//!     let loss = session.step_with(&batch)?.loss();
//!     println!("step {}: {loss}", session.steps_done());
//! }
//! session.save("trained")?;
//! println!("{:?}", session.tensor("w")?);
//! # Ok(())
//! # }
//! ```
//!
//! or let [`train`] do everything that the program says, in a [`RunDirectory`]:
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//! use trainc_runtime::{GenerateOptions, Options, RunDirectory, Session, artifact::Artifact, train};
//!
//! # fn main() -> trainc_runtime::Result<()> {
//! let artifact = Artifact::read("gpt.trainx")?;
//! let options = Options { threads: Some(2), ..Options::default() };
//! let directory = RunDirectory::create("runs/gpt", &artifact, &options)?;
//! let mut session = Session::new(artifact, &options)?;
//! let outcome = train(&mut session, Some(&directory), &mut (), &AtomicBool::new(false))?;
//! println!("{}", outcome.summary().to_line());
//! println!("{}", session.generate("fn main() {", &GenerateOptions::default())?);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/embed.rs` is a whole program around this.
//!
//! What holds throughout:
//! - Same artifact, seed and data: same bits, for any number of threads, and across stop and resume.
//! - The memory of a step is the arena, allocated once; a step allocates nothing.
//! - Files are replaced atomically; the last good checkpoint outlives whatever goes wrong after it.
//! - Errors say what is wrong and where; [`Error::exit_code`] sorts them for command lines.

pub mod abi;
pub mod artifact;
pub mod atomic;
pub mod chacha;
pub mod checkpoint;
pub mod code;
#[cfg(feature = "tokenizers")]
mod contained;
pub mod data;
pub mod device;
mod error;
pub mod files;
mod float_check;
mod init;
pub mod memory;
mod numbers;
pub mod philox;
pub mod privacy;
pub mod report;
mod run_directory;
mod session;
pub mod threads;
mod train;

pub use error::{Error, Result};
pub use numbers::{Numbers, Values};
pub use run_directory::{Earlier, NewRun, RunDirectory, load_newest};
pub use session::{Batch, GenerateOptions, Options, Privacy, RECORDS, Session};
pub use train::{Outcome, train};

/// Streams of the host's own draws; those of a program's are others.
pub const HOST_STREAMS: [u32; 3] = [data::permutation::STREAM, data::poisson::STREAM, session::generate::STREAM];
