//! Which bytes of a memory have been written.

/// A bit per byte, with a fast answer once all are set.
#[derive(Debug, Clone, Default)]
pub struct Validity {
    bits: Vec<u64>,
    invalid: usize,
}

impl Validity {
    /// For `bytes` bytes, none written.
    pub fn new(bytes: usize) -> Validity {
        Validity { bits: vec![0; bytes.div_ceil(64)], invalid: bytes }
    }

    /// Offset of the first byte of a range that was never written.
    #[inline]
    pub fn first_invalid(&self, start: usize, bytes: usize) -> Option<usize> {
        if self.invalid == 0 {
            return None;
        }
        let missing = |(word, mask): (usize, u64)| {
            let missing = mask & !self.bits[word];
            (missing != 0).then(|| word * 64 + missing.trailing_zeros() as usize)
        };
        words(start, bytes).find_map(missing)
    }

    /// Marks a range as written.
    #[inline]
    pub fn set(&mut self, start: usize, bytes: usize) {
        if self.invalid == 0 {
            return;
        }
        for (word, mask) in words(start, bytes) {
            let before = self.bits[word];
            self.invalid -= (mask & !before).count_ones() as usize;
            self.bits[word] = before | mask;
        }
    }

    /// Marks a range as never written.
    pub fn clear(&mut self, start: usize, bytes: usize) {
        for (word, mask) in words(start, bytes) {
            let before = self.bits[word];
            self.invalid += (mask & before).count_ones() as usize;
            self.bits[word] = before & !mask;
        }
    }

    /// Whether a byte was written.
    pub fn is_valid(&self, at: usize) -> bool {
        self.first_invalid(at, 1).is_none()
    }
}

/// Words of the bitmap that a range touches, with the bits in it.
fn words(start: usize, bytes: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = start + bytes;
    (start / 64..end.div_ceil(64)).map(move |word| {
        let low = start.saturating_sub(word * 64).min(63);
        let high = (end - word * 64).min(64);
        let mask = if high == 64 { u64::MAX } else { (1 << high) - 1 };
        (word, mask & (u64::MAX << low))
    })
}

#[cfg(test)]
mod tests {
    use super::Validity;

    #[test]
    fn ranges_across_words() {
        let mut validity = Validity::new(200);
        assert_eq!(validity.first_invalid(0, 4), Some(0));
        validity.set(60, 80);
        assert_eq!(validity.first_invalid(60, 80), None);
        assert_eq!(validity.first_invalid(58, 4), Some(58));
        assert_eq!(validity.first_invalid(136, 8), Some(140));
        validity.set(0, 60);
        validity.set(140, 60);
        assert_eq!(validity.first_invalid(0, 200), None);
        validity.clear(64, 1);
        assert_eq!(validity.first_invalid(0, 200), Some(64));
        assert!(validity.is_valid(63) && !validity.is_valid(64));
    }
}
