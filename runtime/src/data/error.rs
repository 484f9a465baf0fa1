use std::io;
use std::path::PathBuf;

/// Why data cannot be used, with the place to look at.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A glob that is none.
    #[error("`{pattern}` is not a valid file pattern: {reason}")]
    Pattern {
        /// As written in the program.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `~` without a home.
    #[error("`{pattern}` needs a home directory, and HOME is not set")]
    NoHome {
        /// As written in the program.
        pattern: String,
    },
    /// A glob without files.
    #[error("no file matches `{pattern}`")]
    NoFiles {
        /// Expanded.
        pattern: String,
    },
    /// The file system's answer.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        error: io::Error,
    },
    /// A file that does not hold what it should.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A line that does not hold what it should.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The tokenizer cannot be used.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// Data that this model cannot take.
    #[error("the data `{data}` does not fit the model: {problem}")]
    Misfit {
        /// The data clause's name.
        data: String,
        /// What does not fit and what would.
        problem: String,
    },
    /// A value outside what the model can take, found while feeding.
    #[error("field `{field}` of record {record} holds {value}, but the model takes integers from 0 to {}", below - 1)]
    OutOfRange {
        /// The field.
        field: String,
        /// The record's position in the data.
        record: u64,
        /// The offender.
        value: i64,
        /// Exclusive bound.
        below: u64,
    },
    /// The temporary file for a large corpus.
    #[error("cannot keep the tokens in a temporary file in {}: {error} (TMPDIR chooses another place)", path.display())]
    Spill {
        /// The directory.
        path: PathBuf,
        /// What went wrong.
        #[source]
        error: io::Error,
    },
}

impl DataError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { path, error }
    }

    pub(crate) fn file(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::File { path: path.into(), problem: problem.into() }
    }

    pub(crate) fn line(path: impl Into<PathBuf>, line: u64, problem: impl Into<String>) -> Self {
        Self::Line { path: path.into(), line, problem: problem.into() }
    }
}
