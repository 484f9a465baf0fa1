//! The order of blocks and warps: ascending, or shuffled by a seed to expose hidden assumptions.

/// A small generator (SplitMix64; Steele, Lea and Flood, OOPSLA 2014).
#[derive(Debug, Clone)]
pub struct Shuffle(Option<u64>);

impl Shuffle {
    /// Ascending order without a seed.
    pub fn new(seed: Option<u64>) -> Shuffle {
        Shuffle(seed)
    }

    fn next(&mut self) -> Option<u64> {
        let state = self.0.as_mut()?;
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(z ^ (z >> 31))
    }

    /// 0..count in some order (Fisher and Yates).
    pub fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            let Some(random) = self.next() else { break };
            order.swap(last, (random % (last as u64 + 1)) as usize);
        }
        order
    }
}
