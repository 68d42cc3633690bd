//! What spawned programs may try against the host's own bookkeeping. Lying guests and hosts: `liars.rs`.

use crate::world::{World, open, sh};

crate::scenarios_everywhere!(links_in_the_upper_lead_nowhere_when_removed);

async fn links_in_the_upper_lead_nowhere_when_removed(world: &World) {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("precious"), "x").unwrap();
    let sandbox = world.start().await;
    let target = outside.path().display().to_string();
    sh(
        &sandbox,
        &format!("ln -s {target} out; mkdir closed; ln -s {target} closed/out; chmod 0 closed"),
    )
    .await
    .ok();
    let other = open(&world.state).await;
    other.remove(sandbox.id()).await.unwrap();
    assert!(outside.path().join("precious").exists());
}
