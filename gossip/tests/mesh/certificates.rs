//! Nodes with certificates of an operator's authority: who gets in, who does not and what is said about it, and what happens when the
//! files change.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rookery_gossip::{CertificateError, CertificateFiles, MemberState, StartError};
use tempfile::TempDir;

use crate::harness::{Node, NodeOptions, ONE, eventually, log, number, secret};

/// An operator's authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    fingerprint: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate.der());
        Self {
            pem: certificate.pem(),
            fingerprint: digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect(),
            issuer: Issuer::new(params, key),
        }
    }

    /// What a node of this name would be given; tests spoil it.
    fn request(dns_name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(vec![dns_name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    /// Writes what a node needs into a directory.
    fn issue(&self, request: CertificateParams, directory: &Path) -> CertificateFiles {
        self.issue_believing(&[self], request, directory)
    }

    fn issue_believing(
        &self,
        authorities: &[&Authority],
        request: CertificateParams,
        directory: &Path,
    ) -> CertificateFiles {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = request.signed_by(&key, &self.issuer).unwrap();
        let files = CertificateFiles {
            ca: directory.join("ca.pem"),
            cert: directory.join("cert.pem"),
            key: directory.join("key.pem"),
        };
        let ca: String = authorities.iter().map(|authority| authority.pem.as_str()).collect();
        fs::write(&files.ca, ca).unwrap();
        fs::write(&files.cert, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

/// The fingerprints of authorities differ from run to run, so tests in this process do not find each other's lines.
fn options(files: &CertificateFiles, seeds: Vec<String>) -> NodeOptions {
    NodeOptions {
        certificates: Some(files.clone()),
        seeds,
        ..NodeOptions::default()
    }
}

async fn start(authority: &Authority, name: &str, seeds: Vec<String>) -> (Node, CertificateFiles, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let files = authority.issue(Authority::request(name), directory.path());
    let node = Node::start(name, options(&files, seeds)).await;
    (node, files, directory)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_certificates_of_one_authority_are_a_mesh() {
    let authority = Authority::new("ours");
    let (n0, _, _kept0) = start(&authority, "n0", vec![]).await;
    let seeds = vec![n0.addr()];
    // One is named by a wildcard, one by nothing but its common name, which may hold what no DNS name can.
    let (n1, _, _kept1) = {
        let directory = tempfile::tempdir().unwrap();
        let files = authority.issue(Authority::request("*.game.example"), directory.path());
        let node = Node::start("n1.game.example", options(&files, seeds.clone())).await;
        (node, files, directory)
    };
    let (n2, _, _kept2) = {
        let directory = tempfile::tempdir().unwrap();
        let mut request = Authority::request("elsewhere.example");
        request.distinguished_name.push(DnType::CommonName, "n_2.");
        let files = authority.issue(request, directory.path());
        let node = Node::start("n_2.", options(&files, seeds)).await;
        (node, files, directory)
    };
    let nodes = [&n0, &n1, &n2];
    eventually(|| nodes.iter().all(|node| node.count(MemberState::Ready) == 3)).await;
    // Both kinds of connections, in all directions, and identities that come from the hello.
    for from in nodes {
        for to in nodes.iter().filter(|to| to.name() != from.name()) {
            from.cluster.send(&to.name(), ONE, number(1)).unwrap();
        }
    }
    eventually(|| nodes.iter().all(|node| node.inbox.count(ONE) == 2)).await;
    assert_eq!(n2.member("n0").unwrap().peer.addr, n0.addr());
    assert!(n0.cluster.stats().certificate_expiry_s > 4_000_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_authority_is_refused_with_both_fingerprints_on_each_side() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (n0, _, _kept0) = start(&ours, "n0", vec![]).await;
    let (n1, _, _kept1) = start(&theirs, "n1", vec![n0.addr()]).await;
    let line = |ours: &Authority, theirs: &Authority| {
        format!(
            "peer refused: certificate authority differs, ours {}, theirs {}",
            ours.fingerprint, theirs.fingerprint
        )
    };
    eventually(|| log().count(&line(&ours, &theirs)) == 1 && log().count(&line(&theirs, &ours)) == 1).await;
    eventually(|| n0.cluster.stats().refused_total.authority >= 2).await;
    assert_eq!(log().count(&line(&ours, &theirs)), 1);
    assert_eq!(
        (n0.members(), n1.members()),
        (vec!["n0".to_owned()], vec!["n1".to_owned()])
    );
    let error = n1.cluster.discovery_status()[0].last_error.clone().unwrap();
    assert!(error.contains("its certificate authority is another one"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_and_without_certificates_refuse_each_other_readably() {
    let authority = Authority::new("ours");
    for certified_dials in [false, true] {
        let own = secret(if certified_dials { 0x51 } else { 0x52 });
        let directory = tempfile::tempdir().unwrap();
        let files = authority.issue(Authority::request("n0"), directory.path());
        let with = |certificates, seeds| NodeOptions {
            secret: own.clone(),
            certificates,
            seeds,
            ..NodeOptions::default()
        };
        let (certified, plain) = if certified_dials {
            let plain = Node::start("n1", with(None, vec![])).await;
            let certified = Node::start("n0", with(Some(files), vec![plain.addr()])).await;
            (certified, plain)
        } else {
            let certified = Node::start("n0", with(Some(files), vec![])).await;
            let plain = Node::start("n1", with(None, vec![certified.addr()])).await;
            (certified, plain)
        };
        let (secret_print, authority_print) = (own.fingerprint(), &authority.fingerprint);
        let by_plain = format!(
            "peer refused: it has certificates of an authority, this node has the cluster secret alone, \
             ours {secret_print}, theirs {authority_print}"
        );
        let by_certified = format!(
            "peer refused: it has the cluster secret alone, this node has certificates of an authority, \
             ours {authority_print}, theirs {secret_print}"
        );
        eventually(|| log().count(&by_plain) == 1 && log().count(&by_certified) == 1).await;
        assert!(certified.cluster.stats().refused_total.authority >= 1);
        assert_eq!((certified.members().len(), plain.members().len()), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_share_no_secret_refuse_each_other_although_their_certificates_do() {
    let authority = Authority::new("ours");
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let n0_files = authority.issue(Authority::request("n0"), first.path());
    let n1_files = authority.issue(Authority::request("n1"), second.path());
    let (one, other, next) = (secret(0x61), secret(0x62), secret(0x63));
    let with = |files, secret, secret_next, seeds| NodeOptions {
        secret,
        secret_next,
        ..options(files, seeds)
    };
    let n0 = Node::start("n0", with(&n0_files, one.clone(), Some(next.clone()), vec![])).await;
    let n1 = Node::start("n1", with(&n1_files, other.clone(), None, vec![n0.addr()])).await;
    let line =
        |ours: String, theirs: String| format!("peer refused: cluster secret differs, ours {ours}, theirs {theirs}");
    eventually(|| log().count(&line(one.fingerprint(), other.fingerprint())) == 1).await;
    eventually(|| log().count(&line(other.fingerprint(), one.fingerprint())) == 1).await;
    assert_eq!(n1.members(), ["n1"]);
    drop(n1);
    // The one that is to come is enough.
    let n1 = Node::start("n1", with(&n1_files, next, None, vec![n0.addr()])).await;
    eventually(|| n1.count(MemberState::Ready) == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_certificate_is_used_without_a_restart_and_a_broken_one_is_not() {
    let (ours, next) = (Authority::new("ours"), Authority::new("next"));
    let (n0, files, directory) = start(&ours, "n0", vec![]).await;
    let before = n0.cluster.stats().certificate_expiry_s;
    // Broken: a key that is not the certificate's. The node goes on with what it has.
    let whole = fs::read(&files.key).unwrap();
    let foreign = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    fs::write(&files.key, foreign).unwrap();
    let broken = format!("{} is not the key of {}", files.key.display(), files.cert.display());
    eventually(|| log().count(&broken) == 1).await;
    let (n1, n1_files, n1_directory) = start(&ours, "n1", vec![n0.addr()]).await;
    eventually(|| n0.count(MemberState::Ready) == 2).await;
    // What was put right again is what is in use.
    fs::write(&files.key, whole).unwrap();
    // Both authorities are believed, then each node gets a certificate of the new one: nobody is turned away meanwhile.
    let mut request = Authority::request("n0");
    request.not_after = date_time_ymd(2090, 1, 1);
    next.issue_believing(&[&ours, &next], request, directory.path());
    eventually(|| n0.cluster.stats().certificate_expiry_s == 3_786_912_000).await;
    assert!(before != 3_786_912_000);
    assert_eq!(
        n0.count(MemberState::Ready),
        2,
        "a connection that was there has stayed"
    );
    let mut request = Authority::request("n1");
    request.not_after = date_time_ymd(2091, 1, 1);
    next.issue_believing(&[&ours, &next], request, n1_directory.path());
    eventually(|| n1.cluster.stats().certificate_expiry_s == 3_818_448_000).await;
    let (n2, _, _kept) = start(&next, "n2", vec![n0.addr()]).await;
    eventually(|| n2.count(MemberState::Ready) == 3).await;
    // It believes the new authority alone, so what n0 and n1 show is of that one.
    assert_eq!(n2.cluster.stats().refused_total.authority, 0);
    assert_eq!(n1_files.ca, n1_directory.path().join("ca.pem"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_expires_is_refused_at_the_next_handshake_with_a_line_on_each_side() {
    let authority = Authority::new("ours");
    let (n0, _, _kept0) = start(&authority, "n0", vec![]).await;
    let directory = tempfile::tempdir().unwrap();
    let mut request = Authority::request("n1");
    // Long enough to start with on a slow machine.
    let lifetime_s = 6;
    let now_s = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    request.not_after = date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(now_s + lifetime_s);
    let files = authority.issue(request, directory.path());
    let n1 = Node::start("n1", options(&files, vec![])).await;
    assert_eq!(n1.cluster.stats().certificate_expiry_s, now_s + lifetime_s);
    assert!(n1.cluster.join_peer(&n0.addr()).await.is_ok());
    n0.cluster.send(&n1.name(), ONE, number(1)).unwrap();
    eventually(|| n1.inbox.count(ONE) == 1).await;
    let expired = || {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs()
            > now_s + lifetime_s
    };
    eventually(expired).await;
    assert_eq!(n0.count(MemberState::Ready), 2, "a connection that is there stays");
    // It cannot even start with it, and says why.
    let refused = Node::try_start("n1", options(&files, vec![])).await.err().unwrap();
    assert!(
        matches!(&refused, StartError::CertificateFiles(CertificateError::Unfit { why, .. }) if why == "it has expired"),
        "{refused:?}"
    );
    // The data connection breaks: neither end gets another one through a handshake.
    n1.cluster.cut_data_links();
    let addr = n1.addr();
    let by_n0 = "peer refused: its certificate does not do: it has expired";
    let by_n1 = "peer refused: it turns our certificate down: it has expired or is not valid yet, at";
    eventually(|| {
        let _ = n0.cluster.send(&n1.name(), ONE, number(2));
        let _ = n1.cluster.send(&n0.name(), ONE, number(2));
        log().count(by_n0) >= 1 && log().count(by_n1) >= 1
    })
    .await;
    assert!(n0.cluster.stats().refused_total.certificate >= 1, "{addr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_not_start_with_certificates_that_its_peers_would_refuse() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let node = "n0".parse().unwrap();
    let check = |files: &CertificateFiles| files.check(&node);
    let files = ours.issue(Authority::request("n0"), at);
    assert!(check(&files).is_ok());

    ours.issue(Authority::request("n1"), at);
    assert!(matches!(check(&files), Err(CertificateError::OtherName { node, .. }) if node.as_str() == "n0"));

    ours.issue_believing(&[&theirs], Authority::request("n0"), at);
    assert!(matches!(check(&files), Err(CertificateError::Unfit { why, .. }) if why.contains("no authority")));

    let mut expired = Authority::request("n0");
    expired.not_after = date_time_ymd(2020, 1, 1);
    ours.issue(expired, at);
    assert!(matches!(check(&files), Err(CertificateError::Unfit { why, .. }) if why == "it has expired"));

    let mut early = Authority::request("n0");
    early.not_before = date_time_ymd(2900, 1, 1);
    ours.issue(early, at);
    assert!(matches!(check(&files), Err(CertificateError::Unfit { why, .. }) if why == "it is not valid yet"));

    for usage in [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth] {
        let mut half = Authority::request("n0");
        half.extended_key_usages = vec![usage];
        ours.issue(half, at);
        assert!(
            matches!(check(&files), Err(CertificateError::Unfit { why, .. }) if why.contains("both servers and clients"))
        );
    }

    ours.issue(Authority::request("n0"), at);
    fs::write(&files.cert, "no certificate").unwrap();
    assert!(matches!(check(&files), Err(CertificateError::Malformed { path, .. }) if path == files.cert));

    ours.issue(Authority::request("n0"), at);
    fs::write(
        &files.key,
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem(),
    )
    .unwrap();
    assert!(matches!(check(&files), Err(CertificateError::OtherKey { .. })));

    fs::remove_file(&files.ca).unwrap();
    assert!(matches!(check(&files), Err(CertificateError::Unreadable { path, .. }) if path == files.ca));
}
