// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package canaries

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	kubectl = flag.String("kubectl", "kubectl", "kubectl, for all that is asked of the cluster")
	fairway = flag.String("fairway", "fairway", "the mesh's own command, for what fairway status says")
	flagger = flag.String("flagger", "flagger", "Flagger's controller")
)

const (
	// patience is how long a whole canary may take, of some eight steps of ten seconds, and pause is between two looks.
	patience, pause = 5 * time.Minute, 200 * time.Millisecond
	// oneAnswer is how long a command may take.
	oneAnswer = time.Minute
)

// run a command with an input, and return what it prints.
func run(ctx context.Context, in, command string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, oneAnswer)
	defer cancel()
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.Stdin = strings.NewReader(in)
	var out, problems strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		words := strings.Join(append([]string{command}, args...), " ")
		return out.String(), fmt.Errorf("%s: %w: %s%s", words, err, problems.String(), out.String())
	}
	return out.String(), nil
}

// space is a namespace of the cluster that KUBECONFIG names.
type space string

// newSpace is one in the mesh, which goes with the test.
func newSpace(t *testing.T, name string) space {
	t.Helper()
	remove := []string{"delete", "namespace", name, "--ignore-not-found", "--wait", "--timeout=50s"}
	_, err := run(t.Context(), "", *kubectl, remove...)
	require.NoError(t, err)
	t.Cleanup(func() {
		// The test's context has ended by now.
		if _, err := run(context.Background(), "", *kubectl, remove...); err != nil {
			t.Error(err)
		}
	})
	s := space(name)
	s.apply(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+name+", labels: {fairway.dev/mesh: enabled}}\n")
	return s
}

func (s space) apply(t *testing.T, manifest string) {
	t.Helper()
	_, err := run(t.Context(), manifest, *kubectl, "apply", "--server-side", "--force-conflicts", "-f", "-")
	require.NoError(t, err)
}

// field is one of an object, by JSONPath; empty where there is none.
func (s space) field(ctx context.Context, object, path string) (string, error) {
	return run(ctx, "", *kubectl, "get", "-n", string(s), object, "-o", "jsonpath="+path)
}

// becomes waits until a field has a value.
func (s space) becomes(t *testing.T, object, path, want string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s %s is %s", object, path, want), func() error {
		is, err := s.field(t.Context(), object, path)
		if err == nil && is != want {
			err = fmt.Errorf("it is %q", is)
		}
		return err
	})
}

// exec runs the test tool in a pod of a Deployment.
func (s space) exec(ctx context.Context, deployment string, args ...string) (string, error) {
	command := []string{"exec", "-n", string(s), "deploy/" + deployment, "--", "/tool"}
	return run(ctx, "", *kubectl, append(command, args...)...)
}

// shares are the parts of a number of requests of a Deployment's that servers answered, by their names.
func (s space) shares(ctx context.Context, from, address string, n int, flags ...string) (map[string]float64, error) {
	args := append([]string{"get", "-n", strconv.Itoa(n), "-c", "4", "http://" + address + "/"}, flags...)
	text, err := s.exec(ctx, from, args...)
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for line := range strings.Lines(text) {
		var count, status int
		var name string
		if _, err := fmt.Sscanf(line, "%d %d %s", &count, &status, &name); err != nil || status != 200 {
			return nil, fmt.Errorf("not all were answered: %s", text)
		}
		out[name] = float64(count) / float64(n)
	}
	return out, nil
}

// The Deployments that ask: load goes on asking until the test ends, and outside is not in the mesh.
const load, outside = "load", "outside"

// load makes them.
func (s space) load(t *testing.T, address string) {
	t.Helper()
	s.apply(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: load, namespace: %s}
spec:
  selector: {matchLabels: {app: load}}
  template:
    metadata: {labels: {app: load}}
    spec:
      containers:
      - name: tool
        image: fairway.dev/test/tool:v0.1.0
        args: [load, --kinds=kept, --kinds=new, --every=20ms, --http=%s]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: outside, namespace: %s}
spec:
  selector: {matchLabels: {app: outside}}
  template:
    metadata: {labels: {app: outside, fairway.dev/mesh: disabled}}
    spec:
      containers:
      - name: tool
        image: fairway.dev/test/tool:v0.1.0
        args: [serve]
`, s, address, s))
	for _, d := range []string{load, outside} {
		_, err := run(t.Context(), "", *kubectl, "rollout", "status", "-n", string(s), "deploy/"+d, "--timeout=50s")
		require.NoError(t, err)
	}
	_, err := run(t.Context(), "", *kubectl, "wait", "-n", string(s), "pods", "-l", "app=load",
		"--for=condition=fairway.dev/Captured", "--timeout=50s")
	require.NoError(t, err)
	s.results(t) // what it asked while it was not in the mesh
}

// result is what came of one kind of load.
type result struct {
	Kind         string
	Started      time.Time
	Done, Failed int
	Failures     map[string]int
}

// results of each kind since they were asked for last, once all that began has ended.
func (s space) results(t *testing.T) (out []result) {
	t.Helper()
	text, err := s.exec(t.Context(), load, "get", "--timeout=50s", "http://127.0.0.1:8090/results")
	require.NoError(t, err)
	status, lines, _ := strings.Cut(text, "\n")
	require.Equal(t, "200", status)
	for line := range strings.Lines(lines) {
		var r result
		require.NoError(t, json.Unmarshal([]byte(line), &r), line)
		out = append(out, r)
	}
	require.Len(t, out, 2)
	return out
}

// noneFailed of the many requests since the last time.
func (s space) noneFailed(t *testing.T) {
	t.Helper()
	for _, r := range s.results(t) {
		require.Zero(t, r.Failed, "of %d (%s): %v", r.Done, r.Kind, r.Failures)
		require.Greater(t, r.Done, 500, r.Kind)
		t.Logf("%s: none of %d requests failed", r.Kind, r.Done)
	}
}

// well has the mesh say so of the whole namespace.
func (s space) well(t *testing.T) {
	t.Helper()
	eventually(t, "fairway status says that all is well", func() error {
		_, err := run(t.Context(), "", *fairway, "status", "-n", string(s))
		return err
	})
}

// eventually waits until a look finds what it should. The mesh's own way to wait would bring the mesh's versions of
// libraries, and Flagger is built with its own.
func eventually(t *testing.T, what string, look func() error) {
	t.Helper()
	deadline, next := time.NewTimer(patience), time.NewTicker(pause)
	defer deadline.Stop()
	defer next.Stop()
	for err := look(); err != nil; err = look() {
		select {
		case <-deadline.C:
			require.FailNow(t, "waited "+patience.String()+" for: "+what, err.Error())
		case <-next.C:
		}
	}
}
