//! Tests of the checker.

mod generate;
mod hostile;
mod oracle;
