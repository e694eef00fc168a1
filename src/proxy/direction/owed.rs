//! What is decided and not written: the rest that a blocked write left over.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

#[derive(Default)]
pub(super) struct Owed {
    bytes: Vec<u8>,
    /// So many of them are written.
    sent: usize,
    /// Bytes that the destination took since [`Owed::take_written`]; a poll moves far less than 4 GiB.
    written: u32,
    /// The destination has accepted bytes that it has not sent (TLS).
    unflushed: bool,
}

impl Owed {
    /// Nothing is owed, and so many bytes were written.
    pub fn counting(written: usize) -> Self {
        Self { written: u32::try_from(written).unwrap_or(u32::MAX), ..Self::default() }
    }

    /// It is one piece of memory until the last byte is taken.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn is_flushed(&self) -> bool {
        self.bytes.is_empty() && !self.unflushed
    }

    pub fn written(&self) -> usize {
        self.written as usize
    }

    pub fn take_written(&mut self) -> usize {
        std::mem::take(&mut self.written) as usize
    }

    /// Writes `bytes` after all that is owed; what the destination does not take now is owed.
    #[inline]
    pub fn write<D: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        destination: &mut D,
        bytes: &[u8],
    ) -> io::Result<()> {
        let taken = self.write_now(cx, destination, bytes)?;
        self.bytes.extend_from_slice(bytes.get(taken..).unwrap_or_default());
        Ok(())
    }

    /// The same with bytes that need not be copied.
    pub fn write_made<D: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        destination: &mut D,
        made: Vec<u8>,
    ) -> io::Result<()> {
        if !self.bytes.is_empty() {
            self.bytes.extend_from_slice(&made);
            return Ok(());
        }
        let taken = self.write_now(cx, destination, &made)?;
        if taken < made.len() {
            (self.bytes, self.sent) = (made, taken);
        }
        Ok(())
    }

    /// How many of `bytes` the destination takes now; none while others are owed.
    #[inline]
    fn write_now<D: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        destination: &mut D,
        bytes: &[u8],
    ) -> io::Result<usize> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| self.bytes.is_empty() && !rest.is_empty()) {
            match Pin::new(&mut *destination).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(length)) => {
                    self.count(length);
                    taken += length;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        Ok(taken)
    }

    #[inline]
    fn count(&mut self, length: usize) {
        self.written = self.written.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
        self.unflushed = true;
    }

    /// Writes all that is owed.
    #[inline]
    pub fn poll_flush<D: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        destination: &mut D,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut *destination).poll_write(cx, rest)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(length) => {
                    self.count(length);
                    self.sent += length;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if self.sent > 0 {
            self.bytes = Vec::new();
            self.sent = 0;
        }
        if self.unflushed {
            ready!(Pin::new(&mut *destination).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
