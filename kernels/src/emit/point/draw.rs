//! Random draws.

use super::{Emitter, Point};
use crate::{
    emit::builder::{Elem, Type, Value},
    ir::{Draw, Generator, Index},
};
use std::mem::offset_of;
use trainc_runtime::artifact::Control;

/// Where the control block has the step, in words.
const CONTROL_STEP: u64 = (offset_of!(Control, step) / size_of::<u32>()) as u64;
/// Where it has the key.
const CONTROL_KEY: u64 = (offset_of!(Control, key) / size_of::<u32>()) as u64;

/// The words that one element of a stream has.
#[derive(Clone, Debug)]
pub(super) struct Block {
    stream: u32,
    element: Index,
    words: [Value; 16],
}

impl Emitter<'_> {
    pub(super) fn random(&mut self, point: &mut Point, draw: &Draw) -> Value {
        match draw.generator {
            Generator::Philox => {
                let element = self.position(point, &draw.element);
                let key = [0, 1].map(|word| self.control_word(draw, word));
                let counter = self.counter(draw);
                self.b.uniform(element, key, counter)
            }
            Generator::ChaCha20 { word } => {
                let words = self.block(point, draw);
                self.b.fraction(words[usize::from(word)])
            }
        }
    }

    /// What a draw depends on besides key and element: instance, step and stream.
    fn counter(&mut self, draw: &Draw) -> [Value; 3] {
        let instance = self.b.truncate(self.instance, Elem::I32);
        let step = self.control_word(draw, CONTROL_STEP);
        let stream = self.b.int(1, draw.stream as i32);
        [instance, step, stream]
    }

    fn control_word(&mut self, draw: &Draw, word: u64) -> Value {
        let control = self.pointer(draw.control);
        let word = self.b.i64(word as i64);
        let address = self.b.address(control, word, Elem::I32);
        self.b.load(address, Type::scalar(Elem::I32), true)
    }

    /// The block of ChaCha20 that a draw takes a word of.
    fn block(&mut self, point: &mut Point, draw: &Draw) -> [Value; 16] {
        let known = point.blocks.iter().find(|known| known.stream == draw.stream && known.element == draw.element);
        if let Some(known) = known {
            return known.words;
        }
        let element = self.position(point, &draw.element);
        let key = std::array::from_fn(|word| self.control_word(draw, CONTROL_KEY + word as u64));
        let counter = self.counter(draw);
        let words = self.b.chacha20(element, key, counter);
        point.blocks.push(Block { stream: draw.stream, element: draw.element.clone(), words });
        words
    }
}
