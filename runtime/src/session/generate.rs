//! Text generation by sampling from a language model's next-token distribution.

use super::{Session, entry};
use crate::artifact::{DType, InputBinding, OutputBinding};
use crate::error::{Error, Result};
use crate::numbers::Values;
use crate::philox::Draw;

/// Keeps these draws apart from all others under the same seed.
pub(crate) const STREAM: u32 = u32::from_le_bytes(*b"smpl");

/// How to sample.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// How many tokens to add.
    pub max_tokens: usize,
    /// Logits are divided by this; 0 always takes the likeliest token.
    pub temperature: f64,
    /// Only so many of the likeliest tokens are eligible.
    pub top_k: Option<usize>,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self { max_tokens: 256, temperature: 0.8, top_k: None, seed: 1 }
    }
}

impl Session {
    /// Continues a text; returns the continuation without the prompt. An empty prompt starts a new document.
    ///
    /// # Errors
    /// When the program does not generate or has no tokenizer, or the options make no sense.
    pub fn generate(&mut self, prompt: &str, options: &GenerateOptions) -> Result<String> {
        let tokenizer = self.tokenizer()?;
        let end = tokenizer.end_of_text();
        let mut tokens = tokenizer.encode(prompt.as_bytes())?;
        if tokens.is_empty() {
            tokens.extend(tokenizer.separator());
        }
        let mut continuation = Vec::new();
        self.generate_tokens(&tokens, options, |token| {
            let ends = Some(token) == end;
            if !ends {
                continuation.push(token);
            }
            !ends
        })?;
        Ok(self.tokenizer()?.decode_after(prompt, &tokens, &continuation)?)
    }

    /// Continues a sequence of tokens, handing over each new one until `accept` returns false.
    ///
    /// The model sees the last `context` tokens. What lies beyond the sequence in its input is zero; the model must be
    /// causal for that not to matter.
    ///
    /// # Errors
    /// As [`Session::generate`].
    pub fn generate_tokens(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        mut accept: impl FnMut(u32) -> bool,
    ) -> Result<()> {
        let (input, logits) = self.generator()?;
        check(prompt, &input, options)?;
        let context = input.record_elements() as usize;
        let mut window: Vec<i32> = prompt.iter().map(|&token| token as i32).collect();
        window.drain(..window.len().saturating_sub(context));
        for index in 0..options.max_tokens {
            self.feed_window(&input, &window)?;
            self.execute("generate")?;
            let scores = self.scores(&logits, window.len() - 1)?;
            let draw = Draw { seed: options.seed, stream: STREAM, step: index as u32, instance: 0 };
            let token = sample(&scores, options, f64::from(draw.word(0)) / 2f64.powi(32))?;
            if !accept(token) {
                break;
            }
            if window.len() == context {
                window.remove(0);
            }
            window.push(token as i32);
        }
        Ok(())
    }

    /// The input and the output of the `generate` entry, `[batch, context]` and `[batch, context, vocabulary]`.
    fn generator(&self) -> Result<(InputBinding, OutputBinding)> {
        let entry = entry(&self.manifest, "generate")?;
        let logits = entry.outputs.iter().find(|output| output.name == "logits");
        match (&entry.inputs[..], logits) {
            ([input], Some(logits))
                if input.dtype == DType::I32
                    && input.shape.len() == 2
                    && logits.shape.len() == 3
                    && logits.shape[..2] == input.shape[..] =>
            {
                Ok((input.clone(), logits.clone()))
            }
            _ => Error::misuse("the program's `generate` does not turn tokens into logits for each position"),
        }
    }

    /// Writes the window into the first record, zeros elsewhere.
    fn feed_window(&mut self, input: &InputBinding, window: &[i32]) -> Result<()> {
        self.device.write(input.offset, input.bytes(), |out| {
            out.fill(0);
            let bytes = bytemuck::cast_slice(window);
            out[..bytes.len()].copy_from_slice(bytes);
            Ok(())
        })
    }

    /// The logits at a position of the first record.
    fn scores(&self, logits: &OutputBinding, position: usize) -> Result<Vec<f32>> {
        let row = logits.shape[2] * logits.dtype.bytes();
        let bytes = self.device.read(logits.offset + position as u64 * row, row)?;
        Ok(match Values::read(logits.dtype, &bytes) {
            Values::Floats(scores) => scores,
            Values::Integers(scores) => scores.into_iter().map(|score| score as f32).collect(),
        })
    }
}

fn check(prompt: &[u32], input: &InputBinding, options: &GenerateOptions) -> Result<()> {
    if prompt.is_empty() {
        return Error::misuse("the prompt is empty, and the vocabulary has no token to begin with");
    }
    if let Some(token) = prompt.iter().find(|&&token| input.below.is_some_and(|below| u64::from(token) >= below)) {
        return Error::misuse(format!("the prompt has token {token}, which the model does not know"));
    }
    if !(options.temperature.is_finite() && options.temperature >= 0.0) {
        return Error::misuse("the temperature is a finite number, 0 or more");
    }
    if options.top_k == Some(0) {
        return Error::misuse("top-k is at least 1");
    }
    Ok(())
}

/// Draws a token: likeliest first, ties by number, so that equal scores have one order.
fn sample(scores: &[f32], options: &GenerateOptions, uniform: f64) -> Result<u32> {
    if scores.iter().any(|score| score.is_nan()) {
        return Error::misuse("the model's scores are not numbers: its parameters are damaged or have diverged");
    }
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    let descending = |&a: &u32, &b: &u32| scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b));
    let eligible = options.top_k.unwrap_or(order.len()).min(order.len());
    if options.temperature == 0.0 {
        return Ok(order.into_iter().min_by(descending).unwrap_or(0));
    }
    if eligible < order.len() {
        order.select_nth_unstable_by(eligible - 1, descending);
        order.truncate(eligible);
    }
    order.sort_unstable_by(descending);
    let largest = f64::from(scores[order[0] as usize]);
    let weight = |token: u32| ((f64::from(scores[token as usize]) - largest) / options.temperature).exp();
    let mut rest = uniform * order.iter().map(|&token| weight(token)).sum::<f64>();
    let drawn = order.iter().copied().find(|&token| {
        rest -= weight(token);
        rest < 0.0
    });
    Ok(drawn.unwrap_or(order[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(temperature: f64, top_k: Option<usize>) -> GenerateOptions {
        GenerateOptions { temperature, top_k, ..GenerateOptions::default() }
    }

    #[test]
    fn temperature_zero_takes_the_likeliest_and_the_first_of_equals() {
        assert_eq!(sample(&[1.0, 3.0, 3.0, 2.0], &options(0.0, None), 0.99).unwrap(), 1);
    }

    #[test]
    fn draws_follow_the_softmax_of_the_eligible() {
        let scores = [0.0, 2f32.ln(), 4f32.ln(), f32::NEG_INFINITY];
        let frequency = |options: &GenerateOptions, token: u32| {
            let draws = (0..7000).map(|i| sample(&scores, options, (f64::from(i) + 0.5) / 7000.0).unwrap());
            draws.filter(|&drawn| drawn == token).count()
        };
        assert_eq!([0, 1, 2, 3].map(|token| frequency(&options(1.0, None), token)), [1000, 2000, 4000, 0]);
        assert_eq!([0, 1, 2].map(|token| frequency(&options(1.0, Some(1)), token)), [0, 0, 7000]);
        let hot = [0, 1, 2].map(|token| frequency(&options(1e6, Some(2)), token));
        assert!(hot[0] == 0 && hot[1].abs_diff(hot[2]) <= 2, "{hot:?}");
    }

    #[test]
    fn scores_that_are_not_numbers_are_an_error() {
        assert!(sample(&[0.0, f32::NAN], &options(1.0, None), 0.5).is_err());
    }
}
