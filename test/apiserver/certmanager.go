// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const certManagerModule = "github.com/cert-manager/cert-manager"

// CertManager is a running cert-manager: its own controllers, as hack/certmanager runs them.
type CertManager struct {
	// Stop ends it and waits until it has ended.
	Stop func()
}

// StartCertManager runs cert-manager against an API server until the test ends. It approves requests unless approve is
// false. Secrets of ClusterIssuers are in the namespace given.
func StartCertManager(tb testing.TB, cfg *rest.Config, namespace string, approve bool) *CertManager {
	tb.Helper()
	args := []string{
		"-kubeconfig", kubeconfig(tb, cfg), "-cluster-resource-namespace", namespace, "-health", "127.0.0.1:0",
	}
	if !approve {
		args = append(args, "-approve=false")
	}
	cmd := exec.CommandContext(context.Background(), certManagerBinary(tb), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := os.Create(filepath.Join(tb.TempDir(), "cert-manager.log"))
	if err != nil {
		tb.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	c := &CertManager{Stop: sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		_ = out.Close()
		if text, err := os.ReadFile(out.Name()); err == nil && tb.Failed() {
			tb.Logf("cert-manager said:\n%s", text[max(0, len(text)-4096):])
		}
	})}
	tb.Cleanup(c.Stop)
	return c
}

var certManagerBuild struct {
	sync.Once
	dir, path string
	out       []byte
	err       error
}

// certManagerBinary builds hack/certmanager once for all tests of a process. Shared.Main removes it.
func certManagerBinary(tb testing.TB) string {
	tb.Helper()
	b := &certManagerBuild
	b.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "fairway-cert-manager-"); b.err != nil {
			return
		}
		b.path = filepath.Join(b.dir, "cert-manager")
		cmd := exec.CommandContext(context.Background(), "go", "build", "-o", b.path, ".")
		cmd.Dir = filepath.Join(Root(), "hack", "certmanager")
		b.out, b.err = cmd.CombinedOutput()
	})
	if b.err != nil {
		tb.Fatalf("build cert-manager: %v\n%s", b.err, b.out)
	}
	return b.path
}

// kubeconfig writes a configuration to a file.
func kubeconfig(tb testing.TB, cfg *rest.Config) string {
	tb.Helper()
	c := clientcmdapi.NewConfig()
	c.Clusters["test"] = &clientcmdapi.Cluster{Server: cfg.Host, CertificateAuthorityData: cfg.CAData}
	c.AuthInfos["test"] = &clientcmdapi.AuthInfo{
		ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData, Token: cfg.BearerToken,
	}
	c.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	c.CurrentContext = "test"
	path := filepath.Join(tb.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		tb.Fatal(err)
	}
	return path
}
