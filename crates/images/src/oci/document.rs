//! Documents of the OCI image specification, as far as they matter here.

use super::failure::OciError;
use greenroom_protocol::reference::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Layers of one image.
const MAX_LAYERS: usize = 500;

/// A thing in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<Platform>,
}

/// For which machines an image is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Platform {
    pub(super) architecture: String,
    pub(super) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub(super) fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: None,
        }
    }

    fn runs(&self, offered: &Self) -> bool {
        self.os == offered.os && self.architecture == offered.architecture
    }

    pub(super) fn name(&self) -> String {
        match &self.variant {
            Some(variant) => format!("{}/{}/{variant}", self.os, self.architecture),
            None => format!("{}/{}", self.os, self.architecture),
        }
    }
}

/// What lies under a reference: an image, or a list of images for several platforms.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) config: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

impl Manifest {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, OciError> {
        let manifest: Self = document("the manifest", bytes)?;
        let fault = match () {
            () if manifest.schema_version != 2 => "its schema version is not 2",
            () if manifest.layers.len() > MAX_LAYERS => "it has too many layers",
            () if manifest.config.is_some() != manifest.manifests.is_empty() => {
                "it is neither an image nor a list of images"
            }
            () => return Ok(manifest),
        };
        Err(OciError::Document {
            what: "the manifest",
            message: fault.to_owned(),
        })
    }

    /// The image of a list that runs on a platform.
    pub(super) fn choose(&self, platform: &Platform) -> Result<&Descriptor, OciError> {
        let offered = || self.manifests.iter().filter_map(|image| image.platform.as_ref());
        let fits = |image: &&Descriptor| {
            image
                .platform
                .as_ref()
                .is_some_and(|offered| platform.runs(offered))
        };
        self.manifests
            .iter()
            .find(fits)
            .ok_or_else(|| OciError::Platform {
                wanted: platform.name(),
                offered: match offered().next() {
                    Some(_) => offered().map(Platform::name).collect::<Vec<_>>().join(", "),
                    None => "platforms that it does not name".to_owned(),
                },
            })
    }
}

/// An image's configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct ImageConfig {
    pub(super) architecture: String,
    pub(super) os: String,
    #[serde(default)]
    pub(super) config: RunConfig,
    pub(super) rootfs: RootFs,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<String>,
}

/// How programs of the image are meant to be run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct RunConfig {
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_null")]
    pub(super) env: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) working_dir: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_null")]
    pub(super) cmd: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_null")]
    pub(super) labels: BTreeMap<String, String>,
}

/// Go programs write empty lists as `null`.
fn or_null<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct RootFs {
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// Digests of the layers' archives before they were compressed, lowest first.
    pub(super) diff_ids: Vec<Digest>,
}

impl ImageConfig {
    /// Of an image with so many layers that runs here.
    pub(super) fn read(bytes: &[u8], layers: usize, platform: &Platform) -> Result<Self, OciError> {
        let config: Self = document("the configuration", bytes)?;
        let offered = Platform {
            architecture: config.architecture.clone(),
            os: config.os.clone(),
            variant: None,
        };
        if !platform.runs(&offered) {
            return Err(OciError::Platform {
                wanted: platform.name(),
                offered: offered.name(),
            });
        }
        if config.rootfs.diff_ids.len() != layers {
            return Err(OciError::Document {
                what: "the configuration",
                message: format!("it names {} layers, not {layers}", config.rootfs.diff_ids.len()),
            });
        }
        Ok(config)
    }
}

fn document<T: serde::de::DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, OciError> {
    serde_json::from_slice(bytes).map_err(|error| OciError::Document {
        what,
        message: error.to_string(),
    })
}
