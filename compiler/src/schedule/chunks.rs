//! Whether the rows of a large value are computed some at a time ([`Rows`]).
//!
//! Every chunk costs launches and reads what all rows share once more, so rows are cut only where the arena becomes smaller
//! by more than a few percent, into as few chunks as that takes. A memory budget asks for no more than it needs.

use super::{Persistent, Request, ScheduleError, dag::Choices, entry, instantiate::Kernels};
use crate::graph::{Graph, Rows};
use std::borrow::Cow;

/// Smaller values stay whole.
const LEAST_BYTES: u64 = 32 << 20;
/// The arena may be larger than it could be, in percent, for fewer chunks.
const SLACK: u64 = 5;

/// A way to compute an entry.
struct Variant<'a> {
    graph: Cow<'a, Graph>,
    /// Bytes of parameters, states and what the entry needs.
    bytes: u64,
}

/// The graphs of the entries, in which rows are cut where that is worth it.
///
/// # Errors
/// As [`super::schedule`].
pub(super) fn chosen<'a>(request: &Request<'a>, persistent: &Persistent) -> Result<Vec<Cow<'a, Graph>>, ScheduleError> {
    let rows: Vec<Option<Rows>> = request.entries.iter().map(|(_, graph)| Rows::largest(graph, LEAST_BYTES)).collect();
    if rows.iter().all(Option::is_none) {
        return Ok(request.entries.iter().map(|&(_, graph)| Cow::Borrowed(graph)).collect());
    }
    let mut entries = Vec::new();
    for (&(name, graph), rows) in request.entries.iter().zip(rows) {
        entries.push(variants(request, persistent, (name, graph), rows)?);
    }
    let least = |variants: &Vec<Variant>| variants.iter().map(|variant| variant.bytes).min().expect("the whole is one");
    let arena = entries.iter().map(least).max().unwrap_or(0);
    let limit = request.memory_budget.unwrap_or(arena + arena / 100 * SLACK).max(arena);
    Ok(entries.into_iter().map(|variants| fewest_chunks(variants, limit)).collect())
}

/// An entry as it is, and in chunks, by their number.
fn variants<'a>(
    request: &Request,
    persistent: &Persistent,
    (name, graph): (&str, &'a Graph),
    rows: Option<Rows>,
) -> Result<Vec<Variant<'a>>, ScheduleError> {
    let counts = rows.iter().flat_map(|rows| rows.counts(graph).into_iter().map(move |count| (rows, count)));
    let chunked = counts.map(|(rows, count)| Cow::Owned(rows.chunked(graph, count)));
    let graphs = std::iter::once(Cow::Borrowed(graph)).chain(chunked);
    graphs
        .map(|graph| {
            let scheduled = entry(name, &graph, Choices::of(request.target), &mut Kernels::new(request.target))?;
            Ok(Variant { bytes: persistent.bytes + scheduled.placement().bytes, graph })
        })
        .collect()
}

/// The first variant within a limit that some variant of each entry keeps.
fn fewest_chunks(variants: Vec<Variant>, limit: u64) -> Cow<Graph> {
    variants.into_iter().find(|variant| variant.bytes <= limit).expect("one keeps the limit").graph
}
