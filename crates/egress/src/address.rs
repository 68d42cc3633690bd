//! Which addresses a sandbox never reaches: everything that is not a public unicast address, whatever name it hides behind.
//! Sources: the IANA special-purpose address registries (RFC 6890 and successors) and the clouds' manuals.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressKind {
    /// `0.0.0.0/8`, `::`: the machine itself on most systems.
    Unspecified,
    Loopback,
    /// RFC 1918, and RFC 4193 for IPv6.
    Private,
    /// RFC 6598, between carriers and their customers; also inside clouds.
    Shared,
    LinkLocal,
    /// Where clouds tell machines their credentials.
    Metadata,
    Multicast,
    /// Documentation, benchmarks, protocol assignments, what is not handed out.
    Reserved,
    /// IPv6 that hides an IPv4 destination (6to4, Teredo).
    Tunnel,
    /// One of the addresses of the machine that the proxy runs on.
    Own,
}

impl AddressKind {
    /// Of a host that is written as an address, if sandboxes are kept away from it; `None` for names and public addresses.
    pub fn of_written(host: &str) -> Option<Self> {
        let address = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
        refused(address)
    }

    /// Stable word for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified_address",
            Self::Loopback => "loopback_address",
            Self::Private => "private_address",
            Self::Shared => "shared_address",
            Self::LinkLocal => "link_local_address",
            Self::Metadata => "metadata_address",
            Self::Multicast => "multicast_address",
            Self::Reserved => "reserved_address",
            Self::Tunnel => "tunnel_address",
            Self::Own => "own_address",
        }
    }

    /// Whether an administrator may allow it. Metadata services never: they hand out the machine's own credentials.
    pub fn can_be_allowed(self) -> bool {
        match self {
            Self::Loopback | Self::Private | Self::Shared | Self::LinkLocal | Self::Reserved | Self::Own => {
                true
            }
            Self::Unspecified | Self::Metadata | Self::Multicast | Self::Tunnel => false,
        }
    }
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "an unspecified address",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::Shared => "an address shared by carriers",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud metadata address",
            Self::Multicast => "a multicast address",
            Self::Reserved => "a reserved address",
            Self::Tunnel => "an address that hides another one",
            Self::Own => "the machine of the proxy itself",
        })
    }
}

/// Single addresses of metadata services that lie in no refused network, or that are refused even where their network is
/// allowed.
const METADATA: &[IpAddr] = &[
    // AWS, Google Cloud, Azure, DigitalOcean, OpenStack, ...; AWS ECS and EKS.
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    // Azure's host agent, a public address.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // Alibaba Cloud.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Oracle Cloud.
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    // AWS and its EKS; Google Cloud.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(first: u16, second: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0), prefix)
}

const REFUSED_V4: &[(Ipv4Net, AddressKind)] = &[
    (v4(0, 0, 0, 0, 8), AddressKind::Unspecified),
    (v4(10, 0, 0, 0, 8), AddressKind::Private),
    (v4(100, 64, 0, 0, 10), AddressKind::Shared),
    (v4(127, 0, 0, 0, 8), AddressKind::Loopback),
    (v4(169, 254, 0, 0, 16), AddressKind::LinkLocal),
    (v4(172, 16, 0, 0, 12), AddressKind::Private),
    (v4(192, 0, 0, 0, 24), AddressKind::Reserved),
    (v4(192, 0, 2, 0, 24), AddressKind::Reserved),
    (v4(192, 88, 99, 0, 24), AddressKind::Tunnel),
    (v4(192, 168, 0, 0, 16), AddressKind::Private),
    (v4(198, 18, 0, 0, 15), AddressKind::Reserved),
    (v4(198, 51, 100, 0, 24), AddressKind::Reserved),
    (v4(203, 0, 113, 0, 24), AddressKind::Reserved),
    (v4(224, 0, 0, 0, 4), AddressKind::Multicast),
    (v4(240, 0, 0, 0, 4), AddressKind::Reserved),
];

const REFUSED_V6: &[(Ipv6Net, AddressKind)] = &[
    (v6(0xfc00, 0, 7), AddressKind::Private),
    (v6(0xfe80, 0, 10), AddressKind::LinkLocal),
    // Site-local, withdrawn by RFC 3879 and still routed inside some companies.
    (v6(0xfec0, 0, 10), AddressKind::Private),
    (v6(0xff00, 0, 8), AddressKind::Multicast),
    (v6(0x2001, 0, 32), AddressKind::Tunnel),
    (v6(0x2002, 0, 16), AddressKind::Tunnel),
    // Protocol assignments: benchmarks, ORCHID and others.
    (v6(0x2001, 0, 23), AddressKind::Reserved),
    (v6(0x2001, 0xdb8, 32), AddressKind::Reserved),
    (v6(0x3fff, 0, 20), AddressKind::Reserved),
];

/// What is handed out for the public internet in IPv6; the rest is not, or not yet.
const PUBLIC_V6: Ipv6Net = v6(0x2000, 0, 3);

/// IPv4 behind a translator (RFC 6052): as good or bad as the address in its last four bytes.
const TRANSLATED: Ipv6Net = v6(0x64, 0xff9b, 96);

/// Why an address is refused; `None` for a public one. Does not know the machine's own addresses.
pub fn refused(address: IpAddr) -> Option<AddressKind> {
    let address = address.to_canonical();
    if METADATA.contains(&address) {
        return Some(AddressKind::Metadata);
    }
    match address {
        IpAddr::V4(address) => REFUSED_V4
            .iter()
            .find(|(net, _)| net.contains(&address))
            .map(|(_, kind)| *kind),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Some(AddressKind::Unspecified),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Some(AddressKind::Loopback),
        IpAddr::V6(address) if TRANSLATED.contains(&address) => refused(last_four(address).into()),
        IpAddr::V6(address) => REFUSED_V6
            .iter()
            .find(|(net, _)| net.contains(&address))
            .map(|(_, kind)| *kind)
            .or((!PUBLIC_V6.contains(&address)).then_some(AddressKind::Reserved)),
    }
}

fn last_four(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

/// Whether a network of an administrator's exception holds an address, in either of its spellings.
pub fn is_in(net: &IpNet, address: IpAddr) -> bool {
    net.contains(&address.to_canonical())
}

/// Whether the address belongs to this machine, which is then reached behind its own firewall. Sends nothing.
pub fn is_own(address: IpAddr) -> bool {
    // The source that the kernel would use towards a machine's main address is that address. Further addresses of the
    // machine show by being free to bind to, unless the machine lets everybody bind to everything (ip_nonlocal_bind).
    is_source_of_itself(address) || (can_bind(address) && !can_bind(not_ours(address)))
}

fn is_source_of_itself(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        // Any port: connecting a datagram socket only looks up the route.
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address)
}

fn can_bind(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// An address of documentation, which no machine has.
fn not_ours(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_fine() {
        use AddressKind::{
            LinkLocal, Loopback, Metadata, Multicast, Private, Reserved, Shared, Tunnel, Unspecified,
        };
        for (text, expected) in [
            ("1.1.1.1", None),
            ("8.8.8.8", None),
            ("9.255.255.255", None),
            ("11.0.0.0", None),
            ("100.63.255.255", None),
            ("100.128.0.0", None),
            ("126.255.255.255", None),
            ("128.0.0.1", None),
            ("169.253.255.255", None),
            ("169.255.0.0", None),
            ("172.15.255.255", None),
            ("172.32.0.0", None),
            ("192.167.255.255", None),
            ("192.169.0.0", None),
            ("198.17.255.255", None),
            ("198.20.0.0", None),
            ("223.255.255.255", None),
            ("2606:4700:4700::1111", None),
            ("2a00:1450::1", None),
            ("2001:4860:4860::8888", None),
            ("::ffff:8.8.8.8", None),
            ("64:ff9b::808:808", None),
            ("0.0.0.0", Some(Unspecified)),
            ("0.1.2.3", Some(Unspecified)),
            ("10.0.0.0", Some(Private)),
            ("10.255.255.255", Some(Private)),
            ("100.64.0.0", Some(Shared)),
            ("100.127.255.255", Some(Shared)),
            ("100.100.100.200", Some(Metadata)),
            ("127.0.0.1", Some(Loopback)),
            ("127.255.255.254", Some(Loopback)),
            ("168.63.129.16", Some(Metadata)),
            ("169.254.0.1", Some(LinkLocal)),
            ("169.254.169.254", Some(Metadata)),
            ("169.254.170.2", Some(Metadata)),
            ("172.16.0.0", Some(Private)),
            ("172.31.255.255", Some(Private)),
            ("192.0.0.1", Some(Reserved)),
            ("192.0.0.192", Some(Metadata)),
            ("192.0.2.7", Some(Reserved)),
            ("192.88.99.1", Some(Tunnel)),
            ("192.168.0.1", Some(Private)),
            ("198.18.0.1", Some(Reserved)),
            ("198.19.255.255", Some(Reserved)),
            ("198.51.100.1", Some(Reserved)),
            ("203.0.113.1", Some(Reserved)),
            ("224.0.0.1", Some(Multicast)),
            ("239.255.255.255", Some(Multicast)),
            ("240.0.0.1", Some(Reserved)),
            ("255.255.255.255", Some(Reserved)),
            ("::", Some(Unspecified)),
            ("::1", Some(Loopback)),
            ("::2", Some(Reserved)),
            ("::ffff:10.0.0.1", Some(Private)),
            ("::ffff:169.254.169.254", Some(Metadata)),
            ("::127.0.0.1", Some(Reserved)),
            ("::ffff:0:127.0.0.1", Some(Reserved)),
            ("64:ff9b::7f00:1", Some(Loopback)),
            ("64:ff9b::a9fe:a9fe", Some(Metadata)),
            ("64:ff9b::a00:1", Some(Private)),
            ("64:ff9b:1::a00:1", Some(Reserved)),
            ("100::1", Some(Reserved)),
            ("2001::1", Some(Tunnel)),
            ("2001:0:a00:1::1", Some(Tunnel)),
            ("2001:2::1", Some(Reserved)),
            ("2001:20::1", Some(Reserved)),
            ("2001:db8::1", Some(Reserved)),
            ("2002:7f00:1::1", Some(Tunnel)),
            ("2002:a9fe:a9fe::1", Some(Tunnel)),
            ("3fff::1", Some(Reserved)),
            ("4000::1", Some(Reserved)),
            ("5f00::1", Some(Reserved)),
            ("fc00::1", Some(Private)),
            ("fd00:ec2::254", Some(Metadata)),
            ("fd20:ce::254", Some(Metadata)),
            ("fd12::1", Some(Private)),
            ("fe80::1", Some(LinkLocal)),
            ("febf::1", Some(LinkLocal)),
            ("fec0::1", Some(Private)),
            ("ff02::1", Some(Multicast)),
        ] {
            assert_eq!(refused(text.parse().unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn the_machine_knows_its_own_addresses() {
        for own in ["127.0.0.1", "127.3.2.1"] {
            assert!(is_own(own.parse().unwrap()), "{own}");
        }
        for other in ["8.8.8.8", "192.0.2.1", "2606:4700::1111"] {
            assert!(!is_own(other.parse().unwrap()), "{other}");
        }
    }
}
