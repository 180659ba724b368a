//! The smallest match: it sends every message back. What begins with `"all:` or is an object that begins with `"all"` goes to
//! everyone. The load generator and the tests of delivery use it, so it does nothing else.

use rookery_sdk::prelude::*;

struct Echo;

impl Match for Echo {
    fn manifest() -> Manifest {
        Manifest::json("echo").players(1..=1_000).spectators(1_000)
    }

    fn start(_ctx: &mut Context, _setup: &Setup) -> Result<Self, Refusal> {
        Ok(Self)
    }

    fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
        let to = if input.starts_with(b"\"all:") || input.starts_with(b"{\"all\"") {
            To::Everyone
        } else {
            To::Seat(from)
        };
        ctx.send(to, &input);
    }
}

rookery_sdk::export!(Echo);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_to_its_sender_alone_unless_it_is_for_all() {
        let mut host = mock::Host::<Echo>::start(json!(null)).unwrap();
        let (ana, ben) = (host.join("ana").unwrap(), host.join("ben").unwrap());
        host.message(ana, json!({ "k": 1 }));
        host.message(ana, json!("all: hello"));
        host.message(ana, json!({ "all": 2 }));
        assert_eq!(
            host.heard_json(ana),
            [json!({ "k": 1 }), json!("all: hello"), json!({ "all": 2 })]
        );
        assert_eq!(host.heard_json(ben), [json!("all: hello"), json!({ "all": 2 })]);
    }
}
