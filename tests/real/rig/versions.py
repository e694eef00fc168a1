"""The Cassandra releases that the rig can start, and what each needs to run on Java 17."""
from dataclasses import dataclass

# Nothing that a ring of our kind uses: drivers, native TLS, other platforms' parts.
UNUSED = (
    "com.datastax.cassandra:cassandra-driver-core", "org.apache.cassandra:cassandra-driver-core",
    "io.netty:netty-tcnative-boringssl-static", "io.netty:netty-transport-native-kqueue",
    "io.netty:netty-transport-classes-kqueue", "io.netty:netty-resolver-dns-native-macos", "net.java.dev.jna:jna-platform",
)


@dataclass(frozen=True)
class Version:
    release: str
    exclusions: tuple = ()
    extra: tuple = ()
    # `-javaagent:jamm`: 5.0 and later find it by themselves.
    agent: bool = False
    # Before 4.1 sizes and durations in cassandra.yaml had their unit in the key.
    old_keys: bool = False
    yaml: str = ""

    @property
    def coordinates(self):
        return (f"org.apache.cassandra:cassandra-all:{self.release}", *self.extra)

    @property
    def has_peers_v2(self):
        return not self.release.startswith("3.")


VERSIONS = {
    "5.0": Version("5.0.9", exclusions=UNUSED),
    "4.1": Version("4.1.10", agent=True),
    "4.0": Version("4.0.19", agent=True, old_keys=True),
    "3.11": Version("3.11.19", extra=("org.apache.cassandra:cassandra-thrift:3.11.19",), agent=True, old_keys=True,
                    yaml="start_native_transport: true\nstart_rpc: false\n"),
    "6.0": Version("6.0-alpha2", yaml="discovery_timeout: 1s\n"),
}

NEW_KEYS = """commitlog_sync_period: 10000ms
commitlog_segment_size: 8MiB
commitlog_total_space: 64MiB
memtable_heap_space: 32MiB
memtable_offheap_space: 32MiB
file_cache_size: 16MiB
networking_cache_size: 16MiB
key_cache_size: 4MiB
counter_cache_size: 1MiB
index_summary_capacity: 4MiB
"""

OLD_KEYS = """commitlog_sync_period_in_ms: 10000
commitlog_segment_size_in_mb: 8
commitlog_total_space_in_mb: 64
memtable_heap_space_in_mb: 32
memtable_offheap_space_in_mb: 32
file_cache_size_in_mb: 16
key_cache_size_in_mb: 4
counter_cache_size_in_mb: 1
index_summary_capacity_in_mb: 4
"""

COMMON_KEYS = """cluster_name: rig
num_tokens: 1
initial_token: '{token}'
auto_bootstrap: false
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: GossipingPropertyFileSnitch
seed_provider: [{{class_name: org.apache.cassandra.locator.SimpleSeedProvider, parameters: [{{seeds: "{seeds}"}}]}}]
listen_address: {address}
rpc_address: {address}
native_transport_port: 9042
data_file_directories: [{data}/data]
commitlog_directory: {data}/commitlog
hints_directory: {data}/hints
saved_caches_directory: {data}/saved_caches
cdc_raw_directory: {data}/cdc_raw
commitlog_sync: periodic
concurrent_reads: 8
concurrent_writes: 8
concurrent_counter_writes: 4
native_transport_max_threads: 16
concurrent_compactors: 1
auto_snapshot: false
hinted_handoff_enabled: false
"""

AUTH_KEYS = """authenticator: PasswordAuthenticator
authorizer: CassandraAuthorizer
role_manager: CassandraRoleManager
roles_validity{ms}: {zero}
permissions_validity{ms}: {zero}
credentials_validity{ms}: {zero}
"""

# Optional: plaintext and TLS on one port, so that one ring serves both cells.
TLS_KEYS = """client_encryption_options:
  enabled: true
  optional: true
  require_client_auth: false
  keystore: {keystore}
  keystore_password: cassandra
  store_type: PKCS12
"""

# Who speaks TLS has to show a certificate; without TLS everybody is served where `optional` says so.
MUTUAL_TLS_KEYS = """client_encryption_options:
  enabled: true
  optional: {optional}
  require_client_auth: true
  keystore: {keystore}
  keystore_password: cassandra
  truststore: {truststore}
  truststore_password: cassandra
  store_type: PKCS12
"""

# CEP-34: who somebody is, the SPIFFE URI of the certificate says.
MUTUAL_AUTH_KEYS = """authenticator:
  class_name: org.apache.cassandra.auth.{authenticator}
  parameters: {{validator_class_name: org.apache.cassandra.auth.SpiffeCertificateValidator}}
authorizer: CassandraAuthorizer
role_manager: CassandraRoleManager
roles_validity: 0ms
permissions_validity: 0ms
credentials_validity: 0ms
"""

LOGBACK = """<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level %date{{ISO8601}} %F:%L - %msg%n</pattern></encoder>
  </appender>
  <root level="{level}"><appender-ref ref="OUT"/></root>
</configuration>
"""

EXPORTS = """java.base/jdk.internal.misc java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry
java.rmi/sun.rmi.server jdk.attach/sun.tools.attach java.sql/java.sql java.base/java.lang.ref jdk.unsupported/sun.misc
java.base/jdk.internal.ref java.base/sun.nio.ch""".split()

OPENS = """java.base/java.lang java.base/java.lang.module java.base/java.lang.reflect java.base/java.io java.base/java.util
java.base/sun.nio.ch java.base/jdk.internal.loader java.base/jdk.internal.ref java.base/jdk.internal.reflect
java.base/jdk.internal.math java.base/jdk.internal.module java.base/jdk.internal.util.jar java.base/java.nio
java.base/java.util.concurrent java.base/java.util.concurrent.atomic jdk.management/com.sun.management.internal""".split()
