// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

// TestEnsure builds a module of the test's own, finds its binary under every name, and builds again only when a source
// file has changed.
func TestEnsure(t *testing.T) {
	source := t.TempDir()
	module := filepath.Join(source, "hack", "devcluster", "tools", "mine")
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(module, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(module, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module example.com/mine\n\ngo 1.26.0\n")
	write("go.sum", "")
	write("main.go", "package main\n\nimport \"os\"\n\nfunc main() { println(os.Args[0]) }\n")

	var out bytes.Buffer
	b := &Builder{Home: topology.Home(t.TempDir()), Source: source, Out: &out}
	mine := []Component{{Name: "mine", packages: []string{"."}, rename: "all", links: []string{"one", "two"}}}
	ensure := func() string {
		t.Helper()
		out.Reset()
		if err := b.Ensure(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}

	if got := ensure(); !strings.Contains(got, "[1/1] building mine: done") {
		t.Errorf("the first build says %q", got)
	}
	for _, name := range []string{"all", "one", "two"} {
		called, err := exec.Command(filepath.Join(b.Home.Bin(), name)).CombinedOutput()
		if err != nil || !strings.HasSuffix(strings.TrimSpace(string(called)), "/"+name) {
			t.Errorf("%s is called by %q: %v", name, called, err)
		}
	}
	if got := ensure(); got != "" {
		t.Errorf("builds again without a change: %q", got)
	}
	write("main.go", "package main\n\nfunc main() {}\n")
	if got := ensure(); got == "" {
		t.Error("doesn't build after a change of its source")
	}
}

func TestBinariesOfAComponent(t *testing.T) {
	for _, c := range []struct {
		Component
		want []string
	}{
		{Component{Name: "mine", packages: []string{"."}}, []string{"mine"}},
		{Component{Name: "mine", packages: []string{".", "example.com/x/cmd/two"}, rename: "one"}, []string{"one", "two"}},
		{Component{Name: "mine", packages: []string{"example.com/x/server/v3"}}, []string{"server"}},
	} {
		if got := c.binaries(); !slices.Equal(got, c.want) {
			t.Errorf("%v are built as %v, want %v", c.packages, got, c.want)
		}
	}
}
