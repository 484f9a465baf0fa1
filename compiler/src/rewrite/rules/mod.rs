//! The rules, by theme. Each is an equation with a name, a law for people, a condition and a pattern for its left side;
//! the right side is built from what the pattern captured. `spec/rewrites.md` holds the laws that rules keep, and the table
//! of all rules.

mod algebra;
mod attention;
mod contraction;
mod normalisation;
mod per_sample;
mod softmax;

use super::pattern::{Match, Tree};

/// A rule: `left = right` wherever `right` yields something.
pub struct Rule {
    /// Unique; names the rule in explanations.
    pub name: &'static str,
    /// The equation, for people.
    pub law: &'static str,
    /// When it holds, for people; empty if always.
    pub condition: &'static str,
    /// Pattern of the left side.
    pub left: &'static str,
    /// The right side at a match; `None` where the condition does not hold.
    pub right: fn(Match) -> Option<Tree>,
}

/// A theme with its rules.
pub struct Theme {
    /// Its name.
    pub name: &'static str,
    /// What its rules are for.
    pub purpose: &'static str,
    /// Its rules, in the order in which they are tried.
    pub rules: &'static [Rule],
}

/// All themes, in the order in which their rules are tried.
pub static THEMES: &[&Theme] = &[
    &algebra::THEME,
    &contraction::THEME,
    &normalisation::THEME,
    &softmax::THEME,
    &attention::THEME,
    &per_sample::THEME,
];

/// All rules.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    THEMES.iter().flat_map(|theme| theme.rules)
}

/// The rule of this name.
pub fn named(name: &str) -> Option<&'static Rule> {
    all().find(|rule| rule.name == name)
}

/// The axes below `rank` that are not among these.
fn complement(axes: &[usize], rank: usize) -> Vec<usize> {
    (0..rank).filter(|axis| !axes.contains(axis)).collect()
}
