// Java driver 4; ../README.md has the lines that it speaks.
import com.datastax.oss.driver.api.core.*;
import com.datastax.oss.driver.api.core.config.*;
import com.datastax.oss.driver.api.core.cql.*;
import com.datastax.oss.driver.api.core.metadata.*;
import com.datastax.oss.driver.api.core.ssl.ProgrammaticSslEngineFactory;
import com.fasterxml.jackson.databind.*;
import java.io.*;
import java.net.InetSocketAddress;
import java.nio.file.*;
import java.security.*;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.ConcurrentHashMap;
import javax.net.ssl.*;

public class Probe {
  static final ObjectMapper JSON = new ObjectMapper();
  static CqlSession session;
  static PreparedStatement one, three;
  static Load load;

  static synchronized void say(Object... pairs) {
    Map<String, Object> line = new LinkedHashMap<>();
    for (int i = 0; i < pairs.length; i += 2) line.put((String) pairs[i], pairs[i + 1]);
    try { System.out.println(JSON.writeValueAsString(line)); } catch (IOException e) { throw new UncheckedIOException(e); }
    System.out.flush();
  }

  static InetSocketAddress address(String text) {
    String[] parts = text.split(":");
    return new InetSocketAddress(parts[0], Integer.parseInt(parts[1]));
  }

  static String endpoint(Node n) {
    InetSocketAddress a = (InetSocketAddress) n.getEndPoint().resolve();
    return a.getAddress().getHostAddress() + ":" + a.getPort();
  }

  static class Listener extends NodeStateListenerBase {
    public void onAdd(Node n) { say("event", "add", "address", endpoint(n)); }
    public void onUp(Node n) { say("event", "up", "address", endpoint(n)); }
    public void onDown(Node n) { say("event", "down", "address", endpoint(n)); }
    public void onRemove(Node n) { say("event", "remove", "address", endpoint(n)); }
  }

  static class Load extends Thread {
    volatile boolean going = true;
    int ok, errors;
    String first;
    Map<String, Integer> coordinators = new TreeMap<>();

    public void run() {
      for (int k = 0; going; k = (k + 1) % 300) {
        try {
          ResultSet result = session.execute(three.bind(k));
          ok++;
          coordinators.merge(String.valueOf(result.getExecutionInfo().getCoordinator().getHostId()), 1, Integer::sum);
          Thread.sleep(3);
        } catch (Exception e) {
          errors++;
          if (first == null) first = e.toString();
        }
      }
    }
  }

  static Certificate certificate(String path) throws Exception {
    try (InputStream in = new FileInputStream(path)) { return CertificateFactory.getInstance("X.509").generateCertificate(in); }
  }

  static SSLContext context(JsonNode options) throws Exception {
    KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
    store.load(null);
    store.setCertificateEntry("ca", certificate(text(options, "ca")));
    TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    factory.init(store);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(text(options, "certificate") == null ? null : shown(options), factory.getTrustManagers(), null);
    return context;
  }

  /** The client's own certificate, in a keystore as Java wants it. */
  static KeyManager[] shown(JsonNode options) throws Exception {
    String key = Files.readString(Path.of(text(options, "key"))).replaceAll("-----[A-Z ]+-----|\\s", "");
    PrivateKey decoded = KeyFactory.getInstance("RSA").generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(key)));
    KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
    store.load(null);
    store.setKeyEntry("own", decoded, new char[0], new Certificate[] {certificate(text(options, "certificate"))});
    KeyManagerFactory factory = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
    factory.init(store, new char[0]);
    return factory.getKeyManagers();
  }

  /** One version of TLS alone, where it is to be one. The name is checked; but no reverse look-up of addresses, which the guard would count as strangers' packets. */
  static class Engines extends ProgrammaticSslEngineFactory {
    final String version;

    Engines(JsonNode options) throws Exception {
      super(context(options), null, true, false);
      version = text(options, "tls");
    }

    public SSLEngine newSslEngine(EndPoint remote) {
      SSLEngine engine = super.newSslEngine(remote);
      if (version != null) engine.setEnabledProtocols(new String[] {"TLSv" + version});
      return engine;
    }
  }

  static String text(JsonNode options, String name) {
    return options.hasNonNull(name) ? options.get(name).asText() : null;
  }

  public static void main(String[] args) throws Exception {
    JsonNode options = JSON.readTree(args[0]);
    ProgrammaticDriverConfigLoaderBuilder config = DriverConfigLoader.programmaticBuilder()
        // Of what is not idempotent it tries nothing again that may have been sent, whatever its policy is.
        .withBoolean(DefaultDriverOption.REQUEST_DEFAULT_IDEMPOTENCE, options.path("retries").asBoolean(true))
        .withString(DefaultDriverOption.REQUEST_CONSISTENCY, "ONE")
        .withString(DefaultDriverOption.PROTOCOL_COMPRESSION, text(options, "compression"))
        .withDuration(DefaultDriverOption.REQUEST_TIMEOUT, Duration.ofSeconds(10))
        .withDuration(DefaultDriverOption.RECONNECTION_MAX_DELAY, Duration.ofSeconds(2));
    if (options.hasNonNull("pool")) config = config.withInt(DefaultDriverOption.CONNECTION_POOL_LOCAL_SIZE, options.get("pool").asInt());
    if (options.hasNonNull("version"))
      config = config.withString(DefaultDriverOption.PROTOCOL_VERSION, "V" + options.get("version").asInt());
    CqlSessionBuilder builder = CqlSession.builder().withLocalDatacenter("dc1")
        .addNodeStateListener(new Listener()).withConfigLoader(config.build());
    for (JsonNode contact : options.get("contacts")) builder.addContactPoint(address(contact.asText()));
    if (text(options, "username") != null)
      builder.withAuthCredentials(text(options, "username"), text(options, "password"));
    if (text(options, "ca") != null) builder.withSslEngineFactory(new Engines(options));
    session = builder.build();
    one = session.prepare("SELECT v FROM k1.t WHERE k = ?");
    three = session.prepare("SELECT v FROM k3.t WHERE k = ?");
    say("event", "ready", "driver", "java", "protocol", session.getContext().getProtocolVersion().toString().toLowerCase(),
        "compression", session.getContext().getConfig().getDefaultProfile().getString(DefaultDriverOption.PROTOCOL_COMPRESSION));
    BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
    for (String line; (line = commands.readLine()) != null && !line.equals("quit"); ) {
      String[] words = line.split(" ");
      switch (words[0]) {
        case "nodes": nodes(); break;
        case "pin": pin(); break;
        case "keys": keys(); break;
        case "start": (load = new Load()).start(); say("reply", "start"); break;
        case "stop":
          load.going = false;
          load.join();
          say("reply", "stop", "ok", load.ok, "errors", load.errors, "first", load.first, "coordinators", load.coordinators);
          break;
        case "ddl": ddl(words[1]); break;
      }
    }
    session.close();
  }

  static void nodes() {
    Optional<TokenMap> map = session.getMetadata().getTokenMap();
    List<Object> found = new ArrayList<>();
    for (Node n : session.getMetadata().getNodes().values()) {
      InetSocketAddress a = (InetSocketAddress) n.getEndPoint().resolve();
      List<String> tokens = new ArrayList<>();
      map.ifPresent(m -> m.getTokens(n).forEach(t -> tokens.add(m.format(t))));
      Map<String, Object> node = new LinkedHashMap<>();
      node.put("host_id", String.valueOf(n.getHostId()));
      node.put("address", a.getAddress().getHostAddress());
      node.put("port", a.getPort());
      node.put("dc", n.getDatacenter());
      node.put("rack", n.getRack());
      node.put("tokens", tokens);
      node.put("up", n.getState() == NodeState.UP);
      node.put("broadcast", n.getBroadcastAddress().map(b -> b.getAddress().getHostAddress()).orElse(null));
      found.add(node);
    }
    EndPoint control = ((com.datastax.oss.driver.internal.core.context.InternalDriverContext) session.getContext())
        .getControlConnection().channel().getEndPoint();
    InetSocketAddress at = (InetSocketAddress) control.resolve();
    say("reply", "nodes", "control", at.getAddress().getHostAddress() + ":" + at.getPort(), "nodes", found);
  }

  static void pin() {
    List<Object> pinned = new ArrayList<>();
    for (Node n : session.getMetadata().getNodes().values()) {
      String says;
      try {
        says = String.valueOf(session.execute(SimpleStatement.newInstance("SELECT host_id FROM system.local").setNode(n)).one().getUuid(0));
      } catch (Exception e) {
        says = e.toString();
      }
      pinned.add(Map.of("host_id", String.valueOf(n.getHostId()), "says", says));
    }
    say("reply", "pin", "pinned", pinned);
  }

  static void keys() {
    List<Object> seen = new ArrayList<>();
    for (int k = 0; k < 300; k++) {
      BoundStatement bound = one.bind(k);
      List<String> replicas = new ArrayList<>();
      session.getMetadata().getTokenMap().ifPresent(m ->
          m.getReplicas(CqlIdentifier.fromCql("k1"), bound.getRoutingKey()).forEach(n -> replicas.add(String.valueOf(n.getHostId()))));
      Node coordinator = session.execute(bound).getExecutionInfo().getCoordinator();
      seen.add(List.of(k, replicas, String.valueOf(coordinator.getHostId())));
    }
    say("reply", "keys", "keys", seen);
  }

  static void ddl(String name) {
    try {
      ResultSet result = session.execute("CREATE TABLE k3." + name + " (k int PRIMARY KEY)");
      say("reply", "ddl", "agreed", result.getExecutionInfo().isSchemaInAgreement() && session.checkSchemaAgreement(), "error", null);
    } catch (Exception e) {
      say("reply", "ddl", "agreed", false, "error", e.toString());
    }
  }
}
