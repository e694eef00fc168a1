// Node.js driver; ../README.md has the lines that it speaks.
const cassandra = require('cassandra-driver');
const fs = require('fs');
const readline = require('readline');

const options = JSON.parse(process.argv[2]);
const say = line => process.stdout.write(JSON.stringify(line) + '\n');
const settings = {
  contactPoints: options.contacts,
  localDataCenter: 'dc1',
  protocolOptions: { port: Number(options.contacts[0].split(':')[1]), ...(options.version ? { maxVersion: options.version } : {}) },
  queryOptions: { prepare: true, consistency: cassandra.types.consistencies.one, isIdempotent: true },
  policies: {
    loadBalancing: new cassandra.policies.loadBalancing.TokenAwarePolicy(new cassandra.policies.loadBalancing.DCAwareRoundRobinPolicy('dc1')),
    reconnection: new cassandra.policies.reconnection.ConstantReconnectionPolicy(1000),
  },
};
if (options.pool) settings.pooling = { coreConnectionsPerHost: { [cassandra.types.distance.local]: options.pool } };
if (options.retries === false) settings.policies.retry = new cassandra.policies.retry.FallthroughRetryPolicy();
if (options.username) settings.credentials = { username: options.username, password: options.password };
if (options.ca) settings.sslOptions = {
  ca: [fs.readFileSync(options.ca)], rejectUnauthorized: true,
  ...(options.tls ? { minVersion: `TLSv${options.tls}`, maxVersion: `TLSv${options.tls}` } : {}),
  ...(options.certificate ? { cert: fs.readFileSync(options.certificate), key: fs.readFileSync(options.key) } : {}),
};
const client = new cassandra.Client(settings);
for (const [from, to] of [['hostAdd', 'add'], ['hostRemove', 'remove'], ['hostUp', 'up'], ['hostDown', 'down']])
  client.on(from, h => say({ event: to, address: h.address }));
// An error that reaches nobody would be a crash of the user's process: it must not look like an orderly end.
process.on('unhandledRejection', e => { console.error(e); process.exit(1); });

const hosts = () => client.hosts.values();
const idOf = address => { const h = hosts().find(h => h.address === address); return h ? String(h.hostId) : address; };
const pause = ms => new Promise(r => setTimeout(r, ms));
let load;

async function read() {
  const counts = { ok: 0, errors: 0, first: null, coordinators: {} };
  for (let k = 0; load.going; k = (k + 1) % 300) {
    try {
      const result = await client.execute('SELECT v FROM k3.t WHERE k = ?', [k]);
      counts.ok++;
      const id = idOf(result.info.queriedHost);
      counts.coordinators[id] = (counts.coordinators[id] || 0) + 1;
    } catch (e) {
      counts.errors++;
      counts.first = counts.first || String(e);
    }
    await pause(3);
  }
  return counts;
}

const commands = {
  nodes() {
    const control = client.controlConnection.host;
    say({ reply: 'nodes', control: control ? control.address : null, nodes: hosts().map(h => ({
      host_id: String(h.hostId), address: h.address.split(':')[0], port: Number(h.address.split(':')[1]), dc: h.datacenter, rack: h.rack,
      tokens: (h.tokens || []).map(String), up: h.isUp() })) });
  },
  async pin() {
    const pinned = [];
    for (const h of hosts()) {
      let says;
      try {
        says = String((await client.execute('SELECT host_id FROM system.local', [], { host: h, prepare: false })).first().host_id);
      } catch (e) { says = String(e); }
      pinned.push({ host_id: String(h.hostId), says });
    }
    say({ reply: 'pin', pinned });
  },
  async keys() {
    const keys = [];
    for (let k = 0; k < 300; k++) {
      const key = Buffer.alloc(4);
      key.writeInt32BE(k);
      const replicas = (client.getReplicas('k1', key) || []).map(h => String(h.hostId));
      let coordinator;
      try { coordinator = idOf((await client.execute('SELECT v FROM k1.t WHERE k = ?', [k])).info.queriedHost); } catch (e) { coordinator = String(e); }
      keys.push([k, replicas, coordinator]);
    }
    say({ reply: 'keys', keys });
  },
  start() { load = { going: true }; load.done = read(); say({ reply: 'start' }); },
  async stop() { load.going = false; say({ reply: 'stop', ...await load.done }); },
  async ddl(name) {
    try {
      const result = await client.execute(`CREATE TABLE k3.${name} (k int PRIMARY KEY)`, [], { prepare: false });
      say({ reply: 'ddl', agreed: result.info.isSchemaInAgreement, error: null });
    } catch (e) { say({ reply: 'ddl', agreed: false, error: String(e) }); }
  },
  async tables(argument) {
    const [name, count] = argument.split(',');
    const write = { prepare: false, isIdempotent: false, consistency: cassandra.types.consistencies.all, retry: new cassandra.policies.retry.FallthroughRetryPolicy() };
    const counts = { ok: 0, failed: 0, first: null }, times = [];
    for (let i = 0; i < Number(count); i++) {
      try {
        const begun = performance.now();
        await client.execute(`CREATE TABLE k3.${name}_${i} (k int PRIMARY KEY)`, [], { prepare: false });
        times.push(performance.now() - begun);
        await client.execute(`INSERT INTO k3.${name}_${i} (k) VALUES (1)`, [], write);
        counts.ok++;
      } catch (e) {
        counts.failed++;
        counts.first = counts.first || String(e);
      }
      await client.execute(`DROP TABLE IF EXISTS k3.${name}_${i}`, [], { prepare: false }).catch(() => {});
    }
    times.sort((a, b) => a - b);
    say({ reply: 'tables', ...counts, p50: times[times.length >> 1] || 0, slowest: times[times.length - 1] || 0 });
  },
  async quit() { await client.shutdown(); process.exit(0); },
};

(async () => {
  await client.connect();
  say({ event: 'ready', driver: 'node', protocol: 'v' + client.controlConnection.protocolVersion, compression: 'none' });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [command, argument] = line.split(' ');
    await commands[command](argument);
  }
})().catch(e => { console.error(e); process.exit(1); });
