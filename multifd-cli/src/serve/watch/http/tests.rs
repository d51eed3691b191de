use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use super::*;

/// Two connections at once, each for so long.
const LIMITS: Limits = Limits { connections: 2, time: Duration::from_millis(300) };

fn server(uri: &str) -> Server {
    serve(uri, LIMITS)
}

fn serve(uri: &str, limits: Limits) -> Server {
    let pages: Pages = Arc::new(|path| match path {
        "/long" => Some(Page::ok("text/plain", "x".repeat(8 << 20))),
        "/short" => Some(Page::ok("text/plain", "short\n".to_owned())),
        _ => None,
    });
    Server::start(&uri.parse().unwrap(), pages, limits).unwrap()
}

fn connect(server: &Server) -> TcpStream {
    match server.uri() {
        Uri::Tcp { host, port } => TcpStream::connect((&**host, *port)).unwrap(),
        uri => panic!("{uri}"),
    }
}

/// Sends these bytes, and reads to the end what comes back.
fn ask(mut stream: impl Read + Write, request: &[u8]) -> String {
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

/// Asks once there is room for another connection.
fn ask_later(server: &Server, request: &[u8]) -> String {
    loop {
        let mut stream = connect(server);
        let mut answer = String::new();
        let asked = stream.write_all(request).and_then(|()| stream.read_to_string(&mut answer));
        if asked.is_ok() && !answer.is_empty() {
            return answer;
        }
    }
}

#[test]
fn a_page_is_answered_on_tcp_and_on_a_unix_socket_with_its_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let (tcp, unix) = (server("tcp:127.0.0.1:0"), server(&format!("unix:{}", path.display())));
    let request = b"GET /short HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for answer in [ask(connect(&tcp), request), ask(UnixStream::connect(&path).unwrap(), request)] {
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\r\nContent-Length: 6\r\n"), "{answer}");
        assert!(answer.ends_with("\r\nConnection: close\r\n\r\nshort\n"), "{answer}");
    }
    drop(unix);
    assert!(!path.exists());
    let Uri::Tcp { port, .. } = *tcp.uri() else { panic!() };
    drop(tcp);
    TcpStream::connect(("127.0.0.1", port)).unwrap_err();
}

#[test]
fn head_has_the_length_and_no_body() {
    let server = server("tcp:127.0.0.1:0");
    let answer = ask(connect(&server), b"HEAD /short HTTP/1.1\r\n\r\n");
    assert!(
        answer.contains("\r\nContent-Length: 6\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
}

#[test]
fn what_is_wrong_is_said_by_its_status_and_arrives_though_more_was_sent() {
    let server = server("tcp:127.0.0.1:0");
    let long = format!("GET /short HTTP/1.1\r\nCookie: {}", "x".repeat(40 << 10));
    for (request, status) in [
        (&b"GET /missing HTTP/1.1\r\n\r\n"[..], "404"),
        (b"POST /short HTTP/1.1\r\nContent-Length: 4\r\n\r\nmore", "405"),
        (b"\x16\x03\x01\0\0 no request\r\n\r\n", "400"),
        (long.as_bytes(), "431"),
    ] {
        let answer = ask_later(&server, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert_eq!(answer.contains("\r\nAllow: GET, HEAD\r\n"), status == "405", "{answer}");
    }
}

#[test]
fn a_client_that_is_slow_to_ask_is_closed_after_its_time() {
    let server = server("tcp:127.0.0.1:0");
    let mut slow = connect(&server);
    let began = Instant::now();
    // A byte now and then does not keep it open.
    while slow.write_all(b"G").is_ok() {
        std::thread::sleep(Duration::from_millis(20));
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    assert!(began.elapsed() >= LIMITS.time);
}

#[test]
fn a_client_that_does_not_read_is_closed_after_its_time_and_holds_up_nobody() {
    let server = server("tcp:127.0.0.1:0");
    let mut slow = connect(&server);
    slow.write_all(b"GET /long HTTP/1.1\r\n\r\n").unwrap();
    let answer = ask(connect(&server), b"GET /short HTTP/1.1\r\n\r\n");
    assert!(answer.ends_with("short\n"), "{answer}");
    std::thread::sleep(LIMITS.time);
    let mut read = Vec::new();
    // Cut off, by an end or by an error.
    _ = slow.read_to_end(&mut read);
    assert!(!read.is_empty() && read.len() < 8 << 20, "{}", read.len());
}

#[test]
fn of_many_clients_at_once_some_are_closed_and_the_others_are_answered() {
    let patient = Limits { time: Duration::from_secs(30), ..LIMITS };
    let server = serve("tcp:127.0.0.1:0", patient);
    let mut open: Vec<_> = (0..20).map(|_| connect(&server)).collect();
    let began = Instant::now();
    while open.len() > 2 && began.elapsed() < Duration::from_secs(10) {
        open.retain(|stream| {
            stream.set_nonblocking(true).unwrap();
            stream.peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        });
    }
    assert_eq!(open.len(), 2);
    for stream in open {
        stream.set_nonblocking(false).unwrap();
        assert!(ask(stream, b"GET /short HTTP/1.1\r\n\r\n").ends_with("short\n"));
    }
    assert!(ask_later(&server, b"GET /short HTTP/1.1\r\n\r\n").ends_with("short\n"));
}

#[test]
fn the_server_ends_at_once_while_clients_are_connected() {
    let server = server("tcp:127.0.0.1:0");
    let _idle = [connect(&server), connect(&server)];
    let began = Instant::now();
    drop(server);
    assert!(began.elapsed() < LIMITS.time);
}
