// gocql v2; ../README.md has the lines that it speaks. The policy is the only public view of hosts.
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"
	"github.com/apache/cassandra-gocql-driver/v2/lz4"
	"github.com/apache/cassandra-gocql-driver/v2/snappy"
)

type object = map[string]any

var printing sync.Mutex

func say(line object) {
	printing.Lock()
	defer printing.Unlock()
	raw, _ := json.Marshal(line)
	fmt.Println(string(raw))
}

type recorder struct {
	gocql.HostSelectionPolicy
	lock  sync.Mutex
	hosts map[string]*gocql.HostInfo
}

func (r *recorder) note(what string, h *gocql.HostInfo) {
	r.lock.Lock()
	defer r.lock.Unlock()
	if what == "remove" {
		delete(r.hosts, h.HostID())
	} else {
		r.hosts[h.HostID()] = h
	}
	say(object{"event": what, "address": h.ConnectAddressAndPort()})
}
func (r *recorder) AddHost(h *gocql.HostInfo) { r.note("add", h); r.HostSelectionPolicy.AddHost(h) }
func (r *recorder) RemoveHost(h *gocql.HostInfo) {
	r.note("remove", h)
	r.HostSelectionPolicy.RemoveHost(h)
}
func (r *recorder) HostUp(h *gocql.HostInfo)   { r.note("up", h); r.HostSelectionPolicy.HostUp(h) }
func (r *recorder) HostDown(h *gocql.HostInfo) { r.note("down", h); r.HostSelectionPolicy.HostDown(h) }
func (r *recorder) all() []*gocql.HostInfo {
	r.lock.Lock()
	defer r.lock.Unlock()
	found := []*gocql.HostInfo{}
	for _, h := range r.hosts {
		found = append(found, h)
	}
	return found
}

type counts struct {
	ok, errors   int
	first        any
	coordinators map[string]int
}

func main() {
	var options struct {
		Contacts                            []string
		Version, Pool                       int
		Compression, Username, Password, Ca string
		Tls, Certificate, Key               string
		TokenAware                          bool `json:"token_aware"`
	}
	if err := json.Unmarshal([]byte(os.Args[1]), &options); err != nil {
		panic(err)
	}
	cluster := gocql.NewCluster(options.Contacts...)
	cluster.ProtoVersion = options.Version
	cluster.Consistency = gocql.One
	cluster.DefaultIdempotence = true
	cluster.RetryPolicy = &gocql.SimpleRetryPolicy{NumRetries: 3}
	cluster.ReconnectInterval = time.Second
	if options.Pool > 0 {
		cluster.NumConns = options.Pool
	}
	switch options.Compression {
	case "lz4":
		cluster.Compressor = lz4.LZ4Compressor{}
	case "snappy":
		cluster.Compressor = snappy.SnappyCompressor{}
	}
	if options.Username != "" {
		cluster.Authenticator = gocql.PasswordAuthenticator{Username: options.Username, Password: options.Password}
	}
	if options.Ca != "" {
		cluster.SslOpts = &gocql.SslOptions{CaPath: options.Ca, CertPath: options.Certificate, KeyPath: options.Key,
			EnableHostVerification: true, Config: &tls.Config{}}
		versions := map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
		if version, is := versions[options.Tls]; is {
			cluster.SslOpts.MinVersion, cluster.SslOpts.MaxVersion = version, version
		}
	}
	// Not TokenAwareHostPolicy, unless each node has an address of its own: policies know a host by its IP alone (cowHostList in policies.go), so that when the one
	// node behind an address is replaced by another port of it, the list is empty. RoundRobinHostPolicy then has no host to
	// offer; the token-aware policy dereferences one that is nil and ends the process (v2.1.2, dcAwareRR.IsLocal).
	policy := &recorder{HostSelectionPolicy: gocql.RoundRobinHostPolicy(), hosts: map[string]*gocql.HostInfo{}}
	if options.TokenAware {
		policy.HostSelectionPolicy = gocql.TokenAwareHostPolicy(policy.HostSelectionPolicy)
	}
	cluster.PoolConfig.HostSelectionPolicy = policy
	session, err := cluster.CreateSession()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	say(object{"event": "ready", "driver": "gocql", "protocol": fmt.Sprintf("v%d", options.Version), "compression": options.Compression})
	var stop, done = make(chan bool), make(chan counts)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		command, argument, _ := strings.Cut(lines.Text(), " ")
		switch command {
		case "nodes":
			nodes := []object{}
			for _, h := range policy.all() {
				nodes = append(nodes, object{"host_id": h.HostID(), "address": h.ConnectAddress().String(), "port": h.Port(),
					"dc": h.DataCenter(), "rack": h.Rack(), "tokens": h.Tokens(), "up": h.IsUp()})
			}
			say(object{"reply": "nodes", "control": nil, "nodes": nodes})
		case "pin":
			pinned := []object{}
			for _, h := range policy.all() {
				var says gocql.UUID
				text := ""
				if err := session.Query("SELECT host_id FROM system.local").SetHostID(h.HostID()).Scan(&says); err != nil {
					text = err.Error()
				} else {
					text = says.String()
				}
				pinned = append(pinned, object{"host_id": h.HostID(), "says": text})
			}
			say(object{"reply": "pin", "pinned": pinned})
		case "keys":
			keys := [][]any{}
			for k := 0; k < 300; k++ {
				it := session.Query("SELECT v FROM k1.t WHERE k = ?", k).Iter()
				host, coordinator := it.Host(), ""
				if err := it.Close(); err != nil {
					coordinator = err.Error()
				} else if host != nil {
					coordinator = host.HostID()
				}
				keys = append(keys, []any{k, []string{}, coordinator})
			}
			say(object{"reply": "keys", "keys": keys})
		case "start":
			go read(session, stop, done)
			say(object{"reply": "start"})
		case "stop":
			stop <- true
			c := <-done
			say(object{"reply": "stop", "ok": c.ok, "errors": c.errors, "first": c.first, "coordinators": c.coordinators})
		case "ddl":
			line := object{"reply": "ddl", "agreed": true, "error": nil}
			if err := session.Query("CREATE TABLE k3." + argument + " (k int PRIMARY KEY)").Exec(); err != nil {
				line["agreed"], line["error"] = false, err.Error()
			}
			say(line)
		case "tables":
			say(tables(session, argument))
		default:
			return
		}
	}
}

func tables(session *gocql.Session, argument string) object {
	name, number, _ := strings.Cut(argument, ",")
	count, _ := strconv.Atoi(number)
	ok, failed, times := 0, 0, []float64{}
	var first any
	for i := 0; i < count; i++ {
		begun := time.Now()
		err := session.Query(fmt.Sprintf("CREATE TABLE k3.%s_%d (k int PRIMARY KEY)", name, i)).Exec()
		if err == nil {
			times = append(times, float64(time.Since(begun).Microseconds())/1000)
			err = session.Query(fmt.Sprintf("INSERT INTO k3.%s_%d (k) VALUES (1)", name, i)).Consistency(gocql.All).
				Idempotent(false).RetryPolicy(&gocql.SimpleRetryPolicy{NumRetries: 0}).Exec()
		}
		if err == nil {
			ok++
		} else {
			failed++
			if first == nil {
				first = err.Error()
			}
		}
		_ = session.Query(fmt.Sprintf("DROP TABLE IF EXISTS k3.%s_%d", name, i)).Exec()
	}
	sort.Float64s(times)
	p50, slowest := 0.0, 0.0
	if len(times) > 0 {
		p50, slowest = times[len(times)/2], times[len(times)-1]
	}
	return object{"reply": "tables", "ok": ok, "failed": failed, "first": first, "p50": p50, "slowest": slowest}
}

func read(session *gocql.Session, stop chan bool, done chan counts) {
	c := counts{coordinators: map[string]int{}}
	for k := 0; ; k = (k + 1) % 300 {
		select {
		case <-stop:
			done <- c
			return
		default:
		}
		it := session.Query("SELECT v FROM k3.t WHERE k = ?", k).Iter()
		host := it.Host()
		if err := it.Close(); err != nil {
			c.errors++
			if c.first == nil {
				c.first = err.Error()
			}
		} else {
			c.ok++
			if host != nil {
				c.coordinators[host.HostID()]++
			}
		}
		time.Sleep(3 * time.Millisecond)
	}
}
