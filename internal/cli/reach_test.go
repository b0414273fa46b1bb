// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
)

// An answer without an end is not read to its end, and no part of it is taken for all.
func TestAnswersAreBounded(t *testing.T) {
	var written int
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/fails":
			w.WriteHeader(http.StatusInternalServerError)
		case "/ends":
			panic(http.ErrAbortHandler)
		case "/exact":
			_, _ = w.Write(make([]byte, maxFacts))
			return
		}
		for r.Context().Err() == nil {
			n, err := w.Write([]byte(strings.Repeat(evil, 1000)))
			if written += n; err != nil {
				return
			}
		}
	}))
	defer s.Close()
	data, err := fetch(t.Context(), s.Client(), s.URL+"/exact", maxFacts)
	require.NoError(t, err)
	require.Len(t, data, maxFacts)

	_, err = fetch(t.Context(), s.Client(), s.URL+"/endless", maxFacts)
	require.ErrorContains(t, err, "more than 64 KiB")

	_, err = fetch(t.Context(), s.Client(), s.URL+"/fails", maxFacts)
	require.ErrorContains(t, err, "500 Internal Server Error: v1")
	require.Less(t, len(err.Error()), 8*maxComplaint)
	harmless(t, err.Error())

	_, err = fetch(t.Context(), s.Client(), s.URL+"/ends", maxFacts)
	require.Equal(t, "there is no answer: EOF", plainly(err), "which is not the API server's fault")

	s.CloseClientConnections()
	for path, most := range map[string]int64{
		introspect.PathVersion: 64 << 10, introspect.PathAgent: 64 << 10, introspect.PathProxies: 64 << 20,
		introspect.PathEnvoy + "config_dump": 64 << 20,
	} {
		require.Equal(t, most, mostOf(path))
	}
}

// A pod with a waypoint's labels is no waypoint's.
func TestWaypointsPods(t *testing.T) {
	gateway := func(namespace, name, class string) gwv1.Gateway {
		return gwv1.Gateway{
			ObjectMeta: in(namespace, object(name, nil)),
			Spec:       gwv1.GatewaySpec{GatewayClassName: gwv1.ObjectName(class)},
		}
	}
	k := &collector{gatewaysRead: true, gateways: []gwv1.Gateway{
		gateway("shop", names.AutomaticWaypoint, names.WaypointClass), gateway("other", names.AutomaticWaypoint, "nginx"),
	}}
	is := func(namespace string, change ...func(*corev1.Pod)) bool {
		return k.isWaypoint(pod(namespace, "w", "a", names.ComponentWaypoint, change...))
	}
	require.True(t, is("shop"))
	require.False(t, is("third"), "it has no Gateway")
	require.False(t, is("other"), "it is of another class")
	for what, change := range map[string]func(*corev1.Pod){
		"no owner":       func(p *corev1.Pod) { p.OwnerReferences = nil },
		"another owner":  func(p *corev1.Pod) { p.OwnerReferences[0].Name = "shop-5d4f" },
		"of a Job":       func(p *corev1.Pod) { p.OwnerReferences[0].Kind = "Job" },
		"not controlled": func(p *corev1.Pod) { p.OwnerReferences[0].Controller = nil },
		"an account":     func(p *corev1.Pod) { p.Spec.ServiceAccountName = "default" },
		"no gateway":     func(p *corev1.Pod) { delete(p.Labels, names.LabelGatewayName) },
		"not managed":    func(p *corev1.Pod) { delete(p.Labels, names.LabelManagedBy) },
		"going":          func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: testNow} },
	} {
		require.False(t, is("shop", change), what)
	}
	k.gatewaysRead = false
	require.True(t, is("third"), "nobody knows")
	require.False(t, is("shop", func(p *corev1.Pod) { p.OwnerReferences = nil }))
}
