//! How the platform's own git brings a repository into a workspace and keeps it in order. Code of the repository may have run there
//! before, so nothing that it could have written decides what our git does: the configuration is made anew before the first call,
//! hooks and monitors are off, and programs come from the system alone.

/// Environment of the programs that run these scripts.
pub fn environment() -> Vec<(String, String)> {
    [
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_COUNT", "4"),
        ("GIT_CONFIG_KEY_0", "core.hooksPath"),
        ("GIT_CONFIG_VALUE_0", "/dev/null"),
        ("GIT_CONFIG_KEY_1", "core.fsmonitor"),
        ("GIT_CONFIG_VALUE_1", "false"),
        ("GIT_CONFIG_KEY_2", "commit.gpgsign"),
        ("GIT_CONFIG_VALUE_2", "false"),
        // It would go on in the background, and write where an image is sealed and where a call waits.
        ("GIT_CONFIG_KEY_3", "maintenance.auto"),
        ("GIT_CONFIG_VALUE_3", "false"),
        ("LC_ALL", "C"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// A script with these arguments, as `$1` and so on.
pub fn command<'a>(script: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    [&["/bin/sh", "-c", script, "sh"], arguments].concat()
}

/// The file that says which of a workspace's other repositories this is.
macro_rules! whose {
    () => {
        ".git/greenroom-repository"
    };
}

/// Git talks to the forge and to nothing else, whatever was configured since then.
macro_rules! remote {
    ($argument:literal) => {
        concat!(
            "git config --replace-all remote.origin.url \"",
            $argument,
            "\" > /dev/null 2>&1
git config --unset-all remote.origin.pushurl > /dev/null 2>&1
"
        )
    };
}

/// Makes git's configuration anew, before anything else is asked of git.
macro_rules! fresh_configuration {
    () => {
        "set -e
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_COMMON_DIR GIT_NAMESPACE GIT_EXEC_PATH GIT_TEMPLATE_DIR
command -v git > /dev/null || { echo 'fatal: the base of the environment has no git; name an image that has' >&2; exit 127; }
if [ -L .git ] || { [ -e .git ] && [ ! -d .git ]; }; then
  echo 'fatal: a step replaced .git by something else' >&2; exit 1
fi
if [ -d .git ]; then
  rm -rf .git/*.lock .git/config .git/config.worktree .git/hooks .git/info/attributes
  find .git/refs -name '*.lock' -type f -exec rm -f {} + 2> /dev/null || true
  printf '[core]\\n\\trepositoryformatversion = 0\\n\\tfilemode = true\\n\\tbare = false\\n\\tlogallrefupdates = true\\n' > .git/config
fi
"
    };
}

/// Says what lies where another repository of the workspace belongs: `there`; `missing`, also if the directory is empty; `tracked`, if the
/// session's own repository has files there; else `foreign`. Whoever moves a repository, or leads a path elsewhere, moves no work from one
/// repository to another by it. Run in the workspace. `$1`: the path, `$2`: the repository's name.
pub const LOOK: &str = concat!(
    "place=
IFS=/
for part in $1; do
  place=${place:+$place/}$part
  [ ! -L \"$place\" ] || { echo foreign; exit 0; }
done
unset IFS
if [ -d .git ] && git ls-files -s -- \"$1\" | grep -qv '^160000 '; then echo tracked; exit 0; fi
if [ -d \"$1\" ]; then
  [ -n \"$(ls -A \"$1\")\" ] || { echo missing; exit 0; }
elif [ ! -e \"$1\" ]; then echo missing; exit 0
fi
if [ -d \"$1/.git\" ] && [ ! -L \"$1/.git\" ] && [ \"$(cat \"$1/",
    whose!(),
    "\" 2> /dev/null)\" = \"$2\" ]; then echo there; else echo foreign; fi"
);

/// Makes the directory in the workspace where another repository is checked out, and lets the session's own repository ignore it. `$1`:
/// the path.
pub const PLACE: &str = "set -e
mkdir -p \"$1\"
if [ -d .git ]; then
  mkdir -p .git/info
  grep -qxF \"/$1/\" .git/info/exclude 2> /dev/null || printf '/%s/\\n' \"$1\" >> .git/info/exclude
fi";

/// Notes whose repository this is, for [`LOOK`]. `$1`: its name.
pub const NAME: &str = concat!("printf %s \"$1\" > ", whose!());

/// Gets the repository into an empty workspace, or brings the one of an earlier image up to date: then only what differs is looked
/// at, because looking at everything takes seconds on a large repository. `$1`: the branch, `$2`: the remote, `$3`: the name, if it is
/// another repository of the workspace.
pub const CLONE: &str = concat!(
    fresh_configuration!(),
    "[ -d .git ] && is_new= || is_new=1
[ -z \"$is_new\" ] || git init -q -b \"$1\"
[ -z \"$3\" ] || printf %s \"$3\" > ",
    whose!(),
    "
git config remote.origin.url \"$2\"
git config remote.origin.fetch '+refs/heads/*:refs/remotes/origin/*'
if [ -n \"$is_new\" ]; then
  git fetch -q --force --tags origin
  git checkout -q -f --detach \"refs/remotes/origin/$1\"
else
  git fetch -q --force origin \"+refs/heads/$1:refs/remotes/origin/$1\"
  new=$(git rev-parse --verify \"refs/remotes/origin/$1\")
  git read-tree -m -u HEAD \"$new\" 2> /dev/null || git read-tree --reset -u \"$new\"
  git update-ref --no-deref HEAD \"$new\"
fi"
);

/// Brings the workspace of an image to the newest commit of the session's own branch, else of its base branch, and tells which files
/// that changed. Only they are looked at. `$1`: base, `$2`: own, `$3`: remote.
pub const SYNC: &str = concat!(
    fresh_configuration!(),
    "git config remote.origin.url \"$3\"
git config remote.origin.fetch '+refs/heads/*:refs/remotes/origin/*'
git fetch -q --force origin \"+refs/heads/$1:refs/remotes/origin/$1\" \"+refs/heads/$2*:refs/remotes/origin/$2*\"
old=$(git rev-parse HEAD)
new=$(git rev-parse -q --verify \"refs/remotes/origin/$2\" || git rev-parse --verify \"refs/remotes/origin/$1\")
git read-tree -m -u HEAD \"$new\" 2> /dev/null || git read-tree --reset -u \"$new\"
git update-ref \"refs/heads/$2\" \"$new\"
git symbolic-ref HEAD \"refs/heads/$2\"
git -c core.quotePath=false diff-tree -r --no-renames --name-only \"$old\" \"$new\" 2> /dev/null"
);

/// Switches a workspace that has the newest commit to the session's branch. `$1`: the branch, `$2`: the commit.
pub const SWITCH: &str = "git update-ref \"refs/heads/$1\" \"$2\" && git symbolic-ref HEAD \"refs/heads/$1\"";

/// Makes the workspace of another session this one's: what was changed and what was begun stays as it is. `$1`: the branch, `$2`: the
/// file that says whose workspace it is.
pub const ADOPT: &str = "set -e
head=$(git rev-parse -q --verify HEAD || true)
[ -z \"$head\" ] || git update-ref \"refs/heads/$1\" \"$head\"
git symbolic-ref HEAD \"refs/heads/$1\"
printf %s \"$1\" > \"$2\"";

/// What brings own work and others' together. Others' commits are known by what they are not: what lies on the session's branch and is
/// neither below `HEAD` nor what the session pushed last and then rewrote itself. What looks at `HEAD`'s past only, such as the reflog,
/// takes for own what was only looked at.
///
/// * `settle`: takes back what was killed half way.
/// * `is_busy`: whether something like a merge is under way that is not ours.
/// * `remote BRANCH`: sets `theirs` to what the forge has, empty if nothing. `get BRANCH`: brings it, and sets `theirs` to it.
/// * `is_below COMMIT`: whether it is part of `HEAD`.
/// * `collides COMMIT`: prints files that git does not keep and that others' commits would overwrite.
/// * `join COMMIT`: puts the own commits on top of others', or merges if that conflicts. If both conflict, everything is as before, and
///   `files` says where.
macro_rules! joining {
    () => {
        "joining=.git/greenroom-joining unfinished=refs/greenroom/unfinished
settle() {
  if [ -e $joining ]; then
    git rebase --abort > /dev/null 2>&1
    git merge --abort > /dev/null 2>&1
    rm -f $joining
  fi
  local_changes=$(git rev-parse -q --verify $unfinished) || return 0
  git cherry-pick -n \"$local_changes\" > /dev/null 2>&1 || [ -n \"$(conflicts)\" ] || return 0
  git update-ref -d $unfinished
}
is_busy() {
  for begun in MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD rebase-merge rebase-apply; do
    [ ! -e \".git/$begun\" ] || return 0
  done
  return 1
}
remote() {
  refs=$(git ls-remote origin \"refs/heads/$1\") || return 1
  theirs=$(printf '%s\\n' \"$refs\" | while read -r id name; do
    [ \"$name\" != \"refs/heads/$1\" ] || echo \"$id\"
  done)
}
get() {
  git fetch -q --force origin \"+refs/heads/$1:refs/remotes/origin/$1\" &&
    theirs=$(git rev-parse --verify \"refs/remotes/origin/$1\")
}
is_below() {
  git merge-base --is-ancestor \"$1\" HEAD 2> /dev/null
}
conflicts() {
  git -c core.quotePath=false diff --name-only --diff-filter=U
}
collides() {
  git -c core.quotePath=false diff --no-renames --name-only --diff-filter=A HEAD \"$1\" | tr '\\n' '\\0' |
    xargs -0 -r git -c core.quotePath=false ls-files --others --
}
join() {
  : > $joining
  if git rebase -q \"$1\" > /dev/null 2>&1; then rm -f $joining; return 0; fi
  git rebase --abort > /dev/null 2>&1
  if git merge -q -m 'Merge commits of others' -m \"Greenroom-Session: $GREENROOM_SESSION\" \"$1\" > /dev/null 2>&1; then
    rm -f $joining; return 0
  fi
  files=$(conflicts)
  git merge --abort > /dev/null 2>&1
  rm -f $joining
  return 1
}
"
    };
}

/// Before a turn's changes are committed: says `busy` if a rebase or the like is under way, or `conflict` and the files in which both sides of
/// a conflict still stand; nothing if all is well. Where there is no repository any more, git says so later.
pub const SETTLE: &str = concat!(
    joining!(),
    "[ -d .git ] || exit 0
settle
for begun in CHERRY_PICK_HEAD REVERT_HEAD rebase-merge rebase-apply; do
  [ ! -e \".git/$begun\" ] || { echo busy; exit 0; }
done
open=$(conflicts | tr '\\n' '\\0' | xargs -0 -r grep -l -s '^<<<<<<< ' --)
[ -z \"$open\" ] || printf 'conflict\\n%s\\n' \"$open\"
exit 0"
);

/// Brings a workspace that is older than the session's branch together with it. What was not committed stays so. If commits conflict,
/// everything stays as it was, and a push says so again; if what was not committed does, both sides stand in the files, between git's
/// markers. Says `joined`, `busy`, or `conflict` and the files; nothing if there was nothing to do. `$1`: the branch, `$2`: the remote.
pub const REJOIN: &str = concat!(
    joining!(),
    remote!("$2"),
    "remote \"$1\" || exit 1
[ -n \"$theirs\" ] && git rev-parse -q --verify HEAD > /dev/null || exit 0
get \"$1\" || exit 1
! is_below \"$theirs\" || exit 0
! is_busy || { echo busy; exit 0; }
git add -A || exit 1
if ! git diff --cached --quiet; then
  git commit -q -m 'Changes that were not committed' || exit 1
  git update-ref $unfinished HEAD && git reset -q --hard HEAD~1 || exit 1
fi
told=joined
files=$(collides \"$theirs\")
[ -z \"$files\" ] && join \"$theirs\" || told=conflict
if local_changes=$(git rev-parse -q --verify $unfinished); then
  if git cherry-pick -n \"$local_changes\" > /dev/null 2>&1; then
    git reset -q
    git update-ref -d $unfinished
  else
    told=conflict in_files=$(conflicts)
    [ -z \"$in_files\" ] || git update-ref -d $unfinished
    files=\"$files
$in_files\"
  fi
fi
echo $told
[ $told = joined ] || printf '%s\\n' \"$files\" | grep . | sort -u"
);

/// Pushes the session's branch, and never over a commit of others: those are taken in first. If they conflict, nothing is pushed and the
/// workspace stays as it was. Says `pushed` or `joined`, then the commit; or `busy`; or `conflict` and the files. `$1`: the branch,
/// `$2`: the commit that was pushed last, empty if none was; `$3`: the remote.
pub const PUSH: &str = concat!(
    joining!(),
    remote!("$3"),
    "branch=$1 pushed=$2 theirs=$2 how=pushed
push() {
  git push -q --force-with-lease=\"refs/heads/$branch:$theirs\" origin \"HEAD:refs/heads/$branch\" 2>&1
}
told() { echo \"$how\"; git rev-parse HEAD; exit 0; }
unless_stale() {
  case $1 in *'stale info'*) ;; *) printf '%s\\n' \"$1\"; exit 1 ;; esac
}
# What was pushed last is there, and nothing goes with it but commits of sessions.
is_own_rewrite() {
  [ \"$theirs\" = \"$pushed\" ] && git cat-file -e \"$theirs^{commit}\" 2> /dev/null &&
    [ \"$(git rev-list --count \"$theirs\" ^HEAD)\" = \"$(git rev-list --count --grep='^Greenroom-Session: ' \"$theirs\" ^HEAD)\" ]
}
if [ -z \"$pushed\" ] || is_below \"$pushed\"; then
  said=$(push) && told
  unless_stale \"$said\"
fi
for try in 1 2 3; do
  remote \"$branch\" || exit 1
  if [ -n \"$theirs\" ] && ! is_below \"$theirs\" && ! is_own_rewrite; then
    get \"$branch\" || exit 1
    ! is_busy || { echo busy; exit 0; }
    files=$(collides \"$theirs\")
    if [ -n \"$files\" ] || ! join \"$theirs\"; then
      printf 'conflict\\n%s\\n' \"$files\"
      exit 0
    fi
    how=joined
  fi
  said=$(push) && told
  unless_stale \"$said\"
done
echo 'fatal: others push to the branch all the time'
exit 1"
);

/// Says what the files of a repository change against its base branch, as they are now, without touching anything of it: an index and
/// objects of its own, for a while. Files over 16 MiB and repositories within are left out. Prints `whole` or, if something was left out,
/// `partial`; how long the list is; the list (`--raw --numstat -z`); the patches. `$1`: the base branch; then git's arguments.
pub const LIVE_DIFF: &str = "set -e
[ -d .git ] || { echo 'fatal: the repository is gone' >&2; exit 1; }
if head=$(git rev-parse -q --verify HEAD); then
  base=$(git merge-base \"$head\" \"refs/remotes/origin/$1\" 2> /dev/null) || base=$head
else
  base=$(git hash-object -t tree /dev/null)
fi
shift
rm -rf /tmp/greenroom-look.*
trap 'exit 143' TERM INT HUP
trap 'rm -rf \"$scratch\"' EXIT
scratch=$(mktemp -d /tmp/greenroom-look.XXXXXX)
mkdir \"$scratch/objects\"
export GIT_INDEX_FILE=\"$scratch/index\" GIT_OBJECT_DIRECTORY=\"$scratch/objects\" \
  GIT_ALTERNATE_OBJECT_DIRECTORIES=\"$PWD/.git/objects\"
cp .git/index \"$scratch/index\" 2> /dev/null || [ -z \"$head\" ] || git read-tree \"$head\"
touched() { git ls-files -z --others --modified --exclude-standard; }
touched | xargs -0 -r sh -c 'printf \"./%s\\0\" \"$@\"' sh |
  xargs -0 -r sh -c 'find \"$@\" -prune \\( -type l -o -type f -size -32769 \\) -print0' sh 2> /dev/null |
  git -c core.compression=0 update-index --add --remove -z --stdin
git ls-files -z --deleted | git update-index --remove -z --stdin
if [ -z \"$(touched | head -c 1 | tr '\\0' x)\" ]; then echo whole; else echo partial; fi
tree=$(git write-tree)
git \"$@\" --raw --numstat -z \"$base\" \"$tree\" > \"$scratch/list\"
wc -c < \"$scratch/list\"
cat \"$scratch/list\"
git \"$@\" -p -U3 --src-prefix=a/ --dst-prefix=b/ \"$base\" \"$tree\"";

/// Tracked files as committed, and what the build made beside them ignored, so that it is nobody's change. Single files, as long as
/// they are not too many: what somebody adds to their directories is a change.
macro_rules! tidying {
    () => {
        "git reset -q --hard
rm -rf .git/info
list() { git ls-files -z --others --exclude-standard \"$@\"; }
if [ \"$(list | tr -cd '\\0' | head -c 2001 | wc -c)\" -le 2000 ]; then whole=; else whole=--directory; fi
mkdir -p .git/info
list $whole | tr '\\n\\0' '\\001\\n' | sed 's/[][*?\\!#]/\\\\&/g; s/\\x01/?/g; s/ $/\\\\ /; s/^/\\//' > .git/info/exclude
"
    };
}

/// Leaves another repository of the workspace as a session wants to find it, when nothing else runs.
pub const TIDY_OTHER: &str = concat!(fresh_configuration!(), tidying!());

/// Leaves the workspace so. `$1`: the file that says which commit it is; its directory is ours.
pub const TIDY: &str = concat!(
    fresh_configuration!(),
    tidying!(),
    "rm -rf \"${1%/*}\"
mkdir -p \"${1%/*}\"
git rev-parse HEAD > \"$1\"
chmod -R u+rwX /tmp 2> /dev/null || true
find /tmp -mindepth 1 -maxdepth 1 -exec rm -rf {} +"
);

/// Writes the mark by which a session knows that the repository is there, and says which commit it is. `$1`: the file.
pub const MARK: &str = "mkdir -p \"${1%/*}\" && git rev-parse HEAD > \"$1\" && git rev-parse HEAD";
