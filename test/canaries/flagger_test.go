// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package canaries

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// asked is of how many requests the share is taken: a half of them is some five standard deviations from within.
const asked, within = 400, 0.12

const programmed = `{.status.parents[?(@.controllerName=="fairway.dev/mesh-controller")].conditions[?(@.type=="Programmed")]`

// TestFlagger brings a version into use, and fails to bring another one.
func TestFlagger(t *testing.T) {
	if os.Getenv("FAIRWAY_E2E") == "" {
		t.Skip("skipped: FAIRWAY_E2E is not set; make test-canaries runs it on the dev cluster")
	}
	s := newSpace(t, "canaries-flagger")
	installFlagger(t)
	j := &judge{space: s}
	judges := httptest.NewServer(j)
	t.Cleanup(judges.Close)
	startFlagger(t, s)

	s.apply(t, deploymentOf(t, string(s), "v1"))
	s.apply(t, canaryOf(t, string(s), judges.URL))
	s.becomes(t, "canary/prices", "{.status.phase}", "Initialized")
	s.becomes(t, "httproute/prices", "{.spec.parentRefs[*].kind}/{.spec.parentRefs[*].group}", "Service/")
	s.becomes(t, "httproute/prices", programmed+".status}", "True")
	address, err := s.field(t.Context(), "service/prices", "{.spec.clusterIP}:{.spec.ports[0].port}")
	require.NoError(t, err)
	s.load(t, address)
	s.answers(t, address, "v1")
	s.results(t)

	t.Run("promoted", func(t *testing.T) {
		j.begin(address, "v2", true)
		s.apply(t, deploymentOf(t, string(s), "v2"))
		s.becomes(t, "canary/prices", "{.status.phase}", "Succeeded")
		j.saw(t, 25, 50)
		s.becomes(t, "deploy/prices-primary", "{.spec.template.spec.containers[0].args[1]}", "--name=v2")
		s.becomes(t, "deploy/prices", "{.spec.replicas}", "0")
		s.answers(t, address, "v2")
		s.noneFailed(t)
		s.well(t)
	})
	t.Run("rolled back", func(t *testing.T) {
		j.begin(address, "v3", false)
		s.apply(t, deploymentOf(t, string(s), "v3"))
		s.becomes(t, "canary/prices", "{.status.phase}", "Failed")
		j.saw(t, 25)
		s.becomes(t, "deploy/prices-primary", "{.spec.template.spec.containers[0].args[1]}", "--name=v2")
		s.answers(t, address, "v2")
		s.noneFailed(t)
		s.well(t)
	})
	t.Run("sessions", func(t *testing.T) {
		canary := canaryOf(t, string(s), judges.URL)
		s.apply(t, replaced(t, canary, "  analysis:", "  analysis:\n    sessionAffinity: {cookieName: "+cookie+"}"))
		j.begin(address, "v4", true)
		j.sessions = true
		s.apply(t, deploymentOf(t, string(s), "v4"))
		s.becomes(t, "canary/prices", "{.status.phase}", "Succeeded")
		j.saw(t, 25, 50)
		s.answers(t, address, "v4")
		s.noneFailed(t)
		s.well(t)
	})
	t.Run("group core", func(t *testing.T) {
		canary := canaryOf(t, string(s), judges.URL)
		s.apply(t, replaced(t, canary, `group: "", kind: Service`, "group: core, kind: Service"))
		s.becomes(t, "httproute/prices", "{.spec.parentRefs[*].group}", "core")
		s.becomes(t, "httproute/prices", `{.status.parents[*].conditions[?(@.type=="Accepted")].reason}`, "NoMatchingParent")
		_, err := run(t.Context(), "", *fairway, "status", "-n", string(s))
		require.ErrorContains(t, err, `set group to ""`)
	})
}

// answers waits until all requests are answered by a version.
func (s space) answers(t *testing.T, address, version string) {
	t.Helper()
	eventually(t, "all are answered by "+version, func() error {
		shares, err := s.shares(t.Context(), load, address, 100)
		if err == nil && shares[version] != 1 {
			err = fmt.Errorf("shares are %v", shares)
		}
		return err
	})
}

// judge is whom Flagger asks at each step whether to go on. It looks whether requests go where the route says.
type judge struct {
	space space

	mu               sync.Mutex
	address, version string
	approves         bool
	sessions         bool
	weights          []int
	problems         []error
}

func (j *judge) begin(address, version string, approves bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.address, j.version, j.approves, j.weights, j.problems = address, version, approves, nil, nil
}

// saw has had it asked at these weights of the new version, and no others, and the shares were as the weights.
func (j *judge) saw(t *testing.T, weights ...int) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	require.NoError(t, errors.Join(j.problems...))
	require.Equal(t, weights, j.weights)
}

func (j *judge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	j.mu.Lock()
	defer j.mu.Unlock()
	weight, err := j.look(r.Context())
	if err != nil {
		j.problems = append(j.problems, err)
	}
	j.weights = append(j.weights, weight)
	if err != nil || !j.approves {
		http.Error(w, "no", http.StatusInternalServerError)
	}
}

// look is the weight of the canary, with an error if its share of requests is another one.
func (j *judge) look(ctx context.Context) (int, error) {
	text, err := j.space.field(ctx, "httproute/prices", `{.spec.rules[-1:].backendRefs[?(@.name=="prices-canary")].weight} `+
		"{.metadata.generation} "+programmed+".observedGeneration} "+programmed+".status}")
	if err != nil {
		return 0, err
	}
	f := strings.Fields(text)
	if len(f) != 4 || f[1] != f[2] || f[3] != "True" {
		return 0, fmt.Errorf("the weights are not in force by the next step: %s", text)
	}
	weight, err := strconv.Atoi(f[0])
	if err != nil {
		return 0, err
	}
	shares, err := j.space.shares(ctx, load, j.address, asked)
	if err != nil {
		return weight, err
	}
	if off := shares[j.version] - float64(weight)/100; off < -within || off > within {
		return weight, fmt.Errorf("with weight %d, shares are %v", weight, shares)
	}
	if shares, err = j.space.shares(ctx, outside, j.address, asked/4); err != nil {
		return weight, err
	}
	if shares[j.version] != 0 {
		return weight, fmt.Errorf("outside of the mesh, shares are %v", shares)
	}
	if j.sessions {
		err = j.stays(ctx)
	}
	return weight, err
}

// cookie is what Flagger tells callers that have come to the new version by.
const cookie = "prices-version"

// stays looks whether a caller that came to the new version stays with it.
func (j *judge) stays(ctx context.Context) error {
	for range asked {
		answer, err := j.space.exec(ctx, load, "get", "-i", "http://"+j.address+"/")
		if err != nil {
			return err
		}
		if !strings.Contains(answer, "\nX-Served-By: "+j.version+"\n") {
			continue
		}
		_, after, _ := strings.Cut(answer, "\nSet-Cookie: "+cookie+"=")
		value, _, found := strings.Cut(after, ";")
		if !found {
			return fmt.Errorf("no cookie: %s", answer)
		}
		shares, err := j.space.shares(ctx, load, j.address, asked, "-H", "Cookie: "+cookie+"="+value)
		if err == nil && shares[j.version] != 1 {
			err = fmt.Errorf("with the cookie, shares are %v", shares)
		}
		return err
	}
	return fmt.Errorf("nobody came to %s", j.version)
}

// installFlagger adds what it keeps in the cluster, and takes away what wasn't there before.
func installFlagger(t *testing.T) {
	t.Helper()
	dir, err := run(t.Context(), "", "go", "list", "-m", "-f", "{{.Dir}}", "github.com/fluxcd/flagger")
	require.NoError(t, err)
	crds := filepath.Join(strings.TrimSpace(dir), "artifacts", "flagger", "crd.yaml")
	before, err := run(t.Context(), "", *kubectl, "get", "-f", crds, "--ignore-not-found", "-o", "name")
	require.NoError(t, err)
	if before == "" {
		t.Cleanup(func() {
			if _, err := run(context.Background(), "", *kubectl, "delete", "-f", crds, "--timeout=50s"); err != nil {
				t.Error(err)
			}
		})
	}
	_, err = run(t.Context(), "", *kubectl, "apply", "--server-side", "-f", crds)
	require.NoError(t, err)
	_, err = run(t.Context(), "", *kubectl, "wait", "-f", crds, "--for=condition=Established", "--timeout=50s")
	require.NoError(t, err)
}

// startFlagger runs its controller beside the cluster until the test ends. No metrics are asked for, of nobody.
func startFlagger(t *testing.T, s space) {
	t.Helper()
	var log strings.Builder
	cmd := exec.CommandContext(t.Context(), *flagger, "-kubeconfig="+os.Getenv("KUBECONFIG"), "-namespace="+string(s),
		"-mesh-provider=gatewayapi:v1", "-control-loop-interval=1s", "-metrics-server=http://127.0.0.1:1", "-port=0")
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	require.NoError(t, cmd.Start())
	// t's context ends before cleanups run, so it has been told to stop.
	t.Cleanup(func() {
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Flagger wrote:\n%s", log.String())
		}
	})
}
