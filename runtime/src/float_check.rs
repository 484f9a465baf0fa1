//! Looks for NaN and infinities.

use crate::artifact::DType;

/// The first number in an arena's encoding that is not finite.
pub(crate) fn first_not_finite(dtype: DType, bytes: &[u8]) -> Option<f64> {
    // All ones in the exponent: for both formats it lies in the upper half word.
    const EXPONENT: u16 = 0x7f80;
    let suspicious = |word: u16| word & EXPONENT == EXPONENT;
    let found = match dtype {
        DType::I32 => None,
        DType::F32 => {
            let words = bytes.as_chunks::<4>().0;
            let any = words.iter().any(|word| suspicious(u16::from_le_bytes([word[2], word[3]])));
            any.then(|| words.iter().map(|&word| f64::from(f32::from_le_bytes(word))).find(|value| !value.is_finite()))
        }
        DType::Bf16 => {
            let words = bytes.as_chunks::<2>().0;
            let any = words.iter().any(|&word| suspicious(u16::from_le_bytes(word)));
            let numbers = || words.iter().map(|&word| half::bf16::from_le_bytes(word).to_f64());
            any.then(|| numbers().find(|value| !value.is_finite()))
        }
    };
    found.flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_not_finite_and_nothing_else() {
        let bytes = |values: &[f32]| bytemuck::cast_slice::<f32, u8>(values).to_vec();
        assert_eq!(first_not_finite(DType::F32, &bytes(&[0.0, -1.0, f32::MAX, f32::MIN_POSITIVE])), None);
        assert_eq!(first_not_finite(DType::F32, &bytes(&[0.0, f32::NEG_INFINITY])), Some(f64::NEG_INFINITY));
        assert!(first_not_finite(DType::F32, &bytes(&[f32::NAN])).is_some_and(f64::is_nan));
        assert_eq!(first_not_finite(DType::Bf16, &[0x80, 0x7f]), Some(f64::INFINITY));
        assert_eq!(first_not_finite(DType::I32, &[0xff; 8]), None);
    }
}
