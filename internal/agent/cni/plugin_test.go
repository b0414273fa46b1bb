// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/cni/plugin"
)

// binary is the plugin, built once, as the runtime would start it.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "fairway-cni")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "fairway-cni")
	cmd := exec.Command("go", "build", "-o", path, "./fairway-cni")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// node is a directory with what the plugin finds on a node.
type node struct {
	t              *testing.T
	socket, state  string
	timeoutSeconds int
}

func newNode(t *testing.T) *node {
	dir := t.TempDir()
	return &node{
		t: t, socket: filepath.Join(dir, "cni.sock"), state: filepath.Join(dir, "fairway.d", "namespaces.json"),
		timeoutSeconds: 10,
	}
}

const prevResult = `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/run/netns/x"}],"ips":[{"address":"10.244.1.5/24","gateway":"10.244.1.1","interface":0}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{}}`

// run starts the plugin and returns its output, and its CNI error.
func (n *node) run(command, namespace, version, prev string) (string, *cniError) {
	n.t.Helper()
	path, err := binary()
	require.NoError(n.t, err)
	conf := map[string]any{
		"cniVersion": version, "name": "test", "type": "fairway-cni", "socket": n.socket, "stateFile": n.state,
		"excludeNamespaces": []string{"kube-system"}, "timeoutSeconds": n.timeoutSeconds,
	}
	if prev != "" {
		conf["prevResult"] = json.RawMessage(prev)
	}
	in, err := json.Marshal(conf)
	require.NoError(n.t, err)
	cmd := exec.Command(path)
	cmd.Stdin = bytes.NewReader(in)
	cmd.Env = []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=c1", "CNI_NETNS=/run/netns/x", "CNI_NETNS_OVERRIDE=1", "CNI_IFNAME=eth0",
		"CNI_PATH=/opt/cni/bin",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=" + namespace +
			";K8S_POD_NAME=cart;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=uid-1",
	}
	out, err := cmd.Output()
	if err == nil {
		return string(out), nil
	}
	e := &cniError{}
	require.NoError(n.t, json.Unmarshal(out, e), "output %q of a plugin that failed: %v", out, err)
	return "", e
}

type cniError struct {
	Code    int    `json:"code"`
	Msg     string `json:"msg"`
	Details string `json:"details"`
}

// handler is a Handler that remembers.
type handler struct {
	mu  sync.Mutex
	got []plugin.Request
	add func(ctx context.Context, req plugin.Request) (bool, error)
}

func (h *handler) note(req plugin.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got = append(h.got, req)
}

func (h *handler) requests() []plugin.Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.got
}

func (h *handler) Add(ctx context.Context, req plugin.Request) (bool, error) {
	h.note(req)
	if h.add != nil {
		return h.add(ctx, req)
	}
	return true, nil
}
func (h *handler) Del(_ context.Context, req plugin.Request) { h.note(req) }
func (h *handler) Check(_ context.Context, req plugin.Request) (bool, error) {
	h.note(req)
	return false, errors.New("not captured")
}

// serve runs the agent's side until it is stopped, or the test ends.
func (n *node) serve(h Handler) (stop func()) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	up, down := make(chan struct{}), make(chan error, 1)
	go func() {
		s := &Server{Socket: n.socket, Handler: h, Log: logr.Discard()}
		down <- s.Run(ctx, func() { close(up) })
	}()
	<-up
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(n.t, <-down)
	})
	n.t.Cleanup(stop)
	return stop
}

func TestAddAsksTheAgentAndPassesTheResultOn(t *testing.T) {
	n, h := newNode(t), &handler{}
	n.serve(h)
	for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		prev := strings.Replace(prevResult, "1.0.0", version, 1)
		if version == "0.4.0" {
			prev = strings.Replace(prev, `"address":`, `"version":"4","address":`, 1)
		}
		out, e := n.run("ADD", "shop", version, prev)
		require.Nil(t, e)
		require.JSONEq(t, prev, out)
	}
	require.Len(t, h.requests(), 3)
	got := h.requests()[0]
	require.Equal(t, "10.244.1.5", got.IPs[0].String())
	got.IPs = nil
	require.Equal(t, plugin.Request{
		Command: "ADD", ContainerID: "c1", Netns: "/run/netns/x", IfName: "eth0", PodNamespace: "shop", PodName: "cart",
		PodUID: "uid-1",
	}, got)
	st, err := os.Stat(n.socket)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
}

func TestAddFailsWhereTheAgentSaysSo(t *testing.T) {
	n := newNode(t)
	n.serve(&handler{add: func(context.Context, plugin.Request) (bool, error) { return false, errors.New("no listener") }})
	_, e := n.run("ADD", "shop", "1.0.0", prevResult)
	require.NotNil(t, e)
	require.Equal(t, "fairway: no listener", e.Msg)
	require.Equal(t, 11, e.Code)
}

func TestAddMustBeChained(t *testing.T) {
	_, e := newNode(t).run("ADD", "shop", "1.0.0", "")
	require.NotNil(t, e)
	require.Contains(t, e.Msg, "must follow another plugin")
}

// A pod that the mesh protects waits for the agent; all others start.
func TestWithoutAnAgent(t *testing.T) {
	n := newNode(t)
	n.timeoutSeconds = 1
	_, e := n.run("ADD", "kube-system", "1.0.0", prevResult)
	require.Nil(t, e, "an excluded namespace")

	_, e = n.run("ADD", "blog", "1.0.0", prevResult)
	require.NotNil(t, e, "nobody knows whether the namespace is enrolled")
	require.Contains(t, e.Msg, "agent on this node does not answer")

	changed, err := WriteState(n.state, []string{"shop", "bank"})
	require.NoError(t, err)
	require.True(t, changed)
	changed, err = WriteState(n.state, []string{"bank", "shop"})
	require.NoError(t, err)
	require.False(t, changed)

	out, e := n.run("ADD", "blog", "1.0.0", prevResult)
	require.Nil(t, e, "outside the mesh")
	require.JSONEq(t, prevResult, out)
	_, e = n.run("ADD", "shop", "1.0.0", prevResult)
	require.NotNil(t, e)
	require.Contains(t, e.Msg, "namespace shop is in the mesh")
	for _, command := range []string{"DEL", "GC", "STATUS"} {
		_, e = n.run(command, "shop", "1.1.0", prevResult)
		require.Nil(t, e, command)
	}

	require.NoError(t, os.WriteFile(n.state, []byte("{"), 0o600))
	_, e = n.run("ADD", "blog", "1.0.0", prevResult)
	require.NotNil(t, e, "a state that can't be read says nothing")
}

// An agent that restarts is waited for.
func TestAddWaitsForAnAgentThatStarts(t *testing.T) {
	n, h := newNode(t), &handler{}
	type result struct {
		out string
		e   *cniError
	}
	done := make(chan result, 1)
	_, err := WriteState(n.state, []string{"shop"})
	require.NoError(t, err)
	_, err = binary()
	require.NoError(t, err)
	go func() {
		out, e := n.run("ADD", "shop", "1.0.0", prevResult)
		done <- result{out, e}
	}()
	n.serve(h)
	r := <-done
	require.Nil(t, r.e)
	require.JSONEq(t, prevResult, r.out)
}

// What an agent that is replaced hasn't answered, the next one is asked.
func TestAddGoesToTheNextAgent(t *testing.T) {
	n, next, asked := newNode(t), &handler{}, make(chan struct{})
	_, err := WriteState(n.state, []string{"shop"})
	require.NoError(t, err)
	stop := n.serve(&handler{add: func(ctx context.Context, _ plugin.Request) (bool, error) {
		close(asked)
		<-ctx.Done()
		return false, ctx.Err()
	}})
	done := make(chan *cniError, 1)
	go func() {
		_, e := n.run("ADD", "shop", "1.0.0", prevResult)
		done <- e
	}()
	<-asked
	stop()
	n.serve(next)
	require.Nil(t, <-done)
	require.Len(t, next.requests(), 1)
}

func TestCheckAndDelReachTheAgent(t *testing.T) {
	n, h := newNode(t), &handler{}
	n.serve(h)
	_, e := n.run("CHECK", "shop", "1.0.0", prevResult)
	require.NotNil(t, e)
	require.Equal(t, "fairway: not captured", e.Msg)
	_, e = n.run("DEL", "shop", "1.0.0", prevResult)
	require.Nil(t, e)
	require.Equal(t, "DEL", h.requests()[1].Command)
}
