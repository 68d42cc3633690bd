//! Images out to registries and in from them: the same files, and what is known of them as an annotation.

use super::registry::{ImageRegistry, kept};
use crate::sandbox::StepObserver;
use greenroom_protocol::client::image::{Image, ImageState, ImageTrigger, RegistryImage};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::Session;
use greenroom_protocol::id::{ImageId, PersonId, SnapshotId};
use greenroom_protocol::reference::Reference;
use greenroom_stdx::id::fresh_bits;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Annotation of a pushed image: its record.
const IMAGE_ANNOTATION: &str = "dev.greenroom.image";
/// Annotation of a pushed snapshot: whose it is.
const SESSION_ANNOTATION: &str = "dev.greenroom.session";
/// What other tools show of an image (<https://github.com/opencontainers/image-spec/blob/main/annotations.md>).
const REVISION_ANNOTATION: &str = "org.opencontainers.image.revision";
const TITLE_ANNOTATION: &str = "org.opencontainers.image.title";

impl ImageRegistry {
    /// What the name of an image in a registry stands for now.
    pub async fn pin(&self, name: &str) -> Result<RegistryImage, Problem> {
        let reference = reference(name)?;
        let pinned = self.services.sandboxes.pin_image(&reference).await?;
        Ok(RegistryImage {
            reference: pinned.to_string(),
        })
    }

    /// Puts a published image into a registry. Goes on when nobody waits any more; again, it uploads what is missing.
    pub async fn push(self: &Arc<Self>, id: &ImageId, name: &str) -> Result<RegistryImage, Problem> {
        let reference = tag(name)?;
        let image = self.image(id).await?;
        let Some(snapshot) = image.snapshot_id.clone() else {
            return Err(Problem::permanent(
                "image_not_published",
                "Only a published image has files to push.",
            )
            .with_hint("List a repository's images with `greenroom image list REPOSITORY`."));
        };
        let record = serde_json::to_string(&image).map_err(|_| internal())?;
        let mut annotations = BTreeMap::from([
            (IMAGE_ANNOTATION.to_owned(), record),
            (
                TITLE_ANNOTATION.to_owned(),
                format!("{}@{}", image.repository, image.branch),
            ),
        ]);
        annotations.extend(
            image
                .commit
                .map(|commit| (REVISION_ANNOTATION.to_owned(), commit)),
        );
        self.push_files(snapshot, reference, annotations, image.id.to_string())
            .await
    }

    /// Puts a snapshot of a session into a registry, for other tools: what serves sessions are images.
    pub async fn push_session(
        &self,
        session: &Session,
        snapshot: &SnapshotId,
        name: &str,
    ) -> Result<RegistryImage, Problem> {
        let annotations = BTreeMap::from([
            (SESSION_ANNOTATION.to_owned(), session.id.to_string()),
            (
                TITLE_ANNOTATION.to_owned(),
                format!("{}@{}", session.repository, session.branch),
            ),
        ]);
        self.push_files(snapshot.clone(), tag(name)?, annotations, snapshot.to_string())
            .await
    }

    /// Goes on when nobody waits any more.
    async fn push_files(
        &self,
        snapshot: SnapshotId,
        reference: Reference,
        annotations: BTreeMap<String, String>,
        what: String,
    ) -> Result<RegistryImage, Problem> {
        let sandboxes = self.services.sandboxes.clone();
        let pushed = self.services.tasks.spawn(async move {
            sandboxes
                .push_snapshot(&snapshot, &reference, annotations, logged(what))
                .await
        });
        let pushed = pushed.await.unwrap_or_else(|_| Err(internal()))?;
        Ok(RegistryImage {
            reference: pushed.to_string(),
        })
    }

    /// Takes an image that another server, or this one, pushed, and publishes it here.
    pub async fn pull(
        self: &Arc<Self>,
        repository: &str,
        name: &str,
        person: PersonId,
    ) -> Result<Image, Problem> {
        let reference = reference(name)?;
        let found = self.services.forge.repository(repository).await;
        found.map_err(|error| error.problem())?;
        let (registry, repository) = (self.clone(), repository.to_owned());
        let pulled = self
            .services
            .tasks
            .spawn(async move { registry.pull_into(&repository, &reference, person).await });
        pulled.await.unwrap_or_else(|_| Err(internal()))
    }

    async fn pull_into(
        &self,
        repository: &str,
        reference: &Reference,
        person: PersonId,
    ) -> Result<Image, Problem> {
        let services = &self.services;
        let pinned = match reference.digest {
            Some(_) => reference.clone(),
            None => services.sandboxes.pin_image(reference).await?,
        };
        self.make_room().await?;
        let pulled = services
            .sandboxes
            .pull_snapshot(&pinned, logged(pinned.to_string()))
            .await?;
        let described = pulled.annotations.get(IMAGE_ANNOTATION);
        let described = described.and_then(|record| serde_json::from_str::<Image>(record).ok());
        let Some(described) = described else {
            return Err(
                Problem::permanent("image_not_ours", format!("{pinned} is no image of a repository."))
                    .with_hint("Pull what `greenroom image push` pushed. Other images are bases: name them in an environment."),
            );
        };
        // Two that pull the same publish it once.
        let _alone = self.publishing.lock().await;
        let images = kept(services.catalog.images(repository, u32::MAX >> 1).await)?;
        // What serves already goes on; an older one is published anew, because the newest serves.
        let current = self.current(repository, &described.branch).await?;
        if let Some(image) = current.filter(|image| image.snapshot_id.as_ref() == Some(&pulled.id)) {
            return Ok(image);
        }
        // The newest serves.
        let newest = images
            .first()
            .map_or(i64::MIN, |newest| newest.created_at_ms.saturating_add(1));
        let now_ms = services.clock.now_ms().max(newest);
        let image = Image {
            id: ImageId::from_bits(fresh_bits()),
            repository: repository.to_owned(),
            trigger: ImageTrigger::Pulled {
                id: person,
                reference: pinned.to_string(),
            },
            state: ImageState::Published,
            built_on: None,
            problem: None,
            snapshot_id: Some(pulled.id),
            layers: pulled.layers,
            size_bytes: Some(pulled.size_bytes),
            created_at_ms: now_ms,
            finished_at_ms: Some(services.clock.now_ms()),
            ..described
        };
        kept(services.catalog.put_image(&image).await)?;
        services.changes.tell(repository);
        Ok(image)
    }
}

fn reference(name: &str) -> Result<Reference, Problem> {
    name.parse()
        .map_err(|error: greenroom_protocol::reference::ReferenceError| {
            Problem::permanent("image_reference", format!("{error}."))
                .with_hint("Such as docker.io/library/debian:12 or ghcr.io/acme/shop:main.")
        })
}

/// Where something is pushed to.
fn tag(name: &str) -> Result<Reference, Problem> {
    let reference = reference(name)?;
    match reference.digest {
        None => Ok(reference),
        Some(_) => Err(
            Problem::permanent("image_reference", "What is pushed has the digest that it has.")
                .with_hint("Name a tag instead, such as ghcr.io/acme/shop:main."),
        ),
    }
}

fn logged(what: String) -> StepObserver {
    Arc::new(move |step| tracing::info!(image = what, "{step}"))
}

fn internal() -> Problem {
    Problem::permanent("internal", "The image could not be exchanged.")
}
