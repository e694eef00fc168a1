//! The command line. Flags and file are two spellings of one [`File`](crate::config::File): what a flag can say, the file
//! says under the same name, and both are checked by the same code.

mod check;
mod demo;
mod reload;
mod run;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::HostPort;

pub use demo::DemoArgs;
pub use run::RunArgs;

/// The front door for Apache Cassandra: one external address, each node a port of it.
///
/// cqlgate stands between CQL drivers and a Cassandra cluster whose nodes they cannot reach. Each node becomes a port of
/// one address; what drivers read about the cluster (system.local, system.peers, system.peers_v2 and events) names these
/// ports, so that unmodified drivers find every node, route token-aware, and never dial an address that does not answer.
#[derive(Debug, Parser)]
#[command(name = "cqlgate", version, after_long_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  Try it, with three simulated nodes and no Cassandra:
    cqlgate demo

  In front of a running cluster, with no file; nodes become ports 9042, 9043, … of this machine:
    cqlgate run --contact-point 10.1.2.3

  The same, with what clients shall dial, and credentials for the gateway's own look at the cluster:
    cqlgate run --contact-point 10.1.2.3 --advertise gateway.example.com \\
        --username cqlgate --password-file /etc/cqlgate/password

  From a file (proxy-config/ has one for each way of use; reference.yaml has every key):
    cqlgate check gateway.yaml && cqlgate run --config gateway.yaml

While it runs, the admin address (127.0.0.1:9180) serves /topology, /metrics, /livez, /readyz and /log-level.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway, from a file or from flags.
    Run(RunArgs),
    /// Read a file, print what it means with every default and the port of each node, and exit.
    ///
    /// An error shows the line of the file, and the exit status is 1.
    Check {
        /// The configuration file.
        file: PathBuf,
        /// Dial the nodes, too, as the gateway would, and say what each speaks and whether it takes the login.
        #[arg(long)]
        nodes: bool,
        /// The same, for this node in place of those that the file names; may be given several times. Without a port, 9042.
        #[arg(long, value_name = "HOST[:PORT]")]
        node: Vec<HostPort>,
    },
    /// Three simulated nodes and the gateway in one process: try any driver, with no Cassandra.
    ///
    /// Prints what to type next, and then what arrives on which port. Ends with Ctrl-C.
    Demo(DemoArgs),
}

/// Parses the process's arguments and does what they say.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Check { file, nodes, node } => check::check(&file, (nodes || !node.is_empty()).then_some(&node)),
        Command::Demo(args) => demo::demo(&args),
    };
    crate::telemetry::flush();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
