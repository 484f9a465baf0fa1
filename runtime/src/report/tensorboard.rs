//! TensorBoard event files, written without TensorFlow.
//!
//! A file is a sequence of records `length: u64, masked crc32c of length: u32, data, masked crc32c of data: u32`
//! (tensorflow/core/lib/io/record_writer.h); the data are `Event` messages in the protocol buffers encoding
//! (tensorflow/core/util/event.proto): `wall_time` = 1 (double), `step` = 2 (int64), `file_version` = 3 (string),
//! `summary` = 5 { `value` = 1 { `tag` = 1 (string), `simple_value` = 2 (float) } }, `session_log` = 7 { `status` = 1 (enum) }.
//!
//! Each file begins with a session log whose status is `START` at the first step that it will hold. Readers drop what
//! earlier files say of that step and later ones: those steps are made again after a run was killed.

use crate::numbers::Numbers;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Wire types of the encoding.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// `SessionLog.SessionStatus.START`.
const START: u64 = 1;

/// How names of event files begin; the time in seconds follows.
const PREFIX: &str = "events.out.tfevents.";

/// An event file, open for appending.
pub struct EventFile {
    file: File,
    event: Vec<u8>,
    summary: Vec<u8>,
    value: Vec<u8>,
}

impl EventFile {
    /// Creates a file for `step` and later ones in `folder` (created if need be), under a name that TensorBoard recognises.
    /// A run that continues writes a further file beside the older ones, behind them in the order of names even if the
    /// clock was set back.
    ///
    /// # Errors
    /// From the file system.
    pub fn create(folder: &Path, step: u32) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let now = wall_time();
        let second = (now as u64).max(newest_second(folder)?);
        let mut index = 0;
        let file = loop {
            let path = folder.join(format!("{PREFIX}{second:010}.trainc.{index:03}"));
            match File::options().write(true).create_new(true).open(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => index += 1,
                file => break file?,
            }
        };
        let mut events = Self { file, event: Vec::new(), summary: Vec::new(), value: Vec::new() };
        double(&mut events.event, 1, now);
        bytes(&mut events.event, 3, b"brain.Event:2");
        events.write_event()?;
        events.write_start(step)?;
        Ok(events)
    }

    fn write_start(&mut self, step: u32) -> io::Result<()> {
        self.value.clear();
        key(&mut self.value, 1, VARINT);
        varint(&mut self.value, START);
        self.begin_event(step);
        bytes(&mut self.event, 7, &self.value);
        self.write_event()
    }

    fn begin_event(&mut self, step: u32) {
        self.event.clear();
        double(&mut self.event, 1, wall_time());
        key(&mut self.event, 2, VARINT);
        varint(&mut self.event, u64::from(step));
    }

    /// Appends the numbers of a step, each under `prefix` and its name.
    ///
    /// # Errors
    /// From the file system.
    pub fn append(&mut self, step: u32, prefix: &str, numbers: &Numbers) -> io::Result<()> {
        self.summary.clear();
        for (name, value) in numbers.iter() {
            self.value.clear();
            key(&mut self.value, 1, BYTES);
            varint(&mut self.value, (prefix.len() + name.len()) as u64);
            self.value.extend(prefix.as_bytes());
            self.value.extend(name.as_bytes());
            key(&mut self.value, 2, FIXED32);
            self.value.extend((value as f32).to_le_bytes());
            bytes(&mut self.summary, 1, &self.value);
        }
        self.begin_event(step);
        bytes(&mut self.event, 5, &self.summary);
        self.write_event()
    }

    fn write_event(&mut self) -> io::Result<()> {
        let length = (self.event.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(self.event.len() + 16);
        record.extend(length);
        record.extend(masked_crc32c(&length).to_le_bytes());
        record.extend(&self.event);
        record.extend(masked_crc32c(&self.event).to_le_bytes());
        self.file.write_all(&record)
    }
}

/// The time in the name of the newest event file; 0 without one.
fn newest_second(folder: &Path) -> io::Result<u64> {
    let mut newest = 0;
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let second = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok());
        newest = newest.max(second.unwrap_or(0));
    }
    Ok(newest)
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    key(out, field, FIXED64);
    out.extend(value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(out, field, BYTES);
    varint(out, value.len() as u64);
    out.extend(value);
}

/// The checksum as the record format stores it, so that checksums of data with checksums in it stay useful.
fn masked_crc32c(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), polynomial 0x1EDC6F41, reflected.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, &byte| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{DType, OutputBinding};

    /// RFC 3720, appendix B.4.
    #[test]
    fn the_checksum_agrees_with_the_published_vectors() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
    }

    #[test]
    fn records_frame_events_with_steps_tags_and_values() {
        let folder = tempfile::tempdir().unwrap();
        let output = OutputBinding { name: "loss".into(), dtype: DType::F32, shape: vec![], offset: 0 };
        let mut numbers = Numbers::of(&[output]);
        numbers.values_mut()[0] = 2.5;
        EventFile::create(folder.path(), 300).unwrap().append(300, "valid_", &numbers).unwrap();
        EventFile::create(folder.path(), 301).unwrap();
        let mut paths: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert_eq!(paths.len(), 2, "a second writer gets its own file");
        let file = std::fs::read(&paths[0]).unwrap();
        let mut rest = &file[..];
        let mut events = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc32c(&rest[..8]).to_le_bytes());
            let event = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked_crc32c(event).to_le_bytes());
            events.push(event);
            rest = &rest[16 + length..];
        }
        assert!(events[0].ends_with(b"\x1a\x0dbrain.Event:2"));
        // step = 300; session log of 2 bytes with status 1.
        assert_eq!(&events[1][9..], b"\x10\xac\x02\x3a\x02\x08\x01");
        // step = 300; summary of 19 bytes with one value of 17: a tag of 10 bytes and the float 2.5.
        assert_eq!(&events[2][9..], b"\x10\xac\x02\x2a\x13\x0a\x11\x0a\x0avalid_loss\x15\x00\x00\x20\x40");
    }
}
