//! How far lists of numbers are from each other.

/// `a - b`
///
/// # Panics
/// If they differ in length.
pub fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// `a · b`
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `|a|`, Euclidean.
pub fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

/// `|found - expected| / |expected|`
pub fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    norm(&difference(found, expected)) / norm(expected)
}
