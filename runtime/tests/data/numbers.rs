//! Numbers of tables and arrays arrive as they were written, or not at all.

use super::*;

/// `id` for an integer of any size, `y` for a number.
fn ids(batch: u64) -> Vec<InputBinding> {
    vec![binding("id", 0, DType::I32, &[batch], None), binding("y", 0, DType::F32, &[batch, 1], None)]
}

fn table() -> DataSpec {
    let field = |name: &str, first| CsvField { name: name.into(), first, count: 1, scale: 1.0 };
    let fields = vec![field("id", 0), field("y", 1)];
    spec(Source::Csv { paths: vec!["a.csv".into()], header: false, fields }, 0.0, false)
}

/// Neighbours that f32 does not tell apart, and the ends of the range.
#[test]
fn integers_of_a_table_keep_all_their_digits() {
    let expected = [16_777_217, 16_777_216, -16_777_219, 123_456_789, i32::MAX, i32::MIN];
    let rows: String = expected.iter().map(|id| format!("{id},{id}\n")).collect();
    let base = folder(&[("a.csv", rows.as_bytes())]);
    let inputs = ids(6);
    let data = open(&table(), &inputs, base.path()).unwrap();
    assert_eq!(integers(&data, Split::Train, &inputs[0], 0, 1), expected);
    assert_eq!(floats(&data, Split::Train, &inputs[1], 0), expected.map(|id| id as f32));
}

/// More than is read at once, so that numbers are cut in two where a part ends.
#[test]
fn a_long_table_is_read_in_parts() {
    let ends = ["\n", "\r\n", "\n\n"];
    let row = |row: i32| format!(" {},\"{}.5\"{}", row * 50_021, row, ends[row as usize % 3]);
    let base = folder(&[("a.csv", (0..40_000).map(row).collect::<String>().as_bytes())]);
    let inputs = ids(40_000);
    let data = open(&table(), &inputs, base.path()).unwrap();
    let expected: Vec<i32> = (0..40_000).map(|row| row * 50_021).collect();
    assert_eq!(integers(&data, Split::Train, &inputs[0], 0, 1), expected);
    let expected: Vec<f32> = (0..40_000).map(|row| row as f32 + 0.5).collect();
    assert_eq!(floats(&data, Split::Train, &inputs[1], 0), expected);
}

#[test]
fn a_cell_that_is_no_such_number_is_named_with_its_line() {
    let cases: [(&[u8], &str); 13] = [
        (
            b"1,2\n2147483648,2\n",
            "a.csv:2: column 1: field `id` holds 2147483648, but the model takes integers from -2147483648",
        ),
        (b"1,2\n\n\n1.5,2", "a.csv:4: column 1: field `id` holds 1.5, but the model takes integers"),
        (
            b"1,2\r\n3,1e39\r\n",
            "a.csv:2: column 2: field `y` holds 1000000000000000000000000000000000000000, but the model takes numbers of at most 3.4028234663852886e38",
        ),
        (b"1,2\n3,inf\n", "a.csv:2: column 2: field `y` holds inf, but the model takes finite numbers"),
        (b"1,2\n3,\n", "a.csv:2: column 2: it is empty: every cell of a field holds a number"),
        (b"1;2\n3;4\n", "a.csv:1: column 1: `1;2` is not a number (columns are separated by commas, not by `;`)"),
        (b"1,5;2,5\n", "a.csv:1: column 2: `5;2` is not a number (columns are separated by commas, not by `;`)"),
        (b"1\t2\n", "a.csv:1: column 1: `1\t2` is not a number (columns are separated by commas, not by tabs)"),
        (
            b"id,y\n1,2\n",
            "a.csv:1: column 1: `id` is not a number (if the first line names the columns, write `header yes`)",
        ),
        (b"\"id\",\"y\"\n1,2\n", "`id` is not a number (if the first line names the columns, write `header yes`)"),
        (b"1,2\nid,y\n", "a.csv:2: column 1: `id` is not a number"),
        (b"1,2\n3\n", "a.csv:2: 1 columns, but the lines before have 2"),
        (b"\xff\xfe1\0,\0", "a.csv: it is text in UTF-16, not comma-separated text: convert it to UTF-8"),
    ];
    for (contents, expected) in cases {
        let base = folder(&[("a.csv", contents)]);
        let complaint = complaint(&table(), &ids(1), base.path());
        assert!(complaint.contains(expected), "{complaint:?} should say {expected:?}");
        assert!(!complaint.contains("a.csv:2: column 1: `id` is not a number ("), "only a first line names columns");
    }
    let long = format!("{}x,2\n", "1".repeat(5000));
    let base = folder(&[("a.csv", long.as_bytes())]);
    assert!(complaint(&table(), &ids(1), base.path()).contains("`11111111111111111111...` is not a number"));
}

/// Columns that no field takes may hold anything, and a mark of the byte order is no part of the first number.
#[test]
fn only_the_cells_of_fields_need_be_numbers() {
    let long = "long text ".repeat(1000);
    let rows = format!("\u{feff}7,8,\"{long}\"\n9,10,\"a \"\"b\"\",\n;c\"\n11,12,");
    let base = folder(&[("a.csv", &[rows.as_bytes(), b"\xff\n"].concat())]);
    let inputs = ids(3);
    let data = open(&table(), &inputs, base.path()).unwrap();
    assert_eq!(integers(&data, Split::Train, &inputs[0], 0, 1), [7, 9, 11]);
    assert_eq!(floats(&data, Split::Train, &inputs[1], 0), [8.0, 10.0, 12.0]);
}

/// Eight million columns in one line, of which two count. Only growth is measured: tests may share a process.
#[test]
fn a_line_of_any_length_takes_no_memory() {
    let base = folder(&[("a.csv", "1,".repeat(8 << 20).as_bytes())]);
    let before = trainc_runtime::report::peak_memory().unwrap();
    let data = open(&table(), &ids(1), base.path()).unwrap();
    let grown = trainc_runtime::report::peak_memory().unwrap() - before;
    assert_eq!(data.train_records(), 1);
    assert!(grown < 32 << 20, "{grown} bytes");
}

fn array_fields() -> DataSpec {
    let fields = vec![("id".to_owned(), "id".to_owned()), ("y".to_owned(), "y".to_owned())];
    spec(Source::Arrays { path: "a.npz".into(), fields }, 0.0, false)
}

fn write_arrays(base: &Path, id: (&str, &[u8]), y: (&str, &[u8])) {
    let array = |(descr, bytes): (&str, &[u8])| npy(descr, "(2,)", bytes);
    let (id, y) = (array(id), array(y));
    fs::write(base.join("a.npz"), npz(&[("id", &id), ("y", &y)], 0)).unwrap();
}

/// Every type of NumPy's numbers up to 64 bits, in both byte orders, against Rust's own encodings.
#[test]
fn arrays_of_every_number_type_are_converted() {
    fn both<const N: usize>(kind: &str, little: [[u8; N]; 2]) -> [(String, Vec<u8>); 2] {
        let big = little.map(|mut bytes| {
            bytes.reverse();
            bytes
        });
        [(format!("<{kind}"), little.concat()), (format!(">{kind}"), big.concat())]
    }
    let integers_of = [
        both("u1", [100u8, 200].map(u8::to_le_bytes)),
        both("u2", [100u16, 60_000].map(u16::to_le_bytes)),
        both("i2", [100i16, -30_000].map(i16::to_le_bytes)),
        both("u4", [100u32, 16_777_217].map(u32::to_le_bytes)),
        both("i4", [100i32, -16_777_217].map(i32::to_le_bytes)),
        both("u8", [100u64, 16_777_217].map(u64::to_le_bytes)),
        both("i8", [100i64, -16_777_217].map(i64::to_le_bytes)),
    ];
    let second = [200, 60_000, -30_000, 16_777_217, -16_777_217, 16_777_217, -16_777_217];
    let floats_of = [
        both("f2", [half::f16::from_f32(0.5), half::f16::from_f32(-2.5)].map(half::f16::to_le_bytes)),
        both("f4", [0.5f32, -2.5].map(f32::to_le_bytes)),
        both("f8", [0.5f64, -2.5].map(f64::to_le_bytes)),
    ];
    let base = folder(&[]);
    let inputs = ids(2);
    for (orders, second) in integers_of.iter().zip(second) {
        for ((descr, bytes), y) in orders.iter().flat_map(|id| floats_of.iter().flatten().map(move |y| (id, y))) {
            write_arrays(base.path(), (descr, bytes), (&y.0, &y.1));
            let data = open(&array_fields(), &inputs, base.path()).unwrap();
            assert_eq!(integers(&data, Split::Train, &inputs[0], 0, 1), [100, second], "{descr}");
            assert_eq!(floats(&data, Split::Train, &inputs[1], 0), [0.5, -2.5], "{}", y.0);
        }
    }
}

#[test]
fn numbers_that_a_model_cannot_hold_are_refused() {
    let base = folder(&[]);
    let complain = |id: (&str, &[u8]), y: (&str, &[u8])| {
        write_arrays(base.path(), id, y);
        complaint(&array_fields(), &ids(1), base.path())
    };
    let (id, y) = (("<i4", &[0u8; 8][..]), ("<f4", &[0u8; 8][..]));
    let wide = [0, u32::MAX].map(u32::to_le_bytes).concat();
    assert!(
        complain(("<u4", &wide), y)
            .contains("record 1 of field `id` holds 4294967295, but the model takes integers from")
    );
    let wide = [0, 1i64 << 40].map(i64::to_le_bytes).concat();
    assert!(complain(("<i8", &wide), y).contains("holds 1099511627776"));
    let large = [0.0, -1e300f64].map(f64::to_le_bytes).concat();
    assert!(complain(id, ("<f8", &large)).contains("but the model takes numbers of at most 3.4028234663852886e38"));
    let cut = [1.0, 2.5f64].map(f64::to_le_bytes).concat();
    assert!(complain(("<f8", &cut), y).contains("record 1 of field `id` holds 2.5, but the model takes integers"));
    for (descr, name) in [
        ("|O", "Python objects (`|O`)"),
        ("<U5", "texts (`<U5`)"),
        ("<M8[ns]", "points in time (`<M8[ns]`)"),
        ("<c8", "complex numbers (`<c8`)"),
        ("<f16", "floating-point numbers of more than 64 bits (`<f16`)"),
        ("|V3", "raw bytes (`|V3`)"),
    ] {
        let complaint = complain((descr, &[0; 8]), y);
        assert!(complaint.contains(&format!("its elements are {name}, not numbers of at most 64 bits")), "{complaint}");
    }
    let parts = npy("?", "(2,)", &[0; 8]);
    let descr = b"'?'";
    let at = parts.windows(3).position(|window| window == descr).unwrap();
    let parts = [&parts[..at], b"[('a', '<f4')]", &parts[at + 3..parts.len()]].concat();
    let parts = {
        // The header has grown by what it was padded with.
        let spaces = parts.windows(12).position(|window| window == b"            ").unwrap();
        [&parts[..spaces], &parts[spaces + 11..]].concat()
    };
    fs::write(base.path().join("a.npz"), npz(&[("id", &parts), ("y", &parts)], 0)).unwrap();
    let complaint = complaint(&array_fields(), &ids(1), base.path());
    assert!(complaint.contains("its elements have parts (a structured array)"), "{complaint}");
}
