//! A node that does for its operators nothing but judge what it is asked, by the rules of a real one.

use axum::body::Bytes;
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::{Digest, MatchId, NodeName};

use crate::content::Item;
use crate::keys;
use crate::modules::Publication;
use crate::modules::signature::Signature;
use crate::operations::read_record_cursor;
use crate::ops::Operations;
use crate::ops::content::PutContent;
use crate::ops::view::{
    ClusterView, ContentPage, ContentPageRequest, ContentSummary, DrainOrdered, DrainRequest, KickRequest, MatchPage,
    MatchView, ModulesView, MoveRequest, Moved, PageRequest, Published, RecordPage, RecordRequest, UpgradeRequest,
    Upgraded,
};
use crate::wasm::module::check_imports;

pub(super) struct Judge;

fn nothing<T>(code: ErrorCode, name: &str) -> Result<T, Refusal> {
    Err(Refusal::new(code, format!("there is no {name}")).with("name", name))
}

fn node(name: &str) -> Result<NodeName, Refusal> {
    name.parse().or_else(|_| nothing(ErrorCode::NodeNotFound, name))
}

fn check_limit(limit: Option<u32>) {
    assert!(limit.is_some_and(|limit| (1..=1_000).contains(&limit)), "{limit:?}");
}

impl Operations for Judge {
    fn ready(&self) -> Result<(), String> {
        Err("it is none".into())
    }

    async fn cluster(&self) -> Result<ClusterView, Refusal> {
        Ok(ClusterView::default())
    }

    async fn matches(&self, page: PageRequest) -> Result<MatchPage, Refusal> {
        check_limit(page.limit);
        match page.cursor.map(|cursor| cursor.parse::<MatchId>()) {
            Some(Err(_)) => Err(Refusal::new(ErrorCode::BadMessage, "cursor: not one of ours")),
            Some(Ok(_)) | None => Ok(MatchPage::default()),
        }
    }

    async fn match_view(&self, target: &str) -> Result<MatchView, Refusal> {
        nothing(ErrorCode::MatchNotFound, target)
    }

    async fn end_match(&self, target: &str) -> Result<(), Refusal> {
        nothing(ErrorCode::MatchNotFound, target)
    }

    async fn kick(&self, _target: &str, request: KickRequest) -> Result<(), Refusal> {
        nothing(ErrorCode::MatchNotJoined, &request.player)
    }

    async fn move_match(&self, _target: &str, request: MoveRequest) -> Result<Moved, Refusal> {
        let owner = node(request.to.as_deref().unwrap_or("rook-1"))?.to_string();
        let id = MatchId::from_u128(7);
        Ok(Moved { id, owner })
    }

    async fn upgrade_match(&self, _target: &str, request: UpgradeRequest) -> Result<Upgraded, Refusal> {
        nothing(ErrorCode::ModuleNotFound, request.to.as_deref().unwrap_or_default())
    }

    async fn forget_node(&self, name: &str) -> Result<(), Refusal> {
        node(name).map(drop)
    }

    async fn modules(&self) -> Result<ModulesView, Refusal> {
        Ok(ModulesView::default())
    }

    async fn publish(&self, publication: Publication) -> Result<Published, Refusal> {
        if let Some(signature) = &publication.signature {
            let parsed = signature.parse::<Signature>();
            parsed.map_err(|error| Refusal::new(ErrorCode::BadMessage, error.to_string()))?;
        }
        let checked = check_imports(&publication.component);
        checked.map_err(|error| Refusal::new(ErrorCode::ModuleInvalid, error.to_string()))?;
        Ok(Published {
            name: "duel".into(),
            version: "1.0.0".into(),
            digest: Digest([1; 32]),
        })
    }

    async fn remove_module(&self, reference: &str) -> Result<(), Refusal> {
        nothing(ErrorCode::ModuleNotFound, reference)
    }

    async fn join_peer(&self, peer: &str) -> Result<(), Refusal> {
        nothing(ErrorCode::Unavailable, peer)
    }

    async fn drain(&self, name: &str, request: DrainRequest) -> Result<DrainOrdered, Refusal> {
        Ok(DrainOrdered {
            node: node(name)?.to_string(),
            generation: 7,
            deadline_ms: request.deadline_ms.unwrap_or(25_000),
            told_by: "rook-1".into(),
        })
    }

    fn cut_data_links(&self) -> Result<(), Refusal> {
        Err(Refusal::new(ErrorCode::Forbidden, "not here"))
    }

    async fn records(&self, request: RecordRequest) -> Result<RecordPage, Refusal> {
        check_limit(request.limit);
        match request.cursor.map(|cursor| read_record_cursor(&cursor)) {
            Some(None) => Err(Refusal::new(ErrorCode::BadMessage, "cursor: not one of ours")),
            Some(Some(_)) | None => Ok(RecordPage::default()),
        }
    }

    fn content(&self) -> Result<ContentSummary, Refusal> {
        Ok(ContentSummary::default())
    }

    fn content_list(&self, collection: &str, page: ContentPageRequest) -> Result<ContentPage, Refusal> {
        check_limit(page.limit);
        keys::check_collection(collection)?;
        for key in page.prefix.iter().chain(&page.cursor) {
            keys::check_part(key)?;
        }
        Ok(ContentPage::default())
    }

    /// The key is the value too.
    fn content_get(&self, collection: &str, key: &str) -> Result<Item, Refusal> {
        keys::check(collection, key)?;
        Ok(Item {
            content_type: "application/json".into(),
            value: Bytes::copy_from_slice(key.as_bytes()),
            version: 7,
            updated_at_ms: 1,
        })
    }

    async fn content_put(&self, collection: &str, key: &str, put: PutContent) -> Result<u64, Refusal> {
        keys::check(collection, key)?;
        assert!(put.content_type.len() <= 128);
        if put.content_type == "application/json" {
            assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&put.value).is_ok());
        }
        Ok(put.expect.unwrap_or(8))
    }

    async fn content_delete(&self, collection: &str, key: &str, expect: Option<u64>) -> Result<u64, Refusal> {
        keys::check(collection, key)?;
        Ok(expect.unwrap_or(9))
    }
}
