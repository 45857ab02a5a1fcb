use std::fmt;

/// Tells which port a server announces, from the one it has.
#[derive(Default)]
pub(super) struct Announce(Option<Box<dyn FnMut(u16) -> u16 + Send>>);

impl Announce {
    pub(super) fn with(port: impl FnMut(u16) -> u16 + Send + 'static) -> Self {
        Self(Some(Box::new(port)))
    }

    pub(super) fn port(&mut self, port: u16) -> u16 {
        self.0.as_mut().map_or(port, |announced| announced(port))
    }
}

impl fmt::Debug for Announce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Announce").field(&self.0.is_some()).finish()
    }
}
