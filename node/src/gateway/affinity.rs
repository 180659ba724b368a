//! The cookie that lets a load balancer send a browser back to the node it was on. Only a convenience: any node serves any
//! player, and a cookie that names another node, or none that exists, changes nothing.

use axum::http::{HeaderMap, HeaderValue, header};

/// The cookie of one node.
#[derive(Debug, Clone)]
pub struct Affinity {
    pair: String,
    set: HeaderValue,
}

impl Affinity {
    /// `name` is the cookie's, `node` its value. Both consist of letters, digits, `-`, `_` and `.`, which a cookie may carry as
    /// they are.
    pub fn new(name: &str, node: &str, secure: bool) -> Self {
        let pair = format!("{name}={node}");
        let secure = if secure { "; Secure" } else { "" };
        // No `Max-Age`: it ends with the browser's session. No `HttpOnly` would gain a script nothing, so it is set.
        let set = format!("{pair}; Path=/; HttpOnly; SameSite=Lax{secure}");
        Self {
            set: HeaderValue::try_from(set).expect("names of nodes and cookies are plain text"),
            pair,
        }
    }

    /// The header for the answer to this request; none when the client has this cookie already.
    pub fn answer(&self, request: &HeaderMap) -> Option<&HeaderValue> {
        let lines = request.get_all(header::COOKIE).into_iter();
        let has_it = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .any(|pair| pair.trim() == self.pair);
        (!has_it).then_some(&self.set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_with(cookies: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(header::COOKIE, HeaderValue::from_static(cookie));
        }
        let affinity = Affinity::new("rookery_node", "rook-1", false);
        let answer = affinity.answer(&headers)?;
        Some(answer.to_str().unwrap().to_owned())
    }

    #[test]
    fn who_has_no_cookie_of_this_node_gets_one() {
        let set = "rookery_node=rook-1; Path=/; HttpOnly; SameSite=Lax";
        assert_eq!(asked_with(&[]).as_deref(), Some(set));
        assert_eq!(asked_with(&["a=b; rookery_node=rook-2"]).as_deref(), Some(set));
        assert_eq!(asked_with(&["rookery_node=rook-11"]).as_deref(), Some(set));
    }

    #[test]
    fn who_has_it_gets_none() {
        assert_eq!(asked_with(&["rookery_node=rook-1"]), None);
        assert_eq!(asked_with(&["a=b", "c=d;rookery_node=rook-1; e=f"]), None);
    }

    #[test]
    fn over_tls_it_is_secure() {
        let affinity = Affinity::new("n", "rook-1", true);
        let set = affinity.answer(&HeaderMap::new()).unwrap();
        assert!(set.to_str().unwrap().ends_with("; Secure"));
    }
}
