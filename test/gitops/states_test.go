// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/health"
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

var (
	update  = flag.Bool("update", false, "write the pages of docs/states anew")
	kubectl = flag.String("kubectl", "kubectl", "kubectl, for what kubectl describe shows")
	fairway = flag.String("fairway", "fairway", "the mesh's own command, for what fairway status shows")
)

// settled is how long a state may take to be told, and patience the pause between two looks at it.
const settled, patience = 2 * time.Minute, 200 * time.Millisecond

// settling is how long a page must stay the same to be written anew.
const settling = 15 * time.Second

// state is a file of testdata/states: a situation that the mesh and all engines have to tell alike.
type state struct {
	name, title string
	kind, about string // the object whose health is told
	want        health.HealthStatusCode
	outside     bool   // its namespace is not in the mesh
	mesh        string // a change of the Mesh, as a merge patch
	manifests   string
}

func (s state) namespace() string { return "state-" + s.name }

// readStates reads the comments that each file begins with: a title, and what else there is to know as "key: value".
func readStates(t *testing.T) []state {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "states", "*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	var out []state
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		s := state{name: strings.TrimSuffix(filepath.Base(file), ".yaml"), manifests: string(text)}
		for line := range strings.Lines(string(text)) {
			comment, ok := strings.CutPrefix(strings.TrimSpace(line), "# ")
			if !ok {
				break
			}
			s.manifests = strings.TrimPrefix(s.manifests, line)
			key, value, _ := strings.Cut(comment, ": ")
			switch key {
			case "about":
				s.kind, s.about, _ = strings.Cut(value, "/")
			case "health":
				s.want = health.HealthStatusCode(value)
			case "enrolled":
				s.outside = value == "no"
			case "mesh":
				s.mesh = value
			default:
				require.Empty(t, s.title, "%s: a second title: %s", file, comment)
				s.title = comment
			}
		}
		require.NotEmpty(t, s.title, file)
		require.NotEmpty(t, s.about, file)
		require.NotEmpty(t, asFlux(s.want), file)
		out = append(out, s)
	}
	return out
}

// TestIndexOfStates has each state in the list of their pages.
func TestIndexOfStates(t *testing.T) {
	var b strings.Builder
	b.WriteString("# States, as everybody tells them\n\nEach page has a situation, as a manifest, and what Argo CD, `kubectl describe` " +
		"and others show of it. The test\n`TestStates` of `test/gitops` brings each about on a cluster, and compares.\n\n" +
		"| situation | health in Argo CD and Flux |\n|---|---|\n")
	for _, s := range readStates(t) {
		fmt.Fprintf(&b, "| [%s](%s.md) | %s |\n", strings.TrimSuffix(s.title, "."), s.name, s.want)
	}
	if *update {
		write(t, "README", b.String())
	}
	index, err := os.ReadFile(pageFile("README"))
	require.NoError(t, err)
	require.Equal(t, b.String(), string(index), "make update-states writes it anew")
}

// TestStates brings each state about in a cluster, and asks everybody.
func TestStates(t *testing.T) {
	if os.Getenv("FAIRWAY_E2E") == "" {
		t.Skip("skipped: FAIRWAY_E2E is not set; make test-gitops runs it on the dev cluster")
	}
	c := newCluster(t)
	states := readStates(t)
	t.Run("namespaces", func(t *testing.T) {
		for _, s := range states {
			if s.mesh == "" {
				t.Run(s.name, func(t *testing.T) {
					t.Parallel()
					s.run(t, c)
				})
			}
		}
	})
	// What concerns the whole mesh comes last, one after the other.
	for _, s := range states {
		if s.mesh != "" {
			t.Run(s.name, func(t *testing.T) { s.run(t, c) })
		}
	}
}

func (s state) run(t *testing.T, c cluster) {
	t.Helper()
	wanted := objects(t, s.manifests)
	if s.mesh != "" {
		s.changeMesh(t, c)
	} else {
		labels := map[string]string{"fairway.dev/mesh": "enabled"}
		if s.outside {
			labels = nil
		}
		c.namespace(t, s.namespace(), labels)
		for _, o := range wanted {
			c.apply(t, s.namespace(), o)
		}
	}
	about := s.object(t, wanted)
	a, f := newArgo(t), newFlux(t)
	var live *unstructured.Unstructured
	eventually(t, "all say "+string(s.want), func() error {
		var err error
		if live, err = c.of(t, about, s.namespace()).Get(t.Context(), about.GetName(), metav1.GetOptions{}); err != nil {
			return err
		}
		return s.agree(t, a, f, live)
	})
	for _, o := range wanted {
		o.SetNamespace(s.namespace())
		live, err := c.of(t, o, s.namespace()).Get(t.Context(), o.GetName(), metav1.GetOptions{})
		require.NoError(t, err)
		require.Empty(t, a.differs(live, o), "%s %s is OutOfSync", o.GetKind(), o.GetName())
	}
	s.compare(t, func() string {
		live, err := c.of(t, about, s.namespace()).Get(t.Context(), about.GetName(), metav1.GetOptions{})
		require.NoError(t, err)
		return s.page(t, a, live)
	})
}

// agree tells whether everybody says the same of an object, and what is wanted.
func (s state) agree(t *testing.T, a argo, f flux, live *unstructured.Unstructured) error {
	t.Helper()
	var wrong []error
	if h := a.health(live); h.Status != s.want {
		wrong = append(wrong, fmt.Errorf("Argo CD says %s: %s", h.Status, h.Message))
	}
	if h := f.health(live); h != asFlux(s.want) {
		wrong = append(wrong, fmt.Errorf("Flux says %s", h))
	}
	if own := live.GetKind() == "Mesh" || live.GetKind() == "Gateway"; own {
		if h := kstatus(t, live); h != asFlux(s.want) {
			wrong = append(wrong, fmt.Errorf("kstatus says %s", h))
		}
	}
	return errors.Join(wrong...)
}

// object is the one whose health is told, as it is written; of the Mesh only its name.
func (s state) object(t *testing.T, wanted []*unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	if s.mesh != "" {
		return mesh(s.about)
	}
	for _, o := range wanted {
		if o.GetKind() == s.kind && o.GetName() == s.about {
			return o
		}
	}
	require.FailNow(t, "the manifests have no "+s.kind+" "+s.about)
	return nil
}

func mesh(name string) *unstructured.Unstructured {
	m := &unstructured.Unstructured{}
	m.SetAPIVersion("fairway.dev/v1alpha1")
	m.SetKind("Mesh")
	m.SetName(name)
	return m
}

// changeMesh changes the Mesh for the time of the test, and waits until it is well again.
func (s state) changeMesh(t *testing.T, c cluster) {
	t.Helper()
	m := mesh(s.about)
	before, err := c.of(t, m, "").Get(t.Context(), m.GetName(), metav1.GetOptions{})
	require.NoError(t, err)
	spec := before.Object["spec"]
	c.patch(t.Context(), t, m, s.mesh)
	t.Cleanup(func() {
		ctx := context.Background()
		now, err := c.of(t, m, "").Get(ctx, m.GetName(), metav1.GetOptions{})
		require.NoError(t, err)
		now.Object["spec"] = spec
		_, err = c.of(t, m, "").Update(ctx, now, metav1.UpdateOptions{})
		require.NoError(t, err)
		eventually(t, "the Mesh is well again", func() error {
			now, err := c.of(t, m, "").Get(ctx, m.GetName(), metav1.GetOptions{})
			if err != nil {
				return err
			}
			if h := kstatus(t, now); h != status.CurrentStatus {
				return fmt.Errorf("it is %s", h)
			}
			return nil
		})
	})
}

// eventually waits until what a function looks at is as it should be.
func eventually(t *testing.T, what string, look func() error) {
	t.Helper()
	var err error
	require.Eventually(t, func() bool { err = look(); return err == nil }, settled, patience,
		"%s: %s", what, lazily(func() string { return fmt.Sprint(err) }))
}

// lazily is a text that is made when it is printed.
type lazily func() string

func (l lazily) String() string { return l() }

// wrongExit is on a page while the exit code of fairway status is not what the state is to have, which no page of docs is.
const wrongExit = "fairway status says by its exit code whether all is well"

// page is what everybody shows of a state, side by side.
func (s state) page(t *testing.T, a argo, live *unstructured.Unstructured) string {
	t.Helper()
	h := a.health(live)
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n", strings.TrimSuffix(s.title, "."))
	if s.mesh != "" {
		fmt.Fprintf(&b, "```console\n$ kubectl patch mesh %s --type=merge -p '%s'\n```\n", s.about, s.mesh)
	} else {
		fmt.Fprintf(&b, "```yaml\n%s```\n", s.manifests)
	}
	fmt.Fprintf(&b, "\nArgo CD: %s %s is **%s**.\n\n```text\n%s\n```\n", live.GetKind(), live.GetName(), h.Status, stable(h.Message))
	name := strings.ToLower(live.GetKind()) + "/" + live.GetName()
	// Of kinds of the core, kubectl describe leaves conditions out.
	if live.GetAPIVersion() == "v1" {
		conditions, _, err := unstructured.NestedSlice(live.Object, "status", "conditions")
		require.NoError(t, err)
		fmt.Fprintf(&b, "\n```console\n$ kubectl get %s -o jsonpath='{.status.conditions[0].message}'\n", name)
		for _, c := range conditions {
			if text, ok := c.(map[string]any)["message"].(string); ok {
				fmt.Fprintf(&b, "%s\n", text)
			}
		}
		fmt.Fprint(&b, "```\n")
	} else {
		described, _ := output(t, *kubectl, "describe", "-n", s.namespace(), name)
		fmt.Fprintf(&b, "\n```console\n$ kubectl describe %s\n...\n%s...\n```\n", name, statusOf(described))
	}
	if s.mesh == "" {
		text, well := output(t, *fairway, "status", "-n", s.namespace())
		fmt.Fprintf(&b, "\n```console\n$ fairway status -n %s\n%s```\n", s.namespace(), stable(text))
		if well != (s.want == healthy) {
			fmt.Fprintf(&b, "\n%s: %t\n", wrongExit, well)
		}
	}
	return b.String()
}

// compare waits until a page is as the one in docs: the last words of a message may come a moment later.
func (s state) compare(t *testing.T, page func() string) {
	t.Helper()
	if *update {
		last := unchanged(t, page)
		require.NotContains(t, last, wrongExit)
		write(t, s.name, last)
		return
	}
	want, err := os.ReadFile(pageFile(s.name))
	require.NoError(t, err, "make update-states writes it")
	eventually(t, pageFile(s.name)+" is what is shown now (make update-states writes it anew)", func() error {
		if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(page(), "\n")); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

// unchanged is a page that didn't change for a while: nobody knows what is to come.
func unchanged(t *testing.T, page func() string) string {
	t.Helper()
	last, since := page(), time.Now()
	eventually(t, "the page doesn't change any more", func() error {
		if now := page(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < settling {
			return errors.New("it changed")
		}
		return nil
	})
	return last
}

func pageFile(name string) string { return filepath.Join("..", "..", "docs", "states", name+".md") }

func write(t *testing.T, name, page string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(pageFile(name)), 0o755))
	require.NoError(t, os.WriteFile(pageFile(name), []byte(page), 0o644))
}

// statusOf are the lines about the status of what kubectl describe prints.
func statusOf(described string) string {
	_, after, _ := strings.Cut(described, "\nStatus:\n")
	text, _, _ := strings.Cut(after, "\nEvents:")
	text, _, _ = strings.Cut(text, "\n  Network:") // of a Mesh: addresses and numbers of its cluster
	return "Status:\n" + stable(text) + "\n"
}

// unstable is what is another one each time, and what stands for it.
var unstable = []struct {
	is      *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "2026-12-01T12:00:00Z"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d UTC`), "2026-12-01 12:00 UTC"},
	{regexp.MustCompile(`\b10\.\d+\.\d+\.\d+\b`), "10.96.0.10"},
	{regexp.MustCompile(`(Observed Generation: +)\d+`), "${1}1"},
	{regexp.MustCompile(`(waypoint)-[a-z0-9]{8,10}-[a-z0-9]{5}\b`), "${1}-5b4d597967-x5fck"},
}

// stable is a text without what is unstable.
func stable(text string) string {
	for _, u := range unstable {
		text = u.is.ReplaceAllString(text, u.instead)
	}
	return text
}
