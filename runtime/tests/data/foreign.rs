//! Files that are not what a program takes them for, and what is no file.

use super::*;

fn token_ids(width: u8) -> DataSpec {
    spec(Source::Tokens { paths: vec!["a.bin".into()], width }, 0.0, false)
}

fn written(ids: impl IntoIterator<Item = u64>, width: usize) -> Vec<u8> {
    ids.into_iter().flat_map(|id| id.to_le_bytes()[..width].to_vec()).collect()
}

#[test]
fn token_files_that_hold_something_else_are_recognised() {
    let ids = || (0..100).map(|id| id * 7 % 500);
    let llm_c = |magic: u64, width: usize| {
        let header = [magic, 1, 100].into_iter().chain([0; 253]);
        [written(header, 4), written(ids(), width)].concat()
    };
    let cases = [
        (2, written(ids(), 4), "its ids have 4 bytes, not 2, since every other one would be 0: say `width 4`"),
        (2, written(ids(), 8), "its ids have 8 bytes, not 2"),
        (4, written(ids(), 8), "its ids have 8 bytes, not 4"),
        (4, written(ids(), 2), "as two ids of 2 bytes it would be 0 and 7: `width 2`?"),
        (2, llm_c(20_240_520, 2), "it begins with the header of llm.c"),
        (4, llm_c(20_240_801, 4), "it begins with the header of llm.c"),
        (2, npy("<u2", "(100,)", &written(ids(), 2)), "it is a NumPy array (.npy), not raw token ids"),
        (2, npz(&[("ids", &npy("<u2", "(100,)", &written(ids(), 2)))], 0), "it is a ZIP archive (.npz files are such)"),
        (2, b"\x1f\x8b\x08\x00\x00\x00".to_vec(), "it is compressed by gzip, not raw token ids: unpack it with gunzip"),
        (2, b"PAR1 and so on".to_vec(), "it is a Parquet file, not raw token ids"),
    ];
    for (width, contents, expected) in cases {
        let base = folder(&[("a.bin", &contents)]);
        let complaint = complaint(&token_ids(width), &language(1, 4, 500), base.path());
        assert!(complaint.contains(expected), "{complaint:?} should say {expected:?}");
    }
    let inputs = language(1, 4, 500);
    for width in [2, 4] {
        let base = folder(&[("a.bin", &written(ids(), width.into()))]);
        let data = open(&token_ids(width), &inputs, base.path()).unwrap();
        assert_eq!(integers(&data, Split::Train, &inputs[0], 0, 1), [0, 7, 14, 21]);
    }
}

/// Where a model has no bound, ids end where its integers do.
#[test]
fn ids_beyond_the_models_integers_are_refused_without_a_vocabulary() {
    let base = folder(&[("a.bin", &written([1, 1 << 31, 3, 4], 4))]);
    let mut inputs = language(1, 2, 1);
    inputs.iter_mut().for_each(|input| input.below = None);
    let complaint = complaint(&token_ids(4), &inputs, base.path());
    assert!(complaint.contains("token 1 is 2147483648"), "{complaint}");
}

fn json_lines() -> DataSpec {
    let source =
        Source::Jsonl { paths: vec!["a.jsonl".into()], member: "text".into(), tokenizer: TokenizerSpec::Bytes };
    spec(source, 0.0, false)
}

#[test]
fn a_byte_order_mark_is_no_part_of_json() {
    let inputs = [binding("tokens", 0, DType::I32, &[1, 3], Some(256))];
    let base = folder(&[("a.jsonl", b"\xef\xbb\xbf{\"text\": \"a\"}\n{\"text\": \"b\"}\n")]);
    let data = open(&json_lines(), &inputs, base.path()).unwrap();
    assert_eq!(integers(&data, Split::Train, &inputs[0], 0, 1), [97, 10, 98]);
    for (contents, expected) in [
        (&b"\x1f\x8b\x08\x00"[..], "it is compressed by gzip, not JSON lines"),
        (b"\xff\xfe{\0", "it is text in UTF-16, not JSON lines"),
        (b"PAR1", "it is a Parquet file, not JSON lines"),
    ] {
        let base = folder(&[("a.jsonl", contents)]);
        assert!(complaint(&json_lines(), &inputs, base.path()).contains(expected));
    }
}

#[test]
fn archives_that_are_none_of_numpy_are_named() {
    let inputs = digit_inputs(1);
    for (contents, expected) in [
        (&b"\x1f\x8b\x08\x00"[..], "a.npz: it is compressed by gzip, not an array of NumPy: unpack it with gunzip"),
        (b"PAR1", "a.npz: it is a Parquet file"),
        (b"\x89HDF\r\n\x1a\n", "a.npz: it is an HDF5 file"),
        (b"\x80\x04\x95", "a.npz: it is a Python pickle"),
    ] {
        let base = folder(&[("a.npz", contents)]);
        let complaint = complaint(&arrays("a.npz"), &inputs, base.path());
        assert!(complaint.contains(expected), "{complaint}");
    }
}

/// Nobody writes to the pipe: whoever opened it to read would wait for ever.
#[test]
fn pipes_and_devices_are_refused_wherever_a_file_is_read() {
    let base = folder(&[("a.txt", b"0123456789")]);
    let pipe = base.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (path, expected) in [("pipe", "it is a named pipe, not a regular file"), ("/dev/zero", "it is a device")] {
        let sources = [
            text(&[path], TokenizerSpec::Bytes),
            text(&["a.txt"], TokenizerSpec::HuggingFace { path: path.into() }),
            Source::Jsonl { paths: vec![path.into()], member: "text".into(), tokenizer: TokenizerSpec::Bytes },
            Source::Tokens { paths: vec![path.into()], width: 2 },
        ];
        for source in sources {
            let complaint = complaint(&spec(source, 0.0, false), &language(1, 4, 256), base.path());
            assert!(complaint.contains(expected), "{complaint}");
        }
        for spec in [spec(digits(false, path), 0.0, false), arrays(path)] {
            let complaint = complaint(&spec, &digit_inputs(1), base.path());
            assert!(complaint.contains(expected), "{complaint}");
        }
    }
    let texts = [text(&["/proc/self/status"], TokenizerSpec::Bytes)];
    let complaint = complaint(&spec(texts[0].clone(), 0.0, false), &language(1, 4, 256), base.path());
    assert!(complaint.contains("the system makes it up"), "{complaint}");
}
