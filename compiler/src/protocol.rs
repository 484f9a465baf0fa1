//! What `trainc` and its code generator, a process of its own, say to each other: one request, one answer.
//!
//! A message is a line that says who speaks, a line of JSON, and the bytes whose sizes that line lists. It is read with
//! suspicion: the other side may be of another version, or have died in the middle of a word.
//!
//! An answer takes its time. Its first line is sent as soon as the code generator is there, and until the second follows, empty
//! lines are signs of life: how long code takes is nobody's to say, but who gives no sign for long is stuck.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fmt,
    io::{self, BufRead, Read, Write},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};
use trainc_kernels::{CodegenError, Form};
use trainc_runtime::artifact::Isa;

/// The first line of every message. The number is that of the format.
const GREETING: &str = concat!("trainc-codegen ", env!("CARGO_PKG_VERSION"), " 2");

/// No line is longer: sizes of modules, or what MLIR says of one.
const LONGEST_LINE: u64 = 16 << 20;

/// What [`trainc_kernels::Backend::generate`] is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// MLIR text.
    pub modules: Vec<String>,
    /// Whose instructions.
    pub isa: Isa,
    /// What to make of each module.
    pub form: Form,
}

/// What [`trainc_kernels::Backend::generate`] returns.
pub type Answer = Result<Vec<Vec<u8>>, CodegenError>;

/// Between two signs of life.
const SIGN: Duration = Duration::from_secs(1);

/// Why a message cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The stream ends before anything was said.
    Nothing,
    /// The other side has given no sign for so many seconds.
    Silent(u64),
    /// The stream ends before the message does.
    Incomplete,
    /// Another program, or another version of this one, speaks.
    Foreign(String),
    /// The message is none.
    Garbled(String),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unread::Nothing => f.write_str("there is no message"),
            Unread::Silent(seconds) => write!(f, "there was no sign of life for {seconds} seconds"),
            Unread::Incomplete => f.write_str("the message is incomplete"),
            Unread::Foreign(greeting) => write!(f, "`{greeting}` speaks where `{GREETING}` is expected"),
            Unread::Garbled(reason) => write!(f, "the message cannot be understood: {reason}"),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct RequestHeader {
    isa: Isa,
    form: Form,
    sizes: Vec<u64>,
}

/// Sends a request.
///
/// # Errors
/// If the stream breaks.
pub fn write_request(to: &mut impl Write, modules: &[String], isa: Isa, form: Form) -> io::Result<()> {
    write_message(to, &RequestHeader { isa, form, sizes: sizes(modules) }, modules)
}

/// Receives a request.
///
/// # Errors
/// If it is none, or not one of this version.
pub fn read_request(from: &mut impl BufRead) -> Result<Request, Unread> {
    let RequestHeader { isa, form, sizes } = read_header(from)?;
    let text = |bytes| String::from_utf8(bytes).map_err(|error| Unread::Garbled(error.to_string()));
    let modules = read_parts(from, &sizes)?.into_iter().map(text).collect::<Result<_, _>>()?;
    Ok(Request { modules, isa, form })
}

/// Sends an answer when there is one, and signs of life until then.
///
/// # Errors
/// If the stream breaks, or if there is no thread for the signs.
pub fn write_answer(to: &mut (impl Write + Send), answer: impl FnOnce() -> Answer) -> io::Result<()> {
    writeln!(to, "{GREETING}")?;
    to.flush()?;
    let answer = with_signs(to, answer)?;
    let header = answer.as_ref().map(|code| sizes(code));
    write_body(to, &header, answer.as_deref().unwrap_or_default())
}

/// Does some work while another thread writes signs of life.
fn with_signs<T>(to: &mut (impl Write + Send), work: impl FnOnce() -> T) -> io::Result<T> {
    let (done, wait) = mpsc::channel::<()>();
    let signs = move || {
        while let Err(RecvTimeoutError::Timeout) = wait.recv_timeout(SIGN) {
            writeln!(to)?;
            to.flush()?;
        }
        io::Result::Ok(())
    };
    // What the closure owns goes away with it, also by a panic, and the signs end.
    thread::scope(move |scope| {
        let signs = thread::Builder::new().spawn_scoped(scope, signs)?;
        let result = work();
        drop(done);
        signs.join().unwrap_or(Ok(())).map(|()| result)
    })
}

/// Receives an answer.
///
/// # Errors
/// If it is none, or not one of this version.
pub fn read_answer(from: &mut impl BufRead) -> Result<Answer, Unread> {
    match read_header::<Result<Vec<u64>, _>>(from)? {
        Ok(sizes) => Ok(Ok(read_parts(from, &sizes)?)),
        Err(refused) => Ok(Err(refused)),
    }
}

fn sizes(parts: &[impl AsRef<[u8]>]) -> Vec<u64> {
    parts.iter().map(|part| part.as_ref().len() as u64).collect()
}

fn write_message(to: &mut impl Write, header: &impl Serialize, parts: &[impl AsRef<[u8]>]) -> io::Result<()> {
    writeln!(to, "{GREETING}")?;
    write_body(to, header, parts)
}

fn write_body(to: &mut impl Write, header: &impl Serialize, parts: &[impl AsRef<[u8]>]) -> io::Result<()> {
    writeln!(to, "{}", serde_json::to_string(header)?)?;
    parts.iter().try_for_each(|part| to.write_all(part.as_ref()))?;
    to.flush()
}

fn read_header<H: DeserializeOwned>(from: &mut impl BufRead) -> Result<H, Unread> {
    if from.fill_buf().map_err(broken)?.is_empty() {
        return Err(Unread::Nothing);
    }
    let greeting = read_line(from)?;
    if greeting != GREETING.as_bytes() {
        let shown: String = String::from_utf8_lossy(&greeting).escape_debug().take(80).collect();
        return Err(Unread::Foreign(shown));
    }
    let mut header = read_line(from)?;
    while header.is_empty() {
        header = read_line(from)?;
    }
    serde_json::from_slice(&header).map_err(|error| Unread::Garbled(error.to_string()))
}

/// What an error of the stream says of the message.
fn broken(error: io::Error) -> Unread {
    match error.downcast::<Silence>() {
        Ok(Silence(seconds)) => Unread::Silent(seconds),
        Err(error) => Unread::Garbled(error.to_string()),
    }
}

/// The error of a stream on which nothing has come for so many seconds; a message that breaks off so is [`Unread::Silent`].
#[derive(Debug)]
pub struct Silence(pub u64);

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Unread::Silent(self.0).fmt(f)
    }
}

impl std::error::Error for Silence {}

/// A line without its end.
fn read_line(from: &mut impl BufRead) -> Result<Vec<u8>, Unread> {
    let mut line = Vec::new();
    from.take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(broken)?;
    match line.pop() {
        Some(b'\n') => Ok(line),
        _ if line.len() as u64 + 1 == LONGEST_LINE => Err(Unread::Garbled("a line without an end".into())),
        _ => Err(Unread::Incomplete),
    }
}

/// Memory grows with what is read, never with what is announced.
fn read_parts(from: &mut impl BufRead, sizes: &[u64]) -> Result<Vec<Vec<u8>>, Unread> {
    let part = |&size: &u64| {
        let mut bytes = Vec::new();
        from.take(size).read_to_end(&mut bytes).map_err(broken)?;
        if bytes.len() as u64 == size { Ok(bytes) } else { Err(Unread::Incomplete) }
    };
    sizes.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sent(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes).expect("memory takes what is written");
        bytes
    }

    fn answer(parts: &[&[u8]]) -> Vec<u8> {
        sent(|to| write_answer(to, || Ok(parts.iter().map(|part| part.to_vec()).collect())))
    }

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let modules = ["func.func @f() { return }\n".to_string(), String::new(), "// \u{221e}\0".into()];
        let bytes = sent(|to| write_request(to, &modules, Isa::X86V4Bf16, Form::Object));
        let request = Request { modules: modules.into(), isa: Isa::X86V4Bf16, form: Form::Object };
        assert_eq!(read_request(&mut &bytes[..]), Ok(request));

        let refused = Err(CodegenError::Mlir("expected `}`\nat \"x\"".into()));
        for answer in [Ok(vec![vec![0, 10, 255], vec![]]), refused] {
            let bytes = sent(|to| write_answer(to, || answer.clone()));
            assert_eq!(read_answer(&mut &bytes[..]), Ok(answer));
        }
    }

    #[test]
    fn every_beginning_of_a_message_is_incomplete() {
        let bytes = answer(&[b"code", b"more"]);
        assert_eq!(read_answer(&mut &[][..]), Err(Unread::Nothing));
        for end in 1..bytes.len() {
            assert_eq!(read_answer(&mut &bytes[..end]), Err(Unread::Incomplete), "the first {end} bytes");
        }
    }

    #[test]
    fn an_answer_that_takes_its_time_gives_signs_of_life() {
        let slow = || {
            thread::sleep(SIGN * 2 + SIGN / 2);
            Ok(vec![b"code".to_vec()])
        };
        let bytes = sent(|to| write_answer(to, slow));
        let signs = bytes[GREETING.len() + 1..].iter().take_while(|&&byte| byte == b'\n').count();
        assert!((1..=2).contains(&signs), "{signs} signs");
        assert_eq!(read_answer(&mut &bytes[..]), Ok(Ok(vec![b"code".to_vec()])));
    }

    #[test]
    fn announced_sizes_take_no_memory() {
        let bytes = format!("{GREETING}\n{{\"Ok\":[{}]}}\nfew bytes", u64::MAX);
        assert_eq!(read_answer(&mut bytes.as_bytes()), Err(Unread::Incomplete));
    }

    proptest! {
        #[test]
        fn no_bytes_are_worse_than_refused(at in 0..38usize, byte: u8, noise: Vec<u8>) {
            let mut bytes = answer(&[b"code"]);
            bytes[at] = byte;
            let _ = read_answer(&mut &bytes[..]);
            let _ = read_request(&mut &bytes[..]);
            prop_assert!(read_answer(&mut &noise[..]).is_err());
        }
    }
}
