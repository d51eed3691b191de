//! The names in a certificate, and patterns for them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A pattern for a client's names. `*` stands for any characters, also none. What kind of name it is for,
/// its characters say, so that a name of one kind does not pass for one of another:
///
/// - with `=`, the subject, as RFC 4514 writes it, such as `CN=host1,O=Example`; of subjectAltName,
/// - with `://`, a URI,
/// - with `@`, an email address,
/// - any other, a DNS name, whose case does not matter, or an IP address.
///
/// `*` alone is for any name of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(String);

impl NamePattern {
    /// Whether the pattern is for `name`.
    pub(super) fn allows(&self, name: &Name) -> bool {
        if self.0 == "*" {
            return true;
        }
        let (subject, uri, mail) =
            (self.0.contains('='), self.0.contains("://"), self.0.contains('@'));
        match name {
            Name::Subject(text) => subject && stands_for(&self.0, text),
            Name::Uri(text) => !subject && uri && stands_for(&self.0, text),
            Name::Mail(text) => !subject && !uri && mail && stands_for(&self.0, text),
            Name::Host(text) => {
                let pattern = self.0.to_ascii_lowercase();
                !subject && !uri && !mail && stands_for(&pattern, &text.to_ascii_lowercase())
            }
        }
    }
}

/// Whether `pattern` stands for all of `name`.
fn stands_for(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let (Some(first), last) = (pieces.next(), pieces.next_back()) else { return false };
    let Some(rest) = name.strip_prefix(first) else { return false };
    let Some(last) = last else { return rest.is_empty() };
    let Some(mut rest) = rest.strip_suffix(last) else { return false };
    // The first place for a piece leaves the most for those behind it.
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    true
}

/// A name in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Subject(String),
    /// A DNS name or an IP address.
    Host(String),
    Uri(String),
    Mail(String),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Subject(text) | Self::Host(text) | Self::Uri(text) | Self::Mail(text)) = self;
        f.write_str(text)
    }
}

impl<T: Into<String>> From<T> for NamePattern {
    fn from(pattern: T) -> Self {
        Self(pattern.into())
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names in a certificate: its subject first, where it is not empty. Others than those that a
/// pattern may be for are left out.
pub(super) fn of(certificate: &CertificateDer<'_>) -> Vec<Name> {
    // It has been verified before. What cannot be read here has no name, and is not allowed.
    let Ok(certificate) = Certificate::from_der(certificate) else { return Vec::new() };
    let subject = certificate.tbs_certificate.subject.to_string();
    let alternatives = certificate.tbs_certificate.get::<SubjectAltName>().ok().flatten();
    let alternatives = alternatives.into_iter().flat_map(|(_, SubjectAltName(names))| names);
    let subject = Some(subject).filter(|subject| !subject.is_empty()).map(Name::Subject);
    subject.into_iter().chain(alternatives.filter_map(|name| text(&name))).collect()
}

/// A name to call the owner of a certificate by: its subject, or else the first that it has.
pub(crate) fn name_in(certificate: &CertificateDer<'_>) -> Option<String> {
    of(certificate).first().map(ToString::to_string)
}

fn text(name: &GeneralName) -> Option<Name> {
    match name {
        GeneralName::DnsName(text) => Some(Name::Host(text.to_string())),
        GeneralName::Rfc822Name(text) => Some(Name::Mail(text.to_string())),
        GeneralName::UniformResourceIdentifier(text) => Some(Name::Uri(text.to_string())),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = || Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string());
            let v6 = || Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string());
            v4().or_else(v6).map(Name::Host)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_the_rest_for_itself() {
        for (pattern, name, matches) in [
            ("CN=a", "CN=a", true),
            ("CN=a", "CN=ab", false),
            ("CN=a", "xCN=a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("", "", true),
            ("", "a", false),
            ("host*.example", "host12.example", true),
            ("host*.example", "host.example", true),
            ("host*.example", "host1.example.org", false),
            ("a*a", "a", false),
            ("*b*", "abc", true),
            ("*ab*ab*", "abab", true),
            ("*ab*ab*", "abxa", false),
            ("*ab*ab", "abxab", true),
            ("a**b", "ab", true),
            ("CN=A", "CN=a", false),
        ] {
            assert_eq!(stands_for(pattern, name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn a_certificates_names_are_its_subject_and_the_alternatives_of_each_kind() {
        let mut params = CertificateParams::new(["host1.example".to_owned()]).unwrap();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::OrganizationName, "A, B");
        params.distinguished_name.push(DnType::CommonName, "host1");
        let uri = "spiffe://example/host1".try_into().unwrap();
        let mail = "root@example".try_into().unwrap();
        let addresses =
            ["192.0.2.1", "2001:db8::1"].map(|ip| SanType::IpAddress(ip.parse().unwrap()));
        params.subject_alt_names.extend(addresses);
        params.subject_alt_names.extend([SanType::URI(uri), SanType::Rfc822Name(mail)]);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(
            of(certificate.der()),
            [
                Name::Subject("CN=host1,O=A\\, B".into()),
                Name::Host("host1.example".into()),
                Name::Host("192.0.2.1".into()),
                Name::Host("2001:db8::1".into()),
                Name::Uri("spiffe://example/host1".into()),
                Name::Mail("root@example".into())
            ]
        );
    }

    #[test]
    fn what_is_not_a_certificate_has_no_name() {
        assert!(of(&CertificateDer::from(vec![0x30, 0x00])).is_empty());
    }

    #[test]
    fn a_name_of_one_kind_does_not_pass_for_one_of_another() {
        let host = Name::Host("host1.example".into());
        let subject = Name::Subject("CN=mallory,O=x.example".into());
        let mail = Name::Mail("mallory@evil.example".into());
        let uri = Name::Uri("https://evil/?x.example".into());
        let all = [&host, &subject, &mail, &uri];
        for (pattern, allowed) in [
            ("*.example", [true, false, false, false]),
            ("HOST1.example", [true, false, false, false]),
            ("CN=*", [false, true, false, false]),
            ("*O=x.example", [false, true, false, false]),
            ("*@evil.example", [false, false, true, false]),
            ("https://*.example", [false, false, false, true]),
            ("*", [true; 4]),
            ("", [false; 4]),
        ] {
            let pattern = NamePattern::from(pattern);
            assert_eq!(all.map(|name| pattern.allows(name)), allowed, "{pattern}");
        }
    }
}
