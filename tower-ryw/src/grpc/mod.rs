//! Which gRPC methods read.

#[cfg(feature = "grpc-schema")]
mod schema;

use std::{collections::HashMap, fmt};

use crate::policy::{Classify, Intent, RequestHead, SafeMethods};

#[cfg(feature = "grpc-schema")]
pub use schema::SchemaError;

/// What every server offers and what says nothing about its data.
const STANDARD_READS: [&str; 5] = [
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/List",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Tells reads from writes by gRPC method: every call is a POST, so the HTTP method says nothing.
///
/// With the feature `grpc-schema` the services' own schema says it: a method whose `idempotency_level` is
/// `NO_SIDE_EFFECTS` reads.
///
/// ```proto
/// rpc GetNote(GetNoteRequest) returns (Note) { option idempotency_level = NO_SIDE_EFFECTS; }
/// ```
///
/// Methods can be named as well; the last word on a method counts. The standard health and reflection services
/// read. Whatever is not named is [`otherwise`](Self::otherwise)'s: [`SafeMethods`], by which a POST is a write.
///
/// ```
/// use tower_ryw::{GrpcMethods, RywLayer};
///
/// let methods = GrpcMethods::new().read("notes.v1.Notes/GetNote").read("notes.v1.Notes/ListNotes");
/// let layer = RywLayer::builder().classify(methods).build()?;
/// # Ok::<_, tower_ryw::ConfigError>(())
/// ```
pub struct GrpcMethods {
    /// By path, without the slash at its beginning.
    named: HashMap<Box<str>, Intent>,
    otherwise: Box<dyn Classify>,
}

impl GrpcMethods {
    /// Nothing but the standard services, which read.
    #[must_use]
    pub fn new() -> Self {
        let named = STANDARD_READS.map(|method| (method.into(), Intent::Read)).into_iter().collect();
        Self { named, otherwise: Box::new(SafeMethods) }
    }

    /// `package.Service/Method` only reads. A slash at the beginning makes no difference.
    #[must_use]
    pub fn read(self, method: &str) -> Self {
        self.name(method, Intent::Read)
    }

    /// `package.Service/Method` may write, whatever its schema says.
    #[must_use]
    pub fn write(self, method: &str) -> Self {
        self.name(method, Intent::Write)
    }

    /// Who is asked about requests to methods that are not named, and about those that are no gRPC at all. Default:
    /// [`SafeMethods`].
    #[must_use]
    pub fn otherwise(mut self, classify: impl Classify) -> Self {
        self.otherwise = Box::new(classify);
        self
    }

    fn name(mut self, method: &str, intent: Intent) -> Self {
        self.named.insert(method.strip_prefix('/').unwrap_or(method).into(), intent);
        self
    }
}

impl Default for GrpcMethods {
    fn default() -> Self {
        Self::new()
    }
}

impl Classify for GrpcMethods {
    fn classify(&self, head: RequestHead<'_>) -> Intent {
        let named = head.uri.path().strip_prefix('/').and_then(|method| self.named.get(method));
        named.copied().unwrap_or_else(|| self.otherwise.classify(head))
    }
}

impl fmt::Debug for GrpcMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcMethods").field("named", &self.named).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn check(methods: &GrpcMethods, path: &str, expected: Intent) {
        let request = Request::post(path).body(()).unwrap();
        assert_eq!(methods.classify((&request).into()), expected, "{path}");
    }

    #[test]
    fn what_is_not_named_writes() {
        let methods = GrpcMethods::new().read("/notes.Notes/Get").read("notes.Notes/List");
        for path in ["/notes.Notes/Get", "/notes.Notes/List", "/notes.Notes/Get?x=1", "/grpc.health.v1.Health/Check"] {
            check(&methods, path, Intent::Read);
        }
        for path in [
            "/notes.Notes/Put",
            "/notes.Notes/get",
            "//notes.Notes/Get",
            "/x/notes.Notes/Get",
            "/notes.Notes/Get/",
            "/notes.Notes/%47et",
            "/Notes/Get",
            "/",
        ] {
            check(&methods, path, Intent::Write);
        }
    }

    #[test]
    fn the_last_word_counts_and_a_closure_has_the_rest() {
        let rest = |head: RequestHead<'_>| match head.uri.path().ends_with("Search") {
            true => Intent::Read,
            false => Intent::Write,
        };
        let methods = GrpcMethods::new().read("a.A/Search").write("a.A/Search").otherwise(rest);
        check(&methods, "/a.A/Search", Intent::Write);
        check(&methods, "/a.B/Search", Intent::Read);
        check(&methods, "/a.B/Put", Intent::Write);
        let methods = methods.write("grpc.health.v1.Health/Check");
        check(&methods, "/grpc.health.v1.Health/Check", Intent::Write);
    }
}
