//! Sandboxes whose root is an image of a registry: Debian's docker-registry, filled by skopeo.

use crate::world::{World, fresh_id, sh};
use greenroom_host::{Host, HostConfig, HostError, Login, Sandbox, SandboxUser, Snapshot, StartSandbox};
use greenroom_images::Packer;
use greenroom_protocol::reference::Reference;
use greenroom_testkit::oci::{
    Archive, Compression, LOGIN, Layout, Lie, LyingRegistry, TestRegistry, busybox_root, is_possible,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

/// More than any image here has.
const MAX_BYTES: u64 = 64 << 20;

mod everywhere {
    use super::a_sandbox_runs_in_an_image;
    crate::scenarios_everywhere!(a_sandbox_runs_in_an_image);
}

crate::scenarios!(
    layers_are_joined_as_the_specification_says,
    layers_are_shared_and_pulled_once,
    registries_that_want_a_login,
    what_does_not_fit_is_refused,
    registries_that_lie_about_layers,
    roots_on_this_machine,
    programs_that_insist_on_being_root,
    a_snapshot_goes_to_a_registry_and_comes_back,
    a_snapshot_over_the_hosts_base_comes_back_to_the_same_base,
);

crate::scenarios_with!(
    root_only,
    as_root,
    Isolation::Namespace,
    runc_runs_what_was_pushed,
    packed_layers_are_as_if_they_were_directories
);

/// Says that nothing is tested if programs are missing.
fn registry(world: &World, wants_login: bool) -> Option<(TestRegistry, Layout)> {
    if let Err(program) = is_possible() {
        eprintln!("SKIPPED-FEATURE: {program} is not installed; images of registries are not tested");
        return None;
    }
    let place = world.state.join("../registry");
    let registry = TestRegistry::start(&place, wants_login).unwrap();
    Some((registry, Layout::new(&place.join("layout")).unwrap()))
}

impl World {
    async fn pulled(&self, reference: &str) -> Result<Snapshot, HostError> {
        let reference: Reference = reference.parse().unwrap();
        self.host.pull(&reference, None, MAX_BYTES, &|_| {}).await
    }

    async fn started_in(&self, snapshot: &Snapshot) -> Sandbox {
        let start = StartSandbox {
            from: Some(snapshot.id.clone()),
            ..self.plain(&fresh_id())
        };
        self.host.start(start).await.unwrap()
    }
}

async fn a_sandbox_runs_in_an_image(world: &World) {
    let Some((registry, mut layout)) = registry(world, false) else {
        return;
    };
    let run = json!({"Env": ["PATH=/usr/bin", "COLOUR=green", "HOME=/elsewhere"], "User": "node"});
    layout
        .list("v1", &[busybox_root().unwrap().finish()], run)
        .unwrap();
    let reference = registry.publish(&layout, "v1", "tools/busybox").unwrap();
    let image = world.pulled(&reference).await.unwrap();
    let root = image.root.as_ref().unwrap();
    assert_eq!(root.source, reference);
    assert_eq!(root.user, "node");
    let sandbox = world.started_in(&image).await;
    let said = sh(
        &sandbox,
        "ls /; echo; id -un; echo $HOME $COLOUR $PATH; cat /etc/passwd; test -e /usr/bin/git || echo no git; readlink /bin",
    )
    .await
    .ok();
    for expected in [
        "agent\n/home/agent green /home/agent/.local/bin:/usr/bin\n",
        "agent:x:1000:1000:Agent:/home/agent:/bin/sh\nroot:x:0:0:root:/root:/bin/sh\nnode:",
        "no git\nusr/bin\n",
        "workspace\n",
    ] {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    // It is all the agent's, and stays.
    let change = "echo mine > /etc/own && echo tool > /usr/bin/own && rm /usr/bin/wc && mkdir /opt /home/agent/x /workspace/y /var/z \
        && echo t > /tmp/t && : > /dev/null && ! mkdir /proc/x 2> /dev/null";
    sh(&sandbox, change).await.ok();
    world.host.stop(sandbox.id()).await.unwrap();
    let taken = world.host.snapshot(sandbox.id()).await.unwrap().snapshot;
    assert_eq!(taken.root, image.root);
    let other = world.started_in(&taken).await;
    let again = world.host.start(world.plain(sandbox.id())).await.unwrap();
    for sandbox in [other, again] {
        let kept = "cat /etc/own /usr/bin/own; test -e /usr/bin/wc || echo gone; echo $COLOUR; ls -d /opt /var/z /workspace/y";
        assert_eq!(
            sh(&sandbox, kept).await.ok(),
            "mine\ntool\ngone\ngreen\n/opt\n/var/z\n/workspace/y\n"
        );
    }
    // Another one knows nothing of it.
    let fresh = world.started_in(&image).await;
    let look = "test ! -e /etc/own && test -e /usr/bin/wc && echo clean";
    assert_eq!(sh(&fresh, look).await.ok(), "clean\n");
}

/// Everything that a later layer can do to an earlier one.
fn odd_layers() -> Vec<Vec<u8>> {
    let second = Archive::default()
        .directory("data/", 0o755)
        .file("data/a", 0o644, "a")
        .file("data/b", 0o600, "b")
        .file("data/deep/er/c", 0o640, "c")
        .directory("closed/", 0o555)
        .file("closed/in", 0o400, "in")
        .directory("full/", 0o755)
        .file("full/old", 0o644, "old")
        .file("swapped", 0o644, "a file")
        .directory("turned/", 0o750)
        .file("turned/x", 0o644, "x")
        .link("absolute", "/data")
        .hard_link("data/hard", "data/a");
    let third = Archive::default()
        // By a link of the layer below, as some tools write it.
        .file("bin/through", 0o755, "through a link")
        .file("absolute/by-link", 0o644, "by link")
        .file("data/.wh.b", 0o644, "")
        .file("data/deep/.wh.er", 0o644, "")
        .directory("data/deep/er/", 0o755)
        .file("data/deep/er/new", 0o644, "new")
        .file("full/new", 0o644, "new")
        .file("full/.wh..wh..opq", 0o644, "")
        .directory("swapped/", 0o755)
        .file("swapped/in", 0o644, "now a directory")
        .file("turned", 0o644, "now a file")
        .hard_link("data/hard2", "data/a")
        .file("setuid", 0o4755, "no")
        .entry(tar::EntryType::Char, "null", 0o666, "", &[])
        .entry(tar::EntryType::Fifo, "pipe", 0o644, "", &[]);
    [busybox_root().unwrap(), second, third]
        .map(Archive::finish)
        .to_vec()
}

async fn layers_are_joined_as_the_specification_says(world: &World) {
    let Some((registry, mut layout)) = registry(world, false) else {
        return;
    };
    let describe = "cd / && find absolute bin/through closed data full pipe setuid swapped turned ! -type l | sort | \
        while read f; do echo \"$f $(stat -c '%F %a' \"$f\") $(test -f \"$f\" && cat \"$f\")\"; done; stat -c %Y data/a; \
        cat absolute/by-link; readlink bin; readlink absolute; test ! -e null";
    for (tag, compression) in [("plain", Compression::None), ("packed", Compression::Gzip)] {
        layout.image(tag, &odd_layers(), json!({}), compression).unwrap();
        let reference = registry.publish(&layout, tag, "odd").unwrap();
        let image = world.pulled(&reference).await.unwrap();
        let sandbox = world.started_in(&image).await;
        let said = sh(&sandbox, describe).await;
        assert_eq!(
            said.ok(),
            "bin/through regular file 755 through a link\n\
             closed directory 755 \n\
             closed/in regular file 600 in\n\
             data directory 755 \n\
             data/a regular file 644 a\n\
             data/by-link regular file 644 by link\n\
             data/deep directory 755 \n\
             data/deep/er directory 755 \n\
             data/deep/er/new regular file 644 new\n\
             data/hard regular file 644 a\n\
             data/hard2 regular file 644 a\n\
             full directory 755 \n\
             full/new regular file 644 new\n\
             pipe fifo 644 \n\
             setuid regular file 755 no\n\
             swapped directory 755 \n\
             swapped/in regular file 644 now a directory\n\
             turned regular file 644 now a file\n\
             1700000000\n\
             by linkusr/bin\n/data\n",
            "{tag}"
        );
        world.host.stop(sandbox.id()).await.unwrap();
    }
}

async fn layers_are_shared_and_pulled_once(world: &World) {
    let Some((registry, mut layout)) = registry(world, false) else {
        return;
    };
    let base = busybox_root().unwrap().finish();
    let above = |text: &str| Archive::default().file("which", 0o644, text).finish();
    for tag in ["one", "two"] {
        let layers = [base.clone(), above(tag)];
        layout.image(tag, &layers, json!({}), Compression::Gzip).unwrap();
    }
    let one = registry.publish(&layout, "one", "shared").unwrap();
    let two = registry.publish(&layout, "two", "shared").unwrap();
    let steps = Mutex::new(Vec::new());
    let say = |step: String| steps.lock().unwrap().push(step);
    let (one, two): (Reference, Reference) = (one.parse().unwrap(), two.parse().unwrap());
    // Two at once: one of them finds it done.
    let (first, second) = tokio::join!(
        world.host.pull(&one, None, MAX_BYTES, &say),
        world.host.pull(&one, None, MAX_BYTES, &say)
    );
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first, second);
    let unpacked = |steps: &Mutex<Vec<String>>| {
        let mut steps = steps.lock().unwrap();
        let count = steps.iter().filter(|step| step.starts_with("unpacking")).count();
        steps.clear();
        count
    };
    assert_eq!(unpacked(&steps), 2);
    let other = world.host.pull(&two, None, MAX_BYTES, &say).await.unwrap();
    assert_eq!(unpacked(&steps), 1);
    assert_eq!(first.layers.last(), other.layers.last());
    // Without the registry, and by another host.
    drop(registry);
    assert_eq!(world.host.pull(&one, None, MAX_BYTES, &say).await.unwrap(), first);
    let sandbox = world.started_in(&first).await;
    // The other's layer goes, what is shared stays.
    world.host.remove_snapshots(&[other.id, first.id]).await.unwrap();
    assert_eq!(sh(&sandbox, "cat /which").await.ok(), "one");
}

async fn registries_that_want_a_login(world: &World) {
    let Some((registry, mut layout)) = registry(world, true) else {
        return;
    };
    let layers = [busybox_root().unwrap().finish()];
    layout.image("v1", &layers, json!({}), Compression::Gzip).unwrap();
    let reference = registry.publish(&layout, "v1", "private").unwrap();
    let refused = world.pulled(&reference).await.unwrap_err().problem();
    assert_eq!(refused.code, "registry_refused", "{refused:?}");
    let login = |password: &str| {
        Some(Login {
            registry: registry.address().to_owned(),
            username: LOGIN.0.to_owned(),
            password: greenroom_stdx::secret::Secret::new(password.to_owned()),
        })
    };
    let reference: Reference = reference.parse().unwrap();
    for (password, expected) in [("wrong", Some("registry_refused")), (LOGIN.1, None)] {
        let pulled = world
            .host
            .pull(&reference, login(password), MAX_BYTES, &|_| {})
            .await;
        assert_eq!(
            pulled.err().map(|error| error.problem().code).as_deref(),
            expected
        );
    }
    // The name alone leads to the same.
    let named: Reference = format!("{}/private:v1", registry.address()).parse().unwrap();
    let pinned = world.host.pin_image(&named, login(LOGIN.1)).await;
    assert_eq!(pinned.unwrap(), reference);
}

async fn what_does_not_fit_is_refused(world: &World) {
    let Some((registry, mut layout)) = registry(world, false) else {
        return;
    };
    let address = registry.address().to_owned();
    let code = async |reference: String| {
        let error = world.pulled(&reference).await.unwrap_err();
        let problem = error.problem();
        assert!(problem.hint.is_some(), "{problem:?}");
        problem.code
    };
    let zeros = "0".repeat(64);
    assert_eq!(
        code(format!("{address}/none@sha256:{zeros}")).await,
        "image_missing"
    );
    assert_eq!(code(format!("{address}/none:v1")).await, "image_not_pinned");
    assert_eq!(
        code(format!("127.0.0.1:1/none@sha256:{zeros}")).await,
        "registry_unreachable"
    );
    let mut publish = |tag: &str, archive: Archive| {
        layout
            .image(tag, &[archive.finish()], json!({}), Compression::Gzip)
            .unwrap();
        registry.publish(&layout, tag, "hostile").unwrap()
    };
    let long = vec![b'x'; 2 << 20];
    for (tag, archive, expected) in [
        (
            "up",
            Archive::default().file("../../etc/passwd", 0o644, "x"),
            "image_invalid",
        ),
        (
            "hard",
            Archive::default().hard_link("a", "/etc/shadow"),
            "image_invalid",
        ),
        (
            "round",
            Archive::default()
                .link("a", "b")
                .link("b", "a")
                .file("a/x", 0o644, ""),
            "image_invalid",
        ),
        (
            "long",
            Archive::default().entry(tar::EntryType::XHeader, "x", 0o644, "", &long),
            "image_invalid",
        ),
        (
            "big",
            Archive::default()
                .file("a", 0o644, vec![0; 40 << 20])
                .file("b", 0o644, vec![0; 40 << 20]),
            "image_too_large",
        ),
    ] {
        assert_eq!(code(publish(tag, archive)).await, expected, "{tag}");
    }
    // Deeper than any stack, and extensions without end.
    let deep = "d/".repeat(300) + "f";
    let deep = Archive::default()
        .entry(
            tar::EntryType::GNULongName,
            "././@LongLink",
            0o644,
            "",
            deep.as_bytes(),
        )
        .file("short", 0o644, "");
    assert_eq!(code(publish("deep", deep)).await, "image_invalid");
    let record = |number: usize| {
        let rest = format!(" SCHILY.xattr.user.x{number:03}={}\n", "v".repeat(500_000));
        format!("{}{rest}", rest.len() + 6)
    };
    let mut many = Archive::default();
    for number in 0..4 {
        many = many.entry(tar::EntryType::XHeader, "x", 0o644, "", record(number).as_bytes());
    }
    assert_eq!(
        code(publish("many", many.file("a", 0o644, ""))).await,
        "image_invalid"
    );
    let users = busybox_root()
        .unwrap()
        .file("etc/passwd", 0o644, vec![b'x'; 2 << 20]);
    assert_eq!(code(publish("users", users)).await, "image_invalid");
    // Links lead nowhere but within the image.
    let outside = world.state.with_file_name("outside");
    std::fs::create_dir(&outside).unwrap();
    let (victim, long_ago) = (outside.join("victim"), std::time::UNIX_EPOCH);
    std::fs::create_dir(&victim).unwrap();
    let before = std::fs::metadata(&victim).unwrap().modified().unwrap();
    assert_ne!(before, long_ago);
    let archive = busybox_root()
        .unwrap()
        // A directory that becomes a link; its time is set at the end.
        .directory("late/", 0o755)
        .directory("late/victim/", 0o755)
        .link("late", outside.to_str().unwrap())
        .link("out", outside.to_str().unwrap())
        .link("up", "../../../../../../..")
        .file("out/planted", 0o644, "inside")
        .file("up/planted", 0o644, "inside")
        .file(".wh..wh.plnk", 0o644, "")
        .link("proc", "/etc")
        .link("run", "/etc")
        .link("workspace", "/etc");
    let image = world.pulled(&publish("links", archive)).await.unwrap();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(std::fs::metadata(&victim).unwrap().modified().unwrap(), before);
    let sandbox = world.started_in(&image).await;
    let said = sh(
        &sandbox,
        "cat /planted; ls /proc/self/comm /workspace; cat /out/planted",
    )
    .await;
    let said = said.ok();
    assert_eq!(said, "inside/proc/self/comm\n\n/workspace:\ninside", "{said:?}");
    // What the registry itself holds is not what it says it holds.
    let reference = publish("broken", busybox_root().unwrap().file("more", 0o644, "more"));
    let manifest = reference.rsplit_once('@').unwrap().1;
    std::fs::write(registry.blob(manifest), "{}").unwrap();
    let found = code(reference).await;
    assert!(
        ["image_digest", "registry_unavailable", "image_missing"].contains(&found.as_str()),
        "{found}"
    );
    // Nothing is left of what failed, and what is there still works.
    assert_eq!(
        std::fs::read_dir(world.state.join("images/incoming"))
            .unwrap()
            .count(),
        0
    );
}

/// Changes of every kind to what the layers below have, and names and attributes of every kind.
const CHANGE: &str = "cd /data && rm -r gone && mv moved renamed && rm -r again && mkdir again && echo new > again/new && \
    mv file other && ln other hard && chmod 700 closed && cd /workspace && printf bytes > $(printf 'n\\303\\244me\\n\\377') && \
    mkfifo pipe && ln -s $(printf 'x%.0s' $(seq 150)) far && p=$(printf 'd%.0s' $(seq 90)) && mkdir -p $p/$p && echo deep > $p/$p/$p && \
    touch -d @1600000000 old && mv /data/deep/inner /data/lifted";

/// Everything that a program can see of it.
const DESCRIBE: &str = "cd / && find data workspace -type d -print0 | sort -z | xargs -0 stat -c '%n %F %a'; \
    find data workspace ! -type d -print0 | sort -z | xargs -0 stat -c '%n %F %a %s %h'; \
    find data workspace -type f -print0 | sort -z | xargs -0 sha256sum; stat -c %Y /workspace/old; readlink /workspace/far";

/// The layer that [`CHANGE`] works on.
fn changeable() -> Vec<u8> {
    Archive::default()
        .file("data/gone/x", 0o644, "x")
        .file("data/moved/a/b", 0o644, "moved")
        .file("data/again/old", 0o644, "old")
        .file("data/file", 0o644, "a file")
        .file("data/deep/inner/most/c", 0o644, "c")
        .directory("data/closed/", 0o755)
        .finish()
}

async fn a_snapshot_goes_to_a_registry_and_comes_back(world: &World) {
    let Some((registry, mut layout)) = registry(world, false) else {
        return;
    };
    let run = json!({"Env": ["PATH=/usr/bin", "COLOUR=green"]});
    let layers = [busybox_root().unwrap().finish(), changeable()];
    layout.image("v1", &layers, run, Compression::Gzip).unwrap();
    let image = world
        .pulled(&registry.publish(&layout, "v1", "base").unwrap())
        .await
        .unwrap();
    let sandbox = world.started_in(&image).await;
    sh(&sandbox, CHANGE).await.ok();
    let expected = sh(&sandbox, DESCRIBE).await.ok();
    assert!(
        expected.contains("data/renamed/a/b") && expected.contains("data/lifted/most/c"),
        "{expected}"
    );
    world.host.stop(sandbox.id()).await.unwrap();
    let taken = world.host.snapshot(sandbox.id()).await.unwrap().snapshot;

    let target: Reference = format!("{}/pushed:latest", registry.address()).parse().unwrap();
    let note = BTreeMap::from([("com.example.note".to_owned(), "mine".to_owned())]);
    let steps = Mutex::new(0);
    let say = |_| *steps.lock().unwrap() += 1;
    let pushed = world
        .host
        .push(&taken.id, &target, None, note.clone(), &say)
        .await
        .unwrap();
    assert_eq!(*steps.lock().unwrap(), 4);
    assert_eq!(world.host.pin_image(&target, None).await.unwrap(), pushed);
    // The same again is there already.
    assert_eq!(
        world
            .host
            .push(&taken.id, &target, None, note, &say)
            .await
            .unwrap(),
        pushed
    );
    assert_eq!(*steps.lock().unwrap(), 4);
    let said = registry.inspect("pushed:latest").unwrap();
    assert_eq!(said["Architecture"], greenroom_testkit::oci::architecture());
    assert_eq!(said["Layers"].as_array().unwrap().len(), 4);
    assert_eq!(said["Env"], json!(["PATH=/usr/bin", "COLOUR=green"]));
    registry
        .fetch("pushed:latest", &world.state.with_file_name("fetched"))
        .unwrap();

    // A host that never saw it.
    let state = world.state.with_file_name("other");
    let host = Host::open(HostConfig::new(state.clone())).await.unwrap();
    let back = host.pull(&pushed, None, MAX_BYTES, &|_| {}).await.unwrap();
    let start = StartSandbox {
        from: Some(back.id.clone()),
        ..world.plain(&fresh_id())
    };
    let other = host.start(start).await.unwrap();
    assert_eq!(sh(&other, DESCRIBE).await.ok(), expected);
    assert_eq!(sh(&other, "echo $COLOUR; id -un").await.ok(), "green\nagent\n");
    // Made of other layers, it gives the same archives, but for what was put on top.
    let again: Reference = format!("{}/again", registry.address()).parse().unwrap();
    host.push(&back.id, &again, None, BTreeMap::new(), &|_| {})
        .await
        .unwrap();
    host.reap(&[]).await.unwrap();
    host.close().await;
}

async fn a_snapshot_over_the_hosts_base_comes_back_to_the_same_base(world: &World) {
    let Some((registry, _)) = registry(world, false) else {
        return;
    };
    let sandbox = world.start().await;
    let change =
        "echo mine > /workspace/mine && mkdir -p /home/agent/.config && echo x > /home/agent/.config/x";
    sh(&sandbox, change).await.ok();
    let taken = world.host.snapshot(sandbox.id()).await.unwrap().snapshot;
    let target: Reference = format!("{}/host-based:v1", registry.address()).parse().unwrap();
    let push = world
        .host
        .push(&taken.id, &target, None, BTreeMap::new(), &|_| {});
    let pushed = push.await.unwrap();
    let other = Host::open(HostConfig::new(world.state.with_file_name("other")))
        .await
        .unwrap();
    let back = other.pull(&pushed, None, MAX_BYTES, &|_| {}).await.unwrap();
    assert_eq!(back.root, None);
    let start = StartSandbox {
        from: Some(back.id),
        ..world.plain(&fresh_id())
    };
    let started = other.start(start).await.unwrap();
    let look =
        "cat /workspace/mine /home/agent/.config/x && git --version > /dev/null && touch /workspace/mine";
    assert_eq!(sh(&started, look).await.ok(), "mine\nx\n");
    other.reap(&[]).await.unwrap();
    other.close().await;
    let missing = greenroom_protocol::id::SnapshotId::from_bits(1);
    let refused = world
        .host
        .push(&missing, &target, None, BTreeMap::new(), &|_| {})
        .await;
    assert_eq!(refused.unwrap_err().problem().code, "snapshot_missing");
}

/// Names in the directory of a host's layers.
fn layer_names(state: &Path) -> Vec<String> {
    let names = std::fs::read_dir(state.join("images/layers")).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !name.ends_with(".bytes") && !name.ends_with(".json"))
        .collect();
    names.sort();
    names
}

/// Pulled, built on, joined, pushed, interrupted and removed.
async fn packed_layers_are_as_if_they_were_directories(world: &World) {
    let Some((registry, mut layout)) = registry(world, false) else {
        return;
    };
    let state = world.state.with_file_name("packing");
    let open = async || {
        let config = HostConfig {
            packs_layers: true,
            ..HostConfig::new(state.clone())
        };
        Host::open(config).await.unwrap()
    };
    let mut host = open().await;
    if let Err(why) = Packer::find(&state) {
        eprintln!("SKIPPED-FEATURE: layers cannot be packed here, because {why}");
        host.close().await;
        return;
    }
    let layers = [busybox_root().unwrap().finish(), changeable()];
    layout.image("v1", &layers, json!({}), Compression::Gzip).unwrap();
    let base: Reference = registry.publish(&layout, "v1", "base").unwrap().parse().unwrap();
    let base = host.pull(&base, None, MAX_BYTES, &|_| {}).await.unwrap();
    let all_packed = |count: usize| {
        let names = layer_names(&state);
        assert_eq!(names.len(), count, "{names:?}");
        assert!(names.iter().all(|name| name.ends_with(".erofs")), "{names:?}");
        names
    };
    all_packed(3);
    let start = async |host: &Host, from: &Snapshot| {
        let start = StartSandbox {
            from: Some(from.id.clone()),
            ..world.plain(&fresh_id())
        };
        host.start(start).await.unwrap()
    };
    let sandbox = start(&host, &base).await;
    sh(&sandbox, CHANGE).await.ok();
    let expected = sh(&sandbox, DESCRIBE).await.ok();
    let image = host.seal_image(sandbox.id()).await.unwrap();
    all_packed(4);
    let size = host.snapshot_bytes(&image).await.unwrap();
    assert!(size > 4 * 4096, "{size}");

    // What an image holds is the agent's own, and changes of it stay one sandbox's.
    let built = start(&host, &image).await;
    assert_eq!(sh(&built, DESCRIBE).await.ok(), expected);
    let change =
        "echo more >> /data/renamed/a/b && rm /data/other && mv /data/again /data/once && cat /data/once/new";
    assert_eq!(sh(&built, change).await.ok(), "new\n");
    let other = start(&host, &image).await;
    assert_eq!(sh(&other, DESCRIBE).await.ok(), expected);

    // Elsewhere it is the same.
    let target: Reference = format!("{}/packed:latest", registry.address()).parse().unwrap();
    let pushed = host
        .push(&image.id, &target, None, BTreeMap::new(), &|_| {})
        .await
        .unwrap();
    let back = world.pulled(&pushed.to_string()).await.unwrap();
    let unpacked = world.started_in(&back).await;
    assert_eq!(sh(&unpacked, DESCRIBE).await.ok(), expected);
    assert!(
        layer_names(&world.state)
            .iter()
            .all(|name| !name.ends_with(".erofs"))
    );

    // So many that they are joined.
    let id = built.id().clone();
    drop(built);
    let before = layer_names(&state).len();
    for round in 0..40 {
        host.seal_image(&id).await.unwrap();
        let again = StartSandbox {
            from: Some(image.id.clone()),
            ..world.plain(&id)
        };
        let again = host.start(again).await.unwrap();
        sh(
            &again,
            &format!("echo {round} > /workspace/round; echo {round} > /workspace/round-{round}"),
        )
        .await
        .ok();
    }
    let joined = host.seal_image(&id).await.unwrap();
    assert!(joined.layers.len() < 40, "{}", joined.layers.len());
    let seen = start(&host, &joined).await;
    let look = "cd /workspace && cat round round-0 round-39 && ls round-* | wc -l && tail -n 1 /data/renamed/a/b && ls /data/once /data";
    let said = sh(&seen, look).await.ok();
    assert!(said.starts_with("39\n0\n39\n40\nmovedmore\n/data:\n"), "{said}");
    assert!(said.contains("once\n") && !said.contains("other\n"), "{said}");
    assert!(layer_names(&state).len() > before);

    // Killed between the file and the end of the directory: the file counts.
    host.reap(&[]).await.unwrap();
    host.close().await;
    let name = image.layers[0].as_str();
    let leftover = state.join("images/layers").join(name);
    std::fs::create_dir(&leftover).unwrap();
    std::fs::write(leftover.join("stale"), "x").unwrap();
    host = open().await;
    assert!(!leftover.exists());
    let whole = start(&host, &image).await;
    assert_eq!(sh(&whole, DESCRIBE).await.ok(), expected);
    drop(whole);
    host.reap(&[]).await.unwrap();
    let snapshots = host.snapshots().await.unwrap();
    let ids: Vec<_> = snapshots.into_iter().map(|snapshot| snapshot.id).collect();
    host.remove_snapshots(&ids).await.unwrap();
    all_packed(0);
    host.close().await;
}

/// Nothing of ours runs it: skopeo gets it, umoci unpacks it, runc runs it.
async fn runc_runs_what_was_pushed(world: &World) {
    let Some((registry, mut layout)) = registry(world, false) else {
        return;
    };
    let layers = [busybox_root().unwrap().finish(), changeable()];
    layout
        .image("v1", &layers, json!({"Env": ["COLOUR=green"]}), Compression::Gzip)
        .unwrap();
    let image = world
        .pulled(&registry.publish(&layout, "v1", "base").unwrap())
        .await
        .unwrap();
    let sandbox = world.started_in(&image).await;
    sh(&sandbox, CHANGE).await.ok();
    let expected = sh(&sandbox, DESCRIBE).await.ok();
    world.host.stop(sandbox.id()).await.unwrap();
    let taken = world.host.snapshot(sandbox.id()).await.unwrap().snapshot;
    let target: Reference = format!("{}/for-runc:v1", registry.address()).parse().unwrap();
    let push = world
        .host
        .push(&taken.id, &target, None, BTreeMap::new(), &|_| {});
    push.await.unwrap();
    let (fetched, bundle) = (
        world.state.with_file_name("fetched"),
        world.state.with_file_name("bundle"),
    );
    registry.fetch("for-runc:v1", &fetched).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program)
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{program}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    };
    let source = format!("{}:fetched", fetched.display());
    run("umoci", &["unpack", "--image", &source, bundle.to_str().unwrap()]);
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(config["process"]["cwd"], "/workspace");
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/sh", "-c", format!("echo $COLOUR; {DESCRIBE}")]);
    // Machines differ in which of them runc may make.
    let mounts = config["mounts"].as_array().unwrap();
    let is_plain = |mount: &&Value| !mount["destination"].as_str().unwrap().starts_with("/sys");
    config["mounts"] = mounts.iter().filter(is_plain).cloned().collect();
    config["linux"]["resources"] = json!({});
    let namespaces = config["linux"]["namespaces"].as_array().unwrap();
    let is_wanted = |namespace: &&Value| namespace["type"] != "cgroup";
    config["linux"]["namespaces"] = namespaces.iter().filter(is_wanted).cloned().collect();
    std::fs::write(&path, config.to_string()).unwrap();
    let name = format!("greenroom-test-{}", std::process::id());
    let state = world.state.with_file_name("runc");
    let said = run(
        "runc",
        &[
            "--root",
            state.to_str().unwrap(),
            "run",
            "--bundle",
            bundle.to_str().unwrap(),
            &name,
        ],
    );
    assert_eq!(said, format!("green\n{expected}"));
}

async fn roots_on_this_machine(world: &World) {
    if let Err(program) = is_possible() {
        eprintln!("SKIPPED-FEATURE: {program} is not installed; roots are not imported");
        return;
    }
    let place = world.state.with_file_name("roots");
    let directory = place.join("directory");
    std::fs::create_dir_all(&directory).unwrap();
    let archive = busybox_root().unwrap().file("mark", 0o640, "first").finish();
    let plain = place.join("root.tar");
    std::fs::write(&plain, &archive).unwrap();
    let packed = place.join("root.tar.zst");
    let compressed =
        ruzstd::encoding::compress_to_vec(archive.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
    std::fs::write(&packed, compressed).unwrap();
    tar::Archive::new(archive.as_slice()).unpack(&directory).unwrap();
    for path in [&plain, &packed, &directory] {
        let image = world.host.import(path, MAX_BYTES).await.unwrap();
        assert_eq!(world.host.import(path, MAX_BYTES).await.unwrap(), image);
        let sandbox = world.started_in(&image).await;
        assert_eq!(
            sh(&sandbox, "cat /mark; echo x > /mark && id -un").await.ok(),
            "firstagent\n"
        );
        world.host.remove(sandbox.id()).await.unwrap();
    }
    let before = world.host.files_digest(&plain).await.unwrap();
    let archive = busybox_root().unwrap().file("mark", 0o640, "second").finish();
    std::fs::write(&plain, archive).unwrap();
    assert_ne!(world.host.files_digest(&plain).await.unwrap(), before);
    let image = world.host.import(&plain, MAX_BYTES).await.unwrap();
    let sandbox = world.started_in(&image).await;
    assert_eq!(sh(&sandbox, "cat /mark").await.ok(), "second");
    let code = async |path: &std::path::Path, max_bytes| {
        let imported = world.host.import(path, max_bytes).await;
        imported.unwrap_err().problem().code
    };
    assert_eq!(code(&place.join("none"), MAX_BYTES).await, "base_missing");
    let garbage = place.join("garbage");
    std::fs::write(&garbage, vec![7; 4096]).unwrap();
    assert_eq!(code(&garbage, MAX_BYTES).await, "image_invalid");
    let large = place.join("large.tar");
    std::fs::write(&large, busybox_root().unwrap().finish()).unwrap();
    assert_eq!(code(&large, 4096).await, "image_too_large");
}

async fn programs_that_insist_on_being_root(world: &World) {
    if let Err(program) = is_possible() {
        eprintln!("SKIPPED-FEATURE: {program} is not installed; roots of others are not tested");
        return;
    }
    let path = world.state.with_file_name("root.tar");
    let root = busybox_root()
        .unwrap()
        .directory("etc/apt/apt.conf.d/", 0o755)
        .file("etc/closed", 0o000, "closed");
    std::fs::write(&path, root.finish()).unwrap();
    let image = world.host.import(&path, MAX_BYTES).await.unwrap();
    let as_user = async |is_root: bool, name: Option<&str>, from: &Snapshot| {
        let start = StartSandbox {
            from: Some(from.id.clone()),
            user: SandboxUser {
                is_root,
                name: name.map(ToOwned::to_owned),
            },
            ..world.plain(&fresh_id())
        };
        world.host.start(start).await.unwrap()
    };
    let root = as_user(true, Some("root"), &image).await;
    let script = "id -u; id -un; echo $HOME; stat -c %u:%g /etc /workspace; touch f && chmod 0 f && echo x > f && chown 33:8 f && chmod 4755 f && stat -c %u:%g f; \
        cat /etc/closed; cat /etc/apt/apt.conf.d/*; mkdir /root && echo tool > /usr/bin/tool && chown -R 7:7 /usr/bin/tool; \
        busybox su node -c true && echo su; mkdir t && chown 12:34 t && tar cf x.tar t && rm -r t && tar xf x.tar && ls -d t";
    assert_eq!(
        sh(&root, script).await.ok(),
        "0\nroot\n/root\n0:0\n0:0\n0:0\nclosedAPT::Sandbox::User \"root\";\nsu\nt\n"
    );
    // It is told that it may, and may not.
    let refused = "exec 2> /dev/null; mount -t tmpfs none /tmp 2> /dev/null || echo no mount; mknod d c 1 3 2> /dev/null || echo no device; \
        chroot / true 2> /dev/null || echo no chroot; hostname x 2> /dev/null || echo no name; \
        grep -c '^Cap...:\t000000000000000[02]$' /proc/self/status; \
        echo x > /proc/sysrq-trigger || echo no request; echo x > /proc/sys/kernel/core_pattern || echo no setting; date -s 2000-01-01 > /dev/null 2>&1; test $(date +%Y) = 2000 || echo no clock";
    assert_eq!(
        sh(&root, refused).await.ok(),
        "no mount\nno device\nno chroot\nno name\n5\nno request\nno setting\nno clock\n"
    );
    world.host.stop(root.id()).await.unwrap();
    let taken = world.host.snapshot(root.id()).await.unwrap().snapshot;
    // What root installed is another's to use and change.
    let node = as_user(false, Some("node"), &taken).await;
    let script = "id -u; echo $USER $HOME; cat /usr/bin/tool; echo more >> /usr/bin/tool && rm -r t /root && chown 33 f 2> /dev/null || echo refused";
    assert_eq!(
        sh(&node, script).await.ok(),
        "1000\nnode /home/node\ntool\nrefused\n"
    );
}

async fn registries_that_lie_about_layers(world: &World) {
    let place = world.state.with_file_name("layout");
    let mut layout = Layout::new(&place).unwrap();
    let noise: Vec<u8> = (0..200_000_u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let layers = [Archive::default().file("noise", 0o644, noise).finish()];
    layout.image("v1", &layers, json!({}), Compression::None).unwrap();
    let digest = layout.digest("v1").unwrap();
    for (lie, expected) in [
        (Lie::Cut, "registry_unreachable"),
        (Lie::Longer, "image_size"),
        (Lie::OtherLength, "image_size"),
        (Lie::Other, "image_digest"),
        (Lie::Elsewhere, "registry_unreachable"),
    ] {
        let registry = LyingRegistry::start(&layout, lie).unwrap();
        let pulled = world
            .pulled(&format!("{}/lie@{digest}", registry.address()))
            .await;
        let problem = pulled.unwrap_err().problem();
        assert_eq!(problem.code, expected, "{lie:?}: {problem:?}");
    }
    for name in ["incoming", "layers"] {
        let left = std::fs::read_dir(world.state.join("images").join(name)).unwrap();
        assert_eq!(left.count(), 0, "{name}");
    }
}
