//! What collections and keys of values may be called: those of shared content, and those that players keep.

use rookery_protocol::error::{ErrorCode, Refusal};

const COLLECTION_LEN_MAX: usize = 64;
const KEY_BYTES_MAX: usize = 128;

/// Checks the name of a collection and of a key in it.
///
/// # Errors
/// `bad_message` with the rule that is broken.
pub fn check(collection: &str, key: &str) -> Result<(), Refusal> {
    check_collection(collection)?;
    if key.is_empty() {
        return Err(Refusal::new(ErrorCode::BadMessage, "a key is not empty"));
    }
    check_part(key)
}

/// Checks what may be a key, the beginning of one, or nothing.
///
/// # Errors
/// `bad_message` with the rule that is broken.
pub fn check_part(key: &str) -> Result<(), Refusal> {
    if key.len() <= KEY_BYTES_MAX && !key.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("a key is 1 to {KEY_BYTES_MAX} bytes of text without control characters");
    Err(Refusal::new(ErrorCode::BadMessage, message))
}

/// Checks the name of a collection.
///
/// # Errors
/// `bad_message` with the rule that is broken.
pub fn check_collection(collection: &str) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=COLLECTION_LEN_MAX).contains(&collection.len()) && collection.chars().all(allowed) {
        return Ok(());
    }
    let message = format!("a collection's name is 1 to {COLLECTION_LEN_MAX} of a-z, A-Z, 0-9, '-', '_' and '.'");
    Err(Refusal::new(ErrorCode::BadMessage, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        let long = "x".repeat(129);
        for (collection, key, allowed) in [
            ("items", "sword", true),
            ("Items.v-2_b", "a/b c é", true),
            ("", "sword", false),
            ("items/old", "sword", false),
            (&long[..65], "sword", false),
            ("items", "", false),
            ("items", "a\nb", false),
            ("items", &long, false),
        ] {
            assert_eq!(check(collection, key).is_ok(), allowed, "{collection:?} {key:?}");
        }
    }
}
