//! Layers as one tree, as an overlay shows them, without mounting anything.

use crate::marks::{Marks, is_whiteout};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

/// Links that are followed to find a path, as the kernel does.
const MAX_LINKS: usize = 40;

/// Largest file that is read as a whole, in bytes.
const MAX_READ_BYTES: u64 = 1 << 20;

/// Layers, topmost first.
#[derive(Debug, Clone)]
pub(crate) struct View {
    layers: Vec<PathBuf>,
    marks: Marks,
}

/// A name of the merged tree.
#[derive(Debug)]
pub(crate) enum Entry {
    Directory(Directory),
    /// Anything else, and where it lies.
    Other(PathBuf, Metadata),
}

/// A merged directory.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    /// Those that it is made of, topmost first: number of the layer, and place. Never empty.
    parts: Vec<(usize, PathBuf)>,
    /// Whether layers below these could add to it.
    pub(crate) is_open: bool,
    /// Whether layers below one of its parts have it under another name.
    pub(crate) is_redirected: bool,
}

impl Directory {
    /// The one whose mode, owner and time count.
    pub(crate) fn top(&self) -> &Path {
        &self.parts[0].1
    }
}

/// What layers have of one name.
enum Found {
    Nothing { is_open: bool },
    Entry(Entry),
}

impl View {
    pub(crate) fn new(layers: Vec<PathBuf>, marks: Marks) -> Self {
        Self { layers, marks }
    }

    /// `None` if there are no layers.
    pub(crate) fn root(&self) -> Option<Directory> {
        let parts: Vec<_> = self.layers.iter().cloned().enumerate().collect();
        (!parts.is_empty()).then_some(Directory {
            parts,
            is_open: true,
            is_redirected: false,
        })
    }

    /// What a directory holds, by name. Names that are gone are in it as `None` if lower layers could have them.
    pub(crate) fn list(&self, directory: &Directory) -> io::Result<BTreeMap<OsString, Option<Entry>>> {
        let mut names = BTreeMap::new();
        for (_, part) in &directory.parts {
            for entry in fs::read_dir(part)? {
                names.entry(entry?.file_name()).or_insert(None::<Entry>);
            }
        }
        let mut listed = BTreeMap::new();
        for (name, _) in names {
            let found = self.child(directory, &name)?;
            match found {
                Found::Entry(entry) => {
                    listed.insert(name, Some(entry));
                }
                Found::Nothing { .. } if directory.is_open => {
                    listed.insert(name, None);
                }
                Found::Nothing { .. } => {}
            }
        }
        Ok(listed)
    }

    /// One name of a directory.
    pub(crate) fn get(&self, directory: &Directory, name: &std::ffi::OsStr) -> io::Result<Option<Entry>> {
        match self.child(directory, name)? {
            Found::Entry(entry) => Ok(Some(entry)),
            Found::Nothing { .. } => Ok(None),
        }
    }

    fn child(&self, directory: &Directory, name: &std::ffi::OsStr) -> io::Result<Found> {
        let places = directory
            .parts
            .iter()
            .map(|(layer, part)| (*layer, part.join(name)));
        self.merge(places.collect(), directory.is_open)
    }

    /// Joins what stands at these places, topmost first.
    fn merge(&self, mut places: Vec<(usize, PathBuf)>, mut is_open: bool) -> io::Result<Found> {
        let mut parts: Vec<(usize, PathBuf)> = Vec::new();
        let (mut next, mut is_redirected) = (0, false);
        while next < places.len() {
            let (layer, place) = places[next].clone();
            next += 1;
            let metadata = match fs::symlink_metadata(&place) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if !metadata.is_dir() {
                is_open = false;
                if parts.is_empty() && !is_whiteout(&metadata) {
                    return Ok(Found::Entry(Entry::Other(place, metadata)));
                }
                break;
            }
            let (is_opaque, redirect) = (self.marks.is_opaque(&place)?, self.marks.redirect_of(&place)?);
            parts.push((layer, place));
            if is_opaque {
                is_open = false;
                break;
            }
            if let Some(redirect) = redirect {
                is_redirected = true;
                let (further, further_open) = self.redirected(&places[next..], layer, &redirect)?;
                places.truncate(next);
                places.extend(further);
                is_open = is_open && further_open;
            }
        }
        Ok(match parts.is_empty() {
            true => Found::Nothing { is_open },
            false => Found::Entry(Entry::Directory(Directory {
                parts,
                is_open,
                is_redirected,
            })),
        })
    }

    /// Where lower layers have what was renamed, and whether what is below the layers could have it too.
    fn redirected(
        &self,
        rest: &[(usize, PathBuf)],
        layer: usize,
        redirect: &Path,
    ) -> io::Result<(Vec<(usize, PathBuf)>, bool)> {
        if !redirect.is_absolute() {
            // A new name in the same directory.
            let renamed = rest
                .iter()
                .map(|(layer, place)| (*layer, place.with_file_name(redirect)));
            return Ok((renamed.collect(), true));
        }
        let below = Self::new(self.layers[layer + 1..].to_vec(), self.marks);
        let Some(mut directory) = below.root() else {
            return Ok((Vec::new(), true));
        };
        for component in redirect.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            match below.child(&directory, name)? {
                Found::Entry(Entry::Directory(found)) => directory = found,
                Found::Entry(Entry::Other(..)) => return Ok((Vec::new(), false)),
                Found::Nothing { is_open } => return Ok((Vec::new(), is_open)),
            }
        }
        let parts = directory.parts.into_iter();
        Ok((
            parts.map(|(number, place)| (layer + 1 + number, place)).collect(),
            directory.is_open,
        ))
    }

    /// The path without links that leads to the same, as a program would find it whose root this is. Names that do not exist
    /// stay as they are.
    pub(crate) fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut pending: Vec<OsString> = components(path);
        let mut resolved = PathBuf::new();
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == ".." {
                resolved.pop();
                continue;
            }
            match self.find(&resolved.join(&name))? {
                Some(Entry::Other(place, metadata)) if metadata.is_symlink() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(rustix::io::Errno::LOOP.into());
                    }
                    let target = fs::read_link(&place)?;
                    if target.is_absolute() {
                        resolved = PathBuf::new();
                    }
                    pending.extend(components(&target));
                }
                _ => resolved.push(&name),
            }
        }
        Ok(resolved)
    }

    /// What stands at a path without links.
    pub(crate) fn find(&self, path: &Path) -> io::Result<Option<Entry>> {
        let mut found = self.root().map(Entry::Directory);
        for component in path.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            found = match found {
                Some(Entry::Directory(directory)) => self.get(&directory, name)?,
                _ => return Ok(None),
            };
        }
        Ok(found)
    }

    /// The content of a file; `None` if there is no such file. Follows links. A file of more than `MAX_READ_BYTES` is an error.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match self.find(&self.resolve(path)?)? {
            Some(Entry::Other(place, metadata)) if metadata.is_file() => {
                let mut bytes = Vec::new();
                let length = fs::File::open(place)?
                    .take(MAX_READ_BYTES + 1)
                    .read_to_end(&mut bytes)?;
                match length as u64 > MAX_READ_BYTES {
                    true => {
                        let message = format!("{} has more than {MAX_READ_BYTES} bytes", path.display());
                        Err(io::Error::new(io::ErrorKind::InvalidData, message))
                    }
                    false => Ok(Some(bytes)),
                }
            }
            _ => Ok(None),
        }
    }
}

/// Last first.
fn components(path: &Path) -> Vec<OsString> {
    let kept = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    kept.collect::<Vec<_>>().into_iter().rev().collect()
}
