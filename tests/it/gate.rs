//! The sync gate: what an agent may do while its workspace is brought from the image to the newest commit.

use crate::images::{BY_HAND, build, log, push, start};
use crate::script::outputs;
use greenroom_system_tests::api::pretty;
use greenroom_system_tests::product::{Product, Who};
use greenroom_system_tests::repo;
use std::os::unix::fs::PermissionsExt as _;

greenroom_system_tests::for_both_users! {
    the_agent_reads_while_the_workspace_is_synced_and_changes_it_after,
    a_sync_that_takes_too_long_is_told_and_goes_on,
}

async fn the_agent_reads_while_the_workspace_is_synced_and_changes_it_after(who: Who) {
    let script = r#"
[[script]]
name = "edit"
prompt_contains = "edit"
[[script.step]]
[[script.step.call]]
tool = "read"
arguments = { path = "README.md" }
[[script.step]]
[[script.step.call]]
tool = "write"
arguments = { path = "own.txt", content = "own\n" }
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "cat README.md own.txt; git log -1 --format=%s; git status --porcelain" }
[[script.step]]
say = "Done."
"#;
    let mut product = Product::with_config(script, BY_HAND);
    product.run_as(who);
    let (api, source) = start(&mut product, "").await;
    let image = build(&api).await;
    assert_eq!(image["state"], "published", "{}", log(&api, &image).await);
    // Something that takes a while to fetch, so that the first call comes meanwhile.
    let mut noise = vec![0_u8; 12 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut noise).unwrap();
    std::fs::write(source.join("noise.bin"), &noise).unwrap();
    repo::git(&source, &["config", "core.compression", "0"]);
    push(&api, &source, "README.md", "A bigger shop.\n").await;
    let session = api.start_session("shop", "edit").await;
    let events = api.wait_for_turns(&session, 1).await;
    let outputs = outputs(&events);
    assert!(
        outputs[0].contains("A shop."),
        "read before it was synced: {}",
        pretty(&events)
    );
    let told = outputs
        .iter()
        .filter(|output| output.contains("read them again: README.md]"));
    assert_eq!(told.count(), 1, "{}", pretty(&events));
    let last = outputs.last().unwrap();
    assert!(
        last.contains("A bigger shop.\nown\nChange README.md\n?? own.txt"),
        "{last}"
    );
    product.stop();
}

/// Git waits for as long as a file exists.
async fn a_sync_that_takes_too_long_is_told_and_goes_on(who: Who) {
    let script = r#"
[[script]]
name = "edit"
prompt_contains = "edit"
[[script.step]]
[[script.step.call]]
tool = "read"
arguments = { path = "README.md" }
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "echo own > own.txt; cat README.md" }
[[script.step]]
say = "Done."
"#;
    let more = format!("{BY_HAND}\n[sandbox]\nsync_timeout_seconds = 2\n");
    let mut product = Product::with_config(script, &more);
    let hold = product.root().join("hold");
    let git = product.root().join("bin/git");
    std::fs::create_dir(product.root().join("bin")).unwrap();
    let wrapper = format!(
        "#!/bin/sh\ncase \" $* \" in *\" upload-pack \"*) while [ -e {} ]; do sleep 0.05; done;; esac\nPATH=${{PATH#*:}} exec git \"$@\"\n",
        hold.display()
    );
    std::fs::write(&git, wrapper).unwrap();
    std::fs::set_permissions(&git, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    product.set_env(
        "PATH",
        &format!("{}:{path}", product.root().join("bin").display()),
    );
    product.run_as(who);
    let (api, source) = start(&mut product, "").await;
    let image = build(&api).await;
    assert_eq!(image["state"], "published", "{}", log(&api, &image).await);
    push(&api, &source, "README.md", "A bigger shop.\n").await;
    std::fs::write(&hold, "").unwrap();
    let session = api.start_session("shop", "edit").await;
    let events = api.wait_for_turns(&session, 1).await;
    let [read, refused] = outputs(&events).try_into().unwrap();
    assert!(read.contains("A shop."), "the image is read: {}", pretty(&events));
    assert!(
        refused.contains("still being brought to the newest commit after 2 s"),
        "{refused}"
    );
    std::fs::remove_file(&hold).unwrap();
    api.prompt(&session, "again", "edit").await;
    let events = api.wait_for_turns(&session, 2).await;
    let outputs = outputs(&events);
    assert!(outputs[3].starts_with("A bigger shop.\n"), "{}", pretty(&events));
    product.stop();
}
