//! Programs in pods: started through the API server, spoken to by lines.

use anyhow::{Context as _, bail};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines, ReadHalf,
    SimplexStream, WriteHalf,
};

use super::{Cluster, reason};

/// What may be under way between the API server and here, of each stream.
const BUFFER: usize = 64 << 10;
/// How much of what a program complains of is kept.
const COMPLAINT: u64 = 4 << 10;

/// Where a program is to run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Container {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container.
    pub container: String,
}

/// A program that runs; it is abandoned when this is dropped.
pub struct Process {
    attached: AttachedProcess,
    lines: Lines<BufReader<ReadHalf<SimplexStream>>>,
    complaint: tokio::task::JoinHandle<String>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; none where it did not come to its own end.
    pub code: Option<i32>,
    /// What it said on standard error, or the API server of it.
    pub complaint: String,
}

impl Process {
    /// Starts a program.
    ///
    /// # Errors
    ///
    /// The API server does not let us, or the pod is not there.
    pub async fn start(
        cluster: &Cluster,
        place: &Container,
        command: &[String],
    ) -> anyhow::Result<Self> {
        let pods = cluster.pods(&place.namespace);
        Self::of(pods.exec(&place.pod, command, &parameters(place)).await)
    }

    /// Speaks with the program that a container was started for.
    ///
    /// # Errors
    ///
    /// As of [`Process::start`].
    pub async fn attach(cluster: &Cluster, place: &Container) -> anyhow::Result<Self> {
        let pods = cluster.pods(&place.namespace);
        Self::of(pods.attach(&place.pod, &parameters(place)).await)
    }

    fn of(attached: Result<AttachedProcess, kube::Error>) -> anyhow::Result<Self> {
        let mut attached = match attached {
            Ok(attached) => attached,
            Err(error) => bail!("{}", reason(&error)),
        };
        let output = attached.stdout().context("no standard output")?;
        let errors = attached.stderr().context("no standard error")?;
        let complaint = tokio::spawn(async move {
            let mut text = Vec::new();
            let mut errors = errors.take(COMPLAINT);
            // What was read until it failed is all there is.
            drop(errors.read_to_end(&mut text).await);
            // Nobody reads the rest, which must not hold up the program.
            let mut rest = errors.into_inner();
            drop(tokio::io::copy(&mut rest, &mut tokio::io::sink()).await);
            String::from_utf8_lossy(&text).trim().to_owned()
        });
        Ok(Self {
            attached,
            lines: BufReader::new(output).lines(),
            complaint,
        })
    }

    /// Where the program reads; once only.
    pub fn input(&mut self) -> Option<Input> {
        self.attached.stdin().map(Input)
    }

    /// The next line that it says; none at its end.
    ///
    /// # Errors
    ///
    /// What it says is no text.
    pub async fn line(&mut self) -> anyhow::Result<Option<String>> {
        Ok(self.lines.next_line().await?)
    }

    /// All that it says, and how it ended.
    ///
    /// # Errors
    ///
    /// As of [`Process::line`].
    pub async fn finish(mut self) -> anyhow::Result<(String, Ended)> {
        let status = self.attached.take_status();
        drop(self.input());
        let mut text = String::new();
        while let Some(line) = self.line().await? {
            text += &line;
            text.push('\n');
        }
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        let complaint = self.complaint.await.unwrap_or_default();
        Ok((text, ended(status.as_ref(), complaint)))
    }
}

fn parameters(place: &Container) -> AttachParams {
    AttachParams::default()
        .container(&place.container)
        .stdin(true)
        .max_stdout_buf_size(BUFFER)
        .max_stderr_buf_size(BUFFER)
}

/// Where a program reads.
pub struct Input(WriteHalf<SimplexStream>);

impl Input {
    /// Sends a line.
    ///
    /// # Errors
    ///
    /// The program has ended, or the connection has.
    pub async fn send(&mut self, line: &str) -> std::io::Result<()> {
        self.0.write_all(format!("{line}\n").as_bytes()).await?;
        self.0.flush().await
    }
}

/// What the API server says of the end: an exit code is the message of a cause.
fn ended(status: Option<&Status>, complaint: String) -> Ended {
    let Some(status) = status else {
        return Ended {
            code: None,
            complaint,
        };
    };
    if status.status.as_deref() == Some("Success") {
        return Ended {
            code: Some(0),
            complaint,
        };
    }
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let code = causes
        .flatten()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .and_then(|cause| cause.message.as_deref()?.parse().ok());
    let complaint = match complaint.is_empty() {
        true => status.message.clone().unwrap_or_default(),
        false => complaint,
    };
    Ended { code, complaint }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(value: serde_json::Value) -> Status {
        serde_json::from_value(value).expect("a status")
    }

    #[test]
    fn the_exit_code_is_a_cause_of_the_failure() {
        let failed = status(json!({
            "status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated",
            "details": { "causes": [{ "reason": "ExitCode", "message": "3" }] },
        }));
        let said = ended(Some(&failed), "why".to_owned());
        assert_eq!((said.code, said.complaint.as_str()), (Some(3), "why"));
        let silent = ended(Some(&failed), String::new());
        assert_eq!(silent.complaint, "command terminated");
        let done = status(json!({ "status": "Success" }));
        assert_eq!(ended(Some(&done), String::new()).code, Some(0));
    }

    #[test]
    fn a_program_whose_end_nobody_told_has_no_code() {
        assert_eq!(ended(None, String::new()).code, None);
        let refused = status(json!({ "status": "Failure", "message": "no such file" }));
        let ended = ended(Some(&refused), String::new());
        assert_eq!(
            (ended.code, ended.complaint),
            (None, "no such file".to_owned())
        );
    }
}
