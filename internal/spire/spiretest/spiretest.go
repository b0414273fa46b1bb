// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package spiretest runs SPIRE's server and an agent of it, as released, for tests. There is no kubelet to attest pods
// with, so that whoever runs the tests is a workload by the user ID; what a delegate says of pods takes no attestation.
package spiretest

import (
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/testca"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

// TrustDomain is SPIRE's.
const TrustDomain = "corp.example"

// SPIRE is a server and an agent.
type SPIRE struct {
	t testing.TB
	// Dir has the sockets: Admin is the agent's admin socket, Workload that of its Workload API.
	Dir, Admin, Workload string
	server, agent        *process
	binaries             string
	parent, token        string
}

// process is a program of SPIRE's that runs.
type process struct {
	cmd   *exec.Cmd
	ended <-chan struct{}
	log   output
}

type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// binaries is the directory of SPIRE's server and agent, which "make spire" builds of the module test/spire, or skips
// the test with the reason.
func binaries(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	list := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "github.com/spiffe/spire")
	list.Dir = module(t)
	version, err := list.Output()
	require.NoError(t, err)
	dir := filepath.Join(cache, "fairway", "spire", strings.TrimSpace(string(version)))
	for _, name := range []string{"spire-server", "spire-agent"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Skipf("no %s in %s: run make spire, which takes a C compiler (gcc) and some minutes", name, dir)
		}
	}
	return dir
}

// module is the directory test/spire of the repository, above the test's package.
func module(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "test", "spire", "go.mod")); err == nil {
			return filepath.Join(dir, "test", "spire")
		}
	}
	t.Fatal("tests must run inside the repository")
	return ""
}

// Start runs a server, and an agent to which the service account of node agents is an authorized delegate.
func Start(t testing.TB) *SPIRE {
	t.Helper()
	found := binaries(t)
	dir, err := os.MkdirTemp("", "spire") // a socket's path may have 107 bytes only
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &SPIRE{
		t: t, Dir: dir, binaries: found, Admin: filepath.Join(dir, "admin", "admin.sock"),
		Workload: filepath.Join(dir, "public", "spire-agent.sock"),
	}
	port := xdstest.FreePort(t)
	s.write("server.conf", fmt.Sprintf(`
server {
  bind_address = "127.0.0.1"
  bind_port = "%[1]d"
  socket_path = "%[2]s/server.sock"
  data_dir = "%[2]s/server"
  trust_domain = "%[3]s"
  ca_ttl = "1h"
  default_x509_svid_ttl = "10m"
  experimental { cache_reload_interval = "1s" }
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3", connection_string = "%[2]s/entries.sqlite3" } }
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "disk" { plugin_data { keys_path = "%[2]s/server.keys" } }
}`, port, dir, TrustDomain))
	s.write("agent.conf", fmt.Sprintf(`
agent {
  server_address = "127.0.0.1"
  server_port = "%[1]d"
  socket_path = "%[4]s"
  admin_socket_path = "%[5]s"
  authorized_delegates = ["%[6]s"]
  data_dir = "%[2]s/agent"
  trust_domain = "%[3]s"
  insecure_bootstrap = true
  experimental { sync_interval = "1s" }
}
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "disk" { plugin_data { directory = "%[2]s/agent" } }
  WorkloadAttestor "unix" { plugin_data {} }
}`, port, dir, TrustDomain, s.Workload, s.Admin,
		names.SPIFFEID(TrustDomain, names.SystemNamespace, names.NodeServiceAccount)))
	for _, d := range []string{"server", "agent"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, d), 0o700))
	}
	s.StartServer()
	s.Join()
	return s
}

// Join makes the agent another node, which knows nothing of what the former one had, and starts it.
func (s *SPIRE) Join() {
	s.t.Helper()
	_, out, _ := strings.Cut(s.Server("token", "generate"), "Token:")
	out, _, _ = strings.Cut(out, "\n")
	s.token = strings.TrimSpace(out)
	s.parent = "spiffe://" + TrustDomain + "/spire/agent/join_token/" + s.token
	s.StartAgent()
}

// StartServer runs the server, which has what it had before.
func (s *SPIRE) StartServer() {
	s.t.Helper()
	s.server = s.run("spire-server", "run", "-config", filepath.Join(s.Dir, "server.conf"))
	s.awaitHealthy(s.server, "spire-server", "server.sock")
}

// StartAgent runs the agent, which has what it had before.
func (s *SPIRE) StartAgent() {
	s.t.Helper()
	s.agent = s.run("spire-agent", "run", "-config", filepath.Join(s.Dir, "agent.conf"), "-joinToken", s.token)
	s.awaitHealthy(s.agent, "spire-agent", filepath.Join("public", filepath.Base(s.Workload)))
}

// awaitHealthy ends the test at once where the program has ended.
func (s *SPIRE) awaitHealthy(p *process, program, socket string) {
	s.t.Helper()
	eventually.True(s.t, program+" is healthy", func() bool {
		select {
		case <-p.ended:
			s.t.Fatalf("%s has ended:\n%s", program, p.log.String())
		default:
		}
		cmd := exec.CommandContext(s.t.Context(), filepath.Join(s.binaries, program), "healthcheck",
			"-socketPath", filepath.Join(s.Dir, socket))
		return cmd.Run() == nil
	})
}

// StopAgent ends the agent.
func (s *SPIRE) StopAgent() { s.agent.stop() }

// StopServer ends the server.
func (s *SPIRE) StopServer() { s.server.stop() }

func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// Server runs a command of the server and returns what it prints.
func (s *SPIRE) Server(args ...string) string {
	s.t.Helper()
	args = append(args, "-socketPath", filepath.Join(s.Dir, "server.sock"))
	out, err := exec.CommandContext(s.t.Context(), filepath.Join(s.binaries, "spire-server"), args...).CombinedOutput()
	require.NoError(s.t, err, "%s: %s", strings.Join(args, " "), out)
	return string(out)
}

// Entry registers an identity for what has all the selectors, for some seconds each time, and returns its ID. What
// begins with a dash is for the command.
func (s *SPIRE) Entry(id string, seconds int, selectors ...string) string {
	s.t.Helper()
	args := []string{"entry", "create", "-parentID", s.parent, "-spiffeID", id, "-x509SVIDTTL", strconv.Itoa(seconds)}
	for i, selector := range selectors {
		if strings.HasPrefix(selector, "-") {
			args = append(args, selectors[i:]...)
			break
		}
		args = append(args, "-selector", selector)
	}
	_, rest, _ := strings.Cut(s.Server(args...), "Entry ID")
	_, rest, _ = strings.Cut(rest, ":")
	entry, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(entry)
}

// Federate gives SPIRE a bundle of another trust domain.
func (s *SPIRE) Federate(trustDomain string) {
	s.t.Helper()
	ca := testca.New(s.t, trustDomain)
	s.write("federated.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate.Raw})))
	s.Server("bundle", "set", "-id", "spiffe://"+trustDomain, "-path", filepath.Join(s.Dir, "federated.pem"))
}

// Prepared is the ID of the authority that has been prepared.
func (s *SPIRE) Prepared() string {
	s.t.Helper()
	_, rest, _ := strings.Cut(s.Server("localauthority", "x509", "show"), "Prepared X.509 authority:")
	_, rest, _ = strings.Cut(rest, "Authority ID:")
	id, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(id)
}

// RemoveSockets removes those of an agent that was stopped.
func (s *SPIRE) RemoveSockets() {
	s.t.Helper()
	require.NoError(s.t, os.Remove(s.Admin))
	require.NoError(s.t, os.Remove(s.Workload))
}

// Me is a selector that this process has.
func Me() string { return "unix:uid:" + strconv.Itoa(os.Getuid()) }

// EntryOfDelegate makes this process the authorized delegate.
func (s *SPIRE) EntryOfDelegate() {
	s.t.Helper()
	s.Entry(names.SPIFFEID(TrustDomain, names.SystemNamespace, names.NodeServiceAccount), 600, Me())
}

func (s *SPIRE) run(program string, args ...string) *process {
	s.t.Helper()
	p := &process{cmd: exec.Command(filepath.Join(s.binaries, program), args...)}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	var err error
	p.ended, err = xdstest.StartTied(p.cmd)
	require.NoError(s.t, err)
	s.t.Cleanup(func() {
		p.stop()
		if s.t.Failed() {
			s.t.Logf("%s says:\n%s", program, p.log.String())
		}
	})
	return p
}

func (s *SPIRE) write(name, text string) {
	s.t.Helper()
	require.NoError(s.t, os.WriteFile(filepath.Join(s.Dir, name), []byte(text), 0o600))
}
