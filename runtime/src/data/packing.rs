//! Streams of tokens cut into records of one context each.
//!
//! Record `i` holds the tokens `i * context .. (i + 1) * context + lookahead` of its stream: the targets of one record
//! begin the inputs of the next, and every token is predicted once.

use super::DataError;
use super::store::TokenStore;
use std::ops::Range;
use std::sync::Arc;

/// Records over some documents of a corpus, joined.
pub struct PackedTokens {
    tokens: Arc<TokenStore>,
    /// Position in this stream and in the corpus where each run of documents begins.
    runs: Vec<(u64, u64)>,
    len: u64,
    context: u64,
    lookahead: u64,
}

impl PackedTokens {
    /// Packs the given stretches of a corpus.
    pub fn new(tokens: Arc<TokenStore>, stretches: &[Range<u64>], context: u64, lookahead: u64) -> Self {
        let mut runs = Vec::new();
        let mut len = 0;
        for stretch in stretches.iter().filter(|stretch| !stretch.is_empty()) {
            runs.push((len, stretch.start));
            len += stretch.end - stretch.start;
        }
        Self { tokens, runs, len, context, lookahead }
    }

    /// Number of tokens.
    pub fn tokens(&self) -> u64 {
        self.len
    }

    /// Number of records.
    pub fn records(&self) -> u64 {
        self.len.saturating_sub(self.lookahead) / self.context
    }

    /// Reads `out.len()` tokens of a record, starting `shift` positions into it.
    ///
    /// # Errors
    /// When the corpus cannot be read.
    pub fn read(&self, record: u64, shift: u64, mut out: &mut [i32]) -> Result<(), DataError> {
        let mut begin = record * self.context + shift;
        while !out.is_empty() {
            let run = self.runs.partition_point(|(first, _)| *first <= begin) - 1;
            let end = self.runs.get(run + 1).map_or(self.len, |(first, _)| *first);
            let (first, start) = self.runs[run];
            let (now, later) = out.split_at_mut(out.len().min((end - begin) as usize));
            self.tokens.read(start + (begin - first), now)?;
            begin += now.len() as u64;
            out = later;
        }
        Ok(())
    }
}

/// How far the share held out may be from the one asked for before documents are cut.
const TOLERANCE: f64 = 0.2;

/// Splits a corpus into stretches for training and for evaluation.
///
/// Whole documents are held out, spread evenly over the corpus: a document is, whenever less than `fraction` of what
/// precedes it has been. Where documents are too few or too uneven for that, the end of the corpus is held out.
pub fn split(ends: &[u64], fraction: f64) -> (Vec<Range<u64>>, Vec<Range<u64>>) {
    let total = ends.last().copied().unwrap_or(0);
    let wanted = fraction * total as f64;
    let (train, valid) = split_documents(ends, fraction);
    let held_out: u64 = valid.iter().map(|stretch| stretch.end - stretch.start).sum();
    if (held_out as f64 - wanted).abs() <= TOLERANCE * wanted {
        return (train, valid);
    }
    let cut = total - wanted as u64;
    (std::iter::once(0..cut).collect(), std::iter::once(cut..total).collect())
}

fn split_documents(ends: &[u64], fraction: f64) -> (Vec<Range<u64>>, Vec<Range<u64>>) {
    let (mut train, mut valid) = (Vec::new(), Vec::new());
    let (mut begin, mut held_out) = (0, 0);
    for &end in ends {
        if (held_out as f64) < fraction * begin as f64 {
            held_out += end - begin;
            extend(&mut valid, begin..end);
        } else {
            extend(&mut train, begin..end);
        }
        begin = end;
    }
    (train, valid)
}

fn extend(stretches: &mut Vec<Range<u64>>, stretch: Range<u64>) {
    match stretches.last_mut() {
        Some(last) if last.end == stretch.start => last.end = stretch.end,
        _ => stretches.push(stretch),
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::{TokenWriter, Width};
    use super::*;
    use proptest::prelude::*;

    fn store(len: u32) -> Arc<TokenStore> {
        let mut writer = TokenWriter::new(Width::Four);
        writer.push(&(0..len).collect::<Vec<_>>()).unwrap();
        Arc::new(writer.finish().unwrap())
    }

    proptest! {
        #[test]
        fn records_tile_the_stream_and_overlap_by_the_lookahead(
            lengths in prop::collection::vec(1u64..40, 1..30),
            keep in prop::collection::vec(any::<bool>(), 30),
            context in 1u64..20,
            lookahead in 0u64..3,
        ) {
            let ends: Vec<_> = lengths.iter().scan(0, |sum, &length| { *sum += length; Some(*sum) }).collect();
            let starts = std::iter::once(0).chain(ends.iter().copied());
            let stretches: Vec<_> = starts.zip(ends.iter().copied()).zip(&keep).filter(|(_, keep)| **keep)
                .map(|((start, end), _)| start..end).collect();
            let stream: Vec<_> = stretches.iter().cloned().flatten().map(|token| token as i32).collect();
            let packed = PackedTokens::new(store(*ends.last().unwrap() as u32), &stretches, context, lookahead);
            let whole = stream.len().saturating_sub(lookahead as usize) / context as usize;
            prop_assert_eq!(packed.records(), whole as u64);
            for record in 0..packed.records() {
                let mut out = vec![0; (context + lookahead) as usize];
                packed.read(record, 0, &mut out).unwrap();
                let begin = (record * context) as usize;
                prop_assert_eq!(&out[..], &stream[begin..begin + out.len()]);
            }
        }

        #[test]
        fn a_split_is_a_partition_near_the_share_asked_for(
            lengths in prop::collection::vec(1u64..1000, 1..200),
            fraction in 0.01f64..0.5,
        ) {
            let ends: Vec<_> = lengths.iter().scan(0, |sum, &length| { *sum += length; Some(*sum) }).collect();
            let total = *ends.last().unwrap();
            let (train, valid) = split(&ends, fraction);
            let mut all: Vec<_> = train.iter().chain(&valid).filter(|stretch| !stretch.is_empty()).cloned().collect();
            all.sort_by_key(|stretch| stretch.start);
            let first = all.first().unwrap().start;
            prop_assert!(first == 0 && all.last().unwrap().end == total);
            prop_assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start));
            let held_out = valid.iter().map(|stretch| stretch.end - stretch.start).sum::<u64>() as f64;
            prop_assert!((held_out - fraction * total as f64).abs() <= TOLERANCE * fraction * total as f64 + 1.0);
        }
    }

    #[test]
    fn many_documents_are_held_out_whole() {
        let ends: Vec<_> = (1..=1000).map(|i| i * 10).collect();
        let (_, valid) = split(&ends, 0.05);
        assert_eq!(valid.len(), 50);
        assert!(valid.iter().all(|stretch| stretch.start % 10 == 0 && stretch.end - stretch.start == 10));
    }
}
