//! What the server's operator allows of an environment. Pure. What makes a sandbox smaller than asked for is cut and said;
//! what would make it less isolated than asked for is refused.

use super::check::CheckedEnvironment;
use crate::sandbox::SandboxResources;
use greenroom_protocol::client::environment::EnvironmentSource;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::environment::{
    Backend, Base, EgressPolicy, EgressPreset, Environment, FeatureDefinition, PoolSettings,
    RepositoryDefinition, Resources, StepDefinition,
};
use greenroom_protocol::guest::service::Service;
use greenroom_protocol::reference::Reference;
use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// What environments may ask for on this server.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// What every sandbox gets that asks for nothing, and the most that any gets.
    pub maximum: SandboxResources,
    /// Allowed backends; the first is used where none is asked for. Never empty.
    pub backends: Vec<Backend>,
    /// Allowed programs of OCI runtimes; may be empty.
    pub runtimes: Vec<String>,
    /// Registries whose images a repository's own file may name.
    pub registries: Vec<String>,
    /// Where a repository's own file may let its sandboxes connect to.
    pub repository_egress: RepositoryEgress,
    /// Most sandboxes of one repository that may wait in the warm pool.
    pub max_pool: u32,
}

/// How far a repository's own file may open its sandboxes' way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryEgress {
    /// Not at all.
    None,
    /// By a preset, to no host of its own.
    Registries,
    /// To any public host.
    Any,
}

/// What sandboxes of a repository are started with.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundedEnvironment {
    pub source: EnvironmentSource,
    /// Beside the one whose environment it is; names and paths are unique.
    pub repositories: Vec<RepositoryDefinition>,
    pub base: Base,
    /// Who programs are in the sandbox; `None`: the agent.
    pub user: Option<String>,
    pub backend: Backend,
    /// Only with the backend `oci`; `None`: the first that the machine has.
    pub runtime: Option<String>,
    pub resources: SandboxResources,
    pub egress: EgressPolicy,
    /// Names are unique.
    pub variables: Vec<(String, String)>,
    /// Names are unique.
    pub services: Vec<Service>,
    pub image: ImagePlan,
    pub pool: PoolSettings,
    /// What was cut, in the order of the fields; may be empty.
    pub notices: Vec<Problem>,
}

/// What images of an environment are built by, defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct ImagePlan {
    /// Whether the steps run as root.
    pub as_root: bool,
    pub features: Vec<FeatureDefinition>,
    /// The step that installs them, as it is shown.
    pub install: Option<StepDefinition>,
    pub setup: Option<StepDefinition>,
    pub build: Option<StepDefinition>,
    pub warm: Option<StepDefinition>,
    pub rebuild_every: Duration,
    pub max_age: Duration,
    pub step_timeout: Duration,
}

impl ImagePlan {
    fn of(written: &Environment) -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes.saturating_mul(60));
        let settings = &written.image;
        Self {
            as_root: settings.as_root.unwrap_or(false),
            install: install(&written.features),
            features: written.features.clone(),
            setup: written.setup.clone(),
            build: written.build.clone(),
            warm: written.warm.clone(),
            rebuild_every: minutes(settings.rebuild_minutes.unwrap_or(30)),
            max_age: minutes(settings.max_age_hours.unwrap_or(168).saturating_mul(60)),
            step_timeout: minutes(settings.step_timeout_minutes.unwrap_or(30)),
        }
    }

    /// Whether anything is to be done beyond cloning.
    pub fn has_steps(&self) -> bool {
        !self.features.is_empty() || self.setup.is_some() || self.build.is_some() || self.warm.is_some()
    }
}

impl Bounds {
    /// The part of an environment that this server grants.
    ///
    /// # Errors
    /// `environment_refused`: it asks for a backend or runtime that is not allowed here.
    pub fn apply(
        &self,
        source: EnvironmentSource,
        environment: &CheckedEnvironment,
    ) -> Result<BoundedEnvironment, Problem> {
        let written = environment.written();
        let mut notices = Vec::new();
        let backend = self.backend(written)?;
        let base = self.base(source, environment.base(), backend)?;
        self.check_features(source, written)?;
        check_secrets(source, written)?;
        Ok(BoundedEnvironment {
            source,
            repositories: written.repositories.clone(),
            base,
            user: self.user(written, backend)?,
            backend,
            runtime: self.runtime(written)?,
            resources: self.resources(&written.resources, &mut notices),
            egress: self.egress(source, &written.egress, &mut notices),
            variables: written
                .variables
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            services: environment.services().to_vec(),
            image: ImagePlan::of(written),
            pool: self.pool(&written.pool, &mut notices),
            notices,
        })
    }

    fn base(&self, source: EnvironmentSource, base: &Base, backend: Backend) -> Result<Base, Problem> {
        let is_administrators = source == EnvironmentSource::Administrator;
        match base {
            Base::Host => {}
            _ if backend == Backend::Microvm => {
                return Err(refused(
                    "base: sandboxes in virtual machines have the host's programs only.".to_owned(),
                    "Name another backend, or leave the base out.".to_owned(),
                ));
            }
            Base::Files(_) if !is_administrators => {
                return Err(refused(
                    "base: only an administrator may name files of the server.".to_owned(),
                    "Name an image of a registry, or let an administrator set the environment (`greenroom env set`).".to_owned(),
                ));
            }
            Base::Image(reference) if !is_administrators => self.check_registry(reference)?,
            Base::Files(_) | Base::Image(_) => {}
        }
        Ok(base.clone())
    }

    /// Features come from registries.
    fn check_features(&self, source: EnvironmentSource, written: &Environment) -> Result<(), Problem> {
        for feature in &written.features {
            // Those that are none were refused before.
            if let (Ok(reference), EnvironmentSource::Repository) = (feature.reference.parse(), source) {
                self.check_registry(&reference)?;
            }
        }
        Ok(())
    }

    /// Whether a repository's own file may name something of a registry.
    pub fn check_registry(&self, reference: &Reference) -> Result<(), Problem> {
        match self.registries.contains(&reference.registry) {
            true => Ok(()),
            false => Err(refused(
                format!(
                    "{} is not a registry that repositories may name on this server.",
                    reference.registry
                ),
                format!(
                    "Allowed are: {} (`image.registries` of the server). An administrator's environment may name any.",
                    self.registries.join(", ")
                ),
            )),
        }
    }

    /// Other backends than that of namespaces cannot make root look like one.
    fn user(&self, written: &Environment, backend: Backend) -> Result<Option<String>, Problem> {
        let user = written.user.clone().filter(|user| user != "agent");
        let wants_other = user.is_some() || written.image.as_root == Some(true);
        match backend {
            Backend::Oci | Backend::Microvm if wants_other => Err(refused(
                "user: programs are the agent with this server's backends.".to_owned(),
                "Leave `user` and `image.as_root` out, or let the operator allow the backend namespace (`sandbox.backends`).".to_owned(),
            )),
            _ => Ok(user),
        }
    }

    fn backend(&self, written: &Environment) -> Result<Backend, Problem> {
        let allowed = || {
            let names: Vec<_> = self
                .backends
                .iter()
                .map(|backend| backend_name(*backend))
                .collect();
            names.join(", ")
        };
        match written.backend {
            Some(backend) if self.backends.contains(&backend) => Ok(backend),
            Some(backend) => Err(refused(
                format!(
                    "backend: `{}` is not allowed on this server.",
                    backend_name(backend)
                ),
                format!("Allowed are: {} (`sandbox.backends` of the server).", allowed()),
            )),
            None => Ok(self.backends.first().copied().unwrap_or_default()),
        }
    }

    fn runtime(&self, written: &Environment) -> Result<Option<String>, Problem> {
        match &written.runtime {
            Some(runtime) if !self.runtimes.contains(runtime) => Err(refused(
                format!("runtime: `{runtime}` is not allowed on this server."),
                format!(
                    "Allowed are: {} (`sandbox.runtimes` of the server).",
                    self.runtimes.join(", ")
                ),
            )),
            runtime => Ok(runtime.clone()),
        }
    }

    fn resources(&self, asked: &Resources, notices: &mut Vec<Problem>) -> SandboxResources {
        let most = &self.maximum;
        let mut at_most = |field: &str, asked: Option<u64>, most: u64, unit: u64| match asked {
            Some(asked) if asked.saturating_mul(unit) > most => {
                notices.push(cut_resource(
                    field,
                    &asked.to_string(),
                    &(most / unit).to_string(),
                ));
                most
            }
            Some(asked) => asked.saturating_mul(unit),
            None => most,
        };
        let memory_bytes = at_most("memory_mb", asked.memory_mb, most.memory_bytes, MIB);
        let max_processes = at_most(
            "max_processes",
            asked.max_processes.map(u64::from),
            most.max_processes.into(),
            1,
        );
        let disk_bytes = at_most("disk_mb", asked.disk_mb, most.disk_bytes, MIB);
        let max_open_files = at_most("max_open_files", asked.max_open_files, most.max_open_files, 1);
        let wall_time_s = at_most(
            "wall_time_minutes",
            asked.wall_time_minutes,
            most.wall_time.as_secs(),
            60,
        );
        let max_output_bytes = at_most("max_output_mb", asked.max_output_mb, most.max_output_bytes, MIB);
        // At least 0.1 was checked.
        let asked_millis = asked.cpus.map(|cpus| (cpus * 1000.0).round() as u64);
        let cpu_millis = match asked_millis {
            Some(asked) if asked > u64::from(most.cpu_millis) => {
                let given = f64::from(most.cpu_millis) / 1000.0;
                notices.push(cut_resource(
                    "cpus",
                    &(asked as f64 / 1000.0).to_string(),
                    &given.to_string(),
                ));
                most.cpu_millis
            }
            // Less than another u32.
            Some(asked) => asked as u32,
            None => most.cpu_millis,
        };
        SandboxResources {
            memory_bytes,
            cpu_millis,
            // Not more than the maximum, which fits.
            max_processes: u32::try_from(max_processes).unwrap_or(most.max_processes),
            disk_bytes,
            max_open_files,
            wall_time: Duration::from_secs(wall_time_s),
            max_output_bytes,
        }
    }

    fn pool(&self, asked: &PoolSettings, notices: &mut Vec<Problem>) -> PoolSettings {
        let mut given = asked.clone();
        for (field, value) in [("minimum", &mut given.minimum), ("maximum", &mut given.maximum)] {
            if let Some(asked) = value.filter(|asked| *asked > self.max_pool) {
                *value = Some(self.max_pool);
                notices.push(
                    Problem::permanent(
                        "environment_cut",
                        format!(
                            "pool.{field}: {asked} asked for, {} given, the most on this server.",
                            self.max_pool
                        ),
                    )
                    .with_hint(
                        "The operator's limit is `pool.max_per_repository` of the server's configuration.",
                    ),
                );
            }
        }
        given
    }

    fn egress(
        &self,
        source: EnvironmentSource,
        asked: &EgressPolicy,
        notices: &mut Vec<Problem>,
    ) -> EgressPolicy {
        // Nobody but an administrator speaks for the company.
        if source == EnvironmentSource::Administrator {
            return asked.clone();
        }
        let mut given = asked.clone();
        let mut cut = |field: &str, what: String, hint: &str| {
            notices.push(
                Problem::permanent("environment_cut", format!("egress.{field}: {what}.")).with_hint(hint),
            );
        };
        const BY_OPERATOR: &str = "An administrator can set the environment of this repository (`greenroom env set`), or \
                                   the operator can widen `egress.repositories`.";
        if self.repository_egress == RepositoryEgress::None && asked.preset != EgressPreset::None {
            given.preset = EgressPreset::None;
            cut(
                "preset",
                "a repository's own file may open no way out on this server".to_owned(),
                BY_OPERATOR,
            );
        }
        if self.repository_egress != RepositoryEgress::Any && !asked.allow.is_empty() {
            given.allow.clear();
            let hosts = listed(&asked.allow);
            cut(
                "allow",
                format!("a repository's own file may name no hosts on this server; left out: {hosts}"),
                BY_OPERATOR,
            );
        }
        if !asked.credentials.is_empty() {
            given.credentials.clear();
            cut(
                "credentials",
                "only an administrator may give credentials; none is used".to_owned(),
                "An administrator can set the environment of this repository with `greenroom env set`.",
            );
        }
        given
    }
}

/// A repository's own file could give them to anybody.
fn check_secrets(source: EnvironmentSource, written: &Environment) -> Result<(), Problem> {
    let steps = [&written.setup, &written.build, &written.warm];
    let has_secrets = steps.into_iter().flatten().any(|step| !step.secrets.is_empty());
    match source {
        EnvironmentSource::Administrator => Ok(()),
        _ if has_secrets => Err(refused(
            "secrets: only an administrator may give secrets to steps.".to_owned(),
            "An administrator can set the environment of this repository with `greenroom env set`."
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

fn install(features: &[FeatureDefinition]) -> Option<StepDefinition> {
    let names: Vec<_> = features
        .iter()
        .map(|feature| feature.reference.as_str())
        .collect();
    (!names.is_empty()).then(|| StepDefinition {
        run: format!("install {}", names.join(" ")),
        inputs: Vec::new(),
        secrets: Vec::new(),
    })
}

/// A few names, and how many more.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn cut_resource(field: &str, asked: &str, given: &str) -> Problem {
    Problem::permanent(
        "environment_cut",
        format!("resources.{field}: {asked} asked for, {given} given, the most on this server."),
    )
    .with_hint("The operator's limits of sandboxes are in the server's configuration, section [sandbox].")
}

fn refused(message: String, hint: String) -> Problem {
    Problem::permanent("environment_refused", message).with_hint(hint)
}

/// As it is written.
pub fn backend_name(backend: Backend) -> &'static str {
    match backend {
        Backend::Namespace => "namespace",
        Backend::Oci => "oci",
        Backend::Microvm => "microvm",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::read_toml;

    fn bounds(repository_egress: RepositoryEgress) -> Bounds {
        Bounds {
            registries: vec!["docker.io".to_owned()],
            maximum: SandboxResources {
                memory_bytes: 1024 * MIB,
                cpu_millis: 2_000,
                max_processes: 100,
                disk_bytes: 500 * MIB,
                max_open_files: 1_000,
                wall_time: Duration::from_secs(3_600),
                max_output_bytes: 8 * MIB,
            },
            backends: vec![Backend::Namespace, Backend::Oci],
            runtimes: vec!["runsc".to_owned()],
            max_pool: 4,
            repository_egress,
        }
    }

    fn bounded(
        text: &str,
        source: EnvironmentSource,
        egress: RepositoryEgress,
    ) -> Result<BoundedEnvironment, Problem> {
        let checked = read_toml("e", text.as_bytes()).unwrap();
        bounds(egress).apply(source, &checked)
    }

    const ALL_EGRESS: &str = "[egress]\npreset = \"package-registries\"\nallow = [\"a.example\"]\n\
                              [[egress.credentials]]\nhost = \"b.example\"\nheader = \"x\"\nsecret = \"s\"";

    #[test]
    fn a_repositorys_egress_is_as_wide_as_the_operator_says() {
        use RepositoryEgress::{Any, None, Registries};
        let cases = [
            (
                None,
                EgressPreset::None,
                0,
                vec!["preset", "allow", "credentials"],
            ),
            (
                Registries,
                EgressPreset::PackageRegistries,
                0,
                vec!["allow", "credentials"],
            ),
            (Any, EgressPreset::PackageRegistries, 1, vec!["credentials"]),
        ];
        for (egress, preset, hosts, cut) in cases {
            let given = bounded(ALL_EGRESS, EnvironmentSource::Repository, egress).unwrap();
            assert_eq!(given.egress.preset, preset, "{egress:?}");
            assert_eq!(given.egress.allow.len(), hosts, "{egress:?}");
            assert!(given.egress.credentials.is_empty(), "{egress:?}");
            let fields: Vec<_> = given
                .notices
                .iter()
                .map(|notice| {
                    notice
                        .message
                        .split(':')
                        .next()
                        .unwrap()
                        .trim_start_matches("egress.")
                })
                .collect();
            assert_eq!(fields, cut, "{egress:?}");
            assert!(
                given
                    .notices
                    .iter()
                    .all(|notice| notice.code == "environment_cut" && notice.hint.is_some())
            );
        }
        let given = bounded(ALL_EGRESS, EnvironmentSource::Administrator, None).unwrap();
        assert_eq!((given.egress.allow.len(), given.egress.credentials.len()), (1, 1));
        assert!(given.notices.is_empty());
    }

    #[test]
    fn resources_are_cut_to_the_servers_maximum_and_said() {
        let given = bounded("", EnvironmentSource::Defaults, RepositoryEgress::None).unwrap();
        assert_eq!(given.resources, bounds(RepositoryEgress::None).maximum);
        let asked = "[resources]\nmemory_mb = 2048\ncpus = 4\nmax_processes = 50\ndisk_mb = 100\nwall_time_minutes = 61\nmax_output_mb = 8";
        let given = bounded(asked, EnvironmentSource::Administrator, RepositoryEgress::None).unwrap();
        assert_eq!(given.resources.memory_bytes, 1024 * MIB);
        assert_eq!(given.resources.cpu_millis, 2_000);
        assert_eq!(given.resources.max_processes, 50);
        assert_eq!(given.resources.disk_bytes, 100 * MIB);
        assert_eq!(given.resources.wall_time, Duration::from_secs(3_600));
        let messages: Vec<_> = given
            .notices
            .iter()
            .map(|notice| notice.message.as_str())
            .collect();
        assert_eq!(
            messages,
            [
                "resources.memory_mb: 2048 asked for, 1024 given, the most on this server.",
                "resources.wall_time_minutes: 61 asked for, 60 given, the most on this server.",
                "resources.cpus: 4 asked for, 2 given, the most on this server.",
            ]
        );
    }

    #[test]
    fn another_isolation_than_asked_for_is_refused() {
        for (text, expected) in [
            (
                "backend = \"microvm\"",
                "backend: `microvm` is not allowed on this server.",
            ),
            (
                "backend = \"oci\"\nruntime = \"evil\"",
                "runtime: `evil` is not allowed on this server.",
            ),
        ] {
            for source in [EnvironmentSource::Repository, EnvironmentSource::Administrator] {
                let problem = bounded(text, source, RepositoryEgress::Any).unwrap_err();
                assert_eq!(
                    (problem.code.as_str(), problem.message.as_str()),
                    ("environment_refused", expected)
                );
            }
        }
        let given = bounded(
            "backend = \"oci\"\nruntime = \"runsc\"",
            EnvironmentSource::Repository,
            RepositoryEgress::None,
        );
        assert_eq!(given.unwrap().runtime.as_deref(), Some("runsc"));
    }
}
