// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/translatetest"
)

// TestGolden compares what each case gives with testdata/<case>.yaml; TestEnvoyAcceptsGoldens shows each to a real
// Envoy.
func TestGolden(t *testing.T) { translatetest.Golden(t, "testdata", cases, render) }

func TestGoldensAreInvariant(t *testing.T) {
	for _, build := range cases {
		invariants(t, build())
	}
}

func render(t testing.TB, b bundle) []byte {
	t.Helper()
	out := map[string]any{}
	section(out, "scopes", b.scopes)
	section(out, "routes", b.routes)
	var errs []string
	for _, e := range b.errs {
		errs = append(errs, e.Error())
	}
	if errs != nil {
		out["errors"] = errs
	}
	return translatetest.Sections(t, out)
}

func section[M proto.Message](out map[string]any, name string, messages []M) {
	if messages != nil {
		out[name] = translatetest.Messages(messages)
	}
}

// BenchmarkConfiguration is the cost of an edit at a service port with many rules.
func BenchmarkConfiguration(b *testing.B) {
	var t model.RouteTable
	for i := range 1000 {
		t.Default = append(t.Default, &model.Rule{
			Source: source, RuleIndex: i, Match: path(model.MatchPrefix, fmt.Sprintf("/api/%d", i)),
			Backends: backends(to(webV1, 90), to(webV2, 10)),
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, errs := Configuration(trustDomain, t); errs != nil {
			b.Fatal(errs)
		}
	}
}
