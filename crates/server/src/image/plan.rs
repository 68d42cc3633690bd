//! Decides when an image is built, on what, and which of its steps need to run. Pure.

use crate::environment::{BoundedEnvironment, ImagePlan};
use greenroom_protocol::client::image::{Image, ImageState, ImageStep, StepName, StepOutcome};
use greenroom_protocol::environment::StepDefinition;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::time::Duration;

/// Code of the problem of a build that the end of its server cut short.
pub const INTERRUPTED: &str = "build_interrupted";

/// Images built on one another before one is built from nothing: each adds layers.
const MAX_LINE: u32 = 8;

/// Files that list dependencies, as git path patterns: what `setup` depends on unless it says so itself.
const DEPENDENCY_FILES: &[&str] = &[
    "package.json",
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "bun.lock",
    "deno.lock",
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain*",
    "go.mod",
    "go.sum",
    "requirements*.txt",
    "pyproject.toml",
    "poetry.lock",
    "uv.lock",
    "Pipfile*",
    "setup.py",
    "setup.cfg",
    "Gemfile*",
    "composer.*",
    "pom.xml",
    "build.gradle*",
    "settings.gradle*",
    "gradle.lockfile",
    "mix.exs",
    "mix.lock",
    "pubspec.*",
    "*.csproj",
    "packages.lock.json",
    ".tool-versions",
    ".nvmrc",
    ".node-version",
    ".python-version",
];

/// What a decision goes by.
pub struct Facts<'a> {
    /// Of [`environment_digest`].
    pub environment_digest: &'a str,
    pub base_digest: &'a str,
    pub plan: &'a ImagePlan,
    pub now_ms: i64,
}

/// What was tried before.
#[derive(Default)]
pub struct Attempts<'a> {
    pub latest: Option<&'a Image>,
    /// Whether the one before that was cut short by the end of its server.
    pub was_interrupted_before: bool,
    /// Since this server asked for one by itself, by a clock that nobody sets; `None`: not yet.
    pub since_asked: Option<Duration>,
}

/// The digest of all of an environment that decides about images.
pub fn environment_digest(environment: &BoundedEnvironment) -> String {
    let plan = &environment.image;
    let parts = serde_json::json!([
        environment.user,
        plan.as_root,
        environment.backend,
        environment.runtime,
        environment.egress,
        environment.variables,
        environment.services,
        plan.features,
        plan.setup,
        plan.build,
        plan.warm,
        environment.repositories,
    ]);
    hex(&Sha256::digest(parts.to_string()))
}

/// Of what steps may reach.
pub fn policy_digest(environment: &BoundedEnvironment) -> String {
    hex(&Sha256::digest(
        serde_json::json!([environment.egress]).to_string(),
    ))
}

/// Whether an image is to be built by itself now. `current` is the one that serves, `heads` the commits of the branches, the
/// repository's own first.
pub fn is_due(attempts: &Attempts<'_>, current: Option<&Image>, heads: &[String], facts: &Facts<'_>) -> bool {
    let wait = facts.plan.rebuild_every;
    if let Some(latest) = attempts.latest {
        // Once at once; a build that brings its server down must not do so for ever.
        let is_excused = was_interrupted(latest) && !attempts.was_interrupted_before;
        let has_rested = match attempts.since_asked {
            Some(since) => since >= wait,
            // One from the future: the clock was set back, and nobody knows how long ago it was.
            None => !(0..ms(wait)).contains(&facts.now_ms.saturating_sub(latest.created_at_ms)),
        };
        if !latest.state.is_final() || !is_excused && !has_rested {
            return false;
        }
    }
    match current {
        Some(current) => is_stale(current, heads, facts),
        None => facts.plan.has_steps(),
    }
}

/// Whether a new image would not be the same.
pub fn is_stale(current: &Image, heads: &[String], facts: &Facts<'_>) -> bool {
    !is_at(current, heads)
        || current.environment_digest != facts.environment_digest
        || current.base_digest != facts.base_digest
        || !is_younger(current.line_began_at_ms, facts.plan.max_age, facts.now_ms)
}

/// Whether an image has these commits.
fn is_at(image: &Image, heads: &[String]) -> bool {
    let others = image.repositories.iter().map(|other| &other.commit);
    image.commit.iter().chain(others).eq(heads)
}

/// Whether a new image may be built on `previous`.
pub fn can_build_on(previous: &Image, facts: &Facts<'_>) -> bool {
    previous.state == ImageState::Published
        && previous.snapshot_id.is_some()
        && previous.environment_digest == facts.environment_digest
        && previous.base_digest == facts.base_digest
        && previous.line_length < MAX_LINE
        && is_younger(previous.line_began_at_ms, facts.plan.max_age, facts.now_ms)
}

/// Whether the end of its server cut a build short.
pub fn was_interrupted(image: &Image) -> bool {
    let problem = image.problem.as_ref();
    problem.is_some_and(|problem| problem.code == INTERRUPTED)
}

/// What began in the future, because the clock was set back, is young.
fn is_younger(began_ms: i64, age: Duration, now_ms: i64) -> bool {
    now_ms.saturating_sub(began_ms) < ms(age)
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The steps of a plan that there are.
pub fn steps(plan: &ImagePlan) -> impl Iterator<Item = (StepName, &StepDefinition)> {
    [
        (StepName::Features, &plan.install),
        (StepName::Setup, &plan.setup),
        (StepName::Build, &plan.build),
        (StepName::Warm, &plan.warm),
    ]
    .into_iter()
    .filter_map(|(name, step)| Some((name, step.as_ref()?)))
}

/// What a step depends on in one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inputs {
    None,
    All,
    /// Git path patterns, relative to the repository.
    Matching(Vec<String>),
}

/// What a step depends on in the repository at `path`, relative to the workspace; empty for the one that is the workspace.
pub fn inputs(name: StepName, step: &StepDefinition, path: &str) -> Inputs {
    let pattern = |text: &str| format!(":(glob){text}");
    match name {
        // Whatever the repository holds.
        StepName::Features => Inputs::None,
        _ if !step.inputs.is_empty() => {
            let all = step.inputs.iter().map(|text| text.trim_end_matches('/'));
            let mut patterns = Vec::new();
            for text in all.filter_map(|text| inside(text, path)) {
                if text.is_empty() {
                    return Inputs::All;
                }
                // A directory means all below it.
                patterns.extend([pattern(text), pattern(&format!("{text}/**"))]);
            }
            match patterns.is_empty() {
                true => Inputs::None,
                false => Inputs::Matching(patterns),
            }
        }
        StepName::Setup => {
            let texts = DEPENDENCY_FILES.iter();
            Inputs::Matching(texts.map(|text| pattern(&format!("**/{text}"))).collect())
        }
        _ => Inputs::All,
    }
}

/// The part of a pattern of the workspace that is about the repository at `path`; empty: it is about all of it.
fn inside<'a>(text: &'a str, path: &str) -> Option<&'a str> {
    if path.is_empty() || text.starts_with("**/") {
        return Some(text);
    }
    if format!("{path}/").starts_with(&format!("{text}/")) {
        return Some("");
    }
    text.strip_prefix(path)?.strip_prefix('/')
}

/// The key of a step: all that it depends on. `before` is the key of the step before, `inputs` the digest of its files.
pub fn key(facts: &Facts<'_>, before: &str, name: StepName, step: &StepDefinition, inputs: &str) -> String {
    let parts = serde_json::json!([
        facts.environment_digest,
        facts.base_digest,
        before,
        name,
        step.run,
        inputs
    ]);
    hex(&Sha256::digest(parts.to_string()))
}

/// Whether the step with this key was done for `previous`, on which the new image is built.
pub fn is_cached(previous: Option<&Image>, name: StepName, key: &str) -> bool {
    let is_same = |step: &ImageStep| {
        step.name == name
            && step.key == key
            && matches!(step.outcome, StepOutcome::Done | StepOutcome::Cached)
    };
    previous.is_some_and(|previous| previous.steps.iter().any(is_same))
}

/// Images of a repository that nobody needs any more: all but the newest two that were published on each branch, and the newest ten of
/// the others. `images` are the newest first.
pub fn outdated(images: &[Image]) -> Vec<&Image> {
    const KEPT_PUBLISHED: usize = 2;
    const KEPT_OTHERS: usize = 10;
    let mut others = 0;
    let mut published: HashMap<&str, usize> = HashMap::new();
    images
        .iter()
        .filter(|image| match image.state {
            ImageState::Published => {
                let seen = published.entry(&image.branch).or_default();
                *seen += 1;
                *seen > KEPT_PUBLISHED
            }
            ImageState::Failed => {
                others += 1;
                others > KEPT_OTHERS
            }
            _ => false,
        })
        .collect()
}

/// The oldest published image that no session would begin with: its branch has a newer one. `images` are in any order.
pub fn spare(images: &[Image]) -> Option<&Image> {
    let published = || images.iter().filter(|image| image.state == ImageState::Published);
    let is_replaced = |image: &&Image| {
        published().any(|other| {
            (&other.repository, &other.branch) == (&image.repository, &image.branch)
                && other.created_at_ms > image.created_at_ms
        })
    };
    published()
        .filter(is_replaced)
        .min_by_key(|image| image.created_at_ms)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_protocol::client::image::{ImageRepository, ImageTrigger};
    use greenroom_protocol::client::problem::Problem;
    use greenroom_protocol::id::{ImageId, SnapshotId};

    const MINUTE: i64 = 60_000;
    const NOW: i64 = 1_000_000 * MINUTE;

    fn plan() -> ImagePlan {
        ImagePlan {
            as_root: false,
            features: Vec::new(),
            install: None,
            setup: Some(step("npm ci")),
            build: None,
            warm: None,
            rebuild_every: Duration::from_secs(30 * 60),
            max_age: Duration::from_secs(7 * 24 * 3600),
            step_timeout: Duration::from_secs(60),
        }
    }

    fn step(run: &str) -> StepDefinition {
        StepDefinition {
            run: run.to_owned(),
            inputs: Vec::new(),
            secrets: Vec::new(),
        }
    }

    fn published(minutes_ago: i64) -> Image {
        Image {
            id: ImageId::from_bits(1),
            repository: "shop".to_owned(),
            branch: "main".to_owned(),
            commit: Some("c1".to_owned()),
            repositories: Vec::new(),
            state: ImageState::Published,
            trigger: ImageTrigger::Schedule,
            built_on: None,
            steps: Vec::new(),
            problem: None,
            environment_digest: "e1".to_owned(),
            base: "host".to_owned(),
            base_digest: "b1".to_owned(),
            snapshot_id: Some(SnapshotId::from_bits(1)),
            layers: Vec::new(),
            policy_digest: String::new(),
            size_bytes: Some(1),
            created_at_ms: NOW - minutes_ago * MINUTE,
            finished_at_ms: None,
            line_began_at_ms: NOW - minutes_ago * MINUTE,
            line_length: 0,
        }
    }

    #[track_caller]
    fn check_due(expected: bool, latest: Option<&Image>, current: Option<&Image>, head: &str) {
        let plan = plan();
        let facts = Facts {
            environment_digest: "e1",
            base_digest: "b1",
            plan: &plan,
            now_ms: NOW,
        };
        let attempts = Attempts {
            latest,
            ..Attempts::default()
        };
        assert_eq!(
            is_due(&attempts, current, &[head.to_owned()], &facts),
            expected,
            "{latest:?} {head}"
        );
    }

    #[test]
    fn an_image_is_built_when_it_is_time_and_something_changed() {
        check_due(true, None, None, "c1");
        let fresh = published(10);
        check_due(false, Some(&fresh), Some(&fresh), "c2");
        let old = published(31);
        check_due(true, Some(&old), Some(&old), "c2");
        check_due(false, Some(&old), Some(&old), "c1");
        for change in [
            (|image: &mut Image| image.environment_digest = "e2".to_owned()) as fn(&mut Image),
            |image| image.base_digest = "b2".to_owned(),
            |image| image.line_began_at_ms = NOW - 8 * 24 * 60 * MINUTE,
        ] {
            let mut changed = published(31);
            change(&mut changed);
            check_due(true, Some(&changed), Some(&changed), "c1");
        }
        let running = Image {
            state: ImageState::Building,
            ..published(100)
        };
        check_due(false, Some(&running), Some(&old), "c2");
        let mut failed = Image {
            state: ImageState::Failed,
            ..published(5)
        };
        check_due(false, Some(&failed), Some(&old), "c2");
        failed.problem = Some(Problem::transient(INTERRUPTED, ""));
        check_due(true, Some(&failed), Some(&old), "c2");
        // The clock was set back: once, and then by a clock that nobody sets.
        let future = published(-1000);
        check_due(false, Some(&future), Some(&future), "c1");
        check_due(true, Some(&future), Some(&future), "c2");
        let plan = plan();
        let facts = Facts {
            environment_digest: "e1",
            base_digest: "b1",
            plan: &plan,
            now_ms: NOW,
        };
        let asked = |minutes: u64, was_interrupted_before| Attempts {
            latest: if was_interrupted_before {
                Some(&failed)
            } else {
                Some(&future)
            },
            was_interrupted_before,
            since_asked: Some(Duration::from_secs(minutes * 60)),
        };
        assert!(!is_due(
            &asked(29, false),
            Some(&future),
            &["c2".to_owned()],
            &facts
        ));
        assert!(is_due(
            &asked(30, false),
            Some(&future),
            &["c2".to_owned()],
            &facts
        ));
        assert!(
            !is_due(&asked(1, true), Some(&old), &["c2".to_owned()], &facts),
            "again and again"
        );
    }

    #[test]
    fn without_steps_nothing_is_built_by_itself_until_somebody_did() {
        let plan = ImagePlan {
            setup: None,
            ..plan()
        };
        let facts = Facts {
            environment_digest: "e1",
            base_digest: "b1",
            plan: &plan,
            now_ms: NOW,
        };
        assert!(!is_due(&Attempts::default(), None, &["c1".to_owned()], &facts));
        let old = published(31);
        let attempts = Attempts {
            latest: Some(&old),
            ..Attempts::default()
        };
        assert!(is_due(&attempts, Some(&old), &["c2".to_owned()], &facts));
    }

    #[test]
    fn an_image_is_due_when_another_of_its_repositories_moved() {
        let plan = plan();
        let facts = Facts {
            environment_digest: "e1",
            base_digest: "b1",
            plan: &plan,
            now_ms: NOW,
        };
        let mut old = published(31);
        old.repositories.push(ImageRepository {
            name: "core".to_owned(),
            branch: "main".to_owned(),
            path: "core".to_owned(),
            commit: "d1".to_owned(),
        });
        for (heads, expected) in [(["c1", "d1"], false), (["c1", "d2"], true), (["c2", "d1"], true)] {
            let attempts = Attempts {
                latest: Some(&old),
                ..Attempts::default()
            };
            let heads = heads.map(str::to_owned);
            assert_eq!(
                is_due(&attempts, Some(&old), &heads, &facts),
                expected,
                "{heads:?}"
            );
        }
    }

    #[test]
    fn an_image_is_built_on_one_of_the_same_making() {
        let plan = plan();
        let facts = Facts {
            environment_digest: "e1",
            base_digest: "b1",
            plan: &plan,
            now_ms: NOW,
        };
        assert!(can_build_on(&published(31), &facts));
        for change in [
            (|image: &mut Image| image.state = ImageState::Failed) as fn(&mut Image),
            |image| image.snapshot_id = None,
            |image| image.environment_digest = "e2".to_owned(),
            |image| image.base_digest = "b2".to_owned(),
            |image| image.line_length = MAX_LINE,
            |image| image.line_began_at_ms = 0,
        ] {
            let mut image = published(31);
            change(&mut image);
            assert!(!can_build_on(&image, &facts), "{image:?}");
        }
    }

    #[test]
    fn a_step_is_cached_as_long_as_its_key_is_the_same() {
        let plan = plan();
        let facts = |environment_digest| Facts {
            environment_digest,
            base_digest: "b1",
            plan: &plan,
            now_ms: NOW,
        };
        let first = key(&facts("e1"), "", StepName::Setup, &step("npm ci"), "i1");
        assert_eq!(
            first,
            key(&facts("e1"), "", StepName::Setup, &step("npm ci"), "i1")
        );
        let others = [
            key(&facts("e2"), "", StepName::Setup, &step("npm ci"), "i1"),
            key(&facts("e1"), "x", StepName::Setup, &step("npm ci"), "i1"),
            key(&facts("e1"), "", StepName::Build, &step("npm ci"), "i1"),
            key(&facts("e1"), "", StepName::Setup, &step("npm i"), "i1"),
            key(&facts("e1"), "", StepName::Setup, &step("npm ci"), "i2"),
        ];
        assert!(!others.contains(&first));
        let mut image = published(1);
        image.steps.push(ImageStep {
            name: StepName::Setup,
            outcome: StepOutcome::Done,
            duration_ms: 1,
            key: first.clone(),
        });
        assert!(is_cached(Some(&image), StepName::Setup, &first));
        assert!(!is_cached(Some(&image), StepName::Build, &first));
        assert!(!is_cached(None, StepName::Setup, &first));
        image.steps[0].outcome = StepOutcome::Failed;
        assert!(!is_cached(Some(&image), StepName::Setup, &first));
    }

    #[test]
    fn the_newest_images_stay() {
        let failed = Image {
            state: ImageState::Failed,
            ..published(1)
        };
        let mut other_branch = published(1);
        other_branch.branch = "next".to_owned();
        let mut images = vec![published(1), published(2), other_branch, published(3)];
        images.extend(std::iter::repeat_n(failed, 12));
        let gone: Vec<_> = outdated(&images)
            .iter()
            .map(|image| image.created_at_ms)
            .collect();
        assert_eq!(gone, [NOW - 3 * MINUTE, NOW - MINUTE, NOW - MINUTE]);
    }

    #[test]
    fn inputs_are_git_patterns() {
        let named = StepDefinition {
            run: String::new(),
            inputs: vec!["crates/".to_owned(), "a.txt".to_owned()],
            secrets: Vec::new(),
        };
        let matching = |patterns: &[&str]| {
            Inputs::Matching(patterns.iter().map(|text| format!(":(glob){text}")).collect())
        };
        assert_eq!(
            inputs(StepName::Build, &named, ""),
            matching(&["crates", "crates/**", "a.txt", "a.txt/**"])
        );
        assert_eq!(inputs(StepName::Build, &step("make"), ""), Inputs::All);
        assert_eq!(inputs(StepName::Features, &step("install"), ""), Inputs::None);
        let Inputs::Matching(patterns) = inputs(StepName::Setup, &step("make"), "core") else {
            panic!("setup depends on dependency files");
        };
        assert!(patterns.contains(&":(glob)**/Cargo.lock".to_owned()));
        // In another repository of the workspace.
        for (text, expected) in [
            ("libraries/core/src", matching(&["src", "src/**"])),
            ("libraries/core", Inputs::All),
            ("libraries", Inputs::All),
            ("**/*.rs", matching(&["**/*.rs", "**/*.rs/**"])),
            ("libraries/core2", Inputs::None),
            ("src", Inputs::None),
        ] {
            let named = StepDefinition {
                inputs: vec![text.to_owned()],
                ..step("make")
            };
            assert_eq!(
                inputs(StepName::Build, &named, "libraries/core"),
                expected,
                "{text}"
            );
        }
    }
}
