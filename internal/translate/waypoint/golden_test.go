// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/internal/model"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// TestGolden compares what each case gives with testdata/<case>.yaml; test/waypoint shows each file to a real Envoy.
// After a change that is meant, run it with -update and read the difference.
func TestGolden(t *testing.T) {
	for name, build := range cases {
		t.Run(name, func(t *testing.T) {
			b := build()
			invariants(t, b)
			file := filepath.Join("testdata", name+".yaml")
			got := render(t, b)
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
}

func TestGoldenFilesHaveCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if cases[strings.TrimSuffix(filepath.Base(f), ".yaml")] == nil {
			t.Errorf("%s belongs to no case", f)
		}
	}
}

func render(t *testing.T, b bundle) []byte {
	t.Helper()
	out := map[string]any{}
	section(t, out, "listeners", b.listeners)
	section(t, out, "scopes", b.scopes)
	section(t, out, "routes", b.routes)
	section(t, out, "clusters", b.clusters)
	section(t, out, "endpoints", b.endpoints)
	var errs []string
	for _, e := range b.errs {
		errs = append(errs, plain(e.Error()))
	}
	if errs != nil {
		out["errors"] = errs
	}
	y, err := yaml.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return y
}

// plain undoes what protobuf does to its error texts so that nobody compares them.
func plain(s string) string { return strings.ReplaceAll(s, "\u00a0", " ") }

func section[M proto.Message](t *testing.T, out map[string]any, name string, messages []M) {
	t.Helper()
	var list []any
	for _, m := range messages {
		j, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		d := json.NewDecoder(bytes.NewReader(j))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
	if list != nil {
		out[name] = list
	}
}

// BenchmarkRouteConfiguration is the cost of an edit at a service port with many rules.
func BenchmarkRouteConfiguration(b *testing.B) {
	var t model.RouteTable
	for i := range 1000 {
		t.Default = append(t.Default, model.Rule{
			Source: source, RuleIndex: i, Match: path(model.MatchPrefix, fmt.Sprintf("/api/%d", i)), Backends: backends(to(webV1, 90), to(webV2, 10)),
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, errs := RouteConfiguration(trustDomain, t); errs != nil {
			b.Fatal(errs)
		}
	}
}
