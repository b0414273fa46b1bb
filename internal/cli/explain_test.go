// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/fairway-mesh/fairway/internal/explain"
	"github.com/fairway-mesh/fairway/test/wasmtest"
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
	require.Equal(t, []string{"b"}, r.Headers["X-A"], "as it is spelled")
	for _, bad := range []explainOptions{
		{path: "a"}, {headers: []string{"s3cret"}}, {headers: []string{"a b: s3cret"}}, {headers: []string{"a: s3cret\x01"}},
	} {
		_, err := bad.request()
		require.Error(t, err)
		require.NotContains(t, err.Error(), "s3cret", "values may be secrets")
	}
	none, err := (&explainOptions{}).request()
	require.NoError(t, err)
	require.Nil(t, none, "asked about a connection")
}

// A ServiceAccount that does not exist is told of; one that can't be read is not said to be missing.
func TestExplainOfAnAccountThatIsNotThere(t *testing.T) {
	account := types.NamespacedName{Namespace: "bookshop", Name: "shop"}
	there := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: account.Namespace, Name: account.Name}}
	require.Empty(t, unlessThere(t.Context(), fake.NewClientBuilder().WithObjects(there).Build(), account))
	none := fake.NewClientBuilder().Build()
	require.Equal(t, ", which does not exist", unlessThere(t.Context(), none, account))
	require.Empty(t, unlessThere(t.Context(), none, types.NamespacedName{}), "a pod was asked about")
	forbidden := interceptor.NewClient(none, interceptor.Funcs{
		Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "serviceaccounts"}, account.Name, nil)
		},
	})
	require.Empty(t, unlessThere(t.Context(), forbidden, account))
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

// explained reads what is in the cluster, answers and draws.
func explained(t *testing.T, q explain.Question, more string) string {
	t.Helper()
	scheme, err := newScheme()
	require.NoError(t, err)
	c := fake.NewClientBuilder().WithScheme(scheme).Build()
	for _, file := range []string{"bookshop", "asked"} {
		text, err := os.ReadFile("../explain/testdata/" + file + ".yaml")
		require.NoError(t, err)
		more += "\n---\n" + string(text)
	}
	for doc := range strings.SplitSeq(more, "\n---\n") {
		o, _, err := serializer.NewCodecFactory(scheme).UniversalDeserializer().Decode([]byte(doc), nil, nil)
		require.NoError(t, err, doc)
		obj := o.(client.Object)
		if err := c.Create(t.Context(), obj); apierrors.IsAlreadyExists(err) {
			continue // what is said first holds
		}
		require.NoError(t, err)
	}
	mesh, err := explain.Read(t.Context(), c)
	require.NoError(t, err)
	a, err := mesh.Ask(q)
	require.NoError(t, err)
	var out bytes.Buffer
	drawAnswer(&table{out: &out}, a)
	return out.String()
}

// TestExplainForPeople: all that decides is told in order, and no values of headers.
func TestExplainForPeople(t *testing.T) {
	q := explain.Question{
		Account: types.NamespacedName{Namespace: "bookshop", Name: "shop"},
		Service: types.NamespacedName{Namespace: "bookshop", Name: "reviews"},
		Request: &explain.Request{Method: "GET", Path: "/reviews/1", Headers: http.Header{
			"Authorization": {"Bearer s3cret"}, "Cookie": {"s3cret"},
		}},
	}
	got := explained(t, q, `
apiVersion: fairway.dev/v1alpha1
kind: AuthenticationPolicy
metadata: {name: reviews, namespace: bookshop}
spec:
  targetRefs: [{group: "", kind: Service, name: reviews}]
  jwt:
    required: true
    providers:
    - name: main
      issuer: https://issuer.example
      jwks: {remote: {backendRef: {name: sessions, port: 81}, uri: "https://issuer.example/keys"}}
  externalAuthorization: {protocol: GRPC, backendRef: {name: sessions, port: 81}}`)
	require.NotContains(t, got, "s3cret")
	require.Equal(t, `Depends: the request's token and authorization service bookshop/sessions:81 decide.
caller   a pod of ServiceAccount bookshop/shop
identity spiffe://cluster.local/ns/bookshop/sa/shop

WHERE                                                     VERDICT   WHY
waypoint bookshop/fairway-waypoint, no route                        in this order:
  tokens                                                  Depends   `+
		"AuthenticationPolicy bookshop/reviews takes tokens of issuer https://issuer.example (in header authorization "+
		"Bearer, keys from Service bookshop/sessions:81); one that isn't good is answered 401, and 403 if it is for another audience"+`
  externalAuthorization                                   Depends   `+
		"Service bookshop/sessions:81 is asked before AuthorizationPolicies decide, and may answer by itself "+
		"(AuthenticationPolicy bookshop/reviews); if it is unavailable, the answer is 503"+`
  policies                                                Allowed   `+
		`rule read of AuthorizationPolicy bookshop/only-get (ALLOW) matches
pod bookshop/reviews-0, port 8080 (node proxy of node1)   Allowed   `+
		`the caller is a waypoint of the port, which has decided already
`, got)
}

// TestExplainReadsModules: what others refer to is read, for a rule whose module isn't there answers an error.
func TestExplainReadsModules(t *testing.T) {
	q := explain.Question{
		Account: types.NamespacedName{Namespace: "bookshop", Name: "shop"},
		Service: types.NamespacedName{Namespace: "bookshop", Name: "reviews"},
		Request: &explain.Request{Method: "GET", Path: "/reviews/1"},
	}
	const route = `
apiVersion: fairway.dev/v1alpha1
kind: Mesh
metadata: {name: default}
spec: {trustDomain: cluster.local, extensions: {allow: [{types: [Wasm]}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews, namespace: bookshop}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews}]
  rules:
  - filters: [{type: ExtensionRef, extensionRef: {group: fairway.dev, kind: HTTPExtension, name: tenant}}]
    backendRefs: [{name: reviews, port: 80}]
---
apiVersion: fairway.dev/v1alpha1
kind: HTTPExtension
metadata: {name: tenant, namespace: bookshop}
spec: {wasm: {configMapRef: {name: tenant}, request: {}}}`
	module := `
---
apiVersion: v1
kind: ConfigMap
metadata: {name: tenant, namespace: bookshop}
binaryData: {module.wasm: ` + base64.StdEncoding.EncodeToString(wasmtest.Plugin().Bytes()) + `}`
	require.Contains(t, explained(t, q, route+module), "a module in WebAssembly sees the request")
	require.Contains(t, explained(t, q, route), "an extension of the rule can't be used")
}
