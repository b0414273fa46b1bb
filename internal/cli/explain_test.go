// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/fairway-mesh/fairway/internal/explain"
)

func TestQuestions(t *testing.T) {
	at := func(ns, name string) types.NamespacedName { return types.NamespacedName{Namespace: ns, Name: name} }
	for _, tc := range []struct {
		source, destination string
		want                explain.Question
	}{
		{"shop", "reviews", explain.Question{Pod: at("here", "shop"), Service: at("here", "reviews")}},
		{"a/shop", "b/reviews", explain.Question{Pod: at("a", "shop"), Service: at("b", "reviews")}},
		{"sa/shop", "pod/reviews", explain.Question{Account: at("here", "shop"), Target: at("here", "reviews")}},
		{"sa/a/shop", "pod/b/reviews", explain.Question{Account: at("a", "shop"), Target: at("b", "reviews")}},
		{"outside", "service/b/reviews", explain.Question{Service: at("b", "reviews")}},
	} {
		got, err := question(tc.source, tc.destination, "here")
		require.NoError(t, err)
		require.Equal(t, tc.want, got, "%s %s", tc.source, tc.destination)
	}
	for _, bad := range [][2]string{
		{"", "reviews"},
		{"shop", ""},
		{"a//b", "reviews"},
		{"service/a/b", "reviews"},
		{"shop", "sa/a/b"},
		{"a/b/c/d", "reviews"},
	} {
		_, err := question(bad[0], bad[1], "here")
		var usage exitError
		require.ErrorAs(t, err, &usage, "%v", bad)
		require.Equal(t, exitUsage, usage.ExitCode())
	}
}

func TestRequests(t *testing.T) {
	o := explainOptions{path: "/a?b=c", headers: []string{"Host: web", "X-A:b"}}
	r, err := o.request()
	require.NoError(t, err)
	require.Equal(t, "GET", r.Method)
	require.Equal(t, "/a?b=c", r.Path)
	require.Equal(t, "web", r.Host)
	require.Equal(t, "b", r.Headers.Get("x-a"))
	for _, bad := range []explainOptions{{path: "a"}, {headers: []string{"x"}}} {
		_, err := bad.request()
		require.Error(t, err)
	}
	none, err := (&explainOptions{}).request()
	require.NoError(t, err)
	require.Nil(t, none, "asked about a connection")
}

func TestDrawAnswer(t *testing.T) {
	var out bytes.Buffer
	drawAnswer(&table{out: &out}, explain.Answer{
		Verdict: explain.Denied, Caller: "pod a/b", Identity: "spiffe://cluster.local/ns/a/sa/b",
		Steps: []explain.Step{{At: "waypoint a/w", Decision: explain.Decision{
			Verdict: explain.Denied, Reason: "no", DryRun: []string{"also no"},
		}}},
	})
	require.Equal(t, `Denied: the caller is refused.
caller   pod a/b
identity spiffe://cluster.local/ns/a/sa/b

WHERE          VERDICT   WHY
waypoint a/w   Denied    no
               dry run   also no
`, out.String())
}

// TestExplainReadsAllKinds: a kind that its client doesn't know would be an error for everybody.
func TestExplainReadsAllKinds(t *testing.T) {
	scheme, err := newScheme()
	require.NoError(t, err)
	_, err = explain.Read(t.Context(), fake.NewClientBuilder().WithScheme(scheme).Build())
	require.NoError(t, err)
}
