//! The operators' HTTP of one node, as a script would use it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

/// Compiling a module in a debug build under load takes seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// One node's operators' listener.
#[derive(Debug, Clone)]
pub struct Ops {
    base: String,
    agent: ureq::Agent,
}

impl Ops {
    pub fn new(address: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder();
        let config = config
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_WITHIN))
            .build();
        Self {
            base: format!("http://{address}"),
            agent: config.into(),
        }
    }

    /// Asks for a path. Returns the status and the body.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn get_text(&self, path: &str) -> Result<(u16, String), ureq::Error> {
        let url = format!("{}{path}", self.base);
        self.call(move |agent| agent.get(&url).call()).await
    }

    /// Asks for a path, and returns the status and the JSON.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        json(path, self.get_text(path).await)
    }

    /// Posts JSON, and returns the status and the JSON of the answer.
    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}{path}", self.base);
        json(path, self.call(move |agent| agent.post(&url).send_json(&body)).await)
    }

    /// Puts bytes, and returns the status and the JSON of the answer.
    pub async fn put(&self, path: &str, body: impl Into<Vec<u8>>) -> (u16, Value) {
        let (url, body) = (format!("{}{path}", self.base), body.into());
        json(path, self.call(move |agent| agent.put(&url).send(&body[..])).await)
    }

    /// Deletes, and returns the status and the JSON of the answer.
    pub async fn delete(&self, path: &str) -> (u16, Value) {
        let url = format!("{}{path}", self.base);
        json(path, self.call(move |agent| agent.delete(&url).call()).await)
    }

    /// Publishes a component, and returns its digest.
    pub async fn publish(&self, component: &[u8]) -> String {
        let (status, published) = self.put("/v1/modules", component).await;
        assert_eq!(status, 200, "the component is not taken: {published}");
        published["digest"]
            .as_str()
            .expect("a published module has a digest")
            .to_owned()
    }

    /// The match's view: by id or name.
    pub async fn match_view(&self, target: &str) -> Value {
        let (status, view) = self.get(&format!("/v1/matches/{target}")).await;
        assert_eq!(status, 200, "no view of match {target}: {view}");
        view
    }

    /// The names of members in this state, as this node sees them.
    pub async fn members(&self, state: &str) -> Vec<String> {
        let (status, cluster) = self.get("/v1/cluster").await;
        assert_eq!(status, 200, "no view of the cluster: {cluster}");
        let nodes = cluster["nodes"].as_array().expect("a cluster has a list of nodes");
        let mut names: Vec<String> = nodes
            .iter()
            .filter(|node| node["state"] == state)
            .map(|node| node["name"].as_str().expect("a node has a name").to_owned())
            .collect();
        names.sort();
        names
    }

    /// All of `/metrics`.
    pub async fn metrics(&self) -> String {
        let (status, text) = self.get_text("/metrics").await.expect("the node answers");
        assert_eq!(status, 200, "no metrics: {text}");
        text
    }

    /// One sample of `/metrics`, by its name with labels as they are printed; none if there is no such line.
    pub async fn metric(&self, sample: &str) -> Option<f64> {
        let text = self.metrics().await;
        text.lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
    }

    async fn call(
        &self,
        call: impl FnOnce(ureq::Agent) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> + Send + 'static,
    ) -> Result<(u16, String), ureq::Error> {
        let agent = self.agent.clone();
        let called = tokio::task::spawn_blocking(move || {
            let mut response = call(agent)?;
            Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
        });
        called.await.expect("the call does not panic")
    }
}

fn json(path: &str, answer: Result<(u16, String), ureq::Error>) -> (u16, Value) {
    let (status, text) = answer.unwrap_or_else(|error| panic!("{path}: no answer: {error}"));
    let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: not JSON ({error}): {text}"));
    (status, value)
}
