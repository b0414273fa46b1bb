// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// An agent reads the pods of its node, and no others, whatever it asks for.
func TestAnAgentReadsThePodsOfItsNode(t *testing.T) {
	f := setUp(t)
	ctx := t.Context()
	own := f.pod("own", "10.244.1.5")
	other := f.pod("other", "10.244.2.5", func(p *corev1.Pod) { p.Spec.NodeName = "another" })
	bound := f.asBoundAgent()
	as := func(cfg *rest.Config) client.Client {
		c, err := client.New(cfg, client.Options{Scheme: f.Scheme()})
		require.NoError(t, err)
		return c
	}
	agent := as(asNode(bound, f.node, testLog()))
	var list corev1.PodList
	require.NoError(t, agent.List(ctx, &list, client.MatchingFields{fieldNode: f.node}))
	require.Len(t, list.Items, 1)
	require.Equal(t, own.UID, list.Items[0].UID)
	have, err := readPod(ctx, agent, client.ObjectKeyFromObject(own), f.node)
	require.NoError(t, err)
	require.Equal(t, own.UID, have.UID)
	_, err = readPod(ctx, agent, client.ObjectKeyFromObject(other), f.node)
	require.True(t, apierrors.IsNotFound(err), "%v", err)

	require.NoError(t, agent.Get(ctx, types.NamespacedName{Name: f.node}, &corev1.Node{}))
	for name, c := range map[string]client.Client{
		"as its node": agent, "by itself": as(bound), "as another node": as(asNode(bound, "another", testLog())),
	} {
		t.Run(name, func(t *testing.T) {
			for what, err := range map[string]error{
				"all pods":                c.List(ctx, &list),
				"the pods of another":     c.List(ctx, &list, client.MatchingFields{fieldNode: "another"}),
				"the pods of a namespace": c.List(ctx, &list, client.InNamespace(f.namespace)),
				"a pod":                   c.Get(ctx, client.ObjectKeyFromObject(other), &corev1.Pod{}),
				"another node":            c.Get(ctx, types.NamespacedName{Name: "another"}, &corev1.Node{}),
				"all nodes":               c.List(ctx, &corev1.NodeList{}),
				"a pod's log":             c.SubResource("log").Get(ctx, own, &corev1.Pod{}),
			} {
				require.True(t, apierrors.IsForbidden(err), "%s: %v", what, err)
			}
		})
	}
}

// Before Kubernetes 1.36 an agent can't act as its node, and reads by what an administrator has permitted itself.
func TestAnAgentFallsBackToItsOwnPermissions(t *testing.T) {
	f := setUp(t)
	raw, err := os.ReadFile(filepath.Join(apiserver.Root(), "config", "agents-before-1.36", "pods.yaml"))
	require.NoError(t, err)
	for _, o := range apiserver.Objects(t, string(raw)) {
		f.ensure(o)
		t.Cleanup(func() { require.NoError(t, f.Delete(context.Background(), o)) })
	}
	p := f.pod("cart", "10.244.1.5")
	// The API server refuses, as one does that doesn't know the permission: the node is another.
	config := asNode(f.asBoundAgent(), "another", testLog())
	c, err := client.New(config, client.Options{Scheme: f.Scheme()})
	require.NoError(t, err)
	eventually.True(f.t, "the permission is in force", func() bool {
		have, err := readPod(t.Context(), c, types.NamespacedName{Namespace: f.namespace, Name: p.Name}, f.node)
		return err == nil && have.UID == p.UID
	})
}

func TestOnlyReadsOfTheNodesOwnAreMadeAsTheNode(t *testing.T) {
	for path, want := range map[string]bool{
		"/api/v1/pods": true, "/api/v1/namespaces/shop/pods": true, "/api/v1/namespaces/shop/pods/cart": false,
		"/api/v1/namespaces/shop/pods/cart/log": false, "/api/v1/namespaces": false, "/api/v1/nodes": false,
		"/api/v1/nodes/n": true, "/api/v1/nodes/n/proxy": false, "/apis/apps/v1/pods": false,
	} {
		require.Equal(t, want, nodesOwn(httptest.NewRequest(http.MethodGet, path, nil)), path)
		require.False(t, nodesOwn(httptest.NewRequest(http.MethodPatch, path, nil)), path)
	}
}
