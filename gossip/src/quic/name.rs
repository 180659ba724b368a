//! Reads the two names of a certificate, who issued it and whom it is about, and until when it counts, straight from its DER bytes. It
//! proves nothing: for a peer that passed verification these are true, for one that did not they are what the peer claims, good enough
//! for a log line.

/// The attributes that the mesh uses.
const OID_COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const OID_ORGANISATION: &[u8] = &[0x55, 0x04, 0x0a];

const TAG_SEQUENCE: u8 = 0x30;
const TAG_SET: u8 = 0x31;
const TAG_OID: u8 = 0x06;
const TAG_UTC_TIME: u8 = 0x17;
const TAG_GENERALIZED_TIME: u8 = 0x18;
const TAG_VERSION: u8 = 0xa0;

/// One of the two names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) common_name: Option<String>,
    pub(crate) organisation: Option<String>,
}

/// Both names of a certificate, and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) issuer: Name,
    pub(crate) subject: Name,
    /// Until when it counts, in Unix seconds; none when the time is written in a way that RFC 5280 does not allow.
    pub(crate) not_after_s: Option<u64>,
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
    let (validity, rest) = expect(rest, TAG_SEQUENCE)?;
    let (_, _, not_after) = element(validity)?;
    let (tag, not_after, _) = element(not_after)?;
    let (subject, _) = expect(rest, TAG_SEQUENCE)?;
    Some(Names {
        issuer: name(issuer)?,
        subject: name(subject)?,
        not_after_s: unix_seconds(tag, not_after),
    })
}

/// Reads `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, the two forms that RFC 5280 (4.1.2.5) allows.
fn unix_seconds(tag: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| {
        digits
            .iter()
            .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    };
    let (year, rest) = match (tag, digits.len()) {
        // Two digits from 50 on are of the last century.
        (TAG_UTC_TIME, 12) => {
            let year = number(&digits[..2]);
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (TAG_GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let part = |index: usize| number(&rest[index * 2..index * 2 + 2]);
    let (month, day) = (part(0), part(1));
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970-01-01 of the Gregorian calendar, with years that begin in March.
    let (shifted, month_index) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let day_of_year = (153 * month_index + 2) / 5 + day - 1;
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + day_of_year;
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + part(2) * 3_600 + part(3) * 60 + part(4))
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
    fn the_end_of_a_certificate_is_read_in_both_forms() {
        // The seconds are those of `date -u -d ... +%s`.
        for (text, expected) in [
            (&b"700101000000Z"[..], Some(0)),
            (b"240229235959Z", Some(1_709_251_199)),
            (b"261121114236Z", Some(1_795_261_356)),
            (b"491231235959Z", Some(2_524_607_999)),
            (b"690101000000Z", None),
            (b"2401", None),
            (b"24022923595xZ", None),
        ] {
            assert_eq!(unix_seconds(TAG_UTC_TIME, text), expected, "{text:?}");
        }
        assert_eq!(
            unix_seconds(TAG_GENERALIZED_TIME, b"20500101000000Z"),
            Some(2_524_608_000)
        );
        assert_eq!(
            unix_seconds(TAG_GENERALIZED_TIME, b"99991231235959Z"),
            Some(253_402_300_799)
        );
        assert_eq!(unix_seconds(TAG_GENERALIZED_TIME, b"20501301000000Z"), None);
        // rcgen leaves the end at the year 4096.
        assert!(read(&certificate("n", "o")).unwrap().not_after_s.unwrap() > 60_000_000_000);
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
