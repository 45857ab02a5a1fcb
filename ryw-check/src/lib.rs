//! Checks recorded histories for read-your-writes and the other session guarantees.
//!
//! A history is a file of JSON lines, one operation each, as clients of the system under test saw it. [`Loader`] reads it,
//! [`check`] finds every broken promise with a minimal witness, [`Floors`] say whether silence means something. The command
//! `ryw-check` does all three. Whoever records one writes down an [`Operation`] for each.
//!
//! A reported violation is real as long as one clock has timed all operations and written values are unique. The reverse
//! does not hold: what nobody observed proves nothing.

mod check;
mod error;
mod floors;
mod history;
mod load;
mod names;
mod order;
mod parse;
mod record;
mod report;
mod trie;

pub use check::{Options, check};
pub use error::{InputError, Problem, UnknownLevel};
pub use floors::{Fault, FloorError, Floors};
pub use history::History;
pub use load::{Loader, MAX_LINE};
pub use parse::{Function, Level, Outcome};
pub use record::{Operation, Value};
pub use report::{Kind, Report, Verdict, Violation};
