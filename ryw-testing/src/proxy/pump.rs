//! One direction of one connection: reads as long as there is room, and writes what the faults allow.

use std::{collections::VecDeque, future::pending};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    select,
    sync::watch,
    time::{Instant, sleep_until},
};

use super::faults::{Allowed, Faults, Flow};

/// What one direction holds at most.
const LIMIT: usize = 64 * 1024;
const CHUNK: usize = 16 * 1024;

/// The sender reset the connection.
#[derive(Debug)]
pub(super) struct Reset;

/// Returns when the end of `from`'s stream was passed on, or nobody takes the bytes any more; or with an error when a
/// reset has to be passed on, which ends the other direction too.
pub(super) async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut faults: watch::Receiver<Faults>,
    flow: impl Fn(&Faults) -> Flow,
) -> Result<(), Reset> {
    let mut held = Held::default();
    let mut last = None;
    let mut buffer = vec![0; CHUNK];
    loop {
        let flow = flow(&faults.borrow_and_update());
        let room = held.room().min(CHUNK);
        select! {
            changed = faults.changed() => if changed.is_err() {
                return Err(Reset);
            },
            read = from.read(&mut buffer[..room]), if room > 0 => held.push(match read {
                Ok(0) => Item::End,
                Ok(count) => Item::Bytes(Bytes::copy_from_slice(&buffer[..count])),
                Err(_) => Item::Reset,
            }),
            delivered = deliver(&mut to, held.items.front(), flow, last) => match delivered {
                Delivered::Bytes(count) => {
                    held.remove(count);
                    last = Some(Instant::now());
                }
                Delivered::End => return Ok(()),
                Delivered::Reset => return Err(Reset),
            },
        }
    }
}

enum Delivered {
    Bytes(usize),
    End,
    Reset,
}

/// Waits until the faults allow it, and delivers some of the next item. Nothing of it is done if it is cancelled.
async fn deliver(
    to: &mut (impl AsyncWrite + Unpin),
    next: Option<&(Instant, Item)>,
    flow: Flow,
    last: Option<Instant>,
) -> Delivered {
    let Some((arrived, item)) = next else { return pending().await };
    let Some(Allowed { at, bytes: most }) = flow.allows(*arrived, last) else { return pending().await };
    sleep_until(at).await;
    match item {
        Item::Bytes(bytes) => match to.write(&bytes[..bytes.len().min(most)]).await {
            Ok(count) => Delivered::Bytes(count),
            // The other direction still has what the receiver said before it left.
            Err(_) => Delivered::End,
        },
        Item::End => {
            // Fails if the receiver has left, which is then no news.
            let _ = to.shutdown().await;
            Delivered::End
        }
        Item::Reset => Delivered::Reset,
    }
}

#[derive(Debug)]
enum Item {
    Bytes(Bytes),
    End,
    Reset,
}

/// What was read and not yet delivered, each with the time when it came.
#[derive(Debug, Default)]
struct Held {
    items: VecDeque<(Instant, Item)>,
    bytes: usize,
    ended: bool,
}

impl Held {
    fn room(&self) -> usize {
        if self.ended { 0 } else { LIMIT - self.bytes }
    }

    fn push(&mut self, item: Item) {
        match &item {
            Item::Bytes(bytes) => self.bytes += bytes.len(),
            Item::End | Item::Reset => self.ended = true,
        }
        self.items.push_back((Instant::now(), item));
    }

    /// Forgets the first `count` bytes, which are in the first item.
    fn remove(&mut self, count: usize) {
        if let Some((_, Item::Bytes(bytes))) = self.items.front_mut() {
            bytes.advance(count);
            self.bytes -= count;
            if bytes.is_empty() {
                self.items.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{DuplexStream, duplex},
        task::JoinHandle,
        time::timeout,
    };

    use super::{super::faults::Drip, *};

    const HOUR: Duration = Duration::from_secs(3600);

    struct Pumped {
        source: DuplexStream,
        sink: DuplexStream,
        faults: watch::Sender<Faults>,
        task: JoinHandle<Result<(), Reset>>,
    }

    /// With pipes that hold nearly nothing themselves.
    fn pumped(flow: Flow) -> Pumped {
        let faults = watch::Sender::new(Faults { to_server: flow, ..Faults::default() });
        let ((source, from), (to, sink)) = (duplex(1), duplex(1));
        let task = tokio::spawn(pump(from, to, faults.subscribe(), |faults| faults.to_server));
        Pumped { source, sink, faults, task }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_bounded_and_not_lost() {
        let Pumped { mut source, mut sink, faults, task } = pumped(Flow { black_hole: true, ..Flow::default() });
        let mut sent = 0;
        while timeout(HOUR, source.write_u8(0)).await.is_ok() {
            sent += 1;
        }
        assert_eq!(sent, LIMIT + 1, "and one in the pipe");
        drop(source);
        assert!(timeout(HOUR, sink.read_u8()).await.is_err(), "not even the end arrives");

        faults.send_replace(Faults::default());
        let mut received = Vec::new();
        sink.read_to_end(&mut received).await.unwrap();
        assert_eq!(received.len(), sent);
        task.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_as_late_as_the_bytes() {
        let Pumped { mut source, mut sink, faults: _faults, task } = pumped(Flow { delay: HOUR, ..Flow::default() });
        let start = Instant::now();
        source.write_u8(7).await.unwrap();
        sleep_until(start + HOUR / 2).await;
        drop(source);
        assert_eq!(sink.read_u8().await.unwrap(), 7);
        assert_eq!(start.elapsed().as_secs(), HOUR.as_secs());
        assert!(sink.read_u8().await.is_err());
        assert_eq!(start.elapsed().as_secs(), (HOUR * 3 / 2).as_secs());
        task.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_drip_in_order() {
        let drip = Some(Drip { bytes: 1, every: HOUR });
        let Pumped { mut source, mut sink, faults: _faults, .. } = pumped(Flow { drip, ..Flow::default() });
        let start = Instant::now();
        source.write_all(b"abc").await.unwrap();
        for (hour, byte) in (0..).zip(b"abc") {
            assert_eq!(sink.read_u8().await.unwrap(), *byte);
            assert_eq!(start.elapsed().as_secs(), hour * HOUR.as_secs());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_left_ends_the_direction() {
        let Pumped { mut source, sink, faults: _faults, task } = pumped(Flow::default());
        drop(sink);
        source.write_u8(0).await.unwrap();
        task.await.unwrap().unwrap();
    }
}
