//! The catalog: sign-in, lists, creation receipts, secrets.

use greenroom_protocol::client::image::{Image, ImageState};
use greenroom_protocol::client::member::{LinkKind, Member, Role, SessionAccess};
use greenroom_protocol::client::person::{Person, UpdateMe, UpdatePerson};
use greenroom_protocol::client::prompt::Delivery;
use greenroom_protocol::client::session::{Session, SessionState};
use greenroom_protocol::id::{PersonId, SandboxId, SessionId};
use greenroom_stdx::clock::Clock;
use greenroom_stdx::id::fresh_bits;
use greenroom_stdx::secret::Secret;
use greenroom_store::catalog::{
    AuditQuery, Catalog, CatalogError, NewAuditEntry, NewLink, RepositoryRow, SearchText, SessionQuery,
};
use std::path::Path;
use std::time::Duration;

pub async fn open(dir: &Path) -> Catalog {
    open_at(dir, &Clock::system()).await
}

async fn open_at(dir: &Path, clock: &Clock) -> Catalog {
    Catalog::open_with_clock(&dir.join("catalog.db"), &dir.join("secret.key"), clock.clone())
        .await
        .unwrap()
}

/// All bytes of all files below `dir`.
fn bytes_of(dir: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        bytes.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    bytes
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle.as_bytes())
}

#[tokio::test]
async fn sessions_are_found_by_words_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path()).await;
    let text = |part: &str, text: &str| SearchText {
        part: part.to_owned(),
        text: text.to_owned(),
    };
    let mut ids = Vec::new();
    for number in 1..=5 {
        let at_ms = i64::try_from(number).unwrap();
        ids.push(session(&catalog, number, "shop", at_ms).await.id);
    }
    assert_eq!(catalog.unindexed_sessions().await.unwrap().len(), 5);
    for id in &ids {
        let texts = vec![text("title", "Mend it"), text("prm_1", "the login test")];
        catalog.index_session(id, texts, 7).await.unwrap();
    }
    assert!(catalog.unindexed_sessions().await.unwrap().is_empty());
    assert_eq!(catalog.indexed_seq(&ids[0]).await.unwrap(), 7);
    let replaced = vec![text("prm_1", ""), text("prm_2", &"long ".repeat(100_000))];
    catalog.index_session(&ids[0], replaced, 9).await.unwrap();
    let find = async |words: &str, cursor: Option<String>| {
        let query = SessionQuery {
            words: Some(words.to_owned()),
            limit: 2,
            cursor,
            ..SessionQuery::default()
        };
        let page = catalog.sessions(query).await.unwrap();
        let found: Vec<_> = page.sessions.into_iter().map(|row| row.id).collect();
        (found, page.next_cursor)
    };
    let (first, cursor) = find("log", None).await;
    assert_eq!(first, [ids[4].clone(), ids[3].clone()]);
    let (second, cursor) = find("log", cursor).await;
    assert_eq!((second, cursor), (vec![ids[2].clone(), ids[1].clone()], None));
    assert_eq!(find("long", None).await.0, [ids[0].clone()]);
    // All words in one text.
    assert!(find("mend login", None).await.0.is_empty());
    catalog.delete_session(&ids[0], None).await.unwrap();
    assert!(find("long", None).await.0.is_empty());
    assert_eq!(catalog.indexed_seq(&ids[0]).await.unwrap(), 0);
}

#[tokio::test]
async fn images_never_change_after_they_were_built() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path()).await;
    for end in [ImageState::Published, ImageState::Failed] {
        let mut image: Image = serde_json::from_value(serde_json::json!({
            "id": greenroom_protocol::id::ImageId::from_bits(fresh_bits()), "repository": "shop", "branch": "main", "state": "building",
            "trigger": {"kind": "schedule"}, "steps": [], "created_at_ms": 1,
        }))
        .unwrap();
        for state in [ImageState::Building, ImageState::Sealing, end] {
            image.state = state;
            catalog.put_image(&image).await.unwrap();
        }
        // A second time because nobody knew whether the first was kept.
        catalog.put_image(&image).await.unwrap();
        for state in [ImageState::Building, end] {
            let mut other = image.clone();
            other.state = state;
            other.size_bytes = Some(1);
            assert!(catalog.put_image(&other).await.is_err(), "{end:?} to {state:?}");
        }
        assert_eq!(catalog.image(&image.id).await.unwrap(), Some(image));
    }
}

#[tokio::test]
async fn there_is_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path()).await;
    let (a, b) = tokio::join!(catalog.owner(), catalog.owner());
    let owner = a.unwrap();
    assert_eq!(owner, b.unwrap());
    let update = UpdateMe {
        name: Some("Ada".into()),
        email: None,
    };
    let renamed = catalog.update_person(&owner.id, update).await.unwrap();
    assert_eq!((renamed.name.as_str(), &renamed.email), ("Ada", &owner.email));
    drop(catalog);
    let catalog = open(dir.path()).await;
    assert_eq!(catalog.owner().await.unwrap(), renamed);
    assert_eq!(catalog.person(&owner.id).await.unwrap(), Some(renamed));
    let stranger = PersonId::from_bits(fresh_bits());
    assert_eq!(catalog.person(&stranger).await.unwrap(), None);
    assert!(matches!(
        catalog.update_person(&stranger, UpdateMe::default()).await,
        Err(CatalogError::PersonUnknown)
    ));
    assert!(matches!(
        catalog.create_token(&stranger, "x").await,
        Err(CatalogError::PersonUnknown)
    ));
}

#[tokio::test]
async fn tokens_work_until_they_are_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path()).await;
    let owner = catalog.owner().await.unwrap();
    let token = catalog.create_token(&owner.id, "laptop").await.unwrap();
    let other = catalog.create_token(&owner.id, "phone").await.unwrap();
    let found = catalog.token_owner(&token.secret).await.unwrap().unwrap();
    assert_eq!((&found.person, found.is_owner), (&owner, true));
    for wrong in ["", "grt_", token.id.as_str(), &token.secret[..67]] {
        assert_eq!(catalog.token_owner(wrong).await.unwrap(), None, "{wrong:?}");
    }
    let listed = catalog.tokens(&owner.id).await.unwrap();
    assert_eq!(
        listed
            .iter()
            .map(|token| token.label.as_str())
            .collect::<Vec<_>>(),
        ["laptop", "phone"]
    );
    catalog
        .revoke_token(&PersonId::from_bits(fresh_bits()), &token.id)
        .await
        .unwrap();
    assert!(
        catalog.token_owner(&token.secret).await.unwrap().is_some(),
        "nobody revokes another person's token"
    );
    catalog.revoke_token(&owner.id, &token.id).await.unwrap();
    assert_eq!(catalog.token_owner(&token.secret).await.unwrap(), None);
    assert!(catalog.token_owner(&other.secret).await.unwrap().is_some());
    drop(catalog);
    let bytes = bytes_of(dir.path());
    assert!(
        contains(&bytes, "phone"),
        "the search must be able to find things"
    );
    assert!(!contains(&bytes, other.secret.strip_prefix("grt_").unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_link_works_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path()).await;
    let owner = catalog.owner().await.unwrap();
    for _ in 0..10 {
        let link = catalog
            .create_sign_in_link(&owner.id, Duration::from_secs(60))
            .await
            .unwrap();
        let racers: Vec<_> = (0..16)
            .map(|_| {
                let (catalog, link) = (catalog.clone(), link.clone());
                tokio::spawn(async move { catalog.consume_sign_in_link(link.expose()).await.unwrap() })
            })
            .collect();
        let mut winners = 0;
        for racer in racers {
            if let Some(person) = racer.await.unwrap() {
                assert_eq!(person, owner);
                winners += 1;
            }
        }
        assert_eq!(winners, 1);
    }
    assert_eq!(catalog.consume_sign_in_link("guess").await.unwrap(), None);
}

#[tokio::test]
async fn links_and_browser_sessions_expire() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(1000);
    let catalog = open_at(dir.path(), &clock).await;
    let owner = catalog.owner().await.unwrap();
    let minute = Duration::from_secs(60);
    let link = catalog.create_sign_in_link(&owner.id, minute).await.unwrap();
    let first = catalog.create_browser_session(&owner.id, minute).await.unwrap();
    clock.advance_ms(59_999);
    let second = catalog.create_browser_session(&owner.id, minute).await.unwrap();
    let third = catalog.create_browser_session(&owner.id, minute).await.unwrap();
    let owner_of = async |secret: &Secret| {
        let found = catalog.browser_session_owner(secret.expose()).await.unwrap();
        found.map(|found| found.person)
    };
    assert_eq!(owner_of(&first).await, Some(owner.clone()));
    clock.advance_ms(1);
    assert_eq!(owner_of(&first).await, None);
    assert_eq!(catalog.consume_sign_in_link(link.expose()).await.unwrap(), None);
    catalog.revoke_browser_session(second.expose()).await.unwrap();
    assert_eq!(owner_of(&second).await, None);
    assert_eq!(owner_of(&third).await, Some(owner.clone()));
    catalog.revoke_browser_sessions(&owner.id).await.unwrap();
    assert_eq!(owner_of(&third).await, None);
}

#[tokio::test]
async fn repositories_have_unique_names() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path()).await;
    let owner = catalog.owner().await.unwrap();
    let row = |name: &str| RepositoryRow {
        name: name.into(),
        source: None,
        created_at_ms: 1,
        created_by: owner.id.clone(),
    };
    for name in ["b", "a"] {
        catalog.add_repository(row(name)).await.unwrap();
    }
    assert!(matches!(
        catalog.add_repository(row("a")).await,
        Err(CatalogError::RepositoryExists)
    ));
    assert_eq!(catalog.repositories().await.unwrap(), [row("a"), row("b")]);
    assert_eq!(catalog.repository("b").await.unwrap(), Some(row("b")));
    catalog.remove_repository("b").await.unwrap();
    assert_eq!(catalog.repository("b").await.unwrap(), None);
}

pub async fn session(catalog: &Catalog, n: u128, repository: &str, updated_at_ms: i64) -> Session {
    let session = Session {
        id: SessionId::from_bits(n),
        title: format!("session {n}"),
        state: SessionState::Idle,
        repository: repository.into(),
        base_branch: "main".into(),
        branch: "b".into(),
        model: "m".into(),
        is_scripted: false,
        created_by: catalog.owner().await.unwrap(),
        created_at_ms: 0,
        updated_at_ms,
        last_seq: 1,
        pull_requests: vec![],
        forked_from: None,
        last_error_code: None,
        delivery: Delivery::Queue,
        is_queue_paused: false,
        failed_effects: Vec::new(),
        members: Vec::new(),
        access: SessionAccess::Viewer,
    };
    catalog.put_session(&session).await.unwrap();
    session
}

#[tokio::test]
async fn pages_of_sessions_hold_each_once() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path()).await;
    // Several with the same time: the id decides.
    for n in 0..23 {
        let repository = if n % 2 == 0 { "even" } else { "odd" };
        session(&catalog, n, repository, i64::try_from(n / 5).unwrap()).await;
    }
    for (repository, expected) in [
        (None, (0..23).rev().collect::<Vec<u128>>()),
        (Some("odd"), (0..23).rev().filter(|n| n % 2 == 1).collect()),
        (Some("none"), vec![]),
    ] {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let query = SessionQuery {
                repository: repository.map(str::to_owned),
                cursor,
                limit: 4,
                words: None,
                seen_by: None,
                is_archived: None,
            };
            let page = catalog.sessions(query).await.unwrap();
            assert!(page.sessions.len() <= 4);
            seen.extend(page.sessions.into_iter().map(|session| session.id));
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        let expected: Vec<SessionId> = expected.into_iter().map(SessionId::from_bits).collect();
        assert_eq!(seen, expected, "{repository:?}");
    }
    let wrong = SessionQuery {
        cursor: Some("x".into()),
        ..SessionQuery::default()
    };
    assert!(matches!(
        catalog.sessions(wrong).await,
        Err(CatalogError::CursorInvalid)
    ));
}

#[tokio::test]
async fn session_rows_follow_the_latest_event() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path()).await;
    let first = session(&catalog, 1, "r", 5).await;
    let running = Session {
        state: SessionState::Running,
        last_seq: 4,
        ..first.clone()
    };
    catalog.put_session(&running).await.unwrap();
    catalog.put_session(&first).await.unwrap();
    assert_eq!(
        catalog.session(&first.id).await.unwrap(),
        Some(running.clone()),
        "a late row is ignored"
    );
    let stopping = session(&catalog, 2, "r", 6).await;
    catalog
        .put_session(&Session {
            state: SessionState::Stopping,
            ..stopping.clone()
        })
        .await
        .unwrap();
    session(&catalog, 3, "r", 7).await;
    assert_eq!(
        catalog.unfinished_sessions().await.unwrap(),
        [first.id.clone(), stopping.id]
    );
    let sandbox = |n| SandboxId::from_bits(n);
    let (two, one) = (sandbox(2), sandbox(1));
    assert_eq!(catalog.claim_sandbox(&first.id, &two).await.unwrap(), two);
    assert_eq!(
        catalog.claim_sandbox(&first.id, &one).await.unwrap(),
        two,
        "there is one already"
    );
    assert_eq!(catalog.sandbox(&first.id).await.unwrap(), Some(sandbox(2)));
    assert_eq!(
        catalog.sandboxes().await.unwrap(),
        [(first.id.clone(), sandbox(2))]
    );
    assert_eq!(catalog.started_with(&first.id).await.unwrap(), None);
    for body in ["{}", "[1]"] {
        catalog
            .put_started_with(&first.id, body.to_owned())
            .await
            .unwrap();
        assert_eq!(
            catalog.started_with(&first.id).await.unwrap().as_deref(),
            Some(body)
        );
    }
    assert_eq!(
        catalog.claim_sandbox(&first.id, &one).await.unwrap(),
        two,
        "it keeps both"
    );
    assert_eq!(
        catalog.started_with(&first.id).await.unwrap().as_deref(),
        Some("[1]")
    );
}

#[tokio::test]
async fn a_creating_command_makes_one_session() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path()).await;
    let owner = catalog.owner().await.unwrap();
    let [a, b] = [1, 2].map(SessionId::from_bits);
    let claim = async |catalog: &Catalog, digest: &str, session: &SessionId| {
        catalog
            .claim_session_creation(&owner.id, "key", digest, session)
            .await
    };
    assert_eq!(claim(&catalog, "d", &a).await.unwrap(), a);
    assert_eq!(claim(&catalog, "d", &b).await.unwrap(), a);
    drop(catalog);
    let catalog = open(dir.path()).await;
    assert_eq!(claim(&catalog, "d", &b).await.unwrap(), a, "also after a restart");
    assert!(matches!(
        claim(&catalog, "other", &b).await,
        Err(CatalogError::KeyReused)
    ));
}

#[tokio::test]
async fn secrets_are_unreadable_without_the_key() {
    const VALUE: &str = "a-value-nobody-may-find-on-disk";
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path()).await;
    let value = Secret::new(VALUE);
    for name in ["forge", "model"] {
        catalog.set_secret(name, &value).await.unwrap();
    }
    assert_eq!(catalog.secret("forge").await.unwrap(), Some(value.clone()));
    assert_eq!(catalog.secret_names().await.unwrap(), ["forge", "model"]);
    assert!(!format!("{catalog:?}").contains(VALUE));
    // While open (with its write-ahead log) and closed.
    assert!(!contains(&bytes_of(dir.path()), VALUE));
    drop(catalog);
    let bytes = bytes_of(dir.path());
    assert!(
        contains(&bytes, "forge"),
        "the search must be able to find things"
    );
    assert!(!contains(&bytes, VALUE));

    let db = rusqlite::Connection::open(dir.path().join("catalog.db")).unwrap();
    let sealed = |name: &str| -> Vec<u8> {
        db.query_row("SELECT sealed FROM secrets WHERE name = ?1", [name], |row| {
            row.get(0)
        })
        .unwrap()
    };
    assert_ne!(sealed("forge"), sealed("model"), "each value has its own nonce");
    // Someone who can write the database but has no key moves a value to another name.
    db.execute(
        "UPDATE secrets SET sealed = ?1 WHERE name = 'model'",
        [sealed("forge")],
    )
    .unwrap();
    drop(db);
    let catalog = open(dir.path()).await;
    let error = catalog.secret("model").await.unwrap_err();
    assert!(matches!(error, CatalogError::SecretUnreadable { .. }));
    assert!(!format!("{error} {error:?}").contains(VALUE));
    assert_eq!(catalog.secret("forge").await.unwrap(), Some(value));
    catalog.remove_secret("forge").await.unwrap();
    assert_eq!(catalog.secret("forge").await.unwrap(), None);
    catalog.set_secret("kept", &Secret::new(VALUE)).await.unwrap();
    drop(catalog);

    std::fs::remove_file(dir.path().join("secret.key")).unwrap();
    let catalog = open(dir.path()).await;
    let problem = catalog.secret("kept").await.unwrap_err().problem();
    assert_eq!(problem.code, "secret_unreadable");
}

#[tokio::test]
async fn key_files_are_private_and_whole() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("secret.key");
    drop(open(dir.path()).await);
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let check = async |what: &str| {
        let error = Catalog::open(&dir.path().join("catalog.db"), &key)
            .await
            .expect_err(what);
        assert_eq!(error.problem().code, "key_file_invalid", "{what}");
    };
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    check("readable by the group").await;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    for length in [0, 31, 33] {
        std::fs::write(&key, vec![1; length]).unwrap();
        check("of the wrong length").await;
    }
}

#[tokio::test]
async fn a_damaged_catalog_is_reported_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.db");
    std::fs::write(
        &path,
        "this is not a database, though it is long enough to be one".repeat(99),
    )
    .unwrap();
    let error = Catalog::open(&path, &dir.path().join("secret.key"))
        .await
        .unwrap_err();
    assert_eq!(error.problem().code, "catalog_corrupt");
    assert!(path.exists());
}

#[tokio::test]
async fn the_environment_of_a_repository_is_replaced_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path()).await;
    let owner = catalog.owner().await.unwrap();
    assert_eq!(catalog.environment("shop").await.unwrap(), None);
    catalog.put_environment("shop", "{}", &owner.id).await.unwrap();
    catalog
        .put_environment("shop", "{\"a\":1}", &owner.id)
        .await
        .unwrap();
    drop(catalog);
    let catalog = open(dir.path()).await;
    assert_eq!(
        catalog.environment("shop").await.unwrap().as_deref(),
        Some("{\"a\":1}")
    );
    assert_eq!(catalog.environment("other").await.unwrap(), None);
    catalog.remove_environment("shop").await.unwrap();
    catalog.remove_environment("shop").await.unwrap();
    assert_eq!(catalog.environment("shop").await.unwrap(), None);
}

#[tokio::test]
async fn derived_keys_are_the_same_each_time_and_differ_by_purpose_and_key_file() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path()).await;
    let key = catalog.derived_key("one");
    assert_ne!(key, [0; 32]);
    assert_ne!(key, catalog.derived_key("two"));
    drop(catalog);
    assert_eq!(open(dir.path()).await.derived_key("one"), key);
    let other = tempfile::tempdir().unwrap();
    assert_ne!(open(other.path()).await.derived_key("one"), key);
}

fn owns(is_owner: bool) -> UpdatePerson {
    UpdatePerson {
        is_owner: Some(is_owner),
        ..UpdatePerson::default()
    }
}

#[tokio::test]
async fn people_come_and_go_and_somebody_owns_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path()).await;
    let owner = catalog.owner().await.unwrap();
    let ada = catalog
        .add_person("Ada".into(), "ada@example.com".into(), false)
        .await
        .unwrap();
    let taken = catalog
        .add_person("Other".into(), "Ada@Example.com".into(), true)
        .await;
    assert!(matches!(taken, Err(CatalogError::PersonExists)));
    let update = UpdateMe {
        email: Some("ada@example.com".into()),
        ..UpdateMe::default()
    };
    let taken = catalog.update_person(&owner.id, update.clone()).await;
    assert!(matches!(taken, Err(CatalogError::PersonExists)));
    // One's own address is nobody else's.
    catalog.update_person(&ada.person.id, update).await.unwrap();
    for refused in [
        catalog.remove_person(&owner.id).await.map(|_| ()),
        catalog.update_account(&owner.id, owns(false)).await.map(|_| ()),
    ] {
        assert!(matches!(refused, Err(CatalogError::LastOwner)));
    }

    let token = catalog.create_token(&ada.person.id, "laptop").await.unwrap();
    let browser = catalog
        .create_browser_session(&ada.person.id, Duration::from_secs(60))
        .await
        .unwrap();
    let link = catalog
        .create_sign_in_link(&ada.person.id, Duration::from_secs(60))
        .await
        .unwrap();
    assert!(
        catalog
            .update_account(&ada.person.id, owns(true))
            .await
            .unwrap()
            .0
            .is_owner
    );
    assert!(
        catalog
            .token_owner(&token.secret)
            .await
            .unwrap()
            .unwrap()
            .is_owner
    );
    assert_eq!(catalog.owner().await.unwrap(), owner, "the first");
    catalog.remove_person(&ada.person.id).await.unwrap();
    assert!(matches!(
        catalog.remove_person(&ada.person.id).await,
        Err(CatalogError::PersonUnknown)
    ));
    assert_eq!(catalog.token_owner(&token.secret).await.unwrap(), None);
    assert_eq!(
        catalog.browser_session_owner(browser.expose()).await.unwrap(),
        None
    );
    assert_eq!(catalog.consume_sign_in_link(link.expose()).await.unwrap(), None);
    assert!(matches!(
        catalog
            .create_sign_in_link(&ada.person.id, Duration::from_secs(60))
            .await,
        Err(CatalogError::PersonUnknown)
    ));
    assert_eq!(
        catalog.person(&ada.person.id).await.unwrap(),
        Some(ada.person.clone()),
        "what she did has her name"
    );
    assert_eq!(catalog.accounts().await.unwrap().len(), 1);
    catalog
        .add_person("Ada".into(), "ada@example.com".into(), false)
        .await
        .unwrap();
}

#[tokio::test]
async fn lists_hold_what_somebody_may_see() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path()).await;
    let ada = catalog
        .add_person("Ada".into(), "ada@example.com".into(), false)
        .await
        .unwrap()
        .person;
    let grace = catalog
        .add_person("Grace".into(), "grace@example.com".into(), false)
        .await
        .unwrap()
        .person;
    let member = |person: &Person| Member {
        person: person.clone(),
        role: Role::Viewer,
    };
    let open_to_all = session(&catalog, 1, "shop", 1).await;
    let of_ada = Session {
        members: vec![member(&ada)],
        access: SessionAccess::Members,
        ..session(&catalog, 2, "shop", 2).await
    };
    catalog.put_session(&of_ada).await.unwrap();
    let seen = async |by: Option<&Person>| {
        let query = SessionQuery {
            seen_by: by.map(|person| person.id.clone()),
            limit: 10,
            ..SessionQuery::default()
        };
        let page = catalog.sessions(query).await.unwrap();
        page.sessions
            .into_iter()
            .map(|session| session.id)
            .collect::<Vec<_>>()
    };
    let (first, second) = (open_to_all.id, of_ada.id.clone());
    assert_eq!(seen(None).await, [second.clone(), first.clone()]);
    assert_eq!(seen(Some(&ada)).await, [second.clone(), first.clone()]);
    assert_eq!(seen(Some(&grace)).await, std::slice::from_ref(&first));
    // Members come and go; a row that comes late changes nothing.
    let handed_on = Session {
        members: vec![member(&grace)],
        last_seq: 9,
        ..of_ada.clone()
    };
    catalog.put_session(&handed_on).await.unwrap();
    catalog.put_session(&of_ada).await.unwrap();
    assert_eq!(seen(Some(&ada)).await, std::slice::from_ref(&first));
    assert_eq!(seen(Some(&grace)).await, [second, first]);
}

#[tokio::test]
async fn links_into_sessions_let_in_until_they_expire_or_are_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(1000);
    let catalog = open_at(dir.path(), &clock).await;
    let owner = catalog.owner().await.unwrap();
    let (one, other) = (SessionId::from_bits(1), SessionId::from_bits(2));
    let new = |kind, role, seconds| NewLink {
        session: one.clone(),
        kind,
        role,
        created_by: owner.id.clone(),
        valid_for: Duration::from_secs(seconds),
    };
    let (short, short_secret) = catalog
        .create_link(new(LinkKind::Share, Role::Viewer, 60))
        .await
        .unwrap();
    let (long, long_secret) = catalog
        .create_link(new(LinkKind::Invite, Role::Editor, 600))
        .await
        .unwrap();
    assert_eq!(catalog.links(&one).await.unwrap(), [short.clone(), long.clone()]);
    assert_eq!(catalog.links(&other).await.unwrap(), []);
    let holder = catalog.link_holder(short_secret.expose()).await.unwrap().unwrap();
    assert_eq!(
        (holder.link, holder.session, holder.kind),
        (short.id.clone(), one.clone(), LinkKind::Share)
    );
    clock.advance_ms(60_000);
    assert_eq!(catalog.link_holder(short_secret.expose()).await.unwrap(), None);
    assert_eq!(catalog.links(&one).await.unwrap(), std::slice::from_ref(&long));
    assert!(
        !catalog.revoke_link(&other, &long.id).await.unwrap(),
        "of another session"
    );
    let role = catalog
        .link_holder(long_secret.expose())
        .await
        .unwrap()
        .map(|holder| holder.role);
    assert_eq!(role, Some(Role::Editor));
    assert!(catalog.revoke_link(&one, &long.id).await.unwrap());
    assert_eq!(catalog.link_holder(long_secret.expose()).await.unwrap(), None);
    assert_eq!(catalog.link_holder("").await.unwrap(), None);
}

#[tokio::test]
async fn what_was_done_is_kept_for_a_while_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(1000);
    let catalog = open_at(dir.path(), &clock).await;
    let owner = catalog.owner().await.unwrap();
    let entry = |target: &str| NewAuditEntry {
        person: owner.clone(),
        action: "stop".to_owned(),
        target: target.to_owned(),
        status: None,
        subject: None,
    };
    let first = catalog.begin_audit(entry("/a%_")).await.unwrap();
    clock.advance_ms(10);
    let second = catalog.begin_audit(entry("/b")).await.unwrap();
    catalog.end_audit(second, 201, Some("made".into())).await.unwrap();
    let found = async |about: Option<&str>| {
        let query = AuditQuery {
            about: about.map(str::to_owned),
            limit: 10,
            ..AuditQuery::default()
        };
        let page = catalog.audit(query).await.unwrap();
        page.entries
            .into_iter()
            .map(|entry| (entry.id, entry.status))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        found(None).await,
        [(second, Some(201)), (first, None)],
        "begun, and nobody knows how it ended"
    );
    assert_eq!(found(Some("mad")).await, [(second, Some(201))]);
    assert_eq!(found(Some("%_")).await, [(first, None)], "no pattern");
    clock.advance_ms(995);
    assert_eq!(catalog.forget_audit(Duration::from_secs(1)).await.unwrap(), 1);
    assert_eq!(found(None).await, [(second, Some(201))]);
}
