//! Images of registries as what sandboxes begin with, and snapshots as images of registries.

use crate::failure::HostError;
use crate::fittings::fittings;
use crate::host::{Host, blocking};
use greenroom_images::oci::{self, Artifact, Import, Login, Pull, Push};
use greenroom_images::{ImageError, Snapshot};
use greenroom_protocol::id::SnapshotId;
use greenroom_protocol::reference::Reference;
use greenroom_sandbox::identity;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Those that run, by what comes of them.
#[derive(Debug, Default)]
pub(crate) struct Pulls(Mutex<HashMap<SnapshotId, Arc<tokio::sync::Mutex<()>>>>);

impl Host {
    /// The snapshot of an image in a registry, pulled if it is not there yet: a whole root, in which the agent may change
    /// everything. `reference` has a digest. `say` hears of every step.
    pub async fn pull(
        &self,
        reference: &Reference,
        login: Option<Login>,
        max_bytes: u64,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Snapshot, HostError> {
        let pull = Pull {
            reference: reference.clone(),
            fittings: fittings(identity::is_privileged(), self.base_digest()),
            max_bytes,
        };
        let turn = self.0.pulls.turn(&pull.snapshot_id()?);
        let _alone = turn.lock().await;
        Ok(pull
            .run(&self.0.images, &self.0.registry.with_login(login), say)
            .await?)
    }

    /// A base, as a digest: changes with the image, and with what is put into it here.
    pub fn image_digest(&self, reference: &Reference) -> Result<String, HostError> {
        let pull = Pull {
            reference: reference.clone(),
            fittings: fittings(identity::is_privileged(), self.base_digest()),
            max_bytes: 0,
        };
        Ok(pull.snapshot_id()?.to_string())
    }

    /// Something in a registry that is one archive, and a file at the top of it. `reference` has a digest.
    pub async fn pull_artifact(
        &self,
        reference: &Reference,
        login: Option<Login>,
        file: &str,
    ) -> Result<(Vec<u8>, Option<Vec<u8>>), HostError> {
        let registry = self.0.registry.with_login(login);
        let artifact = Artifact::pull(&self.0.images, &registry, reference).await?;
        let found = artifact.file(file)?;
        Ok((artifact.archive, found))
    }

    /// The snapshot of a directory or an archive of this machine, made if it is not there yet: a whole root, in which the agent may
    /// change everything.
    pub async fn import(&self, path: &Path, max_bytes: u64) -> Result<Snapshot, HostError> {
        let import = Import {
            path: path.to_owned(),
            fittings: fittings(identity::is_privileged(), self.base_digest()),
            max_bytes,
        };
        let turn = self.0.pulls.turn(&import.snapshot_id()?);
        let _alone = turn.lock().await;
        Ok(import.run(&self.0.images).await?)
    }

    /// Changes when the directory or archive itself does.
    pub async fn files_digest(&self, path: &Path) -> Result<String, HostError> {
        let path = path.to_owned();
        blocking(move || Ok(Import::digest(&path)?.as_str().to_owned())).await
    }

    /// Puts a snapshot into a registry, and returns the reference with its digest. `annotations` are kept with it.
    pub async fn push(
        &self,
        snapshot: &SnapshotId,
        reference: &Reference,
        login: Option<Login>,
        annotations: BTreeMap<String, String>,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Reference, HostError> {
        let found = self.find_snapshot(snapshot).await?;
        let push = Push {
            snapshot: found.ok_or_else(|| ImageError::Missing(snapshot.clone()))?,
            reference: reference.clone(),
            base_digest: self.base_digest(),
            annotations,
        };
        Ok(push
            .run(&self.0.images, &self.0.registry.with_login(login), say)
            .await?)
    }

    /// What a reference stands for now, with its digest.
    pub async fn pin_image(
        &self,
        reference: &Reference,
        login: Option<Login>,
    ) -> Result<Reference, HostError> {
        Ok(oci::pin(&self.0.registry.with_login(login), reference).await?)
    }
}

impl Pulls {
    fn turn(&self, id: &SnapshotId) -> Arc<tokio::sync::Mutex<()>> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, turn| Arc::strong_count(turn) > 1);
        running.entry(id.clone()).or_default().clone()
    }
}
