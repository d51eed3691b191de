//! Every combination that does not fit ends at once, with its cause and what to do, and the destination goes
//! on.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use multifd::relay::Relay;
use multifd::token::TokenError;
use multifd::{DestinationBuilder, Error, PageSet, SourceBuilder, Unfinished};

use crate::authority::Authority;
use crate::common::{any_port, chain, guest, receive, registry, send};
use crate::hello::answer;
use crate::{SECRET, arrives_behind, fails, other, peer, token};

type Source = fn(SourceBuilder<'_>) -> SourceBuilder<'_>;
type Destination = fn(DestinationBuilder<'_>) -> DestinationBuilder<'_>;

/// Has a destination refuse the source `wrong`, which says `why`, and take the VM of `right` in. What it says
/// of the first.
fn refuses(destination: Destination, wrong: Source, right: Source, why: &[&str], log: &[&str]) {
    let (uri, received) = receive(destination);
    let text = chain(&fails(&uri, wrong));
    assert!(why.iter().all(|word| text.contains(word)), "{text}");
    let refused = arrives_behind(1, &uri, received, right).last.unwrap();
    assert!(log.iter().all(|word| refused.contains(word)), "{refused}");
}

#[test]
fn a_source_without_a_token_is_told_that_one_is_wanted() {
    refuses(
        |setup| setup.token(token()),
        |setup| setup,
        |setup| setup.token(token()),
        &["the destination wants a token, and there is none here", "--token-file"],
        &["a migration without a token", "--token-file", "a QEMU has none"],
    );
}

#[test]
fn a_source_without_a_token_and_a_return_path_fails_too() {
    let (uri, received) = receive(|setup| setup.token(token()));
    let ram = guest();
    // Its channels are refused: it sees that when it writes.
    let sent = send(&ram, &uri, |setup| setup.return_path(false));
    let failed = sent.and_then(|mut source| {
        loop {
            source.round(&PageSet::all(&ram))?;
        }
        #[allow(unreachable_code, reason = "it says the type")]
        Ok(())
    });
    let text = chain(&failed.unwrap_err());
    assert!(
        text.contains("the destination closed a connection (its own messages say why"),
        "{text}"
    );
    let refused = arrives_behind(1, &uri, received, |setup| setup.token(token())).last.unwrap();
    assert!(refused.contains("a migration without a token"), "{refused}");
}

#[test]
fn a_source_with_a_token_says_that_its_destination_has_none() {
    refuses(
        |setup| setup,
        |setup| setup.token(token()),
        |setup| setup,
        &[
            "it closed the connection in place of an answer: it has no token",
            "--token-file",
            "a QEMU has none",
        ],
        &["its source has a token, and this side has none", "--token-file"],
    );
}

#[test]
fn of_another_token_both_sides_say_that_it_is_another_one() {
    refuses(
        |setup| setup.token(token()),
        |setup| setup.token(other()),
        |setup| setup.token(token()),
        &["no agreement on a token with the destination at 127.0.0.1", "its token is another one"],
        &["its token is another one: give both sides the same file"],
    );
}

#[test]
fn a_source_is_told_what_its_error_is_by_its_type() {
    let (uri, _received) = receive(|setup| setup.token(token()));
    let error = fails(&uri, |setup| setup.token(other()));
    assert!(matches!(error, Error::Token { source: TokenError::Mismatch, .. }), "{error}");
}

#[test]
fn tls_on_one_side_alone_is_said_whether_both_have_a_token_or_not() {
    let folder = Authority::new().folder();
    let (tls, client) = (folder.server(), folder.client());
    for destination_has_token in [true, false] {
        let (uri, received) = receive(|setup| {
            let setup = setup.tls(tls.clone());
            if destination_has_token { setup.token(token()) } else { setup }
        });
        let text = chain(&fails(&uri, |setup| setup.token(token())));
        assert!(text.contains("it speaks TLS: turn TLS on here, too (--tls-creds)"), "{text}");
        let refused = arrives_behind(1, &uri, received, |setup| {
            let setup = setup.tls(client.clone());
            if destination_has_token { setup.token(token()) } else { setup }
        });
        let refused = refused.last.unwrap();
        assert!(refused.contains("with a token and without TLS: turn TLS on there"), "{refused}");
    }
    let (uri, received) = receive(|setup| setup.token(token()));
    let text = chain(&fails(&uri, |setup| setup.tls(client.clone()).token(token())));
    assert!(text.contains("no TLS with the destination"), "{text}");
    let refused = arrives_behind(1, &uri, received, |setup| setup.token(token())).last.unwrap();
    assert!(refused.contains("it is TLS, which is not spoken here"), "{refused}");
}

#[test]
fn over_tls_each_combination_of_tokens_is_said_as_without() {
    let folder = Authority::new().folder();
    let (uri, received) = receive(|setup| setup.tls(folder.server()).token(token()));
    let text = chain(&fails(&uri, |setup| setup.tls(folder.client())));
    assert!(text.contains("the destination wants a token"), "{text}");
    let text = chain(&fails(&uri, |setup| setup.tls(folder.client()).token(other())));
    assert!(text.contains("its token is another one"), "{text}");
    let refused =
        arrives_behind(1, &uri, received, |setup| setup.tls(folder.client()).token(token()));
    assert_eq!(refused.connections - refused.channels, refused.connections, "{refused:?}");

    let (uri, received) = receive(|setup| setup.tls(folder.server()));
    let text = chain(&fails(&uri, |setup| setup.tls(folder.client()).token(token())));
    assert!(text.contains("it has no token"), "{text}");
    let refused =
        arrives_behind(1, &uri, received, |setup| setup.tls(folder.client())).last.unwrap();
    assert!(refused.contains("its source has a token, and this side has none"), "{refused}");
}

#[test]
fn a_client_that_tls_refuses_hears_why_also_where_it_has_the_token() {
    let (folder, other) = (Authority::new().folder(), Authority::new().folder());
    other.copy("ca-cert.pem", &folder);
    let (uri, _received) = receive(|setup| setup.tls(folder.server()).token(token()));
    let error = fails(&uri, |setup| setup.tls(other.client()).token(token()));
    let text = chain(&error);
    assert!(matches!(error, Error::Tls { .. }), "{text}");
    assert!(text.contains("it does not know the CA of this side's certificate"), "{text}");
}

#[test]
fn a_relay_without_the_destinations_token_says_on_which_side_and_why() {
    for (with, why) in [(false, "wants a token"), (true, "its token is another one")] {
        let registry = registry();
        let (uri, _received) = receive(|setup| setup.token(token()));
        let mut relay = Relay::builder(&registry);
        if with {
            relay = relay.to_token(other());
        }
        let relay = relay.listen(&any_port(), &uri).unwrap();
        let at = relay.uri().clone();
        let relayed = std::thread::spawn(move || relay.run().map(drop));
        // It may have sent everything before the relay has gone, and does not know then.
        let ram = guest();
        let sent = send(&ram, &at, |setup| setup).map_err(Unfinished::from);
        sent.and_then(|source| source.finish(&PageSet::all(&ram), None)).unwrap_err();
        let text = chain(&relayed.join().unwrap().unwrap_err());
        assert!(text.contains("to the destination") && text.contains(why), "{text}");
    }
}

/// Takes a source's main channel in that has the token, up to the first bytes behind the hello.
fn meet(listener: &TcpListener) -> TcpStream {
    let (mut main, _) = listener.accept().unwrap();
    let mut request = [0; 64];
    main.read_exact(&mut request).unwrap();
    main.write_all(&answer(&SECRET, &request)).unwrap();
    // The reply, and the first bytes of the main channel.
    main.read_exact(&mut [0; 44]).unwrap();
    main
}

#[test]
fn a_destination_that_fails_while_channels_say_their_hello_is_heard() {
    let (listener, uri) = peer::listener();
    let destination = std::thread::spawn(move || {
        let mut main = meet(&listener);
        let (mut channel, _) = listener.accept().unwrap();
        channel.read_exact(&mut [0; 64]).unwrap();
        drop(channel);
        // SHUT(1), later.
        main.write_all(&[0, 1, 0, 4, 0, 0, 0, 1]).unwrap();
        _ = main.read_to_end(&mut Vec::new());
    });
    let error = send(&guest(), &uri, |setup| setup.token(token())).unwrap_err();
    assert!(matches!(error, Error::DestinationFailed(1)), "{}", chain(&error));
    destination.join().unwrap();

    // And where it says nothing: it is not taken for one without a token.
    let (listener, uri) = peer::listener();
    let destination = std::thread::spawn(move || drop(meet(&listener)));
    let error = send(&guest(), &uri, |setup| setup.token(token())).unwrap_err();
    let text = chain(&error);
    assert!(text.contains("its own messages say why") && !text.contains("has no token"), "{text}");
    destination.join().unwrap();
}
