//! Tests of the checker.

mod hostile;
