//! Looks at the operator's files now and then, and has the mesh use what is new in them. It does not judge what they hold
//! (`certificates.rs` does): a change that cannot be used is said once, and what was used before stays.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::UnixTime;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::{Shared, task};
use crate::certificates::{CertificateFiles, Certificates, Contents};
use crate::error::CertificateError;
use crate::quic::Quic;

/// How often the files are read: three small files, so that no way in which they may be replaced (written over, renamed, or behind a
/// symbolic link as in Kubernetes) goes unseen.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Runs as long as the mesh. `current` is what is in use.
pub(super) async fn watch(shared: Arc<Shared>, files: CertificateFiles, current: Contents) {
    let _vital = task::Vital::new(shared.clone(), "certificates");
    let stop = shared.stop.clone();
    stop.run_until_cancelled(watch_for_ever(&shared, &files, current)).await;
}

async fn watch_for_ever(shared: &Arc<Shared>, files: &CertificateFiles, current: Contents) {
    let mut polls = interval(POLL_INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What was decided about last, and what was seen last.
    let (mut settled, mut seen) = (Some(current.clone()), Some(current));
    loop {
        polls.tick().await;
        let reading = files.clone();
        let Ok(read) = spawn_blocking(move || reading.read()).await else {
            // The runtime is going down.
            return;
        };
        let (contents, error) = match read {
            Ok(contents) => (Some(contents), None),
            Err(error) => (None, Some(error)),
        };
        // Three files do not change at once: only what is the same twice is taken for whole.
        if contents != seen {
            seen = contents;
            continue;
        }
        if contents == settled {
            continue;
        }
        let outcome = match (&contents, error) {
            (Some(contents), _) => take(shared, files, contents),
            (None, Some(error)) => Err(error),
            (None, None) => continue,
        };
        if let Err(error) = outcome {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            warn!(%error, cause, "changed certificates are not used; those from before are");
        }
        settled = contents;
    }
}

fn take(shared: &Shared, files: &CertificateFiles, contents: &Contents) -> Result<(), CertificateError> {
    let certificates = Certificates::new(files, contents, &shared.local.peer.node, UnixTime::now())?;
    let (authority, not_after_s) = (certificates.authorities[0].clone(), certificates.not_after_s);
    use_now(&shared.quic, files, certificates)?;
    shared.counters.certificate_expiry_s.set(not_after_s);
    info!(authority, not_after_s, "changed certificates are in use");
    Ok(())
}

fn use_now(quic: &Quic, files: &CertificateFiles, certificates: Certificates) -> Result<(), CertificateError> {
    quic.replace(certificates).map_err(|why| CertificateError::Malformed {
        path: files.cert.clone(),
        why: why.to_string(),
    })
}
