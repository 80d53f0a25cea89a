//! Archives that hold one image of one program.
//!
//! An OCI image layout (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md>)
//! that has a `manifest.json` beside its `index.json`, as `docker save` writes it: whoever knows
//! either takes it. Equal contents make equal bytes.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// What an image is made of.
pub(crate) struct Image<'a> {
    /// Its names, with tags.
    pub(crate) names: &'a [&'a str],
    /// As Go calls it.
    pub(crate) architecture: &'a str,
    /// The only file, which is what starts: where the image has it, and where it is.
    pub(crate) program: (&'a str, &'a Path),
    /// What it is given, if nothing else is said.
    pub(crate) arguments: &'a [&'a str],
}

impl Image<'_> {
    pub(crate) fn write(&self, archive: &Path) -> Result<()> {
        let write = || {
            fs::create_dir_all(archive.parent().unwrap_or(Path::new("")))?;
            let mut file = BufWriter::new(File::create(archive)?);
            self.layout(&mut file)?;
            file.flush()?;
            Ok::<_, anyhow::Error>(())
        };
        write().with_context(|| format!("write {}", archive.display()))
    }

    fn layout(&self, out: impl Write) -> Result<()> {
        let layer = Blob::new("application/vnd.oci.image.layer.v1.tar", self.layer()?);
        let config = Blob::json(
            "application/vnd.oci.image.config.v1+json",
            &self.config(&layer),
        );
        let manifest = Blob::json(
            MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.descriptor(),
                "layers": [layer.descriptor()],
            }),
        );
        let listed = self.names.iter().map(|name| {
            let mut listed = manifest.descriptor();
            listed["annotations"] = json!({
                "io.containerd.image.name": full(name),
                "org.opencontainers.image.ref.name": name,
            });
            listed
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": listed.collect::<Vec<_>>(),
        });
        let docker = json!([{
            "Config": config.path(),
            "RepoTags": self.names,
            "Layers": [layer.path()],
        }]);

        let mut tar = Builder::new(out);
        append(
            &mut tar,
            "oci-layout",
            br#"{"imageLayoutVersion":"1.0.0"}"#,
            0o644,
        )?;
        append(&mut tar, "index.json", index.to_string().as_bytes(), 0o644)?;
        append(
            &mut tar,
            "manifest.json",
            docker.to_string().as_bytes(),
            0o644,
        )?;
        for blob in [&config, &manifest, &layer] {
            append(&mut tar, &blob.path(), &blob.content, 0o644)?;
        }
        tar.finish()?;
        Ok(())
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let (path, program) = self.program;
        let content = fs::read(program).with_context(|| format!("read {}", program.display()))?;
        let mut tar = Builder::new(Vec::new());
        for (slash, _) in path.match_indices('/') {
            let mut header = header(0, 0o755);
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, &path[..=slash], &[][..])?;
        }
        append(&mut tar, path, &content, 0o755)?;
        Ok(tar.into_inner()?)
    }

    fn config(&self, layer: &Blob) -> Value {
        let path = format!("/{}", self.program.0);
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let folder = if folder.is_empty() { "/" } else { folder };
        json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": self.architecture,
            "os": "linux",
            "config": {
                "Entrypoint": [path],
                "Cmd": self.arguments,
                "Env": [format!("PATH={folder}")],
            },
            "rootfs": { "type": "layers", "diff_ids": [layer.digest()] },
        })
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Content that is known by its hash.
struct Blob {
    kind: &'static str,
    content: Vec<u8>,
    hash: String,
}

impl Blob {
    fn new(kind: &'static str, content: Vec<u8>) -> Self {
        let hash = sha256(&content);
        Self {
            kind,
            content,
            hash,
        }
    }

    fn json(kind: &'static str, content: &Value) -> Self {
        Self::new(kind, content.to_string().into_bytes())
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.hash)
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.hash)
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.kind, "digest": self.digest(), "size": self.content.len() })
    }
}

/// A name as engines complete it.
fn full(name: &str) -> String {
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

/// In hexadecimal digits.
pub(crate) fn sha256(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn append(tar: &mut Builder<impl Write>, path: &str, content: &[u8], mode: u32) -> Result<()> {
    let mut header = header(content.len() as u64, mode);
    tar.append_data(&mut header, path, content)?;
    Ok(())
}

/// Root's, and of no time.
fn header(size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, env, io::Read};

    use super::*;

    fn files(archive: &[u8]) -> Result<BTreeMap<String, (u32, Vec<u8>)>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries()? {
            let mut entry = entry?;
            let path = entry.path()?.display().to_string();
            let mode = entry.header().mode()?;
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            files.insert(path, (mode, content));
        }
        Ok(files)
    }

    fn image(program: &Path) -> Image<'_> {
        Image {
            names: &["example:1.2.3", "example.test/example:1"],
            architecture: "amd64",
            program: ("usr/bin/example", program),
            arguments: &["serve"],
        }
    }

    #[test]
    fn both_indexes_lead_to_the_program_by_true_digests() -> Result<()> {
        let this = env::current_exe()?;
        let mut archive = Vec::new();
        image(&this).layout(&mut archive)?;
        let files = files(&archive)?;
        let read =
            |path: &str| Ok::<_, anyhow::Error>(&files.get(path).context(path.to_owned())?.1);
        let json = |path: &str| Ok::<Value, anyhow::Error>(serde_json::from_slice(read(path)?)?);
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().context("no digest")?;
            let hash = digest.strip_prefix("sha256:").context("another hash")?;
            let path = format!("blobs/sha256/{hash}");
            let content = read(&path)?;
            assert_eq!(descriptor["size"], content.len());
            assert_eq!(Blob::new("", content.clone()).hash, hash);
            Ok::<_, anyhow::Error>(path)
        };

        let manifest = json(&blob(&json("index.json")?["manifests"][0])?)?;
        let config = blob(&manifest["config"])?;
        let layer = blob(&manifest["layers"][0])?;
        let docker = &json("manifest.json")?[0];
        assert_eq!(
            docker["RepoTags"],
            json!(["example:1.2.3", "example.test/example:1"])
        );
        let full = ["docker.io/library/example:1.2.3", "example.test/example:1"];
        for (index, full) in full.into_iter().enumerate() {
            let annotations = &json("index.json")?["manifests"][index]["annotations"];
            assert_eq!(annotations["io.containerd.image.name"], full);
        }
        assert_eq!(docker["Config"], config.as_str());
        assert_eq!(docker["Layers"], json!([layer]));

        let config = json(&config)?;
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            manifest["layers"][0]["digest"]
        );
        assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/example"]));
        assert_eq!(config["config"]["Cmd"], json!(["serve"]));
        assert_eq!(config["config"]["Env"], json!(["PATH=/usr/bin"]));
        let inside = self::files(read(&layer)?)?;
        let names: Vec<_> = inside.keys().map(String::as_str).collect();
        assert_eq!(names, ["usr/", "usr/bin/", "usr/bin/example"]);
        let (mode, program) = &inside["usr/bin/example"];
        assert_eq!(*mode, 0o755);
        assert!(*program == fs::read(&this)?);
        Ok(())
    }

    #[test]
    fn the_same_program_makes_the_same_archive() -> Result<()> {
        let this = env::current_exe()?;
        let (mut one, mut other) = (Vec::new(), Vec::new());
        image(&this).layout(&mut one)?;
        image(&this).layout(&mut other)?;
        assert!(one == other);
        Ok(())
    }
}
