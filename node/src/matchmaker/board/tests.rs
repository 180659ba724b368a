use super::*;

const ANA: u128 = 1;

fn row(ticket: u128, standing: Standing) -> TicketRow {
    TicketRow {
        id: TicketId::from_u128(ticket),
        queue: "duel".into(),
        player: PlayerId::from_u128(ANA),
        standing,
        waited_ms: 400,
        estimate_ms: Some(1_000),
    }
}

fn matched(target: u128, status: MatchStatus) -> Standing {
    Standing::Matched {
        target: MatchId::from_u128(target),
        team: 0,
        players: Vec::new(),
        status: Some(status),
    }
}

struct Node(Board);

impl Node {
    fn with_sessions(sessions: &[u128]) -> Self {
        let mut board = Board::default();
        for session in sessions {
            board.opened(PlayerId::from_u128(ANA), SessionId::from_u128(*session));
        }
        Self(board)
    }

    /// What is said when this is read, in words.
    fn reads(&mut self, rows: &[TicketRow]) -> Vec<String> {
        let mut out = Vec::new();
        self.0.learn(&[PlayerId::from_u128(ANA)], rows, &mut out);
        let words = out.into_iter().map(|say| match say {
            Say::Push { session, message, .. } => {
                let what = match message {
                    QueueMessage::Matched { target, .. } => format!("match {}", target.to_u128()),
                    QueueMessage::State {
                        state: TicketState::Waiting,
                        estimate_ms,
                        ..
                    } => format!("waiting {}", estimate_ms.unwrap_or(0)),
                    QueueMessage::Expired { .. } => "expired".into(),
                    other => format!("{other:?}"),
                };
                format!("{}: {what}", session.to_u128())
            }
            Say::Forget { ticket } => format!("forget {}", ticket.to_u128()),
        });
        words.collect()
    }
}

#[test]
fn a_match_is_told_once_on_each_connection_and_when_it_runs() {
    let mut node = Node::with_sessions(&[1, 2]);
    assert_eq!(
        node.reads(&[row(5, matched(7, MatchStatus::Starting))]),
        Vec::<String>::new()
    );
    let running = [row(5, matched(7, MatchStatus::Running))];
    assert_eq!(node.reads(&running), ["1: match 7", "2: match 7"]);
    assert_eq!(node.reads(&running), Vec::<String>::new());
    node.0.closed(PlayerId::from_u128(ANA), SessionId::from_u128(1));
    node.0.opened(PlayerId::from_u128(ANA), SessionId::from_u128(3));
    assert_eq!(node.reads(&running), ["3: match 7"]);
}

#[test]
fn a_ticket_that_waits_again_is_told_and_its_next_match_too_but_no_match_twice() {
    let mut node = Node::with_sessions(&[1]);
    node.0.answered(
        PlayerId::from_u128(ANA),
        SessionId::from_u128(1),
        Some(TicketId::from_u128(5)),
    );
    assert_eq!(
        node.reads(&[row(5, Standing::Waiting)]),
        Vec::<String>::new(),
        "it was answered so"
    );
    assert_eq!(node.reads(&[row(5, matched(7, MatchStatus::Running))]), ["1: match 7"]);
    assert_eq!(node.reads(&[row(5, Standing::Waiting)]), ["1: waiting 600"]);
    assert_eq!(
        node.reads(&[row(5, matched(7, MatchStatus::Running))]),
        Vec::<String>::new()
    );
    assert_eq!(node.reads(&[row(5, matched(8, MatchStatus::Running))]), ["1: match 8"]);
}

#[test]
fn nothing_is_said_before_the_answer_nor_after_leaving() {
    let mut node = Node::with_sessions(&[1]);
    let (ana, session, ticket) = (
        PlayerId::from_u128(ANA),
        SessionId::from_u128(1),
        TicketId::from_u128(5),
    );
    node.0.joining(ana, session);
    let running = [row(5, matched(7, MatchStatus::Running))];
    assert_eq!(node.reads(&running), Vec::<String>::new());
    node.0.answered(ana, session, Some(ticket));
    assert_eq!(node.reads(&running), ["1: match 7"]);
    node.0.left(ana, ticket);
    assert_eq!(
        node.reads(&[row(5, matched(9, MatchStatus::Running))]),
        Vec::<String>::new()
    );
    assert_eq!(node.reads(&[row(5, Standing::Expired)]), ["forget 5"]);
}

#[test]
fn what_expired_is_forgotten_when_it_was_said() {
    let mut node = Node::with_sessions(&[1, 2]);
    assert_eq!(
        node.reads(&[row(5, Standing::Expired)]),
        ["1: expired", "2: expired", "forget 5"]
    );
    // The store did not forget it: it is told to again, and nobody hears of it twice.
    assert_eq!(node.reads(&[row(5, Standing::Expired)]), ["forget 5"]);
    node.0.closed(PlayerId::from_u128(ANA), SessionId::from_u128(1));
    node.0.closed(PlayerId::from_u128(ANA), SessionId::from_u128(2));
    assert_eq!(
        node.reads(&[row(6, Standing::Expired)]),
        Vec::<String>::new(),
        "nobody is here"
    );
}

#[test]
fn a_seat_uses_the_ticket_of_its_match() {
    let mut node = Node::with_sessions(&[1]);
    let ana = PlayerId::from_u128(ANA);
    node.reads(&[row(5, matched(7, MatchStatus::Running)), row(6, Standing::Waiting)]);
    assert_eq!(node.0.with_tickets(), [ana]);
    assert!(!node.0.seated(ana, MatchId::from_u128(8)));
    assert!(node.0.seated(ana, MatchId::from_u128(7)));
    assert!(!node.0.seated(ana, MatchId::from_u128(7)));
    assert_eq!(node.0.with_tickets(), [ana], "the other one waits");
}

#[test]
fn a_connection_remembers_a_bounded_number_of_tickets() {
    let mut node = Node::with_sessions(&[1]);
    for ticket in 0..1_000 {
        node.reads(&[row(ticket, matched(ticket + 1, MatchStatus::Running))]);
    }
    let connection = node.0.connection(PlayerId::from_u128(ANA), SessionId::from_u128(1));
    assert!(connection.unwrap().heard.len() <= HEARD_MAX + 1);
}
