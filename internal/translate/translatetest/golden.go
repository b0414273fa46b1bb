// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package translatetest is what tests of the translators share: golden files, and a real Envoy that judges what they
// hold.
package translatetest

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// Golden compares what the cases give, by the name of the file, with the files of a directory. None may be left over.
// After a change that is meant, run the test with -update and read the difference.
func Golden[T any](t *testing.T, dir string, cases map[string]func() T, render func(testing.TB, T) []byte) {
	t.Helper()
	for name, build := range cases {
		t.Run(name, func(t *testing.T) {
			File(t, filepath.Join(dir, name+".yaml"), render(t, build()))
		})
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if cases[strings.TrimSuffix(filepath.Base(f), ".yaml")] == nil {
			t.Errorf("%s belongs to no case", f)
		}
	}
}

// File compares what there is with a golden file.
func File(t testing.TB, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: run with -update to make it", err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("%s (-file +now; -update if it is wanted):\n%.4000s", file, diff)
	}
}

// List renders messages one after the other, with the names that fields have in JSON.
func List(t testing.TB, messages []proto.Message) []byte {
	t.Helper()
	return marshal(t, values(t, messages, protojson.MarshalOptions{}))
}

// Sections renders lists of messages by a heading, with the names that fields have in protobuf. A list may be of texts.
func Sections(t testing.TB, sections map[string]any) []byte {
	t.Helper()
	for name, s := range sections {
		switch s := s.(type) {
		case []proto.Message:
			sections[name] = values(t, s, protojson.MarshalOptions{UseProtoNames: true})
		case []string:
			for i := range s {
				s[i] = strings.ReplaceAll(s[i], "\u00a0", " ") // what protobuf's errors do so that nobody compares them
			}
		}
	}
	return marshal(t, sections)
}

// Messages are messages of any one type, for List and Sections.
func Messages[M proto.Message](in []M) []proto.Message {
	out := make([]proto.Message, 0, len(in))
	for _, m := range in {
		out = append(out, m)
	}
	return out
}

func values(t testing.TB, messages []proto.Message, o protojson.MarshalOptions) []any {
	t.Helper()
	var out []any
	for _, m := range messages {
		j, err := o.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		d := json.NewDecoder(bytes.NewReader(j))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	y, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return y
}
