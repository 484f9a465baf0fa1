//! ChaCha20 (RFC 8439), the generator of draws that nobody may repeat: noise and samples of secure private training. Its key
//! comes from the operating system and is never stored. The same function is emitted into kernels.

use std::fmt;

/// "expand 32-byte k", the first row of every state.
pub const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Columns, then diagonals: the quarter rounds of a double round (RFC 8439, section 2.3).
pub const QUARTERS: [[usize; 4]; 8] = [
    [0, 4, 8, 12],
    [1, 5, 9, 13],
    [2, 6, 10, 14],
    [3, 7, 11, 15],
    [0, 5, 10, 15],
    [1, 6, 11, 12],
    [2, 7, 8, 13],
    [3, 4, 9, 14],
];

/// The block function: 20 rounds over the key and four words of counter and nonce.
///
/// RFC 8439 counts blocks with the first of the four; here all four identify a block, which is as good as long as none
/// occurs twice under one key.
pub fn chacha20(key: [u32; 8], counter: [u32; 4]) -> [u32; 16] {
    let mut initial = [0; 16];
    initial[..4].copy_from_slice(&CONSTANTS);
    initial[4..12].copy_from_slice(&key);
    initial[12..].copy_from_slice(&counter);
    let mut state = initial;
    for _ in 0..10 {
        for [a, b, c, d] in QUARTERS {
            half_quarter(&mut state, [a, b, c, d], 16, 12);
            half_quarter(&mut state, [a, b, c, d], 8, 7);
        }
    }
    std::array::from_fn(|i| state[i].wrapping_add(initial[i]))
}

/// Half of a quarter round (section 2.1).
fn half_quarter(state: &mut [u32; 16], [a, b, c, d]: [usize; 4], first: u32, second: u32) {
    state[a] = state[a].wrapping_add(state[b]);
    state[d] = (state[d] ^ state[a]).rotate_left(first);
    state[c] = state[c].wrapping_add(state[d]);
    state[b] = (state[b] ^ state[c]).rotate_left(second);
}

/// A key from the operating system. It lives in memory alone; [`fmt::Debug`] keeps it to itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub(crate) [u32; 8]);

impl Key {
    /// Draws a key.
    ///
    /// # Errors
    /// When the operating system has no random numbers.
    pub fn from_system() -> Result<Self, getrandom::Error> {
        let mut words = [0; 8];
        getrandom::fill(bytemuck::bytes_of_mut(&mut words))?;
        Ok(Self(words))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(..)")
    }
}

/// Who draws: everything besides the element that a draw depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The key.
    pub key: [u32; 8],
    /// The stream: one per random node of the program.
    pub stream: u32,
    /// The training step.
    pub step: u32,
    /// The iteration of an enclosing `repeat`, 0 outside.
    pub instance: u32,
}

impl Draw {
    /// All words of an element: the block with counter `[element, instance, step, stream]`.
    pub fn block(&self, element: u32) -> [u32; 16] {
        chacha20(self.key, [element, self.instance, self.step, self.stream])
    }

    /// A uniform number in `[0, 1)` with 24 random bits, exact in f32, from one of the 16 words of an element's block.
    pub fn uniform(&self, element: u32, word: u8) -> f32 {
        (self.block(element)[usize::from(word)] >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8439, section 2.3.2 and appendix A.1, test vectors 1, 2 and 4.
    #[test]
    fn agrees_with_the_published_vectors() {
        let key = std::array::from_fn(|i| u32::from_le_bytes(std::array::from_fn(|j| (4 * i + j) as u8)));
        let block = chacha20(key, [1, 0x0900_0000, 0x4a00_0000, 0]);
        assert_eq!(
            block,
            [
                0xe4e7_f110,
                0x1559_3bd1,
                0x1fdd_0f50,
                0xc471_20a3,
                0xc7f4_d1c7,
                0x0368_c033,
                0x9aaa_2204,
                0x4e6c_d4c3,
                0x4664_82d2,
                0x09aa_9f07,
                0x05d7_c214,
                0xa202_8bd9,
                0xd19c_12b5,
                0xb94e_16de,
                0xe883_d0cb,
                0x4e3c_50a2,
            ]
        );
        assert_eq!(chacha20([0; 8], [0; 4])[..4], [0xade0_b876, 0x903d_f1a0, 0xe56a_5d40, 0x28bd_8653]);
        assert_eq!(chacha20([0; 8], [1, 0, 0, 0])[..4], [0xbee7_079f, 0x7a38_5155, 0x7c97_ba98, 0x0d08_2d73]);
        let mut key = [0; 8];
        key[0] = 0x0000_ff00;
        assert_eq!(chacha20(key, [2, 0, 0, 0])[..4], [0xfb4d_d572, 0x4bc4_2ef1, 0xdf92_2636, 0x327f_1394]);
    }

    #[test]
    fn keys_differ_and_do_not_show() {
        let (one, other) = (Key::from_system().unwrap(), Key::from_system().unwrap());
        assert_ne!(one, other);
        assert_eq!(format!("{one:?}"), "Key(..)");
    }
}
