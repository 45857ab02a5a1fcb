//! Reads and writes, from a file descriptor set.

use prost::{DecodeError, Message};
use prost_types::{FileDescriptorSet, method_options::IdempotencyLevel};

use super::GrpcMethods;
use crate::policy::Intent;

/// The bytes are no `FileDescriptorSet`.
#[cfg_attr(docsrs, doc(cfg(feature = "grpc-schema")))]
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "no file descriptor set: give the file that protoc writes with --descriptor_set_out, or that prost-build writes \
     to file_descriptor_set_path"
)]
pub struct SchemaError(#[from] DecodeError);

#[cfg_attr(docsrs, doc(cfg(feature = "grpc-schema")))]
impl GrpcMethods {
    /// [`new`](Self::new), and [`schema`](Self::schema).
    ///
    /// # Errors
    /// See [`schema`](Self::schema).
    pub fn from_schema(file_descriptor_set: &[u8]) -> Result<Self, SchemaError> {
        Self::new().schema(file_descriptor_set)
    }

    /// All methods of this schema: those with `idempotency_level = NO_SIDE_EFFECTS` read, all others write, streams
    /// too. `IDEMPOTENT` is a write that may be repeated.
    ///
    /// `file_descriptor_set`: an encoded `FileDescriptorSet`, as `tonic::include_file_descriptor_set!` has it.
    ///
    /// ```
    /// use prost::Message;
    /// use prost_types::FileDescriptorSet;
    /// use tower_ryw::{GrpcMethods, RywLayer};
    ///
    /// # let set = FileDescriptorSet::default().encode_to_vec();
    /// // const SCHEMA: &[u8] = tonic::include_file_descriptor_set!("notes");
    /// let methods = GrpcMethods::from_schema(&set)?.write("notes.v1.Notes/CountViews");
    /// let layer = RywLayer::builder().classify(methods).build()?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SchemaError`] when the bytes are none.
    pub fn schema(mut self, file_descriptor_set: &[u8]) -> Result<Self, SchemaError> {
        let set = FileDescriptorSet::decode(file_descriptor_set)?;
        for file in &set.file {
            let package = file.package.as_deref().filter(|package| !package.is_empty());
            for service in &file.service {
                for method in &service.method {
                    let level = method.options.as_ref().map(|options| options.idempotency_level());
                    let intent = match level {
                        Some(IdempotencyLevel::NoSideEffects) => Intent::Read,
                        _ => Intent::Write,
                    };
                    let dot = if package.is_some() { "." } else { "" };
                    let (package, service) = (package.unwrap_or_default(), service.name());
                    self = self.name(&format!("{package}{dot}{service}/{}", method.name()), intent);
                }
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use prost_types::{FileDescriptorProto, MethodDescriptorProto, MethodOptions, ServiceDescriptorProto};

    use super::*;
    use crate::policy::Classify;

    fn method(name: &str, level: Option<IdempotencyLevel>, streams: bool) -> MethodDescriptorProto {
        MethodDescriptorProto {
            name: Some(name.into()),
            options: level
                .map(|level| MethodOptions { idempotency_level: Some(level.into()), ..MethodOptions::default() }),
            server_streaming: Some(streams),
            ..MethodDescriptorProto::default()
        }
    }

    fn file(package: Option<&str>, service: &str, method: Vec<MethodDescriptorProto>) -> FileDescriptorProto {
        let service =
            ServiceDescriptorProto { name: Some(service.into()), method, ..ServiceDescriptorProto::default() };
        FileDescriptorProto {
            package: package.map(str::to_owned),
            service: vec![service],
            ..FileDescriptorProto::default()
        }
    }

    #[test]
    fn methods_without_side_effects_read() {
        use IdempotencyLevel::*;
        let methods = vec![
            method("Get", Some(NoSideEffects), false),
            method("Watch", Some(NoSideEffects), true),
            method("Put", Some(Idempotent), false),
            method("Append", Some(IdempotencyUnknown), true),
            method("Delete", None, false),
        ];
        let bare = vec![method("Get", Some(NoSideEffects), false)];
        let file = vec![file(Some("notes.v1"), "Notes", methods), file(None, "Bare", bare)];
        let set = FileDescriptorSet { file }.encode_to_vec();
        let methods = GrpcMethods::from_schema(&set).unwrap();
        for (path, expected) in [
            ("/notes.v1.Notes/Get", Intent::Read),
            ("/notes.v1.Notes/Watch", Intent::Read),
            ("/notes.v1.Notes/Put", Intent::Write),
            ("/notes.v1.Notes/Append", Intent::Write),
            ("/notes.v1.Notes/Delete", Intent::Write),
            ("/notes.v1.Notes/Unheard", Intent::Write),
            ("/Bare/Get", Intent::Read),
            ("/.Bare/Get", Intent::Write),
        ] {
            let request = Request::post(path).body(()).unwrap();
            assert_eq!(methods.classify((&request).into()), expected, "{path}");
        }
        let methods = methods.write("notes.v1.Notes/Get").schema(&set).unwrap();
        let request = Request::post("/notes.v1.Notes/Get").body(()).unwrap();
        assert_eq!(methods.classify((&request).into()), Intent::Read, "the last word counts");
    }

    /// What protox 0.9, a compiler of its own, makes of `tests/schema/notes.proto`.
    #[test]
    fn what_a_compiler_writes_is_understood() {
        let methods = GrpcMethods::from_schema(include_bytes!("../../tests/schema/notes.bin")).unwrap();
        for (method, expected) in [("Get", Intent::Read), ("Watch", Intent::Read), ("Put", Intent::Write)] {
            let request = Request::post(format!("/notes.v1.Notes/{method}")).body(()).unwrap();
            assert_eq!(methods.classify((&request).into()), expected, "{method}");
        }
    }

    #[test]
    fn what_is_no_schema_is_an_error() {
        let error = GrpcMethods::from_schema(b"syntax = \"proto3\";").unwrap_err();
        assert!(error.to_string().contains("descriptor_set_out"), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
}
