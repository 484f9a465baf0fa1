//! Data of all kinds, as batches see it, and data that cannot be used.

mod changed;
mod foreign;
mod numbers;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "tokenizers")]
mod tokenizers;

use std::fs;
use std::io::Write;
use std::path::Path;
use tempfile::TempDir;
use trainc_runtime::artifact::*;
use trainc_runtime::data::{Data, DataError, Need, Split, hash, unit};

fn spec(source: Source, valid_fraction: f64, shuffle: bool) -> DataSpec {
    DataSpec { name: "D".into(), source, valid_fraction, shuffle }
}

fn binding(field: &str, shift: u64, dtype: DType, shape: &[u64], below: Option<u64>) -> InputBinding {
    InputBinding { name: field.into(), field: field.into(), shift, dtype, shape: shape.into(), offset: 0, below }
}

/// Inputs and targets of a language model: `batch` records of `context` tokens below `vocabulary`.
fn language(batch: u64, context: u64, vocabulary: u64) -> Vec<InputBinding> {
    [0, 1].map(|shift| binding("tokens", shift, DType::I32, &[batch, context], Some(vocabulary))).into()
}

fn open(spec: &DataSpec, inputs: &[InputBinding], base: &Path) -> Result<Data, DataError> {
    let entry = Entry {
        name: "step".into(),
        mask: None,
        totals: vec![],
        inputs: inputs.into(),
        outputs: vec![],
        launches: vec![],
    };
    Data::open(spec, &Need::of(&entry.inputs).unwrap(), base)
}

fn complaint(spec: &DataSpec, inputs: &[InputBinding], base: &Path) -> String {
    open(spec, inputs, base).err().expect("the data cannot be used").to_string()
}

fn integers(data: &Data, split: Split, input: &InputBinding, position: u64, seed: u64) -> Vec<i32> {
    let mut out = vec![0i32; input.shape.iter().product::<u64>() as usize];
    data.feed(split, input, position, seed, bytemuck::cast_slice_mut(&mut out)).unwrap();
    out
}

fn floats(data: &Data, split: Split, input: &InputBinding, position: u64) -> Vec<f32> {
    let mut out = vec![0f32; input.shape.iter().product::<u64>() as usize];
    data.feed(split, input, position, 1, bytemuck::cast_slice_mut(&mut out)).unwrap();
    out
}

fn text(paths: &[&str], tokenizer: TokenizerSpec) -> Source {
    Source::Text { paths: paths.iter().map(|&path| path.into()).collect(), tokenizer }
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        fs::write(folder.path().join(name), contents).unwrap();
    }
    folder
}

#[test]
fn text_becomes_bytes_with_a_newline_after_each_document() {
    let base = folder(&[("b.txt", b"456\xff"), ("a.txt", b"0123"), ("empty.txt", b"")]);
    let inputs = language(2, 3, 256);
    let data = open(&spec(text(&["*.txt"], TokenizerSpec::Bytes), 0.0, false), &inputs, base.path()).unwrap();
    assert_eq!((data.train_records(), data.valid_records()), (3, 0));
    let bytes = |text: &[u8]| text.iter().map(|&byte| i32::from(byte)).collect::<Vec<_>>();
    assert_eq!(integers(&data, Split::Train, &inputs[0], 0, 1), bytes(b"0123\n4"));
    assert_eq!(integers(&data, Split::Train, &inputs[1], 0, 1), bytes(b"123\n45"));
    assert_eq!(integers(&data, Split::Train, &inputs[0], 2, 1), bytes(b"56\xff012"), "the epoch begins again");
}

#[test]
fn every_epoch_visits_every_record_once_in_another_order() {
    let base = folder(&[("a.txt", &(0..=254).collect::<Vec<u8>>())]);
    let inputs = language(1, 5, 256);
    let source = text(&["a.txt"], TokenizerSpec::Bytes);
    let data = open(&spec(source, 0.2, true), &inputs, base.path()).unwrap();
    let records = data.train_records();
    let first = |position, seed| integers(&data, Split::Train, &inputs[0], position, seed)[0];
    let epoch = |epoch: u64, seed| (0..records).map(|i| first(epoch * records + i, seed)).collect::<Vec<_>>();
    let orders = [epoch(0, 1), epoch(1, 1), epoch(0, 2)];
    assert!(orders[0] != orders[1] && orders[0] != orders[2] && orders[1] != orders[2]);
    let sorted = orders.map(|mut order| {
        order.sort_unstable();
        order
    });
    assert!(sorted.iter().all(|order| *order == (0..records as i32).map(|i| i * 5).collect::<Vec<_>>()));
    let valid: Vec<_> = (0..data.valid_records()).map(|i| integers(&data, Split::Valid, &inputs[0], i, 1)[0]).collect();
    assert!(valid.windows(2).all(|pair| pair[1] == pair[0] + 5) && valid[0] >= (records * 5) as i32);
}

#[test]
fn json_lines_give_the_text_of_a_member() {
    let base = folder(&[("a.jsonl", b"{\"text\": \"ab\", \"id\": 1}\n\n{\"id\": 2, \"text\": \"\\u00e9\"}\n")]);
    let source = |member: &str| Source::Jsonl {
        paths: vec!["a.jsonl".into()],
        member: member.into(),
        tokenizer: TokenizerSpec::Bytes,
    };
    let inputs = [binding("tokens", 0, DType::I32, &[1, 6], Some(256))];
    let data = open(&spec(source("text"), 0.0, false), &inputs, base.path()).unwrap();
    assert_eq!(integers(&data, Split::Train, &inputs[0], 0, 1), [97, 98, 10, 0xc3, 0xa9, 10]);
    let complain = |member| complaint(&spec(source(member), 0.0, false), &inputs, base.path());
    assert!(
        complain("body").ends_with("a.jsonl:1: no member `body` (there are: `id`, `text`)"),
        "{}",
        complain("body")
    );
    assert!(complain("id").ends_with("a.jsonl:1: the member `id` is not a string"));
    for (line, problem) in
        [(&b"[1]"[..], "not a JSON object"), (b"{", "not JSON"), (b"\"\xff\"", "not UTF-8 from byte 1")]
    {
        let bad = [b"{\"text\":\"x\"}\n", line].concat();
        fs::write(base.path().join("a.jsonl"), bad).unwrap();
        let complaint = complain("text");
        assert!(complaint.contains(&format!("a.jsonl:2: {problem}")), "{complaint}");
    }
}

#[test]
fn token_files_are_read_in_place_and_checked() {
    let ids = |ids: &[u16]| ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>();
    let base = folder(&[("a.bin", &ids(&[1, 500, 3])), ("b.bin", &ids(&[4, 5, 6]))]);
    let source = |width| Source::Tokens { paths: vec!["*.bin".into()], width };
    let inputs = language(1, 4, 501);
    let data = open(&spec(source(2), 0.0, false), &inputs, base.path()).unwrap();
    assert_eq!(integers(&data, Split::Train, &inputs[1], 0, 1), [500, 3, 4, 5]);
    let complain = |width, inputs: &[InputBinding]| complaint(&spec(source(width), 0.0, false), inputs, base.path());
    assert!(complain(2, &language(1, 4, 500)).contains("token 1 is 500, but the model's vocabulary is 500"));
    assert!(complain(4, &inputs).contains("6 bytes are not a whole number of 4-byte tokens"));
    assert!(complain(3, &inputs).contains("ids of 3 bytes"));
}

fn digits(header: bool, name: &str) -> Source {
    let field = |name: &str, first, count, scale| CsvField { name: name.into(), first, count, scale };
    let fields = vec![field("x", 0, 2, 0.5), field("y", 2, 1, 1.0)];
    Source::Csv { paths: vec![name.into()], header, fields }
}

fn digit_inputs(batch: u64) -> Vec<InputBinding> {
    vec![binding("x", 0, DType::F32, &[batch, 2], None), binding("y", 0, DType::I32, &[batch], Some(10))]
}

#[test]
fn csv_columns_become_fields() {
    let rows: String = (0..20).map(|i| format!("{i}, {}, {}\n", i * 2, i % 10)).collect();
    let base = folder(&[("a.csv", format!("p,q,label\n{rows}").as_bytes())]);
    let inputs = digit_inputs(3);
    let data = open(&spec(digits(true, "a.csv"), 0.25, false), &inputs, base.path()).unwrap();
    assert_eq!((data.train_records(), data.valid_records()), (15, 5));
    assert_eq!(floats(&data, Split::Train, &inputs[0], 2), [1.0, 2.0, 1.5, 3.0, 2.0, 4.0]);
    assert_eq!(integers(&data, Split::Valid, &inputs[1], 0, 1), [5, 6, 7], "in file order the end is held out");
    let shuffled = open(&spec(digits(true, "a.csv"), 0.25, true), &inputs, base.path()).unwrap();
    let rows = |split, count| -> Vec<i32> {
        (0..count)
            .map(|i| (floats(&shuffled, split, &binding("x", 0, DType::F32, &[1, 2], None), i)[1]) as i32)
            .collect()
    };
    let mut all = [rows(Split::Train, 15), rows(Split::Valid, 5)].concat();
    assert_ne!(all, (0..20).collect::<Vec<_>>());
    all.sort_unstable();
    assert_eq!(all, (0..20).collect::<Vec<_>>(), "training and held-out rows make up the table");
}

#[test]
fn faulty_tables_are_named_with_line_and_column() {
    let cases: [(&[u8], &str); 8] = [
        (b"1,2,3\n1,2\n", "a.csv:2: 2 columns, but the lines before have 3"),
        (b"1,2\n", "a.csv:1: 2 columns, but field `y` needs 3"),
        (b"1,2,3\n1,two,3\n", "a.csv:2: column 2: `two` is not a number"),
        (b"1,\xff,3\n", "a.csv:1: column 2: it is not UTF-8"),
        (b"1,2,10\n", "a.csv:1: column 3: field `y` holds 10, but the model takes integers from 0 to 9"),
        (b"1,2,3\n\n1,2,1.5\n", "a.csv:3: column 3: field `y` holds 1.5, but the model takes integers"),
        (b"1,nan,1\n", "holds NaN, but the model takes finite numbers"),
        (b"", "does not fit the model: it has no records"),
    ];
    for (contents, expected) in cases {
        let base = folder(&[("a.csv", contents)]);
        let complaint = complaint(&spec(digits(false, "a.csv"), 0.0, true), &digit_inputs(1), base.path());
        assert!(complaint.contains(expected), "{complaint:?} should say {expected:?}");
    }
}

#[test]
fn data_that_does_not_fit_the_model_is_refused_in_words() {
    let base = folder(&[("a.csv", b"1,2,3\n"), ("a.txt", b"0123456789"), ("none.txt", b"")]);
    let bytes = |path: &str| spec(text(&[path], TokenizerSpec::Bytes), 0.0, true);
    let table = spec(digits(false, "a.csv"), 0.0, true);
    let x = |shape: &[u64]| [binding("x", 0, DType::F32, shape, None)];
    let cases = [
        (complaint(&bytes("*.rs"), &language(1, 4, 256), base.path()), "no file matches"),
        (complaint(&bytes("b.txt"), &language(1, 4, 256), base.path()), "no file matches"),
        (
            complaint(&bytes("none.txt"), &language(1, 4, 256), base.path()),
            "0 tokens for training do not make one record of 5",
        ),
        (
            complaint(&bytes("a.txt"), &language(1, 20, 256), base.path()),
            "11 tokens for training do not make one record of 21",
        ),
        (complaint(&bytes("a.txt"), &language(3, 4, 256), base.path()), "a batch takes 3 records, and there are 2"),
        (
            complaint(&bytes("a.txt"), &language(1, 4, 128), base.path()),
            "has ids up to 255, but the model takes those below 128",
        ),
        (complaint(&bytes("a.txt"), &x(&[1, 2]), base.path()), "needs a field `x`, the data has `tokens`"),
        (complaint(&table, &language(1, 4, 256), base.path()), "needs a field `tokens`, the data has `x`, `y`"),
        (complaint(&table, &x(&[1, 4]), base.path()), "field `x` has 2 numbers per record, the model takes 4"),
        (complaint(&table, &x(&[2, 2]), base.path()), "a batch takes 2 records, and there are 1 to train on"),
    ];
    for (complaint, expected) in cases {
        assert!(complaint.contains(expected), "{complaint:?} should say {expected:?}");
    }
    let held_out = DataSpec { valid_fraction: 0.3, ..bytes("a.txt") };
    let complaint = complaint(&held_out, &language(1, 4, 256), base.path());
    assert!(complaint.contains("3 tokens for evaluation do not make one record"), "{complaint}");
}

/// A `.npy` array in format 1.0.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while !(header.len() + 11).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A ZIP archive as `numpy.savez` lays it out (`method` 0), or `numpy.savez_compressed` (8).
fn npz(members: &[(&str, &[u8])], method: u8) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in members {
        let name = format!("{name}.npy");
        let mut crc = flate2::Crc::new();
        crc.update(data);
        let packed = if method == 8 { deflated(data) } else { data.to_vec() };
        let [crc, packed_size, size] = [crc.sum(), packed.len() as u32, data.len() as u32].map(u32::to_le_bytes);
        let lengths = [name.len() as u8, 0];
        let local = (bytes.len() as u32).to_le_bytes();
        let common = [&[20, 0, 0, 0, method, 0, 0, 0, 0, 0][..], &crc, &packed_size, &size, &lengths].concat();
        directory.extend([b"PK\x01\x02\x14\x00", &common[..], &[0; 12], &local, name.as_bytes()].concat());
        bytes.extend([b"PK\x03\x04", &common[..], &[3, 0], name.as_bytes(), b"pad", &packed].concat());
    }
    let offset = bytes.len() as u32;
    let count = members.len() as u8;
    bytes.extend(&directory);
    bytes.extend([b"PK\x05\x06\x00\x00\x00\x00".as_slice(), &[count, 0, count, 0]].concat());
    bytes.extend((directory.len() as u32).to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn arrays(path: &str) -> DataSpec {
    let fields = vec![("x".to_owned(), "images".to_owned()), ("y".to_owned(), "labels".to_owned())];
    spec(Source::Arrays { path: path.into(), fields }, 0.0, false)
}

#[test]
fn numpy_arrays_of_all_kinds_are_converted() {
    let images = npy("<f8", "(3, 2)", bytemuck::cast_slice(&[0.5f64, 1.5, 2.5, 3.5, 4.5, 5.5]));
    let labels = npy("<i8", "(3,)", bytemuck::cast_slice(&[7i64, 8, 9]));
    let base = folder(&[
        ("a.npz", &npz(&[("images", &images), ("labels", &labels)], 0)),
        ("packed.npz", &npz(&[("images", &images), ("labels", &labels)], 8)),
        ("other.npz", &npz(&[("images", &images), ("targets", &labels)], 0)),
        ("x.npy", &npy("|u1", "(2, 1, 2)", &[1, 2, 3, 4])),
    ]);
    let mut fortran = npy("|u1", "(2, 2)", b"1234");
    let order = fortran.windows(5).position(|window| window == b"False").unwrap();
    fortran[order..order + 5].copy_from_slice(b"True ");
    fs::write(base.path().join("fortran.npy"), fortran).unwrap();
    let inputs = digit_inputs(3);
    let data = open(&arrays("a.npz"), &inputs, base.path()).unwrap();
    assert_eq!(floats(&data, Split::Train, &inputs[0], 0), [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]);
    assert_eq!(integers(&data, Split::Train, &inputs[1], 0, 1), [7, 8, 9]);
    let one = |path: &str| {
        let fields = vec![("x".to_owned(), "x".to_owned())];
        spec(Source::Arrays { path: path.into(), fields }, 0.0, false)
    };
    let x = [binding("x", 0, DType::F32, &[2, 2], None)];
    assert_eq!(floats(&open(&one("x.npy"), &x, base.path()).unwrap(), Split::Train, &x[0], 0), [1.0, 2.0, 3.0, 4.0]);
    let packed = open(&arrays("packed.npz"), &inputs, base.path()).unwrap();
    assert_eq!(floats(&packed, Split::Train, &inputs[0], 0), [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]);
    assert_eq!(integers(&packed, Split::Train, &inputs[1], 0, 1), [7, 8, 9]);
    let missing = complaint(&arrays("other.npz"), &inputs, base.path());
    assert!(missing.contains("no array `labels` in it (there are: `images`, `targets`)"), "{missing}");
    assert!(complaint(&one("fortran.npy"), &x, base.path()).contains("Fortran order"));
    assert!(complaint(&one("none.npy"), &x, base.path()).contains("none.npy: No such file"));
}

/// What a directory says of sizes is not believed.
#[test]
fn compressed_arrays_that_lie_are_refused() {
    let images = npy("|u1", "(2, 2000000)", &vec![0; 4_000_000]);
    let archive = npz(&[("images", &images), ("labels", &npy("|u1", "(2,)", &[0, 1]))], 8);
    assert!(archive.len() < 10_000, "it is well packed");
    let directory = archive.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    let with = |field: usize, value: u32| {
        let mut bytes = archive.clone();
        bytes[directory + field..directory + field + 4].copy_from_slice(&value.to_le_bytes());
        let base = folder(&[("a.npz", &bytes)]);
        complaint(&arrays("a.npz"), &digit_inputs(1), base.path())
    };
    let (checksum, packed, size) = (16, 20, 24);
    assert!(with(size, 0xffff_fff0).contains("so few bytes cannot hold"), "nothing is allocated for 4 GB");
    assert!(with(size, 1000).contains("size or checksum is wrong"), "the stream goes on: a bomb is left alone");
    assert!(with(size, 4_100_000).contains("size or checksum is wrong"));
    assert!(with(checksum, 1).contains("size or checksum is wrong"));
    assert!(with(packed, 2000).contains("damaged"), "{}", with(packed, 2000));
    assert!(with(packed, 1 << 30).contains("incomplete"));
}

#[test]
fn damaged_arrays_never_panic() {
    let array = npy("<f4", "(2, 2)", &[0; 16]);
    let [stored, packed] =
        [0, 8].map(|method| npz(&[("images", &array), ("labels", &npy("|u1", "(2,)", &[0, 1]))], method));
    let base = folder(&[]);
    for intact in [array, stored, packed] {
        for place in 0..intact.len() {
            for byte in [0, 0x28, 0x39, 0xff] {
                let mut bytes = intact.clone();
                bytes[place] = byte;
                fs::write(base.path().join("a.npz"), &bytes).unwrap();
                drop(open(&arrays("a.npz"), &digit_inputs(1), base.path()));
            }
            fs::write(base.path().join("a.npz"), &intact[..place]).unwrap();
            assert!(open(&arrays("a.npz"), &digit_inputs(1), base.path()).is_err(), "cut to {place}");
        }
    }
}

#[test]
fn hashed_batches_are_the_documented_ones_at_every_step() {
    let field = |name: &str, stream, below| HashField { name: name.into(), stream, below };
    let fields = vec![field("tokens", 1000, Some(50)), field("x", 200, None)];
    let spec = spec(Source::Hash { fields }, 0.0, true);
    let mut inputs = language(3, 4, 50);
    inputs.push(binding("x", 0, DType::F32, &[3, 2], None));
    let data = open(&spec, &inputs, Path::new(".")).unwrap();
    let token = |b: u64, t: u64| (hash(1000, b * 5 + t) % 50) as i32;
    let targets: Vec<_> = (0..3).flat_map(|b| (1..5).map(move |t| token(b, t))).collect();
    let x: Vec<_> = (0..6).map(|i| unit(200, i) as f32).collect();
    for step in 0..3 {
        assert_eq!(integers(&data, Split::Train, &inputs[1], step * 3, 1), targets);
        assert_eq!(floats(&data, Split::Train, &inputs[2], step * 3), x);
    }
    assert_eq!(integers(&data, Split::Valid, &inputs[1], 0, 1), targets);
    let mut small = inputs.clone();
    small.iter_mut().for_each(|input| input.below = input.below.map(|_| 49));
    assert!(complaint(&spec, &small, Path::new(".")).contains("field `tokens` has integers below 50"));
}
