//! The block function of [`trainc_runtime::chacha`], one block in each lane.

use super::builder::{Builder, Value};
use trainc_runtime::chacha::{CONSTANTS, QUARTERS};

impl Builder {
    /// The 16 words of the block of each element (i32); `key` and `counter` (instance, step, stream) are scalars.
    pub fn chacha20(&mut self, element: Value, key: [Value; 8], counter: [Value; 3]) -> [Value; 16] {
        let lanes = element.ty.lanes;
        let constants = CONSTANTS.map(|word| self.int(lanes, word as i32));
        let rest = key.into_iter().chain([element]).chain(counter);
        let rest: Vec<Value> = rest.map(|word| self.splat(word, lanes)).collect();
        let initial: [Value; 16] = std::array::from_fn(|i| if i < 4 { constants[i] } else { rest[i - 4] });
        let mut state = initial;
        for _ in 0..10 {
            for quarter in QUARTERS {
                self.half_quarter(&mut state, quarter, 16, 12);
                self.half_quarter(&mut state, quarter, 8, 7);
            }
        }
        std::array::from_fn(|i| self.add(state[i], initial[i]))
    }

    fn half_quarter(&mut self, state: &mut [Value; 16], [a, b, c, d]: [usize; 4], first: i32, second: i32) {
        state[a] = self.add(state[a], state[b]);
        state[d] = self.xor(state[d], state[a]);
        state[d] = self.rotate_left(state[d], first);
        state[c] = self.add(state[c], state[d]);
        state[b] = self.xor(state[b], state[c]);
        state[b] = self.rotate_left(state[b], second);
    }

    fn rotate_left(&mut self, a: Value, bits: i32) -> Value {
        let (high, low) = (self.shift_left(a, bits), self.shift_right(a, 32 - bits));
        self.or(high, low)
    }
}
