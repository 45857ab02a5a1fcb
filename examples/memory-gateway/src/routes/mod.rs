//! The service itself.

mod ask;
mod memory;
mod operators;
mod system;

use axum::http::{Method, StatusCode, Uri};

use crate::problem::Problem;
pub(crate) use ask::{asking, questions};
pub(crate) use memory::{App, memory, tenant_of};
pub(crate) use operators::{Insight, measured, operators, statistics};

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let accepted = match uri.path() {
        "/v1/ask" => "POST",
        path if path.starts_with("/v1/memory/") && path.ends_with("/link") && path.matches('/').count() == 5 => {
            "GET and HEAD"
        }
        path if path.starts_with("/v1/memory/") => "GET, HEAD, PUT and DELETE",
        _ => "GET and HEAD",
    };
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not possible here: accepted are {accepted}"))
}
