// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/fairway-mesh/fairway/internal/testca"
)

// kubeconfig is the file of one that leads to a server.
func kubeconfig(t *testing.T, server string, ca []byte) string {
	t.Helper()
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["c"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	cfg.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: "s3cret"}
	cfg.Contexts["dev"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	cfg.CurrentContext = "dev"
	file := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, clientcmd.WriteToFile(*cfg, file))
	return file
}

// asked runs status, and returns its error.
func asked(t *testing.T, args ...string) error {
	t.Helper()
	cmd := statusCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	cmd.SetArgs(args)
	return cmd.ExecuteContext(t.Context())
}

// answering is an API server over TLS that gives one answer to everything, and its CA.
func answering(t *testing.T, h http.HandlerFunc) (address string, ca []byte) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

// An API server that can't be talked to is told of in one line, which says where and what to check, and soon.
func TestAnAPIServerThatCannotBeAsked(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := "https://" + l.Addr().String()
	require.NoError(t, l.Close())
	refusing, ca := answering(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	starting, caOfStarting := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	silent, caOfSilent := answering(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(refusing, "https://"))
	require.NoError(t, err)
	other := testca.New(t, "cluster.local").PEM()
	for name, c := range map[string]struct {
		server string
		ca     []byte
		says   string
	}{
		"nobody":             {nobody, nil, "can't be reached: nobody listens there"},
		"wrong credentials":  {refusing, ca, "refuses the credentials of the kubeconfig (401)"},
		"another authority":  {refusing, other, "to be trusted: the kubeconfig's certificate authority has not signed it"},
		"another name":       {"https://localhost:" + port, ca, "is not to be trusted: it is for other names"},
		"starting":           {starting, caOfStarting, "answers 503 Service Unavailable: it may be starting"},
		"silent":             {silent, caOfSilent, "does not answer (is the kubeconfig the right one?"},
		"no TLS":             {strings.Replace(plain.URL, "http:", "https:", 1), nil, "doesn't speak TLS"},
		"no address at all":  {"https://:::", nil, "makes no sense"},
		"a name of nobody's": {"https://api.invalid:6443", nil, "https://api.invalid:6443"},
	} {
		t.Run(name, func(t *testing.T) {
			err := asked(t, "--kubeconfig", kubeconfig(t, c.server, c.ca), "--timeout", "300ms")
			require.ErrorContains(t, err, c.says)
			assert.NotContains(t, err.Error(), "\n")
			assert.NotContains(t, err.Error(), "s3cret")
			assert.NotContains(t, err.Error(), "Get \"", "the wrapping of clients")
			if name != "no address at all" {
				assert.ErrorContains(t, err, c.server)
				assert.ErrorContains(t, err, `(context "dev")`)
			}
		})
	}
	empty := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, clientcmd.WriteToFile(*clientcmdapi.NewConfig(), empty))
	require.EqualError(t, asked(t, "--kubeconfig", empty),
		"no cluster to talk to: there is no kubeconfig (KUBECONFIG, --kubeconfig), or it is empty")
}

func TestWhyAServerCannotBeReached(t *testing.T) {
	for want, err := range map[string]error{
		"X can't be found: the name h can't be looked up (is the kubeconfig the right one? DNS, VPN?)": &net.DNSError{
			Err: "no such host", Name: "h",
		},
		"the credentials of the kubeconfig can't be had: exec: no such file": fmt.Errorf("Get x: %w",
			fmt.Errorf("getting credentials: %w", errors.New("exec: no such file"))),
		"X can't be reached: no route": fmt.Errorf("Get x: %w", errors.New("no route")),
		"X shows a certificate that is not to be trusted: it has expired, or the clock of this machine is wrong": x509.
			CertificateInvalidError{Reason: x509.Expired},
		"X does not answer (is the kubeconfig the right one? network, VPN, firewall?)": context.DeadlineExceeded,
	} {
		require.EqualError(t, unreachable("X", "h", err), want)
	}
	require.Equal(t, "you have no right to", plainly(apierrors.NewForbidden(schema.GroupResource{}, "", nil)))
	require.Equal(t, "no answer in time (--timeout)", plainly(fmt.Errorf("Get x: %w", context.DeadlineExceeded)))
	require.Equal(t, "the API server refuses the credentials of the kubeconfig", plainly(apierrors.NewUnauthorized("")))
}

// What passes by waiting is waited for, what doesn't is not.
func TestWaitGivesUpOnWrongCredentials(t *testing.T) {
	refusing, ca := answering(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	began := time.Now()
	require.ErrorContains(t, asked(t, "--wait", "--timeout", "1h", "--kubeconfig", kubeconfig(t, refusing, ca)), "401")
	require.Less(t, time.Since(began), time.Minute)
}
