//! Tests of the checker.

mod command;
mod generate;
mod hostile;
mod literal;
mod mutation;
mod oracle;
