//! A repository full of ways to make git run programs or read other files: they work where the sandbox's own git runs, and
//! nowhere else. The host never runs git inside a workspace; a canary beside the server would tell.

use crate::script::start_with_answer;
use greenroom_system_tests::product::Product;

/// Plants everything, commits, and shows in the second turn that it ran inside. `CANARY` and `SECRET` are host paths.
const SCRIPT: &str = r#"
[[script]]
name = "plant"
prompt_contains = "plant"
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = '''
set -e
cat > /workspace/.git/run.sh <<'END'
#!/bin/sh
date >> /tmp/ran-inside
echo "$0 $*" >> CANARY
exit 0
END
chmod +x .git/run.sh
mkdir -p .git/hooks .git/objects/info
for hook in pre-commit post-commit pre-push pre-receive update post-receive post-update post-checkout post-merge reference-transaction fsmonitor-watchman push-to-checkout proc-receive; do cp .git/run.sh .git/hooks/$hook; done
echo changed >> answer.txt
echo '* filter=evil diff=evil merge=evil' > .gitattributes
ln -s SECRET stolen-link
git add -A
git commit -qm 'Change the answer'
git config core.sshCommand '/workspace/.git/run.sh ssh'
git config core.pager '/workspace/.git/run.sh pager'
git config core.editor '/workspace/.git/run.sh editor'
git config core.fsmonitor '/workspace/.git/run.sh fsmonitor'
git config core.askPass '/workspace/.git/run.sh askpass'
git config credential.helper '!/workspace/.git/run.sh credential'
git config filter.evil.clean '/workspace/.git/run.sh clean; cat'
git config filter.evil.smudge '/workspace/.git/run.sh smudge; cat'
git config diff.evil.textconv '/workspace/.git/run.sh textconv'
git config diff.external '/workspace/.git/run.sh diff'
git config merge.evil.driver '/workspace/.git/run.sh merge %O %A %B'
git config gpg.program '/workspace/.git/run.sh gpg'
git config protocol.ext.allow always
git config uploadpack.packObjectsHook '/workspace/.git/run.sh pack'
git config include.path SECRET.gitconfig
git config includeIf.gitdir:/.path SECRET.gitconfig
git config submodule.evil.update '!/workspace/.git/run.sh submodule'
printf '[submodule "evil"]\n\tpath = evil\n\turl = ext::sh -c CANARY\n' > .gitmodules
dirname SECRET > .git/objects/info/alternates
git status >/dev/null 2>&1 || true
echo planted
''' }
[[script.step]]
expect_result_contains = "planted"
say = "Done."

[[script]]
name = "look"
prompt_contains = "look"
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "test -s /tmp/ran-inside && echo it-ran-inside; cat SECRET stolen-link; true" }
[[script.step]]
expect_result_contains = "it-ran-inside"
say = "It ran."
"#;

#[tokio::test]
async fn git_of_a_workspace_never_runs_on_the_host() {
    let mut product = Product::with_script("");
    let canary = product.root().join("canary");
    let secret = product.root().join("secret");
    std::fs::write(&secret, "a secret of the host").unwrap();
    std::fs::write(
        secret.with_extension("gitconfig"),
        format!("[core]\n\tfsmonitor = touch {}\n", canary.display()),
    )
    .unwrap();
    let script = SCRIPT
        .replace("CANARY", &canary.display().to_string())
        .replace("SECRET", &secret.display().to_string());
    std::fs::write(product.root().join("script.toml"), script).unwrap();
    // That such a workspace cannot be pushed may be said.
    for part in ["push", "git", "work"] {
        product.expect_warning(part);
    }
    let api = start_with_answer(&mut product).await;
    let session = api.start_session("answer", "plant it").await;
    api.wait_for_turns(&session, 1).await;
    assert_eq!(api.prompt(&session, "second", "look at it").await.0, 202);
    let events = api.wait_for_turns(&session, 2).await;
    let text = serde_json::to_string(&events).unwrap();
    assert!(text.contains("It ran."), "it ran inside: {text}");
    product.stop();
    assert!(
        !canary.exists(),
        "it ran on the host: {:?}",
        std::fs::read_to_string(&canary)
    );
    assert!(
        !text.contains("a secret of the host"),
        "a file of the host was read"
    );
}
