//! What a request costs with tower-ryw, and what others add: allocations and instructions.
//!
//! Apart from `ryw-bench`, because `./test` builds it for release each time.

pub mod alloc;
pub mod baseline;
pub mod bench;
pub mod cases;
pub mod clock;
pub mod counts;
