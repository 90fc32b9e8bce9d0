use std::io::Write;
use std::path::Path;

use proptest::prelude::*;

use super::super::metadata::Value;
use super::*;

/// Writes GGUF headers, right or wrong ones.
struct Builder(Vec<u8>);

impl Builder {
    fn new(version: u32, tensors: u64, pairs: u64) -> Self {
        let mut made = Self(MAGIC.to_vec());
        made.put(&version.to_le_bytes());
        made.put(&tensors.to_le_bytes());
        made.put(&pairs.to_le_bytes());
        made
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, text: &[u8]) -> &mut Self {
        self.put(&(text.len() as u64).to_le_bytes()).put(text)
    }

    fn pair(&mut self, key: &str, code: u32, value: &[u8]) -> &mut Self {
        self.text(key.as_bytes())
            .put(&code.to_le_bytes())
            .put(value)
    }

    fn tensor(&mut self, name: &str, shape: &[u64], code: u32, offset: u64) -> &mut Self {
        self.text(name.as_bytes())
            .put(&(shape.len() as u32).to_le_bytes());
        for size in shape {
            self.put(&size.to_le_bytes());
        }
        self.put(&code.to_le_bytes()).put(&offset.to_le_bytes())
    }

    /// Data of `bytes` zeros at the next multiple of 32.
    fn data(&mut self, bytes: usize) -> &mut Self {
        let start = self.0.len().next_multiple_of(32);
        self.0.resize(start + bytes, 0);
        self
    }

    fn read(&self) -> Result<Header, GgufError> {
        read(&self.0)
    }

    fn refusal(&self) -> String {
        self.read().unwrap_err().to_string()
    }
}

fn read(bytes: &[u8]) -> Result<Header, GgufError> {
    read_header(Path::new("x.gguf"), bytes, bytes.len() as u64)
}

fn scalars(code: u32, count: u64, bytes: &[u8]) -> Vec<u8> {
    let mut value = code.to_le_bytes().to_vec();
    value.extend(count.to_le_bytes());
    value.extend(bytes);
    value
}

/// A value of every type, two lists and two tensors.
fn whole() -> Vec<u8> {
    let mut texts = scalars(8, 2, &[]);
    for text in ["é", "bc"] {
        texts.extend((text.len() as u64).to_le_bytes());
        texts.extend(text.as_bytes());
    }
    let mut made = Builder::new(3, 2, 15);
    made.pair("u8", 0, &[200])
        .pair("i8", 1, &[200])
        .pair("u16", 2, &60_000_u16.to_le_bytes())
        .pair("i16", 3, &(-2_i16).to_le_bytes())
        .pair("u32", 4, &4_000_000_000_u32.to_le_bytes())
        .pair("i32", 5, &(-3_i32).to_le_bytes())
        .pair("f32", 6, &1e-5_f32.to_le_bytes())
        .pair("bool", 7, &[1])
        .pair("text", 8, b"\x02\0\0\0\0\0\0\0hi")
        .pair("texts", 9, &texts)
        .pair("list", 9, &scalars(5, 2, &[255, 255, 255, 255, 7, 0, 0, 0]))
        .pair("u64", 10, &u64::MAX.to_le_bytes())
        .pair("i64", 11, &i64::MIN.to_le_bytes())
        .pair("f64", 12, &0.1_f64.to_le_bytes())
        .pair("general.alignment", 4, &32_u32.to_le_bytes())
        .tensor("a", &[3, 2], 0, 0)
        .tensor("b", &[32], 8, 32)
        .data(32 + 34);
    made.0
}

#[test]
fn reads_every_type_of_value_and_finds_the_tensors() {
    let bytes = whole();
    let header = read(&bytes).unwrap();
    let get = |key| header.metadata.get(key).unwrap().clone();
    assert_eq!(get("u8"), Value::Integer(200));
    assert_eq!(get("i8"), Value::Integer(-56));
    assert_eq!(get("u16"), Value::Integer(60_000));
    assert_eq!(get("i16"), Value::Integer(-2));
    assert_eq!(get("u32"), Value::Integer(4_000_000_000));
    assert_eq!(get("i32"), Value::Integer(-3));
    assert_eq!(get("f32"), Value::Float(f64::from(1e-5_f32)));
    assert_eq!(get("bool"), Value::Bool(true));
    assert_eq!(get("text"), Value::Text("hi".to_owned()));
    assert_eq!(get("u64"), Value::Integer(u64::MAX.into()));
    assert_eq!(get("i64"), Value::Integer(i64::MIN.into()));
    assert_eq!(get("f64"), Value::Float(0.1));
    let texts = get("texts");
    let texts: Vec<_> = texts.as_list().unwrap().as_texts().unwrap().collect();
    assert_eq!(texts, ["é", "bc"]);
    let list = get("list");
    let list: Vec<_> = list.as_list().unwrap().as_scalars().unwrap().collect();
    assert_eq!(list, [Value::Integer(-1), Value::Integer(7)]);

    let start = bytes.len() as u64 - 32 - 34;
    assert_eq!(start % 32, 0);
    let expected = |kind, shape, offset, bytes| TensorInfo {
        kind,
        shape,
        offset,
        bytes,
    };
    assert_eq!(
        header.tensors["a"],
        expected(TensorType::F32, vec![2, 3], start, 24)
    );
    assert_eq!(
        header.tensors["b"],
        expected(TensorType::Q8_0, vec![32], start + 32, 34)
    );
}

#[test]
fn reads_version_2_alike_and_no_other() {
    let mut bytes = whole();
    bytes[4] = 2;
    assert!(read(&bytes).is_ok());
    for version in [0_u32, 1, 4, 99] {
        let refusal = Builder::new(version, 0, 0).refusal();
        assert!(
            refusal.contains(&format!("version {version} ")),
            "{refusal}"
        );
    }
    let big = Builder::new(3_u32.swap_bytes(), 0, 0).refusal();
    assert!(big.contains("big-endian"), "{big}");
}

#[test]
fn refuses_what_is_not_gguf() {
    for bytes in [&b""[..], b"GG", b"GGML\x03\0\0\0", b"{\"a\": 1}"] {
        let error = read(bytes).unwrap_err();
        assert!(matches!(error, GgufError::Magic { .. }), "{error}");
    }
}

/// Wherever the file is cut, that is the reason, not a panic.
#[test]
fn refuses_a_file_that_is_cut_anywhere() {
    let bytes = whole();
    for length in 4..bytes.len() {
        let error = read(&bytes[..length]).unwrap_err();
        assert!(
            matches!(
                error,
                GgufError::Truncated { .. } | GgufError::TooMuch { .. } | GgufError::Place { .. }
            ),
            "{length}: {error}"
        );
    }
}

#[test]
fn refuses_counts_and_lengths_that_the_file_cannot_hold() {
    for refusal in [
        Builder::new(3, u64::MAX, 0).refusal(),
        Builder::new(3, 1 << 40, 0).refusal(),
        Builder::new(3, 0, u64::MAX).refusal(),
        Builder::new(3, 0, 1)
            .put(&u64::MAX.to_le_bytes())
            .data(99)
            .refusal(),
        Builder::new(3, 0, 1)
            .pair("k", 8, &u64::MAX.to_le_bytes())
            .data(99)
            .refusal(),
        Builder::new(3, 0, 1)
            .pair("k", 9, &scalars(8, 1 << 50, &[0; 99]))
            .refusal(),
        Builder::new(3, 0, 1)
            .pair("k", 9, &scalars(12, 1 << 61, &[0; 99]))
            .refusal(),
    ] {
        assert!(refusal.contains("at most"), "{refusal}");
    }
}

#[test]
fn refuses_values_that_mean_nothing() {
    let pair = |code, value: &[u8]| {
        Builder::new(3, 0, 1)
            .pair("some.key", code, value)
            .data(64)
            .refusal()
    };
    for (refusal, why) in [
        (pair(13, &[0; 8]), "type 13"),
        (pair(9, &scalars(13, 1, &[0; 8])), "type 13"),
        (pair(9, &scalars(9, 1, &[0; 8])), "list of lists"),
        (pair(7, &[2]), "neither true nor false"),
        (pair(8, b"\x02\0\0\0\0\0\0\0\xff\xff"), "UTF-8"),
    ] {
        assert!(refusal.contains(why), "{refusal}");
    }
    let twice = Builder::new(3, 0, 2)
        .pair("k", 7, &[0])
        .pair("k", 7, &[0])
        .refusal();
    assert!(
        twice.contains("'k'") && twice.contains("second time"),
        "{twice}"
    );
    for alignment in [0_u32, 3, 1 << 21] {
        let refusal = Builder::new(3, 0, 1)
            .pair("general.alignment", 4, &alignment.to_le_bytes())
            .refusal();
        assert!(refusal.contains("power of two"), "{refusal}");
    }
}

#[test]
fn refuses_tensors_of_wrong_shape_type_or_place_by_name() {
    let one = |shape: &[u64], code, offset| {
        Builder::new(3, 1, 0)
            .tensor("blk.0.x", shape, code, offset)
            .data(128)
            .refusal()
    };
    for (refusal, why) in [
        (one(&[], 0, 0), "0 dimensions"),
        (one(&[1; 5], 0, 0), "5 dimensions"),
        (one(&[4, 0], 0, 0), "dimension of 0"),
        (
            one(&[u64::MAX, 2], 0, 0),
            "dimension of 18446744073709551615",
        ),
        (one(&[1 << 31, 1 << 31, 4], 0, 0), "dimension of"),
        (one(&[33], 8, 0), "blocks of 32"),
        (one(&[32, 8], 12, 0), "blocks of 256"),
        (one(&[256], 10, 0), "type Q2_K"),
        (one(&[256], 4, 0), "number 4"),
        (one(&[4], 0, 128), "within the file"),
        (one(&[4], 0, u64::MAX - 31), "within the file"),
        (one(&[1 << 30], 0, 0), "within the file"),
        (one(&[4], 0, 4), "multiple of 32"),
    ] {
        assert!(
            refusal.contains("'blk.0.x'") && refusal.contains(why),
            "{refusal}"
        );
    }
    let twice = Builder::new(3, 2, 0)
        .tensor("x", &[4], 0, 0)
        .tensor("x", &[4], 0, 32)
        .data(64)
        .refusal();
    assert!(
        twice.contains("'x'") && twice.contains("second time"),
        "{twice}"
    );
    let over = Builder::new(3, 2, 0)
        .tensor("x", &[16], 0, 0)
        .tensor("y", &[4], 0, 32)
        .data(64)
        .refusal();
    assert!(
        over.contains("'x'") && over.contains("over tensor 'y'"),
        "{over}"
    );
}

#[test]
fn opens_files_and_knows_them_by_their_first_letters() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    std::fs::File::create(&path)
        .unwrap()
        .write_all(&whole())
        .unwrap();
    assert!(has_magic(&path));
    let container = Container::open(&path).unwrap();
    let mut buffer = [1; 24];
    container
        .read_at(&mut buffer, container.tensors()["a"].offset)
        .unwrap();
    assert_eq!(buffer, [0; 24]);
    // The file was cut after it was opened.
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(100)
        .unwrap();
    let error = container.read_at(&mut buffer, 96).unwrap_err();
    assert!(matches!(error, GgufError::Io { .. }), "{error}");
    std::fs::write(&path, "GGU").unwrap();
    assert!(!has_magic(&path) && !has_magic(dir.path()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any change of a few bytes, or of the length, is read or refused, and what is read lies
    /// within the file.
    #[test]
    fn a_mutated_file_is_read_or_refused(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        length in any::<proptest::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = whole();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if cut {
            bytes.truncate(length.index(bytes.len()));
        }
        if let Ok(header) = read(&bytes) {
            for info in header.tensors.values() {
                prop_assert!(info.offset + info.bytes <= bytes.len() as u64);
                let values = info.shape.iter().product::<usize>();
                prop_assert_eq!(info.kind.bytes_of(values) as u64, info.bytes);
            }
        }
    }

    /// Noise after a right beginning.
    #[test]
    fn noise_is_refused(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(noise);
        let _ = read(&bytes);
    }

    /// Small counts, so that noise is taken for keys, values and tensors.
    #[test]
    fn noise_of_small_numbers_is_read_or_refused(
        noise in proptest::collection::vec(prop_oneof![4 => Just(0_u8), 2 => 1_u8..16, 1 => any::<u8>()], 0..400)
    ) {
        let mut bytes = Builder::new(3, 2, 3).0;
        bytes.extend(noise);
        if let Ok(header) = read(&bytes) {
            prop_assert_eq!(header.tensors.len(), 2);
        }
    }
}
