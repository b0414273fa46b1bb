// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/testca"
)

// TestTLSToAnApplication: a strict pod that takes TLS only, with a certificate of its owner's authority, is spoken TLS
// with inside the mesh's mTLS; and nothing is sent to it by anybody's else.
func TestTLSToAnApplication(t *testing.T) {
	t.Parallel()
	const host = "server.example"
	ours, theirs := testca.New(t, "example"), testca.New(t, "example")
	certificate, key := testca.PEM(t, ours.IssueHost(host))
	pair := base64.StdEncoding.EncodeToString(append(certificate, key...))
	s := enrolled(t, names.LabelMTLSMode, names.MTLSStrict)
	s.client("client")
	s.server("server", arguments("serve", "--name=server", "--certificate="+pair), spec(func(p *corev1.PodSpec) {
		p.Containers[0].ReadinessProbe.HTTPGet.Scheme = corev1.URISchemeHTTPS
	}))
	s.service("server", "server")
	s.captured("client", "server")
	s.create(httpRoute("server", toService("server"), rule(nil, backend("server"))))
	s.programmed("server")
	s.becomes(http.StatusBadRequest, "http://server/") // Go's server says so to who speaks no TLS

	authority := &corev1.ConfigMap{ObjectMeta: metaOf("authority"), Data: map[string]string{"ca.crt": string(ours.PEM())}}
	s.create(authority)
	policy := &gwv1.BackendTLSPolicy{ObjectMeta: metaOf("server"), Spec: gwv1.BackendTLSPolicySpec{
		TargetRefs: []gwv1.LocalPolicyTargetReferenceWithSectionName{{
			LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{Kind: "Service", Name: "server"},
		}},
		Validation: gwv1.BackendTLSPolicyValidation{
			Hostname:          host,
			CACertificateRefs: []gwv1.LocalObjectReference{{Kind: "ConfigMap", Name: gwv1.ObjectName(authority.Name)}},
		},
	}}
	s.create(policy)
	s.policyProgrammed(policy)
	start := since()
	s.answers("client", "http://server/", "server")
	overMTLS(s, start, s.pod("server"), identityOf(s, names.AutomaticWaypoint), identityOf(s, "server"))

	believes := func(ca *testca.CA) {
		t.Helper()
		patch := client.MergeFrom(authority.DeepCopy())
		authority.Data = map[string]string{"ca.crt": string(ca.PEM())}
		require.NoError(t, world.client.Patch(t.Context(), authority, patch))
	}
	believes(theirs)
	s.becomes(http.StatusServiceUnavailable, "http://server/")
	believes(ours)
	s.answers("client", "http://server/", "server")
}

// TestSessionsOfABackend: a cookie that a policy has the waypoint give leads to the same pod, until the policy goes.
func TestSessionsOfABackend(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.server("server", twoReplicas)
	s.behindItsWaypoint()
	policy := &gwxv1alpha1.XBackendTrafficPolicy{
		ObjectMeta: metaOf("server"),
		Spec: gwxv1alpha1.BackendTrafficPolicySpec{
			TargetRefs:         []gwxv1alpha1.LocalPolicyTargetReference{{Kind: "Service", Name: "server"}},
			SessionPersistence: &gwxv1alpha1.SessionPersistence{SessionName: new("session")},
		},
	}
	s.create(policy)
	s.policyProgrammed(policy)
	reached := map[string]bool{}
	for n := 0; n < 50 && len(reached) < 2; n++ { // each request without a cookie begins a session
		cookie := s.session("http://server/")
		one := s.answering(6, "-H", "Cookie:"+cookie)
		require.Len(t, one, 1, "a session stays with one pod: %v", one)
		for pod := range one {
			reached[pod] = true
		}
	}
	require.Len(t, reached, 2, "sessions are spread: %v", reached)
	require.NoError(t, world.client.Delete(t.Context(), policy))
}

// session asks without a cookie and returns the one that comes of it.
func (s *space) session(url string) string {
	s.t.Helper()
	out, err := s.exec(s.t.Context(), "client", "get", "-i", url)
	require.NoError(s.t, err)
	header, err := http.ParseSetCookie(headerOf(out, "Set-Cookie"))
	require.NoError(s.t, err, out)
	return fmt.Sprintf("%s=%s", header.Name, header.Value)
}

// headerOf finds a header in what `tool get -i` prints.
func headerOf(out, name string) string {
	for line := range strings.Lines(out) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
