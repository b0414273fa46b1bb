// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// versioned are pods of a mesh whose containers have tags of images.
func versioned(tag string) []client.Object {
	of := func(containers ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			for _, c := range containers {
				image := "registry.example/fairway:" + tag
				if c == "envoy" {
					image = "envoyproxy/envoy:distroless-v1.40.0"
				}
				if one := (corev1.Container{Name: c, Image: image}); c == "envoy" && component(p) == names.ComponentNode {
					p.Spec.InitContainers = append(p.Spec.InitContainers, one)
				} else {
					p.Spec.Containers = append(p.Spec.Containers, one)
				}
			}
		}
	}
	managed := func(p *corev1.Pod) { p.Labels[names.LabelManagedBy] = names.ManagedBy }
	ending := func(p *corev1.Pod) {
		p.DeletionTimestamp, p.Finalizers = &metav1.Time{Time: testNow}, []string{"test/keeps"}
	}
	return []client.Object{
		mesh(metav1.ConditionTrue, "Ready", ""),
		pod(names.SystemNamespace, "operator-1", "a", names.ComponentOperator, of("operator")),
		pod(names.SystemNamespace, "operator-2", "b", names.ComponentOperator, of("operator")),
		pod(names.SystemNamespace, "node-a", "a", names.ComponentNode, of("agent", "envoy")),
		pod(names.SystemNamespace, "node-b", "b", names.ComponentNode, of("agent", "envoy")),
		pod(names.SystemNamespace, "node-old", "b", names.ComponentNode, of("agent", "envoy"), ending),
		pod("shop", "waypoint-1", "b", names.ComponentWaypoint, of("agent", "envoy"), managed),
		&gwv1.Gateway{
			ObjectMeta: in("shop", object(names.AutomaticWaypoint, nil)),
			Spec:       gwv1.GatewaySpec{GatewayClassName: names.WaypointClass},
		},
		pod("shop", "database", "b", names.ComponentNode, of("agent")), // a label that anybody may have
	}
}

func component(p *corev1.Pod) string { return p.Labels[names.LabelComponent] }

// Pods of before there was an answer are said to be older, once for all.
func TestVersionsOfEarlierOnes(t *testing.T) {
	r, out := shownVersions(t, fakeCluster(t, earlierReach{}, versioned("v0.0.9")...))
	require.Len(t, r.Unknown, 1)
	require.Contains(t, r.Unknown[0], "they are of an earlier version, which doesn't tell")
	require.Regexp(t, `node proxy +distroless-v1.40.0 +unknown +2`, string(out))
	require.Contains(t, r.Skew, "operator is v0.0.9, and this command is v0.1.0 (aaaaaaaaaaaa)")
}

type earlierReach struct{}

func (earlierReach) get(_ context.Context, pod types.NamespacedName, _ string) ([]byte, error) {
	return nil, errors.New("pod " + pod.String() + ": 404 Not Found: 404 page not found")
}

func saysVersion(t *testing.T, v introspect.Version) string {
	t.Helper()
	data, err := json.Marshal(v)
	require.NoError(t, err)
	return string(data)
}

// ofOneVersion is a report with the figures of a build, which a test has not.
func shownVersions(t *testing.T, c *cluster) (versionReport, []byte) {
	t.Helper()
	r := collectVersions(t.Context(), c, names.SystemNamespace)
	r.versions = versions{Version: "v0.1.0", Envoy: names.EnvoyImage, Go: "go1.26", Revision: "aaaaaaaaaaaaaaaa"}
	r.Skew = skew(r.versions, r.Parts)
	var out bytes.Buffer
	table := &table{out: &out}
	r.draw(table)
	require.NoError(t, table.err)
	return r, out.Bytes()
}

func TestVersionsOfOne(t *testing.T) {
	const envoy = "4e2f1abcdef012345/1.40.0/Clean/RELEASE/BoringSSL"
	same := saysVersion(t, introspect.Version{Version: "v0.1.0", Commit: "aaaaaaaaaaaaaaaa", Envoy: envoy})
	c := fakeCluster(t, fakePods{introspect.PathVersion: same}, versioned("v0.1.0")...)
	c.version = "v1.36.1"
	r, out := shownVersions(t, c)
	golden(t, "version-one.txt", out)
	require.Empty(t, r.Skew)
	require.Empty(t, r.Unknown)
	var data bytes.Buffer
	require.NoError(t, (&outputFlag{"json"}).print(&data, r, nil))
	golden(t, "version-one.json", data.Bytes())
}

// Parts of other versions are told of, and so is what could not be asked.
func TestVersionsThatDiffer(t *testing.T) {
	operator := saysVersion(t, introspect.Version{Version: "v0.2.0", Commit: "bbbbbbbbbbbbbbbb-dirty"})
	c := fakeCluster(t, fakePods{
		"fairway-system/operator-1" + introspect.PathVersion: operator,
		"fairway-system/operator-2" + introspect.PathVersion: operator,
		"fairway-system/node-a" + introspect.PathVersion: saysVersion(t, introspect.Version{
			Version: "v0.1.0", Commit: "cccccccccccccccc", Envoy: "4e2f/1.40.0/Clean/RELEASE/BoringSSL",
		}),
		"fairway-system/node-b" + introspect.PathVersion: saysVersion(t, introspect.Version{
			Version: "v0.2.0", Commit: "bbbbbbbbbbbbbbbb-dirty", Envoy: "5e2f/1.41.0/Clean/RELEASE/BoringSSL",
		}),
	}, versioned("v0.1.0")...)
	r, out := shownVersions(t, c)
	golden(t, "version-skew.txt", out)
	require.Equal(t, []string{
		"node agents are not of one version: 1 v0.1.0 (cccccccccccc) and 1 v0.2.0 (bbbbbbbbbbbb-dirty)",
		"node proxies are not of one version: 1 1.40.0 (4e2f) and 1 1.41.0 (5e2f)",
		"operator is v0.2.0 (bbbbbbbbbbbb-dirty), and this command is v0.1.0 (aaaaaaaaaaaa)",
	}, r.Skew)
	require.Equal(t, []string{
		"shop/waypoint-1 could not be asked, and the tag of the image is shown: connection refused",
	}, r.Unknown)
}

// deniedReach refuses as an API server does, and counts how often it is asked.
type deniedReach struct{ asked *int }

func (r deniedReach) get(context.Context, types.NamespacedName, string) ([]byte, error) {
	*r.asked++
	return nil, errors.New(`unable to upgrade connection: pods "x" is forbidden: User "viewer" cannot create resource ` +
		`"pods/portforward" in API group "" in the namespace "fairway-system"`)
}

func TestVersionsWithoutTheRightToAsk(t *testing.T) {
	var asked int
	r, out := shownVersions(t, fakeCluster(t, deniedReach{&asked}, versioned("v0.1.0")...))
	require.Len(t, r.Unknown, 1)
	require.Contains(t, r.Unknown[0], "you have no right to create pods/portforward there")
	require.NotContains(t, string(out), `User "`)
	require.Contains(t, string(out), "unknown")
	require.Empty(t, r.Skew, "tags agree")
	require.LessOrEqual(t, asked, 6)
}

// A cluster that can't be reached is one line, soon, and the client's version is shown.
func TestVersionWithoutACluster(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0") // takes connections, and never answers
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(file, []byte(`{"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
		"clusters": [{"name": "c", "cluster": {"server": "https://`+l.Addr().String()+`"}}]}`), 0o600))
	var out bytes.Buffer
	cmd := versionCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"--kubeconfig", file, "--timeout", "300ms"})
	began := time.Now()
	err = cmd.ExecuteContext(t.Context())
	require.Less(t, time.Since(began), 10*time.Second)
	require.ErrorContains(t, err, "the cluster's versions are not known: ")
	require.NotContains(t, err.Error(), "\n")
	require.Contains(t, out.String(), "fairway "+names.Version)

	out.Reset()
	cmd = versionCommand()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"--kubeconfig", file, "--client", "-o", "json"})
	require.NoError(t, cmd.ExecuteContext(t.Context()))
	require.Contains(t, out.String(), `"version": "`+names.Version+`"`)
}

// Where there is nothing, nothing is said to be of one version, or to differ.
func TestVersionsOfNothing(t *testing.T) {
	r, out := shownVersions(t, fakeCluster(t, fakePods{}, mesh(metav1.ConditionTrue, "Ready", "")))
	require.Contains(t, string(out), "\nNo part of the mesh runs: no operator and no node proxy in namespace")
	require.NotContains(t, string(out), "one version")
	require.NotEmpty(t, r.Absent)

	// An API server without the mesh's kinds.
	cfg := apiserver.Start(t, apiserver.Options{})
	said, _, err := does(t, "version", "--kubeconfig", as(t, cfg, ""))
	var coded exitError
	require.ErrorAs(t, err, &coded)
	require.Equal(t, exitUnhealthy, coded.code)
	require.Contains(t, said, "Fairway is not installed in this cluster.\n")
	require.NotContains(t, said, "differ")
}
