// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeRuntime has sandboxes by pod name, in namespace shop.
type fakeRuntime struct {
	cri.UnimplementedRuntimeServiceServer
	sandboxes map[string][]*cri.PodSandbox
	status    map[string]*cri.PodSandboxStatusResponse
}

func (f *fakeRuntime) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{}, nil
}

func (f *fakeRuntime) ListPodSandbox(
	_ context.Context, r *cri.ListPodSandboxRequest,
) (*cri.ListPodSandboxResponse, error) {
	if r.GetFilter().GetLabelSelector()["io.kubernetes.pod.namespace"] != "shop" {
		return &cri.ListPodSandboxResponse{}, nil
	}
	return &cri.ListPodSandboxResponse{Items: f.sandboxes[r.GetFilter().GetLabelSelector()["io.kubernetes.pod.name"]]}, nil
}

func (f *fakeRuntime) PodSandboxStatus(
	_ context.Context, r *cri.PodSandboxStatusRequest,
) (*cri.PodSandboxStatusResponse, error) {
	s, ok := f.status[r.GetPodSandboxId()]
	if !ok || !r.GetVerbose() {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	return s, nil
}

func TestNetnsOfASandbox(t *testing.T) {
	withInfo := func(info string) *cri.PodSandboxStatusResponse {
		return &cri.PodSandboxStatusResponse{Info: map[string]string{"info": info}}
	}
	of := func(uid string, s *cri.PodSandbox) *cri.PodSandbox {
		s.Labels = map[string]string{"io.kubernetes.pod.uid": uid}
		return s
	}
	f := &fakeRuntime{
		sandboxes: map[string][]*cri.PodSandbox{
			"restarted": {
				of("1", &cri.PodSandbox{Id: "old", CreatedAt: 1}), of("1", &cri.PodSandbox{Id: "new", CreatedAt: 2}),
				of("2", &cri.PodSandbox{Id: "host", CreatedAt: 3}),
			},
			"host":  {of("1", &cri.PodSandbox{Id: "host"})},
			"odd":   {of("1", &cri.PodSandbox{Id: "odd"})},
			"raced": {of("1", &cri.PodSandbox{Id: "vanished"})},
		},
		status: map[string]*cri.PodSandboxStatusResponse{
			"old": withInfo(`{"runtimeSpec":{"linux":{"namespaces":[{"type":"network","path":"/var/run/netns/old"}]}}}`),
			"new": withInfo(
				`{"pid":7,"runtimeSpec":{"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/var/run/netns/cni-1"}]}}}`),
			"host": {Status: &cri.PodSandboxStatus{Linux: &cri.LinuxPodSandboxStatus{
				Namespaces: &cri.Namespace{Options: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}},
			}}},
			"odd": withInfo("not JSON"),
		},
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "cri.sock")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	s := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(s, f)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	r, err := NewRuntime(filepath.Join(dir, "another.sock"), socket)
	require.NoError(t, err)

	pod := func(name string, uids ...string) Pod {
		return Pod{Namespace: "shop", Name: name, UIDs: append(uids, "1")}
	}
	path, err := r.Netns(t.Context(), pod("restarted"))
	require.NoError(t, err)
	require.Equal(t, "/var/run/netns/cni-1", path, "the newest sandbox of this pod counts")
	path, err = r.Netns(t.Context(), pod("restarted", "mirror"))
	require.NoError(t, err)
	require.Equal(t, "/var/run/netns/cni-1", path, "by any of its UIDs")
	_, err = r.Netns(t.Context(), Pod{Namespace: "other", Name: "restarted", UIDs: []string{"1"}})
	require.ErrorIs(t, err, ErrNoSandbox, "a UID alone is no proof")
	for _, uid := range []string{"unknown", "host"} {
		_, err = r.Netns(t.Context(), pod(uid))
		require.ErrorIs(t, err, ErrNoSandbox, uid)
	}
	_, err = r.Netns(t.Context(), pod("odd"))
	require.ErrorContains(t, err, "can't be read")
	_, err = r.Netns(t.Context(), pod("raced"))
	require.Equal(t, codes.NotFound, status.Code(err))

	gone, err := NewRuntime(filepath.Join(t.TempDir(), "none.sock"))
	require.NoError(t, err)
	_, err = gone.Netns(t.Context(), pod("x"))
	require.ErrorContains(t, err, "spec.node.host.runtimeSocket")
	require.ErrorContains(t, err, "none.sock")
}
