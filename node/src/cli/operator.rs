//! How a command reaches a node: the operators' HTTP, its token, and what to say when it does not answer. Blocking; a command
//! does one thing at a time.

use std::time::Duration;

use clap::Args;
use rookery_protocol::error::Refusal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ops::modules::SIGNATURE;

/// A publish answers when the module is compiled, which takes seconds for a large one on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A node that does not say in time whether it is well is not.
const PROBE_WITHIN: Duration = Duration::from_secs(2);
const PROBE_BYTES_MAX: u64 = 64 << 10;
/// A page of matches is below 1 MiB; what is far larger comes from something that is no node.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// A recording has a component and a compressed memory in it.
const FILE_BYTES_MAX: u64 = 512 << 20;

/// Options of commands that ask a running node.
#[derive(Debug, Clone, Args)]
pub(crate) struct OpsOptions {
    /// A node's operators' listener; any node answers for the cluster.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7702")]
    ops: String,
    /// The operators' token. The variable ROOKERY_OPS_TOKEN keeps it out of the process list.
    #[arg(long)]
    token: Option<String>,
    /// Print the node's answer as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl OpsOptions {
    pub(super) fn client(&self) -> Result<OpsClient, BadUrl> {
        let variable = || {
            std::env::var("ROOKERY_OPS_TOKEN")
                .ok()
                .filter(|token| !token.is_empty())
        };
        OpsClient::new(&self.ops, self.token.clone().or_else(variable))
    }
}

/// The URL cannot be one of an operators' listener.
#[derive(Debug, thiserror::Error)]
#[error("`{url}` is not the URL of an operators' listener, such as http://127.0.0.1:7702")]
pub(crate) struct BadUrl {
    url: String,
}

/// An order or a question that got no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpsError {
    /// Nothing was done, unless the connection broke in the middle of an answer.
    #[error("no answer from {url}; is a node running, and is this its operators' listener? (--ops URL)")]
    Unreachable { url: String, source: Box<ureq::Error> },
    /// The node said no; nothing was done.
    #[error("{} ({}){}", .0.message, .0.code, details(.0))]
    Refused(Refusal),
    /// Something answered that is no operators' listener of this version.
    #[error("{url} answered {status} with something that is not an operators' listener's answer; check --ops")]
    NotOurs { url: String, status: u16 },
}

/// What a refusal says beyond its sentence: the reason that a module gave, when to try again.
fn details(refusal: &Refusal) -> String {
    let detail = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("\n  {key}: {text}"),
        other => format!("\n  {key}: {other}"),
    };
    refusal.details.iter().map(detail).collect()
}

/// Asks one node.
#[derive(Debug, Clone)]
pub(crate) struct OpsClient {
    agent: ureq::Agent,
    base: String,
    token: Option<String>,
}

impl OpsClient {
    pub(crate) fn new(url: &str, token: Option<String>) -> Result<Self, BadUrl> {
        let with_scheme = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let base = with_scheme.trim_end_matches('/').to_owned();
        let has_host = base.strip_prefix("http://").is_some_and(|host| !host.is_empty());
        if !has_host || base.parse::<axum::http::Uri>().is_err() {
            return Err(BadUrl { url: url.into() });
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_WITHIN))
            .timeout_global(Some(ANSWER_WITHIN))
            .max_redirects(0)
            .build();
        Ok(Self {
            agent: config.new_agent(),
            base,
            token,
        })
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, OpsError> {
        self.read(path, self.authorised(self.agent.get(self.url(path))).call())
    }

    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: impl Serialize) -> Result<T, OpsError> {
        self.read(path, self.authorised(self.agent.post(self.url(path))).send_json(body))
    }

    /// Hands a component in, with its signature where there is one.
    pub(crate) fn publish<T: DeserializeOwned>(
        &self,
        component: &[u8],
        signature: Option<&str>,
    ) -> Result<T, OpsError> {
        const PATH: &str = "/v1/modules";
        let request = self.agent.put(self.url(PATH)).content_type("application/wasm");
        let request = match signature {
            Some(signature) => request.header(SIGNATURE.as_str(), signature),
            None => request,
        };
        self.read(PATH, self.authorised(request).send(component))
    }

    /// Puts bytes of which the node sees for itself what they are.
    pub(crate) fn put_bytes<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, OpsError> {
        self.read(path, self.authorised(self.agent.put(self.url(path))).send(body))
    }

    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, OpsError> {
        self.read(path, self.authorised(self.agent.delete(self.url(path))).call())
    }

    /// Asks a probe, which answers in plain text: whether all is well, and what it said.
    pub(crate) fn probe(&self, path: &str) -> Result<(bool, String), OpsError> {
        let unreachable = |source| OpsError::Unreachable {
            url: self.url(path),
            source: Box::new(source),
        };
        let asked = self.authorised(self.agent.get(self.url(path))).config();
        let mut answer = asked
            .timeout_global(Some(PROBE_WITHIN))
            .build()
            .call()
            .map_err(unreachable)?;
        let said = answer.body_mut().with_config().limit(PROBE_BYTES_MAX).read_to_string();
        Ok((answer.status().is_success(), said.map_err(unreachable)?))
    }

    /// Asks for a file.
    pub(crate) fn get_bytes(&self, path: &str) -> Result<Vec<u8>, OpsError> {
        let unreachable = |source| OpsError::Unreachable {
            url: self.url(path),
            source: Box::new(source),
        };
        let mut answer = self
            .authorised(self.agent.get(self.url(path)))
            .call()
            .map_err(unreachable)?;
        if !answer.status().is_success() {
            // A refusal: it has no other shape.
            return self.read::<Value>(path, Ok(answer)).map(|_| Vec::new());
        }
        let body = answer.body_mut().with_config().limit(FILE_BYTES_MAX).read_to_vec();
        body.map_err(unreachable)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn authorised<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        answer: Result<axum::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, OpsError> {
        let unreachable = |source| OpsError::Unreachable {
            url: self.url(path),
            source: Box::new(source),
        };
        let mut answer = answer.map_err(unreachable)?;
        let status = answer.status();
        let body = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(unreachable)?;
        let not_ours = || OpsError::NotOurs {
            url: self.url(path),
            status: status.as_u16(),
        };
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| not_ours());
        }
        let refusal = serde_json::from_slice(&body).map_err(|_| not_ours())?;
        Err(OpsError::Refused(refusal))
    }
}

/// A word of the operator's as one segment of a path: `village/square` is one name.
pub(crate) fn segment(text: &str) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes()
        .map(|byte| {
            if is_plain(&byte) {
                (byte as char).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// JSON for programs, as they would have got it from the node.
pub(super) fn pretty(value: &impl Serialize) -> String {
    let value: Value = serde_json::to_value(value).expect("views are plain data");
    serde_json::to_string_pretty(&value).expect("a JSON value is JSON")
}
