//! Panics of a dependency as errors: nothing that a user gives ends the process.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread becomes an error.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Does work of a dependency. What it leaves behind after a panic must not be used any more.
///
/// # Errors
/// When it panics; the text is what the panic says. Nothing is printed of it.
pub fn contained<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !CONTAINED.try_with(Cell::get).unwrap_or(false) {
                others(panic);
            }
        }));
    });
    let outside = CONTAINED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(outside);
    result.map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it gave no reason").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_later_ones_are_not_hidden() {
        assert_eq!(contained(|| 1), Ok(1));
        let inner = |text: &str| contained(|| assert!(text.is_empty(), "inner {text}"));
        let outer: Result<(), _> = contained(|| {
            assert_eq!(inner("1"), Err("inner 1".to_owned()));
            panic!("outer")
        });
        assert_eq!(outer, Err("outer".to_owned()));
        assert!(!CONTAINED.get());
    }
}
