//! Reads the two names of a certificate, who issued it and whom it is about, straight from its DER bytes. It proves nothing: for a
//! peer that passed verification the names are true, for one that did not they are what the peer claims, good enough for a log line.

/// The attributes that the mesh uses.
const OID_COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const OID_ORGANISATION: &[u8] = &[0x55, 0x04, 0x0a];

const TAG_SEQUENCE: u8 = 0x30;
const TAG_SET: u8 = 0x31;
const TAG_OID: u8 = 0x06;
const TAG_VERSION: u8 = 0xa0;

/// One of the two names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) common_name: Option<String>,
    pub(crate) organisation: Option<String>,
}

/// Both names of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) issuer: Name,
    pub(crate) subject: Name,
}

/// Reads the names; none when the bytes are no certificate.
pub(crate) fn read(certificate: &[u8]) -> Option<Names> {
    let (certificate, _) = expect(certificate, TAG_SEQUENCE)?;
    let (mut rest, _) = expect(certificate, TAG_SEQUENCE)?;
    if rest.first() == Some(&TAG_VERSION) {
        (_, _, rest) = element(rest)?;
    }
    let (_, _, rest) = element(rest)?; // Serial number.
    let (_, _, rest) = element(rest)?; // Algorithm of the signature.
    let (issuer, rest) = expect(rest, TAG_SEQUENCE)?;
    let (_, _, rest) = element(rest)?; // Validity.
    let (subject, _) = expect(rest, TAG_SEQUENCE)?;
    Some(Names {
        issuer: name(issuer)?,
        subject: name(subject)?,
    })
}

fn name(mut bytes: &[u8]) -> Option<Name> {
    let mut name = Name::default();
    while !bytes.is_empty() {
        let (set, rest) = expect(bytes, TAG_SET)?;
        bytes = rest;
        let (pair, _) = expect(set, TAG_SEQUENCE)?;
        let (oid, value) = expect(pair, TAG_OID)?;
        let (_, value, _) = element(value)?;
        let text = || std::str::from_utf8(value).ok().map(str::to_owned);
        match oid {
            OID_COMMON_NAME => name.common_name = text(),
            OID_ORGANISATION => name.organisation = text(),
            _ => {}
        }
    }
    Some(name)
}

/// The content of an element with this tag, and what follows it.
fn expect(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// The tag and content of the first element, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, bytes) = bytes.split_first()?;
    let (&first, mut bytes) = bytes.split_first()?;
    let mut len = usize::from(first);
    if first >= 0x80 {
        // Certificates are far below 64 KiB, so more than two bytes of length are nonsense.
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 2 {
            return None;
        }
        let (digits, rest) = bytes.split_at_checked(count)?;
        len = digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit));
        bytes = rest;
    }
    let (content, rest) = bytes.split_at_checked(len)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ED25519};

    use super::*;

    fn certificate(common_name: &str, organisation: &str) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.distinguished_name.push(DnType::OrganizationName, organisation);
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn names_are_read_from_a_certificate() {
        let long = "x".repeat(200);
        for (common_name, organisation) in [("node|7|host:1", "räuber"), ("a", ""), (long.as_str(), long.as_str())] {
            let names = read(&certificate(common_name, organisation)).unwrap();
            assert_eq!(names.subject.common_name.as_deref(), Some(common_name));
            assert_eq!(names.subject.organisation.as_deref(), Some(organisation));
            assert_eq!(names.issuer, names.subject);
        }
    }

    #[test]
    fn a_certificate_cut_short_has_no_names_or_the_right_ones() {
        let whole = certificate("node|7|host:1", "rookery");
        let names = read(&whole);
        for len in 0..whole.len() {
            let cut = read(&whole[..len]);
            assert!(cut.is_none() || cut == names, "cut at {len}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            read(&bytes);
        }
    }
}
