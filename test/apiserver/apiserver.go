// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package apiserver runs a real etcd and kube-apiserver on loopback for tests, with Fairway's and the Gateway API's
// CRDs installed. What an API server does (validation, CEL, defaulting, server-side apply, garbage of managed fields)
// is tested against the real one, never against a fake client.
package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// EnvBin names the environment variable with the directory of etcd and kube-apiserver.
const EnvBin = "FAIRWAY_KUBE_BIN"

// Channel is the release channel of the Gateway API's CRDs.
type Channel string

// Channels.
const (
	// none installs no CRD of the Gateway API.
	none         Channel = ""
	Standard     Channel = "standard"
	Experimental Channel = "experimental"
)

// Options of an API server. The zero value has no CRDs at all.
type Options struct {
	// GatewayAPI is the channel whose CRDs are installed.
	GatewayAPI Channel
	// CertManager installs cert-manager's CRDs; StartCertManager runs it.
	CertManager bool
	// Fairway installs the CRDs of config/crd.
	Fairway bool
	// Address that the API server listens at, with a port, for clients in other network namespaces; zero: of loopback.
	Address netip.AddrPort
	// ServiceRange is where Services get their addresses from, and room for what etcd keeps, in bytes; zero: as it is.
	ServiceRange netip.Prefix
	Quota        int64
	// crds are further files or directories of CRDs.
	crds []string
}

// Start runs etcd and kube-apiserver until the test ends, and skips the test where the binaries are missing. The
// returned configuration is that of a cluster administrator.
func Start(tb testing.TB, o Options) *rest.Config {
	tb.Helper()
	cfg, _ := StartWithStore(tb, o)
	return cfg
}

// StartWithStore is Start, and also tells where etcd listens, for who fills it with more than an API server takes in
// reasonable time.
func StartWithStore(tb testing.TB, o Options) (cfg *rest.Config, etcd *url.URL) {
	tb.Helper()
	bin, err := BinDir()
	if err != nil {
		tb.Skip(err.Error())
	}
	env, cfg, err := start(bin, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := env.Stop(); err != nil {
			tb.Errorf("stop the API server: %v", err)
		}
	})
	return cfg, env.ControlPlane.Etcd.URL
}

// Shared is one API server for all tests of a package; Main stops it. A test keeps to a namespace of its own.
type Shared struct {
	Options Options

	once sync.Once
	env  *envtest.Environment
	cfg  *rest.Config
	err  error
	skip string
}

// Config starts the server on first use.
func (s *Shared) Config(tb testing.TB) *rest.Config {
	tb.Helper()
	s.once.Do(func() {
		bin, err := BinDir()
		if err != nil {
			s.skip = err.Error()
			return
		}
		s.env, s.cfg, s.err = start(bin, s.Options)
	})
	if s.skip != "" {
		tb.Skip(s.skip)
	}
	if s.err != nil {
		tb.Fatal(s.err)
	}
	return rest.CopyConfig(s.cfg)
}

// Main runs the tests of a package and stops the server: call it from TestMain.
func (s *Shared) Main(m *testing.M) {
	code := m.Run()
	if dir := certManagerBuild.dir; dir != "" {
		_ = os.RemoveAll(dir)
	}
	if s.env != nil {
		if err := s.env.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop the API server:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// BinDir finds the directory with etcd and kube-apiserver: $FAIRWAY_KUBE_BIN, or the one that the dev cluster builds.
// The error says what to run.
func BinDir() (string, error) {
	dir := os.Getenv(EnvBin)
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(cache, "fairway", "devcluster", "bin")
	}
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("no %s in %s: build the dev cluster (make cluster) or set %s", name, dir, EnvBin)
		}
	}
	return dir, nil
}

func start(bin string, o Options) (*envtest.Environment, *rest.Config, error) {
	env := &envtest.Environment{
		BinaryAssetsDirectory: bin, ErrorIfCRDPathMissing: true,
		ControlPlaneStartTimeout: time.Minute, ControlPlaneStopTimeout: time.Minute,
	}
	// As clusters have it: a node reads its own pods.
	env.ControlPlane.GetAPIServer().Configure().Set("authorization-mode", "Node,RBAC")
	o.configure(&env.ControlPlane)
	if o.Fairway {
		env.CRDInstallOptions.Paths = append(env.CRDInstallOptions.Paths, filepath.Join(Root(), "config", "crd", "bases"))
	}
	if o.GatewayAPI != none {
		dir, err := GatewayAPICRDs(o.GatewayAPI)
		if err != nil {
			return nil, nil, err
		}
		env.CRDInstallOptions.Paths = append(env.CRDInstallOptions.Paths, dir)
	}
	if o.CertManager {
		dir, err := moduleDir(certManagerModule)
		if err != nil {
			return nil, nil, err
		}
		env.CRDInstallOptions.Paths = append(env.CRDInstallOptions.Paths, filepath.Join(dir, "deploy", "crds"))
	}
	env.CRDInstallOptions.Paths = append(env.CRDInstallOptions.Paths, o.crds...)
	cfg, err := env.Start()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start the API server from %s: %w", bin, err), env.Stop())
	}
	// Tests are not to wait for the client's own rate limit.
	cfg.QPS, cfg.Burst = -1, 0
	return env, cfg, nil
}

// configure sets what differs from the defaults of envtest.
func (o Options) configure(c *envtest.ControlPlane) {
	server := c.GetAPIServer()
	if o.Address.IsValid() {
		server.ListenAddr = envtest.ListenAddr{
			Address: o.Address.Addr().String(), Port: fmt.Sprint(o.Address.Port()),
		}
	}
	if o.ServiceRange.IsValid() {
		server.Configure().Set("service-cluster-ip-range", o.ServiceRange.String())
	}
	if o.Quota > 0 {
		c.Etcd = &envtest.Etcd{}
		c.Etcd.Configure().Set("quota-backend-bytes", fmt.Sprint(o.Quota))
	}
}

// Root is the directory of the repository: the nearest one above the test's package that holds the PROJECT file. Source
// paths in the binary don't tell it, as tests are built with -trimpath.
func Root() string {
	dir, err := os.Getwd()
	for err == nil {
		if _, missing := os.Stat(filepath.Join(dir, "PROJECT")); missing == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	panic("tests must run inside the repository")
}

// GatewayAPICRDs is the directory of the CRDs of a channel, in the module that go.mod pins.
func GatewayAPICRDs(channel Channel) (string, error) {
	return gatewayAPICRDs(Root(), channel)
}

// LaterGatewayAPICRDs are those of the release that test/conformance pins, whose suite the mesh passes.
func LaterGatewayAPICRDs(channel Channel) (string, error) {
	return gatewayAPICRDs(filepath.Join(Root(), "test", "conformance"), channel)
}

func gatewayAPICRDs(in string, channel Channel) (string, error) {
	dir, err := moduleOf(in, "sigs.k8s.io/gateway-api")
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "config", "crd", string(channel)), nil
}

// moduleDir is where a module is that go.mod pins.
func moduleDir(path string) (string, error) { return moduleOf(Root(), path) }

// moduleOf is where a module is that the one in a directory pins. That may need a later Go, which the go command
// fetches.
func moduleOf(dir, path string) (string, error) {
	// Downloads what is not there yet: the tests' imports need other parts of the module only.
	cmd := exec.CommandContext(context.Background(), "go", "mod", "download", "-json", path)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOTOOLCHAIN=auto")
	out, err := cmd.Output()
	var module struct{ Dir, Error string }
	if err := errors.Join(err, json.Unmarshal(out, &module)); err != nil {
		return "", fmt.Errorf("find module %s: %w %s", path, err, module.Error)
	}
	return module.Dir, nil
}
