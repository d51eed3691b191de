//! A request of HTTP/1.1, read no further than its head.

use std::io;

/// The most bytes of a request.
const LONGEST: usize = 8 << 10;

/// The most header fields.
const HEADERS: usize = 64;

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) asked: Asked,
    /// Whether the answer has no body: HEAD.
    pub(super) head_only: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The page of this path.
    For(String),
    /// What is answered with this status.
    Refused(&'static str),
}

impl Request {
    /// Reads a request by `read`, which fills what it is given as far as it can, and returns 0 at the end.
    ///
    /// # Errors
    /// Those of `read`, and an end before the request's.
    pub(super) fn read(mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<Self> {
        let mut bytes = [0; LONGEST];
        let mut filled = 0;
        loop {
            let Some(space) = bytes.get_mut(filled..).filter(|space| !space.is_empty()) else {
                return Ok(Self::refused("431 Request Header Fields Too Large"));
            };
            filled += match read(space)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => read,
            };
            if let Some(request) = Self::parse(bytes.get(..filled).unwrap_or_default()) {
                return Ok(request);
            }
        }
    }

    /// The request at the start of these bytes; `None` if its head is incomplete.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            Ok(httparse::Status::Partial) => return None,
            Ok(httparse::Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => {
                return Some(Self::refused("431 Request Header Fields Too Large"));
            }
            Err(_) => return Some(Self::refused("400 Bad Request")),
        }
        let head_only = match request.method {
            Some("GET") => false,
            Some("HEAD") => true,
            _ => return Some(Self::refused("405 Method Not Allowed")),
        };
        let target = request.path.unwrap_or_default();
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        Some(Self { asked: Asked::For(path.to_owned()), head_only })
    }

    fn refused(status: &'static str) -> Self {
        Self { asked: Asked::Refused(status), head_only: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of these bytes, which come `piece` at a time.
    fn read(mut bytes: &[u8], piece: usize) -> io::Result<Request> {
        Request::read(|space| {
            let (now, later) = bytes.split_at(piece.min(bytes.len()).min(space.len()));
            space[..now.len()].copy_from_slice(now);
            bytes = later;
            Ok(now.len())
        })
    }

    #[test]
    fn a_path_is_read_without_its_query_wherever_the_bytes_are_split() {
        let text = b"GET /status?pretty=1 HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\nmore";
        for piece in 1..text.len() {
            let request = read(text, piece).unwrap();
            assert_eq!(request.asked, Asked::For("/status".to_owned()));
            assert!(!request.head_only);
        }
        assert!(read(b"HEAD / HTTP/1.0\r\n\r\n", 99).unwrap().head_only);
    }

    #[test]
    fn what_is_no_request_or_too_long_a_one_is_refused_by_its_status() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(LONGEST));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS + 1));
        for (bytes, status) in [
            (&b"POST /metrics HTTP/1.1\r\n\r\n"[..], "405"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01", "400"),
            (b"QEVM\0\0\0\x03 \r\n\r\n", "400"),
            (b"GET / HTTP/9\r\n\r\n", "400"),
            (long.as_bytes(), "431"),
            (many.as_bytes(), "431"),
        ] {
            match read(bytes, usize::MAX).unwrap().asked {
                Asked::Refused(refused) => assert!(refused.starts_with(status), "{refused}"),
                Asked::For(path) => panic!("{path}"),
            }
        }
    }

    #[test]
    fn a_request_that_ends_early_is_none() {
        let error = read(b"GET /metrics HTTP/1.1\r\nHost: x\r\n", 7).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
