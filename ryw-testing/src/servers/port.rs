use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};

use super::ServerError;

/// A port of 127.0.0.1 that the kernel gives to nobody else while this value lives.
///
/// It is held by a socket that is bound and never listens. As both it and the servers set
/// `SO_REUSEADDR`, the server can listen on the port all the same; while it is down, a client is
/// refused as it would be without the reservation. So a server comes back on the port it had.
#[derive(Debug)]
pub(super) struct ReservedPort {
    port: u16,
    _held: OwnedFd,
}

impl ReservedPort {
    fn any() -> io::Result<Self> {
        let held = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&held, true)?;
        bind(&held, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
        let port = SocketAddrV4::try_from(getsockname(&held)?)?.port();
        Ok(Self { port, _held: held })
    }

    pub(super) fn get(&self) -> u16 {
        self.port
    }
}

pub(super) fn reserve() -> Result<ReservedPort, ServerError> {
    ReservedPort::any().map_err(|error| ServerError::io("no free port on 127.0.0.1", error))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_reserved_port_can_be_listened_on() {
        let port = ReservedPort::any().unwrap();
        TcpListener::bind((Ipv4Addr::LOCALHOST, port.get())).unwrap();
    }

    #[test]
    fn a_reserved_port_is_held() {
        let port = ReservedPort::any().unwrap();
        let other = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.get());
        assert!(bind(other.unwrap(), &address).is_err());
    }
}
