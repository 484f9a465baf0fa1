//! The safetensors file: streamed from and to the arena, without a copy in between.

use crate::artifact::{DType, TensorSpec};
use safetensors::tensor::{Dtype, TensorInfo};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Longest header that is believed; the format allows as much.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Passes bytes on and digests them.
pub(super) struct DigestWriter<W: Write> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> DigestWriter<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, hasher: blake3::Hasher::new() }
    }

    pub(super) fn finish(self) -> blake3::Hash {
        self.hasher.finalize()
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn format_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::Bf16 => Dtype::BF16,
        DType::I32 => Dtype::I32,
    }
}

/// Writes tensors, wide types first so that all are aligned, then by name.
pub(super) fn write(out: &mut impl Write, tensors: &[(&TensorSpec, &[u8])]) -> io::Result<()> {
    let mut tensors = tensors.to_vec();
    tensors.sort_by_key(|(tensor, _)| (std::cmp::Reverse(tensor.dtype.bytes()), tensor.name.clone()));
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (tensor, bytes) in &tensors {
        let begin = end;
        end += bytes.len();
        let entry = json!({
            "dtype": format_dtype(tensor.dtype), "shape": tensor.shape, "data_offsets": [begin, end]
        });
        header.insert(tensor.name.clone(), entry);
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = BufWriter::new(out);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for (_, bytes) in tensors {
        out.write_all(bytes)?;
    }
    out.flush()
}

/// An open file with its table of contents.
#[derive(Debug)]
pub(super) struct TensorFile {
    file: File,
    tensors: BTreeMap<String, TensorInfo>,
    data_begin: u64,
}

impl TensorFile {
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let open = || -> io::Result<(File, Vec<u8>)> {
            let mut file = crate::files::open(path)?;
            let mut length = [0; 8];
            file.read_exact(&mut length)?;
            let header_bytes = u64::from_le_bytes(length);
            if header_bytes > MAX_HEADER_BYTES.min(file.metadata()?.len()) {
                return Err(io::Error::other("its header is longer than the file"));
            }
            let mut header = length.to_vec();
            Read::by_ref(&mut file).take(header_bytes).read_to_end(&mut header)?;
            Ok((file, header))
        };
        let (file, header) = open().map_err(|error| error.to_string())?;
        // The crate checks the table against the data, which stays on disk: hand it the table and count ourselves.
        let tensors: BTreeMap<String, TensorInfo> =
            serde_json::from_slice(&header[8..]).map_err(|error| error.to_string())?;
        let tensors = Self { file, tensors, data_begin: header.len() as u64 };
        tensors.check_extent()?;
        Ok(tensors)
    }

    fn check_extent(&self) -> Result<(), String> {
        let data_bytes = self.file.metadata().map_err(|error| error.to_string())?.len() - self.data_begin;
        let sound = |info: &TensorInfo| {
            let (begin, end) = info.data_offsets;
            let elements = info.shape.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim));
            let bytes = elements.and_then(|count| count.checked_mul(info.dtype.bitsize() / 8));
            begin <= end && end as u64 <= data_bytes && bytes == Some(end - begin)
        };
        match self.tensors.iter().find(|(_, info)| !sound(info)) {
            None => Ok(()),
            Some((name, _)) => Err(format!("tensor `{name}` does not lie in the file")),
        }
    }

    /// Whether these are exactly the tensors of a program.
    pub(super) fn check(&self, specs: &[TensorSpec]) -> Result<(), String> {
        self.check_has(specs)?;
        match self.tensors.keys().find(|name| !specs.iter().any(|spec| spec.name == **name)) {
            None => Ok(()),
            Some(name) => Err(format!("it has a tensor `{name}` that the program does not know")),
        }
    }

    /// Whether these are among the tensors.
    pub(super) fn check_has<'a>(&self, specs: impl IntoIterator<Item = &'a TensorSpec>) -> Result<(), String> {
        for spec in specs {
            let info = self.tensors.get(&spec.name).ok_or_else(|| format!("it has no tensor `{}`", spec.name))?;
            let shape: Vec<u64> = info.shape.iter().map(|&dim| dim as u64).collect();
            if info.dtype != format_dtype(spec.dtype) || shape != spec.shape {
                let (theirs, ours) = (info.dtype, spec.dtype);
                return Err(format!(
                    "tensor `{}` is {theirs:?} {shape:?}, the program has {ours:?} {:?}",
                    spec.name, spec.shape
                ));
            }
        }
        Ok(())
    }

    /// Name, type and shape of each tensor, in the order of names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, String, &[usize])> {
        self.tensors.iter().map(|(name, info)| (name.as_str(), info.dtype.to_string(), &info.shape[..]))
    }

    pub(super) fn read(&self, name: &str, out: &mut [u8]) -> io::Result<()> {
        let info = self.tensors.get(name).ok_or(io::ErrorKind::NotFound)?;
        self.file.read_exact_at(out, self.data_begin + info.data_offsets.0 as u64)
    }
}
