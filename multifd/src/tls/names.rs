//! The names in a certificate, and patterns for them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A pattern for a client's names: the subject as RFC 4514 writes it, such as
/// `CN=host1,O=Example`, or a DNS name, IP address, URI or email address of subjectAltName. `*` stands
/// for any characters, also none; case matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(String);

impl NamePattern {
    /// Whether the pattern stands for all of `name`.
    pub fn matches(&self, name: &str) -> bool {
        let mut pieces = self.0.split('*');
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
pub(super) fn of(certificate: &CertificateDer<'_>) -> Vec<String> {
    // It has been verified before. What cannot be read here has no name, and is not allowed.
    let Ok(certificate) = Certificate::from_der(certificate) else { return Vec::new() };
    let subject = certificate.tbs_certificate.subject.to_string();
    let alternatives = certificate.tbs_certificate.get::<SubjectAltName>().ok().flatten();
    let alternatives = alternatives.into_iter().flat_map(|(_, SubjectAltName(names))| names);
    let subject = Some(subject).filter(|subject| !subject.is_empty());
    subject.into_iter().chain(alternatives.filter_map(|name| text(&name))).collect()
}

fn text(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(text)
        | GeneralName::Rfc822Name(text)
        | GeneralName::UniformResourceIdentifier(text) => Some(text.to_string()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = || Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string());
            let v6 = || Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string());
            v4().or_else(v6)
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
            assert_eq!(NamePattern::from(pattern).matches(name), matches, "{pattern} {name}");
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
                "CN=host1,O=A\\, B",
                "host1.example",
                "192.0.2.1",
                "2001:db8::1",
                "spiffe://example/host1",
                "root@example"
            ]
        );
    }

    #[test]
    fn what_is_not_a_certificate_has_no_name() {
        assert!(of(&CertificateDer::from(vec![0x30, 0x00])).is_empty());
    }
}
