//! Real database servers, started for one test or demo and gone with it.

pub mod postgres;
