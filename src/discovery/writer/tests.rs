//! In which order the writer hears, and what it does about probes that end.

use std::path::Path;

use super::*;
use crate::config::Config;
use crate::topology::input::{DeadReason, Found, Identity, Listed, Observation, Placement};
use crate::topology::ports::PortRange;
use crate::topology::state::Options;

/// Discovery has found one node, where nobody answers.
async fn writer() -> (Writer, Ends) {
    let text = "listen: 127.0.0.1:9042-9043\nadvertise: 127.0.0.1\ndiscovery: {contact_points: [\"127.0.0.1:1\"]}";
    let config = Config::parse("test.yaml", text, Path::new("/")).unwrap().config;
    let metrics = Metrics::new();
    let of_probes = Arc::clone(&metrics);
    let probes = |inputs, topology| Probes {
        dialer: Current::new(Dialer { deadline: Duration::from_secs(1), tls: None }),
        settings: Current::new(config.probe.clone()),
        login: OwnLogin::new(&config),
        inputs,
        topology,
        metrics: of_probes,
        readiness: Readiness::new(),
        wakes: Current::new(HashMap::new()),
        running: HashMap::new(),
        tasks: JoinSet::new(),
    };
    let state = State::new(PortRange::new(9042, 9043).unwrap(), Options::default());
    let (mut writer, ends) = Writer::new(state, probes, metrics, &Readiness::new(), None);
    let found = Found {
        id: NodeId::new("a"),
        address: nobody(),
        host: None,
        listed: Listed::Here,
        confirmed: true,
        leaving: false,
        placement: Placement::Assigned,
        port_why: None,
        host_id: None,
        data_center: None,
        rack: None,
    };
    writer.fold(Input::Nodes(vec![found])).await;
    (writer, ends)
}

fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

#[tokio::test]
async fn a_death_waits_behind_nothing_that_clients_rows_tell() {
    let (mut writer, ends) = writer().await;
    writer.probes.tasks.abort_all();
    let seen = || Input::Observed(Observation { port: 9042, incarnation: 1, identity: Identity::default() });
    while ends.observations.try_send(seen()).is_ok() {}
    let dead = Input::Dead { id: NodeId::new("a"), address: nobody(), reason: DeadReason::Refused };
    ends.inputs.try_send(dead).expect("it has a queue of its own");
    assert!(matches!(writer.next().await, Some(Input::Dead { .. })));
    assert!(matches!(writer.next().await, Some(Input::Observed(_))), "heard when there is nothing else");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_is_begun_anew_without_other_news() {
    let (mut writer, _ends) = writer().await;
    let id = NodeId::new("a");
    writer.probes.running[&id].task.abort();
    let broken = writer.probes.tasks.spawn(async { panic!("on purpose") });
    writer.probes.running.get_mut(&id).unwrap().task = broken.clone();
    // The next input is the new probe's: its node is dead.
    let heard = writer.next().await.unwrap();
    assert!(matches!(&heard, Input::Dead { id: dead, .. } if *dead == id), "{heard:?}");
    let second = &writer.probes.running[&id].task;
    assert!(second.id() != broken.id() && !second.is_finished());
    assert!(writer.metrics.render().unwrap().contains("cqlgate_tasks_ended_total{task=\"probe\"} 1"));
}
