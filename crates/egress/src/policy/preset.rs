//! The sets of hosts that a policy can name. Data only: public registries from which package managers fetch, each with what
//! it is for. Nothing else belongs here; what one environment needs it names itself.

use greenroom_protocol::environment::EgressPreset;

/// The rules of a preset, in the syntax of `allow`.
pub fn rules(preset: EgressPreset) -> &'static [&'static str] {
    match preset {
        EgressPreset::None => &[],
        EgressPreset::PackageRegistries => PACKAGE_REGISTRIES,
    }
}

const PACKAGE_REGISTRIES: &[&str] = &[
    // npm, pnpm, Yarn; headers for native modules.
    "registry.npmjs.org:443",
    "registry.yarnpkg.com:443",
    "nodejs.org:443",
    // pip, uv, Poetry.
    "pypi.org:443",
    "files.pythonhosted.org:443",
    // Cargo and rustup.
    "crates.io:443",
    "index.crates.io:443",
    "static.crates.io:443",
    "static.rust-lang.org:443",
    // Go modules and their checksums.
    "proxy.golang.org:443",
    "sum.golang.org:443",
    // Maven, Gradle.
    "repo.maven.apache.org:443",
    "repo1.maven.org:443",
    "plugins.gradle.org:443",
    // RubyGems, Bundler.
    "rubygems.org:443",
    "index.rubygems.org:443",
    // Composer.
    "repo.packagist.org:443",
    // NuGet.
    "api.nuget.org:443",
    // Hex (Elixir, Erlang).
    "hex.pm:443",
    "repo.hex.pm:443",
    // Packages of distributions; signed, so plain HTTP is what their tools use.
    "deb.debian.org",
    "security.debian.org",
    "archive.ubuntu.com",
    "security.ubuntu.com",
    "ports.ubuntu.com",
    "dl-cdn.alpinelinux.org",
];
