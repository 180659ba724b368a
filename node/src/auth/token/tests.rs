use super::*;

const NOW: u64 = 1_700_000_000;

fn tokens(secret: &[u8], next: Option<&[u8]>) -> Tokens {
    Tokens::new(&TokenKeys::of_cluster(secret, next))
}

fn ana() -> Identity {
    Identity {
        player: PlayerId::from_parts(NOW * 1000, 7),
        name: "Ana 🦀".into(),
        family: Some("family".into()),
    }
}

fn resume_token() -> ResumeToken {
    ResumeToken {
        session: SessionId::from_parts(NOW * 1000, 9),
        identity: ana(),
        attachment: 1_700_000_000_001,
    }
}

const SECRET: &[u8] = &[1; 32];
const OTHER: &[u8] = &[2; 32];

#[test]
fn a_token_is_read_by_every_node_with_the_secret() {
    let (one, other) = (tokens(SECRET, None), tokens(SECRET, None));
    assert_eq!(other.check_access(&one.access(&ana(), NOW), NOW), Ok(ana()));
    assert_eq!(
        other.check_resume(&one.resume(&resume_token(), NOW), NOW),
        Ok(resume_token())
    );
    let foreign = Identity { family: None, ..ana() };
    assert_eq!(other.check_access(&one.access(&foreign, NOW), NOW), Ok(foreign));
}

#[test]
fn a_token_expires_by_the_time_that_is_given() {
    let tokens = tokens(SECRET, None);
    let token = tokens.access(&ana(), NOW);
    let end = NOW + ACCESS_LIFETIME.as_secs() + LEEWAY_S;
    assert_eq!(tokens.check_access(&token, end), Ok(ana()));
    assert_eq!(tokens.check_access(&token, end + 1), Err(TokenError::Expired));
    let token = tokens.resume(&resume_token(), NOW);
    let end = NOW + RESUME_LIFETIME.as_secs() + LEEWAY_S;
    assert!(tokens.check_resume(&token, end).is_ok());
    assert_eq!(tokens.check_resume(&token, end + 1), Err(TokenError::Expired));
}

#[test]
fn a_token_of_another_secret_or_purpose_is_forged() {
    let tokens = tokens(SECRET, None);
    let other = super::tests::tokens(OTHER, None);
    assert_eq!(
        tokens.check_access(&other.access(&ana(), NOW), NOW),
        Err(TokenError::Forged)
    );
    assert_eq!(
        tokens.check_resume(&tokens.access(&ana(), NOW), NOW),
        Err(TokenError::Forged)
    );
    assert_eq!(
        tokens.check_access(&tokens.resume(&resume_token(), NOW), NOW),
        Err(TokenError::Forged)
    );
}

#[test]
fn a_changed_token_is_refused_wherever_it_was_changed() {
    let tokens = tokens(SECRET, None);
    let token = tokens.access(&ana(), NOW);
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        // The last digit of a part has bits that say nothing; a decoder may ignore or refuse them.
        if let Ok(identity) = tokens.check_access(&changed, NOW) {
            assert_eq!(identity, ana());
            assert_eq!(at, token.len() - 1);
        }
    }
}

#[test]
fn a_token_that_asks_for_no_signature_is_refused() {
    let tokens = tokens(SECRET, None);
    let token = tokens.access(&ana(), NOW);
    let claims = token.split('.').nth(1).unwrap();
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"none","typ":"JWT"}"#,
        r#"{"alg":"HS384"}"#,
    ] {
        let header = BASE64_URL_SAFE_NO_PAD.encode(header);
        let signature = token.split('.').nth(2).unwrap();
        for unsigned in [format!("{header}.{claims}."), format!("{header}.{claims}.{signature}")] {
            assert!(tokens.check_access(&unsigned, NOW).is_err(), "{unsigned}");
        }
    }
    for nonsense in [
        "",
        ".",
        "..",
        "a.b.c",
        "ü.ü.ü",
        &"A".repeat(100_000),
        &format!("{token}.x"),
    ] {
        assert!(tokens.check_access(nonsense, NOW).is_err());
        assert!(tokens.check_resume(nonsense, NOW).is_err());
    }
}

#[test]
fn a_secret_is_replaced_without_ending_sign_ins() {
    // The steps of a rolling change: (a), (a, next b), (b, next a), (b).
    let steps = [
        tokens(SECRET, None),
        tokens(SECRET, Some(OTHER)),
        tokens(OTHER, Some(SECRET)),
        tokens(OTHER, None),
    ];
    for pair in steps.windows(2) {
        for (maker, reader) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
            assert_eq!(reader.check_access(&maker.access(&ana(), NOW), NOW), Ok(ana()));
            assert!(reader.check_resume(&maker.resume(&resume_token(), NOW), NOW).is_ok());
        }
    }
    assert_eq!(
        steps[3].check_access(&steps[0].access(&ana(), NOW), NOW),
        Err(TokenError::Forged)
    );
}

#[test]
fn a_refresh_token_reads_back_and_its_successor_is_always_the_same() {
    let tokens = tokens(SECRET, None);
    let first = RefreshToken::first().unwrap();
    assert_eq!(RefreshToken::parse(&first.to_text()), Ok(first.clone()));
    let second = tokens.successor(&first);
    assert_eq!(second, tokens.successor(&first));
    assert_eq!(second.family, first.family);
    assert_ne!(second.hash(), first.hash());
    assert_eq!(RefreshToken::parse(&second.to_text()), Ok(second.clone()));
    assert_ne!(tokens.successor(&second).hash(), first.hash());
    assert_ne!(super::tests::tokens(OTHER, None).successor(&first), second);
    for nonsense in ["", ".", "a.b", &"x".repeat(66), &format!("{}ü", &first.to_text()[1..])] {
        assert_eq!(RefreshToken::parse(nonsense), Err(TokenError::Malformed));
    }
}

#[test]
fn a_node_alone_keeps_its_key() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let token = Tokens::new(&TokenKeys::of_node(&data_dir).unwrap()).access(&ana(), NOW);
    let again = Tokens::new(&TokenKeys::of_node(&data_dir).unwrap());
    assert_eq!(again.check_access(&token, NOW), Ok(ana()));
    let key = data_dir.join("auth.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&key, "short").unwrap();
    assert!(matches!(TokenKeys::of_node(&data_dir), Err(KeyError::Damaged { .. })));
}
