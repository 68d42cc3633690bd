//! Reads the list of ref updates at the start of a push (gitprotocol-pack(5)) and asks the policy, before git starts.
//!
//! The pack behind the list is never held: it is passed on, or read and thrown away when the push is refused.

use super::body::ByteStream;
use super::exchange::Input;
use super::pkt_line::{self, FLUSH, Packet};
use super::policy::{Decision, PushPolicy, RefUpdate, RefUpdateKind};
use crate::git::is_object_id;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of the list.
const MAX_LIST_BYTES: usize = 2 * 1024 * 1024;
/// Most refs of one push.
const MAX_UPDATES: usize = 5000;
/// Time for the list to arrive, and for a refused pack to pass by.
const READ_LIMIT: Duration = Duration::from_secs(300);
/// Object id of a ref that is not there.
const ZERO: &str = "0000000000000000000000000000000000000000";

/// Why a push request cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum PushRequestError {
    /// Not pkt-lines, or lines that are not ref updates.
    #[error("it is malformed")]
    Malformed,
    /// More refs or bytes than one push may have.
    #[error("it moves too many refs at once")]
    TooLong,
    /// The client stopped sending.
    #[error("it ends early")]
    Cut,
    /// It did not arrive in time.
    #[error("it took too long")]
    TimedOut,
    /// A signed push; not offered, not understood.
    #[error("signed pushes are not supported")]
    Signed,
}

/// A push that may go on.
pub(crate) struct Push {
    pub(crate) updates: Vec<RefUpdate>,
    pub(crate) policy: Arc<dyn PushPolicy>,
}

/// What becomes of a push request.
pub(crate) enum Checked {
    /// No updates: the client only tries whether it may speak.
    Probe,
    /// The report to answer with.
    Refused(Bytes),
    Allowed {
        input: Input,
        push: Push,
    },
}

/// The list as parsed.
#[derive(Debug, PartialEq, Eq)]
struct List {
    /// Packets before the updates (`shallow …`), as they came.
    shallow: Vec<Vec<u8>>,
    updates: Vec<RefUpdate>,
    capabilities: Vec<String>,
}

/// Reads the list from `body`, whose whole length may be `max_bytes`, and decides.
pub(crate) async fn check(
    mut body: ByteStream,
    max_bytes: u64,
    policy: Arc<dyn PushPolicy>,
) -> Result<Checked, PushRequestError> {
    let mut received = BytesMut::new();
    let reading = async {
        loop {
            if let Some(end) = list_end(&received)? {
                return Ok(end);
            }
            match body.next().await {
                Some(Ok(chunk)) => received.extend_from_slice(&chunk),
                Some(Err(_)) | None => return Err(PushRequestError::Cut),
            }
        }
    };
    let end = tokio::time::timeout(READ_LIMIT, reading)
        .await
        .map_err(|_| PushRequestError::TimedOut)??;
    let rest = received.split_off(end).freeze();
    let list = parse(&received)?;
    if list.updates.is_empty() {
        return Ok(Checked::Probe);
    }
    let decisions: Vec<Decision> = list.updates.iter().map(|update| policy.decide(update)).collect();
    if decisions.iter().all(|decision| *decision == Decision::Allow) {
        let input = Input::new([list.encode(), rest.to_vec()].concat().into(), body, max_bytes);
        let updates = list.updates;
        return Ok(Checked::Allowed {
            input,
            push: Push { updates, policy },
        });
    }
    // A client that is still sending does not read; the answer would be lost with the connection.
    let draining = tokio::time::timeout(READ_LIMIT, drain(&mut body, max_bytes));
    if draining.await.is_err() {
        return Err(PushRequestError::TimedOut);
    }
    Ok(Checked::Refused(list.refusal(&decisions).into()))
}

/// Reads up to `max_bytes` and forgets them.
pub(crate) async fn drain(body: &mut ByteStream, max_bytes: u64) {
    let mut passed = 0_u64;
    while let Some(Ok(chunk)) = body.next().await {
        passed = passed.saturating_add(chunk.len() as u64);
        if passed > max_bytes {
            return;
        }
    }
}

/// Where the list ends, flush packet included; `None` if more must come.
fn list_end(received: &[u8]) -> Result<Option<usize>, PushRequestError> {
    let mut position = 0;
    loop {
        match pkt_line::decode(&received[position..]) {
            Ok(Some((Packet::Flush, length))) => return Ok(Some(position + length)),
            Ok(Some((Packet::Data(_), length))) => position += length,
            Ok(None) if received.len() > MAX_LIST_BYTES => return Err(PushRequestError::TooLong),
            Ok(None) => return Ok(None),
            Err(pkt_line::Malformed) => return Err(PushRequestError::Malformed),
        }
        if position > MAX_LIST_BYTES {
            return Err(PushRequestError::TooLong);
        }
    }
}

fn parse(mut bytes: &[u8]) -> Result<List, PushRequestError> {
    let mut list = List {
        shallow: Vec::new(),
        updates: Vec::new(),
        capabilities: Vec::new(),
    };
    while let Ok(Some((Packet::Data(data), length))) = pkt_line::decode(bytes) {
        bytes = &bytes[length..];
        let data = data.strip_suffix(b"\n").unwrap_or(data);
        if data.starts_with(b"push-cert") {
            return Err(PushRequestError::Signed);
        }
        if data.starts_with(b"shallow ") && list.updates.is_empty() {
            list.shallow.push(data.to_vec());
            continue;
        }
        if list.updates.len() == MAX_UPDATES {
            return Err(PushRequestError::TooLong);
        }
        let text = std::str::from_utf8(data).map_err(|_| PushRequestError::Malformed)?;
        let (update, capabilities) = match text.split_once('\0') {
            Some((update, capabilities)) if list.updates.is_empty() => (update, capabilities),
            Some(_) => return Err(PushRequestError::Malformed),
            None => (text, ""),
        };
        if !capabilities.is_empty() {
            list.capabilities = capabilities.split_ascii_whitespace().map(str::to_owned).collect();
        }
        list.updates
            .push(parse_update(update).ok_or(PushRequestError::Malformed)?);
    }
    Ok(list)
}

/// `<old> SP <new> SP <name>`.
fn parse_update(text: &str) -> Option<RefUpdate> {
    let mut parts = text.splitn(3, ' ');
    let (old, new, name) = (parts.next()?, parts.next()?, parts.next()?);
    let is_name = !name.is_empty() && !name.contains(|c: char| c.is_control() || c == ' ');
    if !is_object_id(old) || !is_object_id(new) || !is_name {
        return None;
    }
    let kind = match (old, new) {
        (_, ZERO) => RefUpdateKind::Delete,
        (ZERO, _) => RefUpdateKind::Create,
        _ => RefUpdateKind::Update,
    };
    Some(RefUpdate {
        name: name.to_owned(),
        old: old.to_owned(),
        new: new.to_owned(),
        kind,
    })
}

impl List {
    /// The list as git gets it: what was understood and nothing else, and all or nothing (`atomic`).
    fn encode(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self
            .shallow
            .iter()
            .flat_map(|line| pkt_line::encode(line))
            .collect();
        for (position, update) in self.updates.iter().enumerate() {
            let mut line = format!("{} {} {}", update.old, update.new, update.name);
            if position == 0 {
                let others = self.capabilities.iter().filter(|name| *name != "atomic");
                let all: Vec<&str> = others.map(String::as_str).chain(["atomic"]).collect();
                line = format!("{line}\0 {}", all.join(" "));
            }
            bytes.extend(pkt_line::encode(line.as_bytes()));
        }
        bytes.extend_from_slice(FLUSH);
        bytes
    }

    fn has(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability)
    }

    /// A report that lists every ref as not done, in the form the client asked for.
    fn refusal(&self, decisions: &[Decision]) -> Vec<u8> {
        let mut report = pkt_line::encode(b"unpack ok\n");
        for (update, decision) in self.updates.iter().zip(decisions) {
            let reason = match decision {
                Decision::Refuse(reason) => reason.replace(char::is_control, " "),
                Decision::Allow => "not done because another ref was refused".to_owned(),
            };
            report.extend(pkt_line::encode(
                format!("ng {} {reason}\n", update.name).as_bytes(),
            ));
        }
        report.extend_from_slice(FLUSH);
        if !self.has("report-status") && !self.has("report-status-v2") {
            return Vec::new();
        }
        if !self.has("side-band-64k") {
            return report;
        }
        let mut banded: Vec<u8> = Vec::new();
        for part in report.chunks(pkt_line::MAX_CONTENT - 1) {
            banded.extend(pkt_line::encode(&[&[1], part].concat()));
        }
        banded.extend_from_slice(FLUSH);
        banded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";

    fn bytes(lines: &[&str]) -> Vec<u8> {
        let mut all: Vec<u8> = lines
            .iter()
            .flat_map(|line| pkt_line::encode(line.as_bytes()))
            .collect();
        all.extend_from_slice(FLUSH);
        all
    }

    #[test]
    fn lists_are_read() {
        let list = parse(&bytes(&[
            &format!("shallow {ONE}"),
            &format!("{ZERO} {ONE} refs/heads/a\0 report-status side-band-64k agent=git/2.39"),
            &format!("{ONE} {ZERO} refs/heads/ü\n"),
        ]))
        .unwrap();
        assert_eq!(list.shallow.len(), 1);
        assert_eq!(list.updates[0].kind, RefUpdateKind::Create);
        assert_eq!(list.updates[1].kind, RefUpdateKind::Delete);
        assert_eq!(list.updates[1].name, "refs/heads/ü");
        assert!(list.has("report-status"));
        let again = parse(&list.encode()).unwrap();
        assert_eq!(again.updates, list.updates);
        assert!(again.has("atomic"));
    }

    #[test]
    fn broken_lists_are_refused() {
        for line in [
            "x".to_owned(),
            format!("{ZERO} {ONE}"),
            format!("{ZERO} {ONE} "),
            format!("{ZERO} {ONE} a b"),
            format!("{ZERO} {} refs/heads/a", &ONE[1..]),
            format!("{ZERO} {ONE} refs/heads/a\nb"),
        ] {
            assert!(
                matches!(parse(&bytes(&[&line])), Err(PushRequestError::Malformed)),
                "{line:?}"
            );
        }
        assert!(matches!(
            parse(&bytes(&["push-cert\0x"])),
            Err(PushRequestError::Signed)
        ));
    }

    #[test]
    fn the_end_is_found_only_when_it_is_there() {
        let whole = bytes(&[&format!("{ZERO} {ONE} refs/heads/a")]);
        for cut in 0..whole.len() {
            assert_eq!(list_end(&whole[..cut]).unwrap(), None, "{cut}");
        }
        assert_eq!(
            list_end(&[&whole[..], b"PACK"].concat()).unwrap(),
            Some(whole.len())
        );
        assert!(matches!(list_end(b"PACK...."), Err(PushRequestError::Malformed)));
        let endless = pkt_line::encode(&[b'a'; 60_000]).repeat(40);
        assert!(matches!(list_end(&endless), Err(PushRequestError::TooLong)));
    }

    #[test]
    fn refusals_name_every_ref() {
        let mut list = parse(&bytes(&[
            &format!("{ZERO} {ONE} refs/heads/a\0report-status"),
            &format!("{ZERO} {ONE} refs/heads/b"),
        ]))
        .unwrap();
        let decisions = [Decision::Refuse("no\nway".to_owned()), Decision::Allow];
        let text = String::from_utf8(list.refusal(&decisions)).unwrap();
        assert!(text.contains("ng refs/heads/a no way\n"), "{text}");
        assert!(text.contains("ng refs/heads/b not done because"), "{text}");
        list.capabilities = Vec::new();
        assert!(list.refusal(&decisions).is_empty());
    }
}
