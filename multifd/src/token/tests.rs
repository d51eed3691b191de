//! The hello's machines against each other, and against vectors that Python has computed.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::hello::{ANSWER, Connecting, Listening, MAGIC, Next, REPLY, REQUEST, VERSION, Wrong};
use super::{LEAST, MOST, SetupError, Token, TokenError};
use crate::transport::{Binding, Introduction, MigrationId, Role};

const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
const MIGRATION: MigrationId = MigrationId(numbers(0));
const MAIN: Introduction = Introduction { migration: MIGRATION, role: Role::Main };

/// The bytes from `first` on, each one more than the one before.
const fn numbers<const N: usize>(first: u8) -> [u8; N] {
    let (mut bytes, mut at) = ([0; N], 0);
    while at < N {
        bytes[at] = first + at as u8;
        at += 1;
    }
    bytes
}

fn token() -> Token {
    Token::new(SECRET).unwrap()
}

fn other_token() -> Token {
    Token::new(b"another one of at least 32 bytes").unwrap()
}

/// The two sides of one connection.
struct Sides<'a> {
    connects: Connecting<'a>,
    listens: Listening<'a>,
}

fn sides<'a>(
    tokens: [&'a Token; 2],
    introduction: Introduction,
    bindings: [Binding; 2],
) -> Sides<'a> {
    Sides {
        connects: Connecting::new(tokens[0], introduction, numbers(32), bindings[0]).unwrap(),
        listens: Listening::new(tokens[1], numbers(64), bindings[1]).unwrap(),
    }
}

/// Feeds a side that connects, at most `step` bytes at a time.
fn feed_connecting(
    side: &mut Connecting<'_>,
    mut bytes: &[u8],
    step: usize,
) -> Result<Option<[u8; REPLY]>, Wrong> {
    while !bytes.is_empty() && side.wanted() > 0 {
        let count = step.min(side.wanted()).min(bytes.len());
        if let Some(reply) = side.take(&bytes[..count])? {
            return Ok(Some(reply));
        }
        bytes = &bytes[count..];
    }
    Ok(None)
}

/// As [`feed_connecting`], of a side that listens, up to an answer or the end.
fn feed_listening(side: &mut Listening<'_>, mut bytes: &[u8], step: usize) -> Result<Next, Wrong> {
    while !bytes.is_empty() {
        let count = step.min(side.wanted()).min(bytes.len());
        match side.take(&bytes[..count])? {
            Next::Read => {}
            next => return Ok(next),
        }
        bytes = &bytes[count..];
    }
    Ok(Next::Read)
}

/// What a side comes to; nothing where it waits for more.
type Outcome<T> = Option<Result<T, TokenError>>;

/// A whole hello whose messages `change` may change on their way: by 0, 1, 2 which of them. What each side
/// comes to; a side that has not been answered comes to nothing.
fn run(
    Sides { mut connects, mut listens }: Sides<'_>,
    step: usize,
    change: impl Fn(usize, &mut [u8]),
) -> (Outcome<()>, Outcome<Introduction>) {
    let mut request = *connects.request();
    change(0, &mut request);
    let mut answer = match feed_listening(&mut listens, &request, step) {
        Ok(Next::Answer(answer)) => answer.to_vec(),
        Ok(next) => panic!("{next:?}"),
        Err(Wrong { error, say }) => {
            let connected = feed_connecting(&mut connects, &say, step);
            assert!(!matches!(connected, Ok(Some(_))));
            return (connected.err().map(|wrong| Err(wrong.error)), Some(Err(error)));
        }
    };
    change(1, &mut answer);
    let (connected, mut reply) = match feed_connecting(&mut connects, &answer, step) {
        Ok(Some(reply)) => (Ok(()), reply.to_vec()),
        Ok(None) => panic!("it waits for more"),
        Err(Wrong { error, say }) => (Err(error), say),
    };
    change(2, &mut reply);
    let met = match feed_listening(&mut listens, &reply, step) {
        Ok(Next::Met(introduction)) => Some(Ok(introduction)),
        Ok(Next::Read) => None,
        Ok(next) => panic!("{next:?}"),
        Err(wrong) => Some(Err(wrong.error)),
    };
    (Some(connected), met)
}

const BINDINGS: [Binding; 2] = [Binding::Plain, Binding::Tls(numbers(128))];

#[test]
fn both_sides_know_each_other_however_the_bytes_are_split() {
    let token = token();
    for role in [Role::Main, Role::Channel(0), Role::Channel(3), Role::Channel(255)] {
        let introduction = Introduction { migration: MIGRATION, role };
        for binding in BINDINGS {
            for step in 1..=REQUEST.max(ANSWER) {
                let sides = sides([&token, &token], introduction, [binding; 2]);
                let (connected, met) = run(sides, step, |_, _| {});
                assert!(matches!(connected, Some(Ok(()))), "{step}: {connected:?}");
                assert_eq!(met.unwrap().unwrap(), introduction, "{step}");
            }
        }
    }
}

#[test]
fn the_messages_are_those_that_python_has_computed() {
    // By the program in docs/token.md.
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let token = token();
    for (role, kind, binding, listens, connects) in [
        (Role::Main, [0, 0, 0], BINDINGS[0], VECTORS[0][0], VECTORS[0][1]),
        (Role::Channel(3), [1, 3, 0], BINDINGS[0], VECTORS[1][0], VECTORS[1][1]),
        (Role::Main, [0, 0, 1], BINDINGS[1], VECTORS[2][0], VECTORS[2][1]),
    ] {
        let introduction = Introduction { migration: MIGRATION, role };
        let Sides { connects: mut source, listens: mut destination } =
            sides([&token, &token], introduction, [binding; 2]);
        let head = [&MAGIC[..], &[VERSION], &kind, &[0; 4]].concat();
        let request = [&head[..], &numbers::<16>(0), &numbers::<32>(32)].concat();
        assert_eq!(source.request()[..], request);
        let Next::Answer(answer) = feed_listening(&mut destination, &request, 64).unwrap() else {
            panic!("no answer");
        };
        let said = [&MAGIC[..], &[VERSION, 0, 0, 0, 0, 0, 0, 0], &numbers::<32>(64)].concat();
        assert_eq!(answer[..48], said);
        assert_eq!(hex(&answer[48..]), listens);
        let reply = feed_connecting(&mut source, &answer, 80).unwrap().unwrap();
        assert_eq!(reply[..8], [0; 8]);
        assert_eq!(hex(&reply[8..]), connects);
    }
}

/// The proofs of the side that listens and of the one that connects.
const VECTORS: [[&str; 2]; 3] = [
    [
        "11845ce5b99e71d8d1c5dd19926c5b89291810efb1581b89bed991a61b744d89",
        "6ba8ca330fbbc90b7ce20683fe31050aaf065601878bdf953b87661e27a9601e",
    ],
    [
        "8c327b8060594da844f4f72ef7ecf9cb256a3b535922780f3bc6a599bb392812",
        "d4fe6faae3d9db422d9a8e91ceaabb845a0b23f5e0b8fed15ff19f3d96049129",
    ],
    [
        "e4ece2976028df80ec68e9f1fc6b13bc8991e9c90ba864a77e3de70095e15560",
        "b8cef9401fd90cc88f18a98cb5a170124aa105bc2c45b208245087f622400fe3",
    ],
];

#[test]
fn of_a_hello_with_any_bit_flipped_nothing_is_taken() {
    let token = token();
    for (which, bytes) in [(0, REQUEST), (1, ANSWER), (2, REPLY)] {
        for bit in 0..bytes * 8 {
            let sides = sides([&token, &token], MAIN, [Binding::Plain; 2]);
            let (connected, met) = run(sides, 64, |at, bytes| {
                if at == which && bit / 8 < bytes.len() {
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            });
            assert!(!matches!(met, Some(Ok(_))), "{which} {bit}");
            // The last message has no answer.
            assert_eq!(matches!(connected, Some(Ok(()))), which == 2, "{which} {bit}");
        }
    }
}

#[test]
fn a_hello_that_is_cut_off_is_neither_taken_nor_refused() {
    let token = token();
    let new = || sides([&token, &token], MAIN, [Binding::Plain; 2]);
    let mut whole = new();
    let request = *whole.connects.request();
    let Next::Answer(answer) = feed_listening(&mut whole.listens, &request, 64).unwrap() else {
        panic!("no answer");
    };
    let reply = feed_connecting(&mut whole.connects, &answer, 80).unwrap().unwrap();
    for end in 0..REQUEST {
        let mut cut = new();
        let next = feed_listening(&mut cut.listens, &request[..end], 64).unwrap();
        assert_eq!((next, cut.listens.is_empty()), (Next::Read, end == 0), "{end}");
        assert!(cut.listens.wanted() > 0, "{end}");
    }
    for end in 0..ANSWER {
        let mut cut = new();
        assert!(feed_connecting(&mut cut.connects, &answer[..end], 80).unwrap().is_none(), "{end}");
        assert!(cut.connects.wanted() > 0, "{end}");
    }
    for end in 0..REPLY {
        let mut cut = new();
        feed_listening(&mut cut.listens, &request, 64).unwrap();
        assert_eq!(feed_listening(&mut cut.listens, &reply[..end], 40).unwrap(), Next::Read);
        assert_eq!(cut.listens.wanted(), REPLY - end, "{end}");
    }
}

#[test]
fn no_more_is_read_than_is_certain_to_be_of_the_hello() {
    let token = token();
    let Sides { mut connects, mut listens } = sides([&token, &token], MAIN, [Binding::Plain; 2]);
    let request = *connects.request();
    for (range, wanted) in [(0..3, 4), (3..4, 1), (4..6, 5), (6..9, 3), (9..14, REQUEST - 9)] {
        assert_eq!(listens.wanted(), wanted, "{range:?}");
        assert_eq!(listens.take(&request[range]).unwrap(), Next::Read);
    }
    assert_eq!(listens.wanted(), REQUEST - 14);
    let Next::Answer(answer) = listens.take(&request[14..]).unwrap() else { panic!("no answer") };
    assert_eq!(listens.wanted(), REPLY);
    for (range, wanted) in [(0..3, 4), (3..4, 1), (4..70, ANSWER - 4)] {
        assert_eq!(connects.wanted(), wanted, "{range:?}");
        assert!(connects.take(&answer[range]).unwrap().is_none());
    }
    assert_eq!(connects.wanted(), ANSWER - 70);
    assert!(connects.take(&answer[70..]).unwrap().is_some());
}

#[test]
fn of_different_tokens_both_sides_say_that_they_are_and_nothing_more() {
    let (one, other) = (token(), other_token());
    for tokens in [[&one, &other], [&other, &one]] {
        let (connected, met) = run(sides(tokens, MAIN, [Binding::Plain; 2]), 64, |_, _| {});
        assert!(matches!(connected, Some(Err(TokenError::Mismatch))), "{connected:?}");
        assert!(matches!(met, Some(Err(TokenError::Mismatch))), "{met:?}");
    }
}

#[test]
fn a_hello_of_another_tls_session_is_refused_and_tls_on_one_side_alone_is_named() {
    let token = token();
    let between = [Binding::Tls(numbers(128)), Binding::Tls(numbers(129))];
    let (connected, met) = run(sides([&token, &token], MAIN, between), 64, |_, _| {});
    assert!(matches!(connected, Some(Err(TokenError::Mismatch))), "{connected:?}");
    assert!(matches!(met, Some(Err(TokenError::Mismatch))), "{met:?}");
    for bindings in [[BINDINGS[0], BINDINGS[1]], [BINDINGS[1], BINDINGS[0]]] {
        let (connected, met) = run(sides([&token, &token], MAIN, bindings), 64, |_, _| {});
        assert!(matches!(connected, Some(Err(TokenError::OneSidedTls))), "{connected:?}");
        assert!(matches!(met, Some(Err(TokenError::OneSidedTls))), "{met:?}");
        // Somebody between who says that there is, or is no, TLS does not get through either.
        let lie = |at: usize, bytes: &mut [u8]| {
            if at == 0 {
                bytes[11] ^= 1;
            }
        };
        let (connected, met) = run(sides([&token, &token], MAIN, bindings), 64, lie);
        assert!(matches!(connected, Some(Err(TokenError::Mismatch))), "{connected:?}");
        assert!(matches!(met, Some(Err(TokenError::Mismatch))), "{met:?}");
    }
    for old in [
        Connecting::new(&token, MAIN, numbers(0), Binding::OldTls).unwrap_err(),
        Listening::new(&token, numbers(0), Binding::OldTls).unwrap_err(),
    ] {
        assert!(matches!(old, TokenError::OldTls));
    }
}

#[test]
fn a_proof_of_one_side_is_none_of_the_other_and_none_of_another_hello() {
    let token = token();
    let Sides { mut connects, mut listens } = sides([&token, &token], MAIN, [Binding::Plain; 2]);
    let request = *connects.request();
    let Next::Answer(answer) = feed_listening(&mut listens, &request, 64).unwrap() else {
        panic!("no answer");
    };
    let reply = feed_connecting(&mut connects, &answer, 80).unwrap().unwrap();
    // What the listening side has proven comes back to it.
    let reflected = [&[0; 8][..], &answer[48..]].concat();
    let wrong = feed_listening(&mut listens, &reflected, 40).unwrap_err();
    assert!(matches!(wrong.error, TokenError::Mismatch));
    // What the connecting side has proven, as the answer to it.
    let mut reflected = answer;
    reflected[48..].copy_from_slice(&reply[8..]);
    let mut connects = sides([&token, &token], MAIN, [Binding::Plain; 2]).connects;
    let wrong = feed_connecting(&mut connects, &reflected, 80).unwrap_err();
    assert!(matches!(wrong.error, TokenError::Mismatch));
    // A request, as the answer to itself.
    let again = [&request[..], &[0; ANSWER - REQUEST]].concat();
    let mut connects = sides([&token, &token], MAIN, [Binding::Plain; 2]).connects;
    assert!(feed_connecting(&mut connects, &again, 80).is_err());
    // All that one hello's connecting side has said, to a side with another nonce.
    let mut other = Listening::new(&token, numbers(65), Binding::Plain).unwrap();
    feed_listening(&mut other, &request, 64).unwrap();
    let wrong = feed_listening(&mut other, &reply, 40).unwrap_err();
    assert!(matches!(wrong.error, TokenError::Mismatch));
    // All that one hello's listening side has said, to a side with another nonce.
    let mut other = Connecting::new(&token, MAIN, numbers(33), Binding::Plain).unwrap();
    let wrong = feed_connecting(&mut other, &answer, 80).unwrap_err();
    assert!(matches!(wrong.error, TokenError::Mismatch));
}

#[test]
fn what_is_not_a_hello_is_refused_by_its_first_bytes_with_what_to_do() {
    let token = token();
    for (first, words, told) in [
        (&b"QEVM"[..], "a migration without a token: give its source the same file", true),
        (&[0x11, 0x22, 0x33, 0x44], "a migration without a token", false),
        (&[0x16, 3, 1, 2], "it is TLS, which is not spoken here", false),
        (b"GET ", "it is HTTP", false),
        (b"SSH-", "it is SSH", false),
        (b"abcd", "it is not a migration by multifd", false),
    ] {
        for step in [1, 4] {
            let mut listens = Listening::new(&token, numbers(64), Binding::Plain).unwrap();
            let before = feed_listening(&mut listens, &first[..3], step);
            assert_eq!(before.unwrap(), Next::Read);
            let Wrong { error, say } = feed_listening(&mut listens, &first[3..], 1).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(say.is_empty(), !told, "{error}");
            // A source hears what it is on its return path, before it has heard all of it.
            let mut said = &say[..say.len().min(4)];
            if told {
                let error = crate::stream::ReturnDecoder::new().next(&mut said).unwrap_err();
                assert!(error.is_token_wanted() && say.len() == ANSWER, "{error}");
            }
        }
    }
    for (answer, words) in [
        (&[0x15, 3, 3, 0, 2, 2, 10][..], "it speaks TLS: turn TLS on here"),
        (b"HTTP/1.1 400", "it is not a migration by multifd"),
    ] {
        let mut connects = Connecting::new(&token, MAIN, numbers(32), Binding::Plain).unwrap();
        let wrong = feed_connecting(&mut connects, answer, 1).unwrap_err();
        assert!(wrong.error.to_string().contains(words), "{}", wrong.error);
    }
    let magic = *MAGIC.first_chunk().unwrap();
    assert_eq!(multifd_core::Foreign::of(magic), Some(multifd_core::Foreign::Token));
}

#[test]
fn another_version_is_named_on_both_sides_and_what_is_malformed_is_refused() {
    let token = token();
    let set = |at: usize, value: u8| {
        move |which: usize, bytes: &mut [u8]| {
            if which == 0 {
                bytes[at] = value;
            }
        }
    };
    let new = || sides([&token, &token], MAIN, [Binding::Plain; 2]);
    let (connected, met) = run(new(), 64, set(8, 2));
    // The source's own version is what the destination says that it has: it is no other than this one.
    assert!(matches!(connected, Some(Err(TokenError::Malformed))), "{connected:?}");
    assert!(matches!(met, Some(Err(TokenError::Version { found: 2, own: 1 }))), "{met:?}");
    let later = |which: usize, bytes: &mut [u8]| {
        if which == 1 {
            bytes[8] = 2;
        }
    };
    let (connected, _) = run(new(), 64, later);
    let version = matches!(connected, Some(Err(TokenError::Version { found: 2, own: 1 })));
    assert!(version, "{connected:?}");
    // Magic, role, number of a main channel, binding, reserved bytes.
    for (at, value) in [(7, 0), (9, 2), (10, 1), (11, 2), (12, 1), (15, 1)] {
        let (connected, met) = run(new(), 64, set(at, value));
        assert!(matches!(connected, Some(Err(TokenError::Malformed))), "{at}: {connected:?}");
        assert!(matches!(met, Some(Err(TokenError::Malformed))), "{at}: {met:?}");
    }
}

/// A file with this content, of its owner alone.
fn file(content: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    (folder, path)
}

#[test]
fn a_file_is_a_token_of_its_bytes_without_one_lines_end() {
    let proof = |token: &Token| hmac::Mac::finalize(token.mac()).into_bytes();
    let most = [7; MOST];
    for (content, secret) in [
        (&SECRET[..], &SECRET[..]),
        (b"0123456789abcdef0123456789abcdef\n", SECRET),
        (b"0123456789abcdef0123456789abcdef\r\n", SECRET),
        (b"0123456789abcdef0123456789abcdef\n\n", b"0123456789abcdef0123456789abcdef\n"),
        (&[0; 32], &[0; 32]),
        (&most, &most),
        (&[&most[..], b"\r\n"].concat(), &most),
    ] {
        let (_folder, path) = file(content);
        let token = Token::from_file(&path).unwrap();
        assert_eq!(proof(&token), proof(&Token::new(secret).unwrap()));
    }
}

#[test]
fn a_file_that_is_too_short_too_long_missing_or_everybodys_is_refused_with_what_to_do() {
    for (content, words) in [
        (&b"short\n"[..], "has 5 bytes"),
        (b"", "has 0 bytes"),
        (b"0123456789abcdef0123456789abcde\n", "has 31 bytes"),
        (&[7; MOST + 1], "has more"),
        (&[7; 3 * MOST], "has more"),
    ] {
        let (_folder, path) = file(content);
        let error = Token::from_file(&path).unwrap_err().to_string();
        let all = error.contains(words) && error.contains(&path.display().to_string());
        assert!(all && error.contains("head -c 32 /dev/urandom"), "{error}");
    }
    let (folder, path) = file(SECRET);
    for mode in [0o644, 0o602, 0o601] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Token::from_file(&path).unwrap_err();
        assert!(matches!(error, SetupError::Public { .. }), "{error}");
        let mending = format!("chmod o= {}", path.display());
        assert!(error.to_string().ends_with(&mending), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    Token::from_file(&path).unwrap();
    let error = Token::from_file(folder.path().join("none")).unwrap_err();
    assert!(matches!(error, SetupError::Missing { .. }), "{error}");
    let error = Token::new(&[1; LEAST - 1]).unwrap_err();
    assert!(matches!(error, SetupError::Length(31)), "{error}");
}

#[test]
fn a_token_is_not_shown() {
    assert_eq!(format!("{:?}", token()), "Token { .. }");
}
