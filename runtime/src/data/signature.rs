//! Kinds of files that are often given in place of another, told by how they begin.

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gzip,
    Zstandard,
    Xz,
    Bzip2,
    Zip,
    Parquet,
    Hdf5,
    Numpy,
    Pickle,
    Utf16,
}

/// First bytes, and what they begin.
const SIGNATURES: [(&[u8], Kind); 13] = [
    (b"\x1f\x8b\x08", Kind::Gzip),
    (b"\x28\xb5\x2f\xfd", Kind::Zstandard),
    (b"\xfd7zXZ\x00", Kind::Xz),
    (b"BZh91AY&SY", Kind::Bzip2),
    (b"PK\x03\x04", Kind::Zip),
    (b"PK\x05\x06", Kind::Zip),
    (b"PAR1", Kind::Parquet),
    (b"\x89HDF\r\n\x1a\n", Kind::Hdf5),
    (b"\x93NUMPY", Kind::Numpy),
    (b"\x80\x04\x95", Kind::Pickle),
    (b"\x80\x05\x95", Kind::Pickle),
    (b"\xff\xfe", Kind::Utf16),
    (b"\xfe\xff", Kind::Utf16),
];

impl Kind {
    /// The kind of a file that begins with `head`, if it is one of these.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        SIGNATURES.iter().find(|(signature, _)| head.starts_with(signature)).map(|&(_, kind)| kind)
    }

    /// What such a file is, and what to make of it for a source that takes `wanted`.
    pub(super) fn instead_of(self, wanted: &str) -> String {
        let (is, remedy) = match self {
            Kind::Gzip => ("compressed by gzip", "unpack it with gunzip"),
            Kind::Zstandard => ("compressed by zstd", "unpack it with unzstd"),
            Kind::Xz => ("compressed by xz", "unpack it with unxz"),
            Kind::Bzip2 => ("compressed by bzip2", "unpack it with bunzip2"),
            Kind::Zip => ("a ZIP archive (.npz files are such)", "unpack it, or read arrays with `arrays`"),
            Kind::Parquet => ("a Parquet file", "write it as CSV, JSON lines or .npz"),
            Kind::Hdf5 => ("an HDF5 file", "write its arrays with numpy.savez"),
            Kind::Numpy => ("a NumPy array (.npy)", "read it with `arrays`, or write its numbers with tofile"),
            Kind::Pickle => ("a Python pickle", "write its arrays with numpy.savez"),
            Kind::Utf16 => ("text in UTF-16", "convert it to UTF-8"),
        };
        format!("it is {is}, not {wanted}: {remedy}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_numbers_are_of_no_such_kind() {
        for head in ["", "a,b", "1,2\n", "{\"text\": 1}", "\u{feff}1,2", "PKW,1", "P"] {
            assert_eq!(Kind::of(head.as_bytes()), None, "{head:?}");
        }
        assert_eq!(Kind::of(&[1, 0, 2, 0]), None);
        assert_eq!(Kind::of(b"\x1f\x8b\x08"), Some(Kind::Gzip));
    }
}
