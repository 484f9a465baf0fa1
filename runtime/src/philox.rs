//! Philox4x32-10, the counter-based generator behind every random draw (Salmon et al., "Parallel random numbers: as
//! easy as 1, 2, 3", SC 2011). The same function is emitted into kernels, so that host and device agree bit for bit.

const MULTIPLIER_0: u32 = 0xD251_1F53;
const MULTIPLIER_1: u32 = 0xCD9E_8D57;
const WEYL_0: u32 = 0x9E37_79B9;
const WEYL_1: u32 = 0xBB67_AE85;

/// Ten rounds of Philox over a 128-bit counter with a 64-bit key.
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    philox4x32_blocks::<1>(counter, key).map(|[word]| word)
}

/// `N` blocks side by side, for vectors: word `w` of the block whose counter begins with `counter[0] + l` is at `[w][l]`.
#[inline]
pub fn philox4x32_blocks<const N: usize>(counter: [u32; 4], key: [u32; 2]) -> [[u32; N]; 4] {
    let [mut a, mut b, mut c, mut d] = counter.map(|word| [word; N]);
    a = std::array::from_fn(|lane| a[lane].wrapping_add(lane as u32));
    let mut k = key;
    for _ in 0..10 {
        for (((a, b), c), d) in a.iter_mut().zip(&mut b).zip(&mut c).zip(&mut d) {
            [*a, *b, *c, *d] = round([*a, *b, *c, *d], k);
        }
        k = [k[0].wrapping_add(WEYL_0), k[1].wrapping_add(WEYL_1)];
    }
    [a, b, c, d]
}

#[inline]
fn round(c: [u32; 4], k: [u32; 2]) -> [u32; 4] {
    let product_0 = u64::from(MULTIPLIER_0) * u64::from(c[0]);
    let product_1 = u64::from(MULTIPLIER_1) * u64::from(c[2]);
    [(product_1 >> 32) as u32 ^ c[1] ^ k[0], product_1 as u32, (product_0 >> 32) as u32 ^ c[3] ^ k[1], product_0 as u32]
}

/// Who draws: everything besides the element that a draw depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The seed of the run.
    pub seed: u64,
    /// The stream: one per random node of the program.
    pub stream: u32,
    /// The training step (0 for initial values).
    pub step: u32,
    /// The iteration of an enclosing `repeat`, 0 outside.
    pub instance: u32,
}

impl Draw {
    /// The word that element `element` of this draw is made from: lane `element % 4` of the block with counter
    /// `[element / 4, instance, step, stream]` under key `seed`.
    pub fn word(&self, element: u32) -> u32 {
        self.blocks::<1>(element)[(element % 4) as usize][0]
    }

    /// The words of `4 N` elements from `element` on, a multiple of 4: that of element `element + 4 l + w` is at `[w][l]`.
    #[inline]
    pub fn blocks<const N: usize>(&self, element: u32) -> [[u32; N]; 4] {
        let counter = [element / 4, self.instance, self.step, self.stream];
        philox4x32_blocks(counter, [self.seed as u32, (self.seed >> 32) as u32])
    }

    /// A uniform number in `[0, 1)` with 24 random bits, exact in f32.
    pub fn uniform(&self, element: u32) -> f32 {
        unit(self.word(element))
    }
}

/// The upper 24 bits of a word as a number in `[0, 1)`.
pub fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors that come with Random123.
    #[test]
    fn agrees_with_the_published_vectors() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn blocks_side_by_side_are_those_one_by_one() {
        let (counter, key) = ([u32::MAX - 2, 5, 6, 7], [8, 9]);
        let blocks = philox4x32_blocks::<6>(counter, key);
        for lane in 0..6 {
            let alone = philox4x32([counter[0].wrapping_add(lane as u32), 5, 6, 7], key);
            assert_eq!(blocks.map(|words| words[lane]), alone);
        }
    }
}
