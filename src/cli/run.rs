//! `cqlgate run`: from a file, or from flags that say the same.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::config::{Config, ConfigError, File, HostPort, Listen, Overlay, PlainPassword, Resolved};
use crate::proxy::descriptors;
use crate::telemetry;

/// Where everything comes from.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["config", "contact_point"]))]
pub struct RunArgs {
    /// The configuration file; cannot be combined with other flags.
    #[arg(long, value_name = "FILE", conflicts_with_all = FLAGS)]
    config: Option<PathBuf>,
    /// A node of the cluster, from which the others are found; may be given several times. Without a port, 9042.
    #[arg(long, value_name = "HOST[:PORT]")]
    contact_point: Vec<HostPort>,
    /// One address and a port for each node [default: 0.0.0.0:9042-9061].
    #[arg(long, value_name = "IP:FIRST-LAST")]
    listen: Option<Listen>,
    /// What clients dial: an IP address or a DNS name [default: the address of --listen, or where that is any, the address
    /// from which this machine reaches the first contact point].
    #[arg(long, value_name = "ADDRESS")]
    advertise: Option<String>,
    /// Where /metrics, /livez, /readyz, /topology and /log-level are served [default: 127.0.0.1:9180].
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<SocketAddr>,
    /// For a cluster with authentication: who the gateway's own look at it is. Clients log in as themselves.
    #[arg(long, value_name = "U", requires = "password_file")]
    username: Option<String>,
    /// The password of --username, alone in a file.
    #[arg(long, value_name = "F", requires = "username")]
    password_file: Option<PathBuf>,
    /// Who is sent the password over plain TCP: listed (the contact points), always (each node that is found) or never
    /// [default: listed].
    #[arg(long, value_name = "RULE", requires = "username")]
    plain_password: Option<PlainPassword>,
    /// Keeps each node's port across restarts of the gateway; made when it is not there.
    #[arg(long, value_name = "F")]
    state_file: Option<PathBuf>,
}

/// How long what is left may take when everything is over.
const STOPPING: Duration = Duration::from_secs(1);

const FLAGS: [&str; 7] = ["listen", "advertise", "admin", "username", "password_file", "plain_password", "state_file"];

/// Keys of the file and the flags that set them, in the order of `RunArgs::over`.
const KEYS: [(&str, &str); 8] = [
    ("discovery.contact_points", "--contact-point"),
    ("discovery.state_file", "--state-file"),
    ("probe.username", "--username"),
    ("probe.password_file", "--password-file"),
    ("probe.plain_password", "--plain-password"),
    ("listen", "--listen"),
    ("advertise", "--advertise"),
    ("admin", "--admin"),
];

pub(super) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let (Resolved { config, warnings }, chosen) = args.resolve(Overlay::of_process())?;
    let log_level = telemetry::init(&config.log)?;
    if let Some(chosen) = chosen {
        tracing::info!("{chosen}");
    }
    for name in Overlay::of_process().names() {
        tracing::info!("{name} counts, over what the file says");
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if let Some(misfit) = descriptors::misfits(&config, descriptors::raise()) {
        tracing::warn!("{misfit}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(super::serve::serve(args.config.clone(), config, log_level));
    // A worker that is stuck, or a disk that hangs, keeps no process alive.
    runtime.shutdown_timeout(STOPPING);
    served
}

impl RunArgs {
    /// The configuration that the arguments name or say, over what `environment` sets; and what was chosen where nobody says anything.
    fn resolve(&self, environment: Overlay) -> anyhow::Result<(Resolved, Option<String>)> {
        if let Some(path) = &self.config {
            return Ok((Config::load_under(path, &environment)?, None));
        }
        let chosen = match &self.advertise {
            None if !environment.sets("advertise") => {
                Some(self.route().context("--advertise is not given, and none can be chosen")?.to_string())
            }
            _ => None,
        };
        let overlay = self.over(environment, chosen.as_ref())?;
        let mut resolved = Config::read("the command line", "", Path::new(""), &overlay).map_err(by_flag)?;
        resolved.warnings = resolved.warnings.iter().map(|warning| with_flags(warning)).collect();
        let chosen = chosen.map(|address| format!("--advertise is not given: clients are told to dial {address}"));
        Ok((resolved, chosen))
    }

    /// What the flags say, over `overlay`.
    fn over(&self, mut overlay: Overlay, chosen: Option<&String>) -> anyhow::Result<Overlay> {
        let said = [
            serde_json::to_value(&self.contact_point)?,
            serde_json::to_value(&self.state_file)?,
            serde_json::to_value(&self.username)?,
            serde_json::to_value(&self.password_file)?,
            serde_json::to_value(self.plain_password)?,
            serde_json::to_value(self.listen)?,
            serde_json::to_value(self.advertise.as_ref().or(chosen))?,
            serde_json::to_value(self.admin)?,
        ];
        for ((key, flag), value) in KEYS.into_iter().zip(said).filter(|(_, value)| !value.is_null()) {
            overlay.set(flag, key, value);
        }
        Ok(overlay)
    }

    /// The address to which clients of this machine's network would come: that of `--listen` if it is one, else this
    /// machine's own on the route to the first contact point. Nothing is sent.
    fn route(&self) -> anyhow::Result<IpAddr> {
        let listen = self.listen.unwrap_or_else(File::listen).address;
        if !listen.is_unspecified() {
            return Ok(listen);
        }
        let point = self.contact_point.first().context("no contact point")?;
        let found = (point.host.as_str(), point.port).to_socket_addrs().with_context(|| format!("{point}"))?;
        let node = found.into_iter().next().with_context(|| format!("{point} has no address"))?;
        let any: IpAddr = if node.is_ipv4() {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(node).with_context(|| format!("no route to {node}"))?;
        Ok(socket.local_addr()?.ip())
    }
}

/// The same problems, with flags in place of keys.
fn by_flag(mut error: ConfigError) -> ConfigError {
    for problem in &mut error.problems {
        for (key, flag) in KEYS {
            if problem.key == key {
                flag.clone_into(&mut problem.key);
            }
        }
        problem.what = with_flags(&problem.what);
    }
    error
}

/// `text` with flags in place of keys.
fn with_flags(text: &str) -> String {
    let replace = |text: String, (key, flag)| {
        text.replace(&format!("{key} "), &format!("{flag} ")).replace(&format!("{key}: "), &format!("{flag}: "))
    };
    KEYS.into_iter().fold(text.to_owned(), replace)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        run: RunArgs,
    }

    fn resolve(flags: &str) -> Result<(Resolved, Option<String>), String> {
        resolve_under(flags, &[])
    }

    fn resolve_under(flags: &str, variables: &[(&str, &str)]) -> Result<(Resolved, Option<String>), String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let environment = Overlay::of_variables(variables);
        let args = Flags::try_parse_from(format!("run {flags}").split_whitespace()).map_err(|e| e.to_string())?;
        args.run.resolve(environment).map_err(|error| format!("{error:#}"))
    }

    /// Flags mean the same as a file with this text.
    fn check(flags: &str, text: &str) {
        let file = Config::parse("gate.yaml", text, Path::new("")).unwrap();
        assert_eq!(resolve(flags).unwrap().0.config, file.config, "{flags}");
    }

    #[test]
    fn flags_and_file_mean_the_same() {
        check(
            "--contact-point 10.1.2.3 --contact-point h:9043 --advertise gate.example.com",
            "advertise: gate.example.com\ndiscovery: {contact_points: [10.1.2.3, 'h:9043']}\n",
        );
        check(
            "--contact-point h --listen 10.0.0.1:9000-9009 --admin 0.0.0.0:9999",
            "listen: 10.0.0.1:9000-9009\nadvertise: 10.0.0.1\nadmin: 0.0.0.0:9999\ndiscovery: {contact_points: [h]}\n",
        );
        check(
            "--contact-point h --advertise g --username u --password-file Cargo.toml",
            "advertise: g\ndiscovery: {contact_points: [h]}\nprobe: {username: u, password_file: Cargo.toml}\n",
        );
        check(
            "--contact-point h --advertise g --username u --password-file Cargo.toml --plain-password always",
            "advertise: g\ndiscovery: {contact_points: [h]}\nprobe: {username: u, password_file: Cargo.toml, plain_password: always}\n",
        );
        check(
            "--contact-point h --advertise g --state-file ports.json",
            "advertise: g\ndiscovery: {contact_points: [h], state_file: ports.json}\n",
        );
    }

    #[test]
    fn a_flag_wins_over_the_environment_which_wins_over_the_default() {
        let variables = [
            ("CQLGATE__ADMIN", "127.0.0.1:9999"),
            ("CQLGATE__LISTEN", "10.0.0.1:9000-9009"),
            ("CQLGATE__DISCOVERY", "{contact_points: [other], state_file: ports.json}"),
            ("CQLGATE__ADVERTISE", "gate.example.com"),
        ];
        let found = resolve_under("--contact-point h --listen 10.0.0.2:9042-9043", &variables).unwrap();
        let same = resolve(
            "--contact-point h --listen 10.0.0.2:9042-9043 --admin 127.0.0.1:9999 --advertise gate.example.com --state-file ports.json",
        );
        assert_eq!((found.0.config, found.1), (same.unwrap().0.config, None));
        let error = resolve_under("--contact-point h --advertise g", &[("CQLGATE__PROBE__SILENCE", "1s")]);
        let error = error.map(|found| found.0.config).unwrap_err();
        assert!(error.starts_with("CQLGATE__PROBE__SILENCE: 1s is shorter than probe.interval"), "{error}");
    }

    #[test]
    fn advertises_the_address_towards_the_first_contact_point_and_says_so() {
        let (resolved, chosen) = resolve("--contact-point 127.0.0.1").unwrap();
        let expected = crate::config::External::Addresses { ipv4: Some([127, 0, 0, 1].into()), ipv6: None };
        assert_eq!(resolved.config.paths, crate::config::advertise::Path::everywhere(expected));
        assert!(chosen.unwrap().ends_with("clients are told to dial 127.0.0.1"));
        assert_eq!(resolve("--contact-point 127.0.0.1 --advertise g").unwrap().1, None);
    }

    #[test]
    fn warnings_speak_of_flags() {
        let warnings = |flags: &str| resolve(flags).unwrap().0.warnings;
        let lost = "--state-file is absent: nodes may get other ports when the gateway starts again";
        assert_eq!(warnings("--contact-point h --advertise g"), [lost]);
        assert_eq!(warnings("--contact-point h --advertise g --state-file ports.json"), [""; 0]);
        let local = "--advertise: 127.0.0.1 can be dialled from this machine only";
        assert_eq!(warnings("--contact-point h --advertise 127.0.0.1 --state-file ports.json"), [local]);
    }

    #[test]
    fn wrong_flags_are_named() {
        for (flags, words) in [
            ("", "--config <FILE>"),
            ("--config x --listen 0.0.0.0:9042", "cannot be used with"),
            ("--contact-point h --username u", "--password-file"),
            ("--contact-point h --username u --password-file f --plain-password no", "nor always nor never"),
            ("--contact-point h --plain-password always", "--username"),
            ("--contact-point h --listen 9042", "has no port"),
            ("--contact-point h --advertise 0.0.0.0", "--advertise: 0.0.0.0 cannot be dialled"),
            (
                "--contact-point h --advertise g --admin 127.0.0.1:9050",
                "--admin: port 9050 is within --listen 0.0.0.0:9042-9061",
            ),
            ("--contact-point h --advertise g --username u --password-file /no/such", "--password-file: /no/such"),
            ("--contact-point h --advertise g --state-file /no/such/ports", "--state-file: /no/such/ports"),
        ] {
            let error = resolve(flags).map(|(resolved, _)| resolved.config).unwrap_err();
            assert!(error.contains(words), "{flags}: {error}");
        }
    }
}
