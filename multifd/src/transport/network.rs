//! Networks by their addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A network as its addresses are written: `192.0.2.0/24`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A text that is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a network: {why}, such as 192.0.2.0/24, 2001:db8::/32 or 192.0.2.7")]
pub struct MalformedNetwork {
    text: String,
    why: &'static str,
}

impl Network {
    /// Whether the network has `address`. An address of IPv4 in the form of IPv6 (`::ffff:192.0.2.7`)
    /// is that of IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()) & mask_v4(self.prefix) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()) & mask_v6(self.prefix) == 0
            }
            _ => false,
        }
    }
}

/// Whether a connection from `peer` is allowed by `networks`. None of them allows everybody, and only TCP
/// has addresses of networks: who may use a Unix socket, its file's permissions say, and vsock is
/// between this machine and its own guests.
pub(crate) fn is_allowed(networks: &[Network], peer: Option<SocketAddr>) -> bool {
    let Some(peer) = peer else { return true };
    networks.is_empty() || networks.iter().any(|network| network.contains(peer.ip()))
}

fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0)
}

fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(u32::from(128 - prefix)).unwrap_or(0)
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for Network {
    type Err = MalformedNetwork;

    fn from_str(text: &str) -> Result<Self, MalformedNetwork> {
        let malformed = |why| MalformedNetwork { text: text.to_owned(), why };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr =
            address.parse().map_err(|_| malformed("it takes an address of IPv4 or IPv6"))?;
        let Some(prefix) = prefix else { return Ok(address.into()) };
        let most = if address.is_ipv4() { 32 } else { 128 };
        // As digits alone: not +8.
        let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: Option<u8> = prefix.parse().ok().filter(|&prefix| digits && prefix <= most);
        let prefix = prefix.ok_or_else(|| malformed("behind / it takes the bits of its prefix"))?;
        let first = match address {
            IpAddr::V4(own) => Ipv4Addr::from_bits(own.to_bits() & mask_v4(prefix)).into(),
            IpAddr::V6(own) => IpAddr::from(Ipv6Addr::from_bits(own.to_bits() & mask_v6(prefix))),
        };
        // Most likely one of the two is not what was meant.
        if first != address {
            return Err(malformed("it has bits behind its prefix"));
        }
        // The form of IPv6 that an address of IPv4 has.
        if let (IpAddr::V6(mapped), Some(bits)) = (address, prefix.checked_sub(96)) {
            if let Some(address) = mapped.to_ipv4_mapped() {
                return Ok(Self { address: address.into(), prefix: bits });
            }
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_the_addresses_of_its_prefix_and_no_others() {
        for (text, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("10.0.0.0/8", "::ffff:10.9.8.7", "::ffff:11.0.0.0"),
            ("::ffff:10.0.0.0/104", "10.9.8.7", "11.0.0.0"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"),
            ("::1", "::1", "::2"),
            ("::/0", "2001:db8::1", "127.0.0.1"),
        ] {
            assert!(network(text).contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!network(text).contains(outside.parse().unwrap()), "{text} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_an_example() {
        for text in [
            "",
            "10",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.1/8",
            "::/129",
            "host/8",
            "10.0.0.0/8/8",
            "2001:db8::1/32",
            " 10.0.0.0/8",
        ] {
            let error = text.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains("192.0.2.0/24") && error.contains(text), "{error}");
        }
        assert_eq!(network("10.0.0.0/8").to_string(), "10.0.0.0/8");
        assert_eq!(network("::1").to_string(), "::1/128");
    }

    #[test]
    fn none_allows_everybody_and_a_socket_without_an_address_is_not_asked() {
        let peer = Some("192.0.2.7:4444".parse().unwrap());
        assert!(is_allowed(&[], peer));
        let networks = [network("10.0.0.0/8"), network("192.0.2.0/30")];
        assert!(!is_allowed(&networks, peer));
        assert!(is_allowed(&networks, Some("192.0.2.3:1".parse().unwrap())));
        assert!(is_allowed(&networks, None));
    }
}
