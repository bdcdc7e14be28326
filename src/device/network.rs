//! The machine's network cards and default route, from `/proc/net` and `/sys/class/net`.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Route flags (`linux/route.h`): usable route, and reject route.
const RTF_UP: u32 = 0x1;
const RTF_REJECT: u32 = 0x200;
/// Interface flags (`linux/if.h`): up, and loopback.
const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;

/// The address of a network card, as lower-case hexadecimal digits without colons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mac(String);

impl Mac {
    /// Parses an address with or without colons, from 6 bytes (Ethernet, Wi-Fi) to 20 bytes (InfiniBand). All zeros is not an address.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits: String = text
            .trim()
            .chars()
            .filter(|c| *c != ':')
            .collect::<String>()
            .to_ascii_lowercase();
        let is_address = (12..=40).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_hexdigit())
            && digits.bytes().any(|b| b != b'0');
        is_address.then_some(Self(digits))
    }
}

impl Mac {
    /// Its first six bytes with colons, as Edge Impulse Studio identifies devices.
    pub(super) fn with_colons(&self) -> String {
        let digits = self.0.as_bytes().chunks(2).take(6);
        let bytes: Vec<_> = digits.map(String::from_utf8_lossy).collect();
        bytes.join(":")
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The address of a card of this machine.
pub(super) struct CardAddress {
    pub mac: Mac,
    pub is_up: bool,
}

/// The network of the machine below `root`.
pub(super) struct Network {
    root: PathBuf,
}

impl Network {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Whether the machine has a card with this address, up or down.
    pub(super) fn has(&self, mac: &Mac) -> bool {
        self.interfaces()
            .iter()
            .any(|name| self.address(name).as_ref() == Some(mac))
    }

    /// The address for the device's name: that of the default route's interface, else of the first interface that is up.
    pub(super) fn own_address(&self) -> Option<Mac> {
        self.default_route()
            .and_then(|name| self.address(&name))
            .or_else(|| self.first_up())
    }

    /// The address of a card of this machine, whether it is up or not: that of the default route's interface, else of a physical
    /// card, those that are up first. Unlike [`Self::own_address`], it is never that of a virtual interface (`docker0`,
    /// `veth`) without a default route: these exist without any card.
    pub(super) fn card_address(&self) -> Option<CardAddress> {
        let routed = self.default_route().and_then(|name| self.address(&name));
        if let Some(mac) = routed {
            return Some(CardAddress { mac, is_up: true });
        }
        let mut cards: Vec<_> = self
            .interfaces()
            .into_iter()
            .filter(|name| self.is_physical(name) && !self.is_loopback(name))
            .filter_map(|name| Some((self.address(&name)?, name)))
            .collect();
        let is_up = |name: &str| self.flags(name) & IFF_UP != 0;
        cards.sort_by_key(|(_, name)| (!is_up(name), self.index(name), name.clone()));
        let (mac, name) = cards.into_iter().next()?;
        Some(CardAddress {
            is_up: is_up(&name),
            mac,
        })
    }

    /// The address of the first interface, in the kernel's order, that is not the loopback and has an IPv4 address. A route of its
    /// own belongs to every IPv4 address (`/proc/net/route`), unless it is a single host's (`/32`).
    pub(super) fn first_with_ipv4(&self) -> Option<Mac> {
        let table = fs::read_to_string(self.root.join("proc/net/route")).ok()?;
        let mut names: Vec<_> = table
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        names.retain(|name| !self.is_loopback(name));
        names.sort_by_key(|name| (self.index(name), (*name).to_owned()));
        names.into_iter().find_map(|name| self.address(name))
    }

    /// The interface of the default route with the lowest metric, IPv4 before IPv6.
    fn default_route(&self) -> Option<String> {
        let lowest = |file: &str, parse: fn(&str) -> Option<(u32, &str)>| {
            let table = fs::read_to_string(self.root.join("proc/net").join(file)).ok()?;
            let routes = table
                .lines()
                .filter_map(parse)
                .filter(|(_, name)| !self.is_loopback(name));
            routes
                .min_by_key(|(metric, _)| *metric)
                .map(|(_, name)| name.to_owned())
        };
        lowest("route", ipv4_default).or_else(|| lowest("ipv6_route", ipv6_default))
    }

    /// The first interface that is up and has an address. Physical cards come before virtual ones (`veth`, `docker0`), whose
    /// addresses change at each start; otherwise the kernel's order is used.
    fn first_up(&self) -> Option<Mac> {
        let mut up: Vec<_> = self
            .interfaces()
            .into_iter()
            .filter(|name| self.flags(name) & (IFF_UP | IFF_LOOPBACK) == IFF_UP)
            .filter_map(|name| Some((self.address(&name)?, name)))
            .collect();
        up.sort_by_key(|(_, name)| (!self.is_physical(name), self.index(name), name.clone()));
        up.into_iter().next().map(|(mac, _)| mac)
    }

    fn interfaces(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join("sys/class/net")) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    fn is_physical(&self, name: &str) -> bool {
        self.interface(name).join("device").exists()
    }

    /// The kernel's number of an interface; the greatest one if it is unknown.
    fn index(&self, name: &str) -> u32 {
        let index = self.attribute(name, "ifindex").and_then(|text| text.parse().ok());
        index.unwrap_or(u32::MAX)
    }

    fn interface(&self, name: &str) -> PathBuf {
        self.root.join("sys/class/net").join(name)
    }

    fn attribute(&self, name: &str, attribute: &str) -> Option<String> {
        Some(
            fs::read_to_string(self.interface(name).join(attribute))
                .ok()?
                .trim()
                .to_owned(),
        )
    }

    fn address(&self, name: &str) -> Option<Mac> {
        Mac::parse(&self.attribute(name, "address")?)
    }

    fn flags(&self, name: &str) -> u32 {
        self.attribute(name, "flags")
            .and_then(|text| hexadecimal(text.trim_start_matches("0x")))
            .unwrap_or(0)
    }

    fn is_loopback(&self, name: &str) -> bool {
        name == "lo" || self.flags(name) & IFF_LOOPBACK != 0
    }
}

fn hexadecimal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}

fn is_usable(flags: u32) -> bool {
    flags & (RTF_UP | RTF_REJECT) == RTF_UP
}

/// Metric and interface of a line of `/proc/net/route` that is a default route.
/// Columns: Iface Destination Gateway Flags RefCnt Use Metric Mask ...
fn ipv4_default(line: &str) -> Option<(u32, &str)> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [name, destination, _, flags, _, _, metric, mask, ..] = columns.as_slice() else {
        return None;
    };
    let is_default = hexadecimal(destination)? == 0 && hexadecimal(mask)? == 0;
    (is_default && is_usable(hexadecimal(flags)?)).then_some((metric.parse().ok()?, name))
}

/// Metric and interface of a line of `/proc/net/ipv6_route` that is a default route.
/// Columns: destination, its prefix length, source, its prefix length, next hop, metric, references, use, flags, interface.
fn ipv6_default(line: &str) -> Option<(u32, &str)> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [destination, prefix, _, _, _, metric, _, _, flags, name] = columns.as_slice() else {
        return None;
    };
    let is_default = destination.bytes().all(|b| b == b'0') && hexadecimal(prefix)? == 0;
    (is_default && is_usable(hexadecimal(flags)?)).then_some((hexadecimal(metric)?, name))
}
