//! gzip members to the pages of a packet.

use flate2::{Decompress, FlushDecompress, Status};
use multifd_core::codec::PageWriter;
use multifd_core::{Error, PACKET_BYTES};
use page_deflate::LARGEST_WINDOW;

use crate::member::{self, Sizes};

/// The decompressing side of a channel.
#[derive(Debug)]
pub struct Decoder {
    /// For members that say how long they are: all that QATzip makes.
    sized: page_deflate::Decoder,
    /// For others: where they end is only known when they have been inflated.
    plain: Decompress,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self {
            sized: page_deflate::Decoder::new(PACKET_BYTES, LARGEST_WINDOW),
            plain: Decompress::new(false),
        }
    }

    /// Restores the pages of a packet from its payload: members, and nothing else.
    pub(crate) fn decode(
        &mut self,
        payload: &[u8],
        pages: &mut PageWriter<'_>,
    ) -> Result<(), Error> {
        let mut rest = payload;
        while pages.remaining() > 0 {
            rest = self.member(rest, pages)?;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let left = rest.len();
        Err(Error::payload(format!("it has {left} bytes behind the packet's pages")))
    }

    /// Inflates the member that `input` begins with. Returns what comes behind it.
    fn member<'a>(
        &mut self,
        input: &'a [u8],
        pages: &mut PageWriter<'_>,
    ) -> Result<&'a [u8], Error> {
        let (sizes, body) = member::split_header(input)?;
        let (inflated, rest) = match sizes {
            Some(sizes) => self.inflate_sized(sizes, body, pages.spare())?,
            None => self.inflate_plain(body, pages.spare())?,
        };
        // So that each member brings the packet nearer to its end.
        if inflated == 0 {
            return Err(Error::payload("a gzip member inflates to no byte"));
        }
        let rest = member::strip_trailer(&pages.spare()[..inflated], rest)?;
        pages.advance(inflated);
        Ok(rest)
    }

    /// Inflates a member that says its sizes. Returns how many bytes it has written to `out`, and what
    /// comes behind the DEFLATE stream.
    fn inflate_sized<'a>(
        &mut self,
        sizes: Sizes,
        body: &'a [u8],
        out: &mut [u8],
    ) -> Result<(usize, &'a [u8]), Error> {
        let Some((deflate, rest)) = body.split_at_checked(sizes.deflate as usize) else {
            let (says, left) = (sizes.deflate, body.len());
            let what =
                format!("a gzip member says that it has {says} bytes of DEFLATE, {left} are left");
            return Err(Error::payload(what));
        };
        let (source, left) = (sizes.source as usize, out.len());
        let Some(out) = out.get_mut(..source) else {
            let what = format!(
                "a gzip member says that it inflates to {source} bytes, {left} of the packet's pages are left"
            );
            return Err(Error::payload(what));
        };
        let read = self.sized.decode(deflate, out).map_err(|error| {
            Error::payload(format!("in a gzip member said to inflate to {source} bytes, {error}"))
        })?;
        if read < deflate.len() {
            let says = deflate.len();
            let what =
                format!("a gzip member says that it has {says} bytes of DEFLATE, it has {read}");
            return Err(Error::payload(what));
        }
        Ok((source, rest))
    }

    /// As [`inflate_sized`](Self::inflate_sized), for a member that does not say its sizes.
    fn inflate_plain<'a>(
        &mut self,
        body: &'a [u8],
        out: &mut [u8],
    ) -> Result<(usize, &'a [u8]), Error> {
        self.plain.reset(false);
        let status = self
            .plain
            .decompress(body, out, FlushDecompress::Finish)
            .map_err(|error| Error::payload(format!("zlib cannot read a gzip member: {error}")))?;
        let (read, written) = (self.plain.total_in() as usize, self.plain.total_out() as usize);
        if status == Status::StreamEnd {
            return Ok((written, &body[read..]));
        }
        Err(Error::payload(if written == out.len() {
            "a gzip member inflates to more than is left of the packet's pages"
        } else {
            "it ends in the DEFLATE stream of a gzip member"
        }))
    }
}
