// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
)

// TestOnlyRootAsksANode: pods on the node's network reach its loopback address.
func TestOnlyRootAsksANode(t *testing.T) {
	netnstest.NeedRoot(t)
	s := httptest.NewServer(toRoot(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") })))
	t.Cleanup(s.Close)
	res, err := http.Get(s.URL)
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, res.Body.Close())
	require.NoError(t, err)
	require.Equal(t, "here", string(body))

	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("skipped: needs bash to ask as another user")
	}
	host := s.Listener.Addr().String()
	ask := exec.Command(bash, "-c",
		`exec 3<>/dev/tcp/${0%:*}/${0#*:}; printf 'GET / HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3; cat <&3`, host)
	ask.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	ask.Dir = "/"
	out, err := ask.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "403 Forbidden")
	require.NotContains(t, string(out), "here\n")
	require.NotContains(t, string(out), "\r\n\r\nhere")
}
